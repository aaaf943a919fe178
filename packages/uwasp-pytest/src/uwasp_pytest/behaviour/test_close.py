"""How long a connection may take to close, and how it is cut."""

from __future__ import annotations

import time

import pytest
from websockets.frames import Opcode

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until

APPLICATION = APPLICATIONS / "production.py"


@pytest.fixture
def client_of(serve):
    """A client, and its uWSGI: `client_of(path, **options of the middleware)`."""
    clients = []

    def start(path, **middleware):
        uwsgi = serve(application=APPLICATION, middleware=middleware)
        client = RawClient(uwsgi.port, f"{path}?client")
        clients.append(client)
        assert client.recv().opcode is Opcode.TEXT
        return client, uwsgi

    yield start
    for client in clients:
        client.socket.close()


def is_refused(client):
    try:
        client.send(frame(Opcode.TEXT, b"still here"))
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_client_that_never_answers_a_close_is_cut(client_of):
    client, uwsgi = client_of("/noting", close_timeout=0.5)
    client.send(frame(Opcode.TEXT, b"close"))
    assert client.recv_close() == (4000, "enough")
    begin = time.monotonic()
    client.recv_end()
    assert 0.4 < time.monotonic() - begin < 2
    wait_until(lambda: "client closed 4000 enough" in uwsgi.output, "on_close")


def test_a_client_that_answers_and_does_not_hang_up_is_cut(client_of):
    client, uwsgi = client_of("/noting", close_timeout=0.5)
    client.send(frame(Opcode.TEXT, b"close"))
    closing = client.recv()
    client.send(frame(Opcode.CLOSE, closing.data))
    client.recv_end()
    wait_until(lambda: is_refused(client), "the cut", 5)
    assert uwsgi.output.count("client closed") == 1


def test_a_server_class_has_options_of_its_own(client_of):
    client, _ = client_of("/brief", close_timeout=60)
    client.send(frame(Opcode.TEXT, b"close"))
    assert client.recv_close() == (4000, "enough")
    begin = time.monotonic()
    client.recv_end()
    assert 0.2 < time.monotonic() - begin < 2


def test_terminate_cuts_at_once(client_of):
    client, uwsgi = client_of("/noting")
    begin = time.monotonic()
    client.send(frame(Opcode.TEXT, b"terminate"))
    client.recv_end()
    assert time.monotonic() - begin < 1
    wait_until(lambda: "client closed 1006" in uwsgi.output, "on_close")


def test_on_close_does_not_wait_for_the_client(client_of):
    """The closing handshake goes on; the server has nothing to do with it."""
    client, uwsgi = client_of("/noting", close_timeout=60)
    client.send(frame(Opcode.TEXT, b"close"))
    wait_until(lambda: "client closed 4000 enough" in uwsgi.output, "on_close", 2)
    assert client.recv_close() == (4000, "enough")
