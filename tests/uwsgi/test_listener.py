"""The listener by itself, on pairs of sockets: for what has to happen at one moment, and for faults of our own.

A fault is logged with its connection, and cuts that alone.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest

from processes import wait_until
from raw import frame
from uwasp import Listener, Server
from uwasp.connection import Connection
from uwasp.options import Options
from uwasp.protocol import FrameProtocol

PING = b"\x89\x00"


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def connect(listener):
    """A client's socket, and the connection at its other end: `connect(path, **options)`."""
    clients = []

    def start(path, **options):
        client, served = socket.socketpair()
        clients.append(client)
        client.settimeout(10)
        ws = SimpleNamespace(options=Options(**options))
        ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", path)
        listener.add(ws, Server(ws))
        return client, ws.connection

    yield start
    for client in clients:
        client.close()


def wait_for_log(listener, caplog):
    def is_there():
        listener.poll(0.01)
        return caplog.records

    with caplog.at_level(logging.ERROR, "uwasp.listener"):
        wait_until(is_there, "a line in the log", 10)
    (record,) = caplog.records
    return record.getMessage()


def fail_at(path, method, monkeypatch):
    """Have a method of one connection raise."""
    original = getattr(Connection, method)

    def failing(self, *arguments):
        if str(self).endswith(path):
            raise RuntimeError("a fault of ours")
        return original(self, *arguments)

    monkeypatch.setattr(Connection, method, failing)


def test_what_fails_later_names_its_connection(listener, connect, caplog, monkeypatch):
    fail_at("/failing", "answer_close", monkeypatch)
    client, connection = connect("/failing")
    client.sendall(frame(8))
    assert wait_for_log(listener, caplog) == f"{connection} failed in the listener and is cut; the others go on"
    assert client.recv(1) == b""


def test_a_keepalive_that_fails_is_that_of_one_connection(listener, connect, caplog, monkeypatch):
    fail_at("/failing", "keep_alive", monkeypatch)
    failing, connection = connect("/failing", ping_interval=0.02)
    other, _ = connect("/other", ping_interval=0.02)
    assert wait_for_log(listener, caplog) == f"{connection} failed in the listener and is cut; the others go on"
    assert failing.recv(1) == b""
    other.setblocking(False)

    def is_pinged():
        listener.poll(0.01)
        try:
            return other.recv(2) == PING
        except BlockingIOError:
            return False

    wait_until(is_pinged, "a ping to the other", 10)


def test_what_belongs_to_no_connection_is_logged_and_the_rest_goes_on(listener, caplog):
    done = []
    listener.call_later(0, lambda: 1 / 0)
    listener.call_later(0, lambda: done.append(True))
    assert wait_for_log(listener, caplog) == "an action of the listener failed"
    assert done


def test_a_connection_that_the_poller_does_not_take_is_none(listener):
    """As if it had not been added."""
    client, served = socket.socketpair()
    with closing(client), closing(served):
        ws = SimpleNamespace(options=Options())
        ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/full")
        listener.poller.close()
        with pytest.raises(ValueError, match=r"closed epoll"):
            listener.add(ws, Server(ws))
        assert len(listener) == 0
        assert listener.totals.opened == 0
        ws.connection.abandon()
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("came", "answer"),
    [
        (frame(8, b"\x03\xe8bye"), (1000, "")),
        (frame(8), (1005, "")),
        (frame(3), (1002, "reserved opcode 0x3")),
    ],
    ids=["close", "close without a code", "fault"],
)
def test_a_goodbye_that_crosses_the_clients_end_answers_that(listener, connect, came, answer):
    """Client and server see the same code, that of what came first."""
    client, connection = connect("/crossing")
    client.sendall(came)
    wait_until(lambda: listener.poll(0.01) or connection.close_code is not None, "what came to be read", 10)
    listener.shut_down(threading.Event())
    code, reason = answer
    payload = b"" if code == 1005 else code.to_bytes(2, "big") + reason.encode()
    assert client.recv(200) == bytes((0x88, len(payload))) + payload
    assert connection.close_code == code
