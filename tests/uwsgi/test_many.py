"""Thousands of members in one worker: they all get what is sent, and hold up neither other connections nor requests."""

from __future__ import annotations

import resource
import socket
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from processes import wait_until
from raw import RawClient, frame, request

GROUPS = Path(__file__).parent / "groups.py"
MEMBERS = 2000
# Seconds, of medians. What thousands of servers are told at once waits in `ready` like whatever else there is for them.
PROMISED = {"message": 0.5, "notify": 1.5}
MESSAGES = 100  # which take longer than that, all together
TEXT = "x" * 100
FRAME = b"\x81\x64" + TEXT.encode()


@pytest.fixture(autouse=True)
def enough_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < MEMBERS + 500:
        pytest.skip(f"{before[1]} descriptors are too few")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def ask(uwsgi, path="/"):
    with urlopen(f"http://{uwsgi.address}{path}", timeout=10) as response:
        return int(response.read())


def join(uwsgi, stack, count):
    """So many members, past their handshakes; a hundred at a time, for uWSGI's backlog."""
    members = []
    while len(members) < count:
        new = [stack.enter_context(socket.create_connection(("127.0.0.1", uwsgi.port), 10)) for _ in range(100)]
        for member in new:
            member.sendall(request("/member"))
        for member in new:
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += member.recv(4096)
        members += new
    wait_until(lambda: ask(uwsgi) == count, "all to be members")
    return members


def read(member, size):
    data = bytearray()
    while len(data) < size:
        more = member.recv(size - len(data))
        assert more
        data += more
    return bytes(data)


@pytest.mark.parametrize("kind", ["message", "notify"])
def test_all_members_get_all_while_others_are_served(serve, kind):
    uwsgi = serve(application=GROUPS, middleware={"max_queue": MESSAGES})
    with ExitStack() as stack:
        members = join(uwsgi, stack, MEMBERS)
        other = stack.enter_context(RawClient(uwsgi.port))
        sent = TEXT if kind == "message" else f"notify {TEXT}"
        echoes, pages = [], []
        begin = time.monotonic()
        ask(uwsgi, f"/deliver?message={quote(sent)}&times={MESSAGES}")
        for _ in range(5):
            pages.append(time.monotonic() - begin)
            between = time.monotonic()
            other.send(frame(1, b"hello"))
            assert other.recv().data == b"hello"
            begin = time.monotonic()
            echoes.append(begin - between)
            ask(uwsgi)
        expected = (FRAME if kind == "message" else b"\x81\x6ethe group " + TEXT.encode()) * MESSAGES
        for member in members:
            assert read(member, len(expected)) == expected
        assert statistics.median(echoes) < PROMISED[kind]
        assert max(pages[0], statistics.median(pages)) < PROMISED[kind]
