"""What is about gevent's hub and greenlets alone, and so is put to the gevent handler alone."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from raw import RawClient, frame


@pytest.fixture(params=["gevent"], scope="module")
def handler(request):
    return request.param


def registered(pid: int) -> list[tuple[int, int]]:
    """What all epoll sets of a process hold: pairs of a number and the inode of what it was when it was registered."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # uWSGI has closed it meanwhile
            if os.readlink(fd) == "anon_inode:[eventpoll]":
                lines = Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text().splitlines()
                found += [
                    (int(line.split()[1]), int(line.partition("ino:")[2].split()[0], 16))
                    for line in lines
                    if line.startswith("tfd:")
                ]
    return found


def inode(pid: int, fd: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/fd/{fd}").st_ino
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("patched", ["", "1"], ids=["unpatched", "patched"])
def test_the_hub_knows_nothing_of_a_connection_that_was_taken_over(serve, patched):
    """libev would rebuild its whole epoll set at the first event, and a handshake would cost as much as it watches."""
    uwsgi = serve(master=False, env={"UWASP_PATCH": patched})
    pid = uwsgi.popen.pid
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(uwsgi.port)) for _ in range(3)]
        uwsgi.wait_for_output(" is open", 3)
        now = [(fd, known, inode(pid, fd)) for fd, known in registered(pid)]
        assert len(now) > len(clients)
        assert [each for each in now if each[1] != each[2]] == []
        for client in clients:
            client.send(frame(1, b"heard"))
            assert client.recv().data == b"heard"


def test_a_loop_without_epoll_does_as_well(serve):
    uwsgi = serve(env={"GEVENT_BACKEND": "poll"})
    for _ in range(3):
        with RawClient(uwsgi.port) as client:
            client.send(frame(1, b"heard"))
            assert client.recv().data == b"heard"
