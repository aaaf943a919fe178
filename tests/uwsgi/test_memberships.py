"""A connection leaves what it is in: before its server hears of the end, or when it is seen to be lost, once."""

from __future__ import annotations

import socket

import pytest

from raw import frame
from uwasp import Listener, Server, WebSocket
from uwasp.connection import Connection
from uwasp.options import Options
from uwasp.protocol import FrameProtocol


class Room:
    def __init__(self, seen, name="left"):
        self.seen = seen
        self.name = name

    def leave(self, connection):
        assert not connection._lock.locked()
        self.seen.append(self.name)


class Noting(Server):
    def __init__(self, ws):
        super().__init__(ws)
        self.seen = []

    def on_message(self, message):
        self.seen.append(message)
        if message == "close":
            self.ws.close()

    def on_close(self):
        self.seen.append("closed")


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def ends(listener):
    """A client's socket, and the connection at its other end."""
    client, served = socket.socketpair()
    client.settimeout(10)
    ws = WebSocket({}, "/room", options=Options())
    ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/room")
    listener.add(ws, Noting(ws))
    work(listener)
    yield client, ws.connection
    client.close()


def work(listener):
    listener.poll(0)
    while listener.ready:
        listener.ready.popleft().consume()


def test_it_has_left_before_its_server_hears_that_the_client_has_closed(listener, ends):
    client, connection = ends
    seen = connection.server.seen
    assert connection.memberships is None
    assert connection.enter(Room(seen))
    client.send(frame(1, b"last") + frame(8, b"\x03\xe8"))
    work(listener)
    assert seen == ["last", "left", "closed"]
    client.close()
    work(listener)
    assert seen == ["last", "left", "closed"]


def test_so_it_has_where_the_server_closes(listener, ends):
    client, connection = ends
    seen = connection.server.seen
    connection.enter(Room(seen))
    client.send(frame(1, b"close"))
    work(listener)
    assert seen == ["close", "left", "closed"]


def test_a_lost_one_leaves_at_once_however_busy_its_server_is(listener, ends):
    client, connection = ends
    seen = connection.server.seen
    connection.enter(Room(seen))
    client.send(frame(1, b"not seen yet"))
    listener.poll(0)
    client.close()
    listener.poll(0)
    assert seen == ["left"]
    work(listener)
    assert seen == ["left", "not seen yet", "closed"]


def test_it_leaves_all_that_it_is_in_even_if_one_fails(listener, ends, caplog):
    client, connection = ends
    seen = connection.server.seen

    class Failing:
        def leave(self, connection):
            raise RuntimeError("raised in leave")

    rooms = [Room(seen, "one"), Failing(), Room(seen, "two"), Room(seen, "left before")]
    for room in rooms:
        connection.enter(room)
    connection.exit(rooms[-1])
    connection.exit(rooms[-1])
    client.close()
    work(listener)
    assert sorted(seen[:2]) == ["one", "two"]
    assert seen[2:] == ["closed"]
    assert "could not leave" in caplog.text
    assert "raised in leave" in caplog.text


def test_nothing_can_be_entered_by_one_that_has_ended(listener, ends):
    client, connection = ends
    seen = connection.server.seen
    client.close()
    work(listener)
    assert not connection.enter(Room(seen))
    connection.exit(Room(seen))
    assert seen == ["closed"]
