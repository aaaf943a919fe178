"""Sock where there is no uWSGI: routes and configuration are looked at when the application loads, and 501 says why."""

from __future__ import annotations

import functools

import pytest
from flask import Blueprint, Flask

from uwasp import Handler, HandlerNotFound, Server
from uwasp_flask import Sock

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def rules(app):
    return {rule.rule: rule.websocket for rule in app.url_map.iter_rules() if rule.endpoint != "static"}


def test_a_websocket_gets_501_that_says_what_to_do():
    app = Flask("app")
    torn_down = []
    app.teardown_request(torn_down.append)

    @Sock(app).route("/echo")
    def echo(ws): ...

    response = app.test_client().get("/echo", headers=UPGRADE)
    assert response.status_code == 501
    assert "does not run under uWSGI" in response.text
    assert "uwsgi --http-socket 127.0.0.1:5000 --threads 4 --module yourmodule:app" in response.text
    assert torn_down == [None]


def test_an_ordinary_request_for_a_websocket_gets_400():
    app = Flask("app")
    Sock(app).route("/echo")(print)
    assert app.test_client().get("/echo").status_code == 400


def test_routes_belong_to_the_application_the_blueprint_or_whoever_comes_later():
    sock = Sock()
    rooms = Blueprint("rooms", "rooms")

    @sock.route("/later")
    def later(ws): ...

    @sock.route("/room", bp=rooms)
    def room(ws): ...

    for name in ("first", "second"):
        app = Flask(name)
        sock.init_app(app)
        app.register_blueprint(rooms, url_prefix="/rooms")
        assert rules(app) == {"/later": True, "/rooms/room": True}
    sock.route("/now")(print)
    assert rules(app) == {"/later": True, "/rooms/room": True, "/now": True}


def test_a_decorated_function_or_class_stays_what_it_is():
    sock = Sock(Flask("app"))

    def echo(ws): ...

    assert sock.route("/function")(echo) is echo
    assert sock.route("/class")(Server) is Server
    assert sock.route("/server", server=echo, endpoint="other") is echo
    partial = functools.partial(Server)
    assert sock.route("/partial", endpoint="partial")(partial) is partial


def test_an_application_without_sock_is_told_what_to_call():
    app = Flask("app")
    app.testing = True
    rooms = Blueprint("rooms", "rooms")
    Sock().route("/room", bp=rooms)(print)
    app.register_blueprint(rooms)
    with pytest.raises(RuntimeError, match=r"call sock.init_app\(app\)"):
        app.test_client().get("/room", headers=UPGRADE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"receive_bytes": 4096}, "receive_bytes is about how simple-websocket reads and waits"),
        ({"thread_class": object}, "leave it out"),
        ({"max_mesage_size": 1}, "SOCK_SERVER_OPTIONS has no option 'max_mesage_size'; it may have max_message_size,"),
    ],
)
def test_an_option_that_there_is_not_is_refused(options, said):
    app = Flask("app")
    app.config["SOCK_SERVER_OPTIONS"] = options
    with pytest.raises(TypeError, match=said):
        Sock(app)


def test_a_value_that_an_option_cannot_have_is_refused():
    app = Flask("app")
    app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": None}
    with pytest.raises(ValueError, match="max_message_size is a whole number of at least 1, not None"):
        Sock(app)


def test_a_handler_that_there_is_not_is_refused():
    with pytest.raises(HandlerNotFound, match="no handler named 'nothing'"):
        Sock(Flask("app"), handler_class="nothing")


async def later(ws): ...


def generates(ws):
    yield


class Incomplete:
    def __init__(self, ws): ...

    def on_message(self, message): ...


class Late(Server):
    async def on_message(self, message): ...


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (later, "later is async def: nothing of it would be run. Make it a plain function"),
        (functools.partial(later), "later is async def"),
        (generates, "generates is a generator, as it has a yield in it: nothing of it would be run"),
        (Incomplete, "Incomplete has no on_open, on_close; inherit from uwasp.Server"),
        (functools.partial(Late), "Late.on_message is async def, which Handler does not run"),
        ("a name", "the server for /x is a function or a class, not 'a name'"),
    ],
)
def test_what_cannot_be_a_server_is_refused_when_it_gets_its_route(server, said):
    with pytest.raises(TypeError, match=said):
        Sock(Flask("app")).route("/x", server=server)


def test_a_handler_for_async_def_is_not_for_views():
    class Coroutines(Handler):
        runs = "coroutines"

        def handle(self, environ, protocol_name=None):
            return []

    from uwasp import ConfigurationError

    with pytest.raises(ConfigurationError, match="Coroutines runs async def"):
        Sock(Flask("app"), handler_class=Coroutines)
