"""Sock where there is no uWSGI: routes and configuration are looked at when the application loads, and 501 says why."""

from __future__ import annotations

import functools
import subprocess
import sys

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


SENDS = """
from flask import Flask
from uwasp import Group
from uwasp_flask import Sock
app = Flask("app")
Sock(app)
@app.route("/")
def page():
    Group("room").send("hello")
    return "sent"
"""
BY_SERVER = """
import threading, urllib.request
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, app)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=20).read().decode())
server.shutdown()
"""


def run(code, folder):
    return subprocess.run(
        [sys.executable, "-c", SENDS + code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "code",
    [
        "app.testing = True\nprint(app.test_client().get('/').text)",
        "app.testing = True\nwith app.app_context(): print(page())",
        BY_SERVER,
    ],
    ids=["test client", "function", "flask run"],
)
def test_a_page_sends_to_a_group_and_the_log_says_that_it_reaches_nobody_else(code, tmp_path):
    done = run(code, tmp_path)
    assert done.stdout == "sent\n", done.stderr
    assert done.stderr.count("groups reach the WebSockets of this process alone") == 1


def test_what_sends_to_a_group_beside_uwsgi_is_told_that_it_reaches_nobody(tmp_path):
    done = run("with app.app_context(): print(page())", tmp_path)
    assert done.stdout == ""
    assert 'Name a Redis or a folder, such as bus="local:/run/mysite", there and here' in done.stderr


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


@pytest.mark.parametrize(
    ("rule", "function", "said"),
    [
        ("/x", lambda: None, r"x is called as x\(ws\) at /x, which it does not accept .*: write def x\(ws\), or"),
        ("/<name>", lambda ws: None, r"x\(ws, name\) at /<name>, .* unexpected keyword argument 'name'"),
        ("/<int:a>/<b>", lambda ws, b: None, r"x\(ws, a, b\) at /<int:a>/<b>, .* unexpected keyword argument 'a'"),
        ("/x", lambda ws, name: None, r"x\(ws\) at /x, .*missing a required argument: 'name'"),
        ("/<ws>", lambda ws: None, r"x\(ws, ws\) at /<ws>, .*multiple values for argument 'ws'"),
    ],
)
@pytest.mark.parametrize("by", ["app", "blueprint", "no application yet"])
def test_a_function_that_does_not_take_what_its_rule_has_is_refused_when_the_application_loads(
    rule, function, said, by
):
    app, rooms = Flask("app"), Blueprint("rooms", __name__)
    function.__name__ = "x"
    sock = Sock(None if by == "no application yet" else app)

    def load():
        sock.route(rule, rooms if by == "blueprint" else None)(function)
        sock.init_app(app) if by == "no application yet" else app.register_blueprint(rooms)

    with pytest.raises(TypeError, match=said):
        load()


def test_what_a_blueprints_prefix_has_is_for_its_functions_too():
    app, rooms = Flask("app"), Blueprint("rooms", __name__, url_prefix="/<tenant>")
    sock = Sock(app)

    @sock.route("/<name>", rooms)
    def room(ws, name):
        """Does not take the tenant."""

    with pytest.raises(TypeError, match=r"room\(ws, name, tenant\) at /<tenant>/<name>, .* argument 'tenant'"):
        app.register_blueprint(rooms)


def test_a_function_may_take_more_than_its_rule_has_where_something_gives_it():
    app = Flask("app")
    sock = Sock(app)

    def anything(function):
        @functools.wraps(function)
        def wrapper(*args, **keywords):
            return function(*args, **keywords)

        return wrapper

    def with_user(view):
        def wrapper(**params):
            return view(user="ann")

        return wrapper

    sock.route("/1/<name>", server=anything(lambda: None))
    sock.route("/2/<name>", endpoint="2")(lambda ws, **params: None)
    sock.route("/3", endpoint="3", defaults={"page": 1})(lambda ws, page: None)
    sock.route("/4", endpoint="4", server=functools.partial(lambda ws, database: None, database="here"))
    sock.route("/5/<name>", endpoint="5", decorators=[with_user])(lambda ws, user: None)
    with pytest.raises(TypeError, match=r"called as <lambda>\(ws, ...\) at /6, .*too many positional arguments"):
        sock.route("/6", endpoint="6", decorators=[with_user])(lambda: None)

    @app.url_value_preprocessor
    def take(endpoint, values):
        """May take the name out."""

    sock.route("/7/<name>", endpoint="7")(lambda ws: None)


def test_a_handler_for_async_def_is_not_for_views():
    class Coroutines(Handler):
        runs = "coroutines"

        def handle(self, environ, protocol_name=None):
            return []

    from uwasp import ConfigurationError

    with pytest.raises(ConfigurationError, match="Coroutines runs async def"):
        Sock(Flask("app"), handler_class=Coroutines)
