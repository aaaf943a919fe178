"""What uWSGI ends by itself, for the sake of requests and with no eye for WebSockets: who is told, and how."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager

import pytest
from websockets.frames import CloseCode

from raw import RawClient, frame
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "production.py"
GONE = (CloseCode.GOING_AWAY, "")
HARAKIRI = ("--harakiri", "1")
SIGNALS = {"SIGTERM": (), "SIGINT": ("--harakiri-graceful-signal", str(int(signal.SIGINT)))}


@pytest.fixture
def produce(serve):
    """Start a uWSGI with the application `production.py`."""

    def start(*options, **keywords):
        return serve("--disable-logging", *options, application=APPLICATION, **keywords)

    return start


def connect(uwsgi, name):
    """A client whose server is open, and whose handshake uWSGI is done with: its end would put harakiri off."""
    client = RawClient(uwsgi.port, f"/noting?{name}")
    client.recv()
    client.send(frame(1, b"wait for uWSGI"))
    assert client.recv().data == b"idle"
    return client


@contextmanager
def request_that_takes_too_long(uwsgi):
    with socket.create_connection(("127.0.0.1", uwsgi.port), timeout=10) as client:
        client.sendall(b"GET /sleep HTTP/1.0\r\n\r\n")
        yield client


def serves_again(uwsgi):
    with connect(uwsgi, "after") as client:
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"


@pytest.mark.parametrize("signals", SIGNALS)
def test_harakiri_with_time_to_part_tells_everybody(produce, signals):
    uwsgi = produce(*HARAKIRI, "--harakiri-graceful-timeout", "10", *SIGNALS[signals])
    with connect(uwsgi, "bystander") as client, request_that_takes_too_long(uwsgi):
        assert client.recv_close() == GONE
        uwsgi.wait_for_output("bystander closed 1001")
    uwsgi.wait_for_output("Respawned uWSGI worker 1")
    serves_again(uwsgi)
    assert "HARAKIRI ON WORKER 1" in uwsgi.output
    assert "killed by signal 9" not in uwsgi.output


def test_harakiri_without_it_tells_nobody(produce):
    uwsgi = produce(*HARAKIRI)
    with connect(uwsgi, "bystander") as client, request_that_takes_too_long(uwsgi):
        client.recv_end()
    uwsgi.wait_for_output("Respawned uWSGI worker 1")
    serves_again(uwsgi)
    assert "killed by signal 9" in uwsgi.output
    assert "bystander closed" not in uwsgi.output


def test_harakiri_is_not_for_websockets(produce):
    """The request is over with the handshake, however long the server is at it."""
    uwsgi = produce(*HARAKIRI)
    with connect(uwsgi, "one") as client:
        client.send(frame(1, b"block"))
        uwsgi.wait_for_output("one blocked")
        client.socket.settimeout(3)
        with pytest.raises(TimeoutError):
            client.recv()
    assert "HARAKIRI" not in uwsgi.output


@pytest.mark.parametrize("options", [("--idle", "2"), ("--idle", "2", "--die-on-idle")], ids=["idle", "die-on-idle"])
def test_idle_workers_tell_the_clients_that_uwsgi_does_not_see(produce, options):
    uwsgi = produce(*options)
    with connect(uwsgi, "busy") as client:
        client.socket.settimeout(0.2)
        closing = None
        while closing is None:
            client.send(frame(1, b"busy"))
            answer = client.recv()
            closing = None if answer.data == b"busy" else answer
        assert closing.data == b"\x03\xe9"
        client.send(frame(8, closing.data))
        uwsgi.wait_for_output("busy closed 1001")
    if "--die-on-idle" in options:
        assert uwsgi.popen.wait(10) == 0
    else:
        uwsgi.wait_for_output("cheap mode enabled")
        serves_again(uwsgi)
