"""What is about gevent's hub and greenlets alone, and so is put to the gevent handler alone."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from websockets.sync.client import connect

from raw import RawClient, frame

GREENLETS = Path(__file__).parent / "greenlets.py"


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


def test_what_is_spawned_runs_in_a_greenlet_of_the_hub(serve):
    uwsgi = serve(application=GREENLETS)
    with connect(f"{uwsgi.url}/spawning") as client:
        client.send("spawn")
        assert client.recv(10) == "in a greenlet of this hub: True"
        client.send("spawn from a thread")
        assert client.recv(10) == "from a thread of this hub: True"


def test_a_failure_of_what_was_spawned_is_logged_and_ends_nothing(serve):
    uwsgi = serve(application=GREENLETS)
    with connect(f"{uwsgi.url}/spawning") as client:
        client.send("exit")
        uwsgi.wait_for_output("uwasp.gevent ERROR error in <built-in function exit>, which was spawned")
        client.send("still there")
        assert client.recv(10) == "still there"


def test_a_consumer_that_is_killed_closes_its_connection_alone(serve):
    uwsgi = serve(application=GREENLETS)
    with connect(f"{uwsgi.url}/spawning") as other:
        for number in range(3):
            with RawClient(uwsgi.port, "/spawning") as client:
                client.send(frame(1, b"kill"))
                assert client.recv_close() == (1011, "internal error")
            uwsgi.wait_for_output("closed with 1011", number + 1)
        other.send("unharmed")
        assert other.recv(10) == "unharmed"


SPAWNING = """
import threading
from uwasp_gevent import GeventHandler

def spawn():
    try:
        GeventHandler.spawn(print)
    except RuntimeError as error:
        print(error)

thread = threading.Thread(target=spawn)
thread.start()
thread.join()
"""


def test_a_thread_that_spawns_before_there_is_a_hub_is_refused():
    """Its own hub would have all connections, and nobody runs that. In a process where nothing has made one."""
    done = subprocess.run([sys.executable, "-c", SPAWNING], capture_output=True, text=True, check=True)
    assert done.stdout == "GeventHandler does not know uWSGI's hub in another thread before a connection\n"
