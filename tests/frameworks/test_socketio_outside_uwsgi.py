"""`install` where there is no uWSGI: it looks at what it is given, and leaves the rest as it is."""

from __future__ import annotations

import queue
from importlib.metadata import requires
from types import SimpleNamespace

import engineio
import pytest
import socketio
from engineio.packet import MESSAGE, NOOP, Packet
from flask import Flask
from flask_socketio import SocketIO

import uwasp_socketio
from uwasp import ConfigurationError, ConnectionClosed, Handler
from uwasp.testing import connect
from uwasp_socketio import outbox as outboxes
from uwasp_socketio import versions
from uwasp_socketio.installation import find_handler_class
from uwasp_socketio.outbox import outbox_class


def test_the_server_goes_on_with_what_it_has():
    app = Flask("app")
    flask_socketio = SocketIO(app, async_mode="threading")
    flask_socketio.on_event("echo", lambda data: data)
    before = {name: vars(flask_socketio.server.eio)[name] for name in ("_async", "async_mode", "sockets")}
    uwasp_socketio.install(flask_socketio, handler_class="gevent", compression="deflate")
    after = vars(flask_socketio.server.eio)
    assert {name: after[name] for name in before} == before
    assert not {"handle_request", "start_background_task"} & after.keys()
    client = flask_socketio.test_client(app)
    assert client.emit("echo", "hello", callback=True) == "hello"


def test_the_test_kit_is_told_by_python_engineio_that_it_opens_no_websocket():
    server = engineio.Server(async_mode="threading")
    uwasp_socketio.install(server)
    with pytest.raises(RuntimeError, match="Cannot obtain socket"):
        connect(engineio.WSGIApp(server), "/engine.io/?EIO=4&transport=websocket")


@pytest.mark.parametrize("make", [engineio.Server, socketio.Server], ids=["engineio", "socketio"])
def test_a_server_of_each_library_is_taken(make):
    uwasp_socketio.install(make(async_mode="threading"))


def test_a_flask_socketio_without_an_application_is_told_when_to_come():
    with pytest.raises(RuntimeError, match=r"call install after socketio\.init_app"):
        uwasp_socketio.install(SocketIO(async_mode="threading"))


@pytest.mark.parametrize(
    "given", [Flask("app"), engineio.AsyncServer(async_mode="asgi"), None], ids=["flask", "asyncio", "none"]
)
def test_what_is_no_server_of_theirs_is_refused(given):
    with pytest.raises(TypeError, match=r"takes a flask_socketio.SocketIO, a socketio.Server or an engineio.Server"):
        uwasp_socketio.install(given)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("max_message_size", "max_http_buffer_size"),
        ("ping_interval", "ping_interval"),
        ("ping_timeout", "ping_timeout"),
        ("allowed_origins", "cors_allowed_origins"),
    ],
)
def test_what_the_server_decides_is_given_to_the_server(ours, theirs):
    with pytest.raises(TypeError, match=f"{ours} is the server's own {theirs} here"):
        uwasp_socketio.install(engineio.Server(async_mode="threading"), **{ours: 1})


@pytest.mark.parametrize("version", ["4.14.0", "4.15.0", "4.16.0", "5.0", "3.14.2"])
def test_an_engineio_that_is_not_known_is_refused_with_those_that_are(version):
    known = r"python-engineio>=4\.15\.1,<4\.16"
    with pytest.raises(ConfigurationError, match=rf"knows {known}, and {version} is installed"):
        versions.check(version)


@pytest.mark.parametrize("version", ["4.15.1", "4.15.2.dev1"])
def test_an_engineio_that_is_known_is_taken(version):
    versions.check(version)


def test_a_class_of_ones_own_that_derives_from_theirs_is_taken():
    class Own(SocketIO):
        pass

    uwasp_socketio.install(Own(Flask("app"), async_mode="threading"))
    with pytest.raises(RuntimeError, match=r"after socketio\.init_app"):
        uwasp_socketio.install(Own())


def test_a_handler_that_starts_nothing_beside_is_refused():
    class Bare(Handler):
        def handle(self, environ, protocol_name=None): ...

    with pytest.raises(ConfigurationError, match="need a handler that has spawn, which Bare has not"):
        find_handler_class(Bare)
    with pytest.raises(ConfigurationError, match="handler_class is not a class"):
        find_handler_class(3)


def test_what_is_known_is_what_is_required():
    (required,) = (line for line in requires("uwasp-socketio") if line.startswith("python-engineio"))
    assert required == "python-engineio<{}.{},>={}.{}.{}".format(*versions.TOO_NEW, *versions.OLDEST)


def test_install_looks_at_the_version(monkeypatch):
    monkeypatch.setattr(versions, "version", lambda name: {"python-engineio": "4.99.0"}[name])
    with pytest.raises(ConfigurationError, match=r"4\.99\.0 is installed"):
        uwasp_socketio.install(engineio.Server(async_mode="threading"))


class NeverReads:
    """Stands for a WebSocket whose client reads nothing."""

    def __init__(self):
        self.connection = SimpleNamespace(has_room=False)
        self.is_cut = False

    def send(self, message):
        if self.is_cut:
            raise ConnectionClosed(1006, "", 1)

    def terminate(self):
        self.is_cut = self.connection.has_room = True


def test_a_client_that_nobody_can_wait_for_is_cut_and_not_felt_by_who_emits():
    def no_thread(function):
        raise RuntimeError("can't start new thread")

    outbox, websocket = outbox_class(queue.Queue)(), NeverReads()
    outbox.send_by(websocket, no_thread)
    assert not websocket.is_cut
    for number in range(3):
        outbox.put(Packet(MESSAGE, data=str(number)))
    assert websocket.is_cut


class AnotherIsFaster(queue.Queue):
    """Another poll of the same client takes the first packet, just when this one has seen that there is one."""

    def __init__(self):
        super().__init__()
        self.has_taken = False

    def empty(self):
        return self.has_taken and super().empty()

    def get(self, block=True, timeout=None):
        if self.qsize() and not self.has_taken:
            self.has_taken = True
            super().get()
        assert self.qsize() or not block or timeout is not None, "this waits for what may never come"
        return super().get(block, timeout)


def test_a_websocket_that_begins_to_send_does_not_wait_for_what_a_poll_has_taken():
    outbox = outbox_class(AnotherIsFaster)()
    outbox.put(Packet(MESSAGE))
    assert outbox.send_by(NeverReads(), lambda function: None)
    assert outbox.get(block=False).packet_type == NOOP


def test_a_poll_ends_even_where_another_takes_what_was_to_end_it(monkeypatch):
    monkeypatch.setattr(outboxes, "LONGEST_POLL", 0.01)
    assert outbox_class(AnotherIsFaster)().get(timeout=45).packet_type == NOOP
