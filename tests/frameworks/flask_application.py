"""A Flask application with WebSockets of each kind, which says in the log what it opens and tears down.

UWASP_OPTIONS is JSON, for SOCK_SERVER_OPTIONS.
"""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from array import array
from contextvars import ContextVar
from itertools import count
from pathlib import Path

import flask_login
import gevent
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    current_app,
    g,
    got_request_exception,
    has_request_context,
    make_response,
    redirect,
    request,
    session,
    stream_with_context,
)
from flask.globals import app_ctx, request_ctx

from uwasp import Group, Server, conversation, takeover
from uwasp_flask import ConnectionClosed, Sock
from uwasp_flask.visit import KEY, Visit

numbers = count(1)
of_the_application = ContextVar("of_the_application")
gc.disable()  # what is left behind in a cycle stays, and is seen
sleep = gevent.sleep if takeover.loop() == "gevent" else time.sleep


def say(text):
    os.write(1, f"{text}\n".encode())


class OwnResponse(Response):
    """An application can have a class of responses of its own."""


app = Flask("flask_application")
app.secret_key = "for tests"
app.response_class = OwnResponse


def lingering(wsgi_app):
    """A middleware that goes on when the WebSocket is open, until its conversation waits for that."""

    def linger(environ, start_response):
        visit = environ.get(KEY)
        body = wsgi_app(environ, start_response)
        if environ["PATH_INFO"] == "/lingers":
            while visit._waiter is None:
                sleep(0.01)
        return body

    return linger


app.wsgi_app = lingering(app.wsgi_app)
sock = Sock()
rooms = Blueprint("rooms", __name__, url_prefix="/rooms")


# What an extension for databases does: a thing in g, which the end of the context closes.


class Database:
    def __init__(self):
        self.number = next(numbers)
        self.is_open = True

    def close(self):
        self.is_open = False


def database():
    if "database" not in g:
        g.database = Database()
    return g.database


@app.teardown_appcontext
def close_database(error):
    opened = g.pop("database", None)
    if opened is not None:
        opened.close()
        say(f"closed database {opened.number} after {type(error).__name__}")


@app.teardown_request
def tear_down(error):
    say(f"tear down {request.path} {request.args.get('test')} after {type(error).__name__}")


@got_request_exception.connect_via(app)
def hear(sender, exception, **rest):
    say(f"{sender.name} heard of {exception}")


@app.before_request
def come_in():
    of_the_application.set("the application")
    g.seen = g.get("seen", 0) + 1
    if request.args.get("key") == "wrong":
        abort(403, "that key does not fit")


@app.errorhandler(403)
def forbidden(error):
    return f"<h1>{error.description}</h1>", 403, {"X-Answered-By": "the error handler"}


@app.after_request
def sign(response):
    response.headers["X-After-Request"] = str(response.status_code)
    return response


logins = flask_login.LoginManager(app)


class User(flask_login.UserMixin):
    def __init__(self, id):
        self.id = id


@logins.user_loader
def load(id):
    return User(id)


@app.get("/login/<name>")
def login(name):
    flask_login.login_user(User(name))
    session["color"] = "blue"
    return "in"


@app.get("/page")
def page():
    return {"seen": g.seen, "leaked": sorted(name for name in g if name not in ("seen", "_login_user"))}


@app.post("/holds")
def holds():
    """Wait with a body that uWSGI has, and nobody has read."""
    say("held")
    while not Path("may-read").exists():
        sleep(0.01)
    return request.get_data()


@app.get("/left")
def left():
    """What there is of requests, but for this one."""
    kinds = [type(one) for one in gc.get_objects()]  # not isinstance, to which a proxy is what it stands for
    return {"visits": kinds.count(Visit), "contexts": kinds.count(type(request_context())) - 1}


def request_context():
    context = app_ctx._get_current_object()
    return context if hasattr(context, "request") else request_ctx._get_current_object()


@app.before_request
def wait_until_the_client_is_gone():
    if request.path == "/gone":
        say("/gone was asked for")
        while not Path("is-gone").exists():
            sleep(0.01)


@sock.route("/lingers")
def lingers(ws):
    ws.send(request.path)


@sock.route("/gone")
def gone(ws):
    say("a conversation with nobody")


@app.get("/outside")
def outside():
    return {"color": session.get("color"), "changed": session.get("changed")}


@sock.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)


@sock.route("/patient")
def patient(ws):
    while True:
        ws.send(repr(ws.receive(timeout=0.05 if ws.receive(timeout=0) is None else 5)))
        if ws.receive() == "end":
            return


@sock.route("/context")
def context(ws):
    g.mine = "kept"
    while (asked := ws.receive()) != "fail":
        if asked == "change":
            session["changed"] = True
        opened = database()
        ws.send(
            json.dumps(
                {
                    "app": current_app.name,
                    "path": request.path,
                    "args": request.args.get("test"),
                    "rule": str(request.url_rule),
                    "path_info": request.environ["PATH_INFO"],
                    "color": session.get("color"),
                    "user": getattr(flask_login.current_user, "id", None),
                    "seen": g.seen,
                    "mine": g.mine,
                    "number": opened.number,
                    "is_open": opened.is_open,
                    "body": request.get_data(as_text=True) + request.environ["wsgi.input"].read().decode(),
                }
            )
        )
    raise ValueError("the conversation failed")


@sock.route("/early")
def early(ws):
    ws.send(str(g.early.is_open))


@app.before_request
def open_early():
    if request.path == "/early":
        g.early = database()


@sock.route("/says")
def says(ws):
    current_app.logger.warning("said to %s", ws.receive())


@sock.route("/codes")
def codes(ws):
    try:
        ws.receive()
    except ConnectionClosed as error:
        say(f"closed with {error.reason} {error.message}, connected: {ws.connected}")
    try:
        ws.close()
    except ConnectionClosed:
        say("closed already")


@sock.route("/close")
def close(ws):
    ws.send("5")
    ws.close(4321, "for a reason")


@sock.route("/sends")
def sends(ws):
    for data in (None, 5, {"a": 1}, ["a"]):
        try:
            ws.send(data)
        except TypeError as error:
            ws.send(str(error))
    for data in (b"bytes", bytearray(b"bytearray"), memoryview(b"memoryview"), array("B", b"array")):
        ws.send(data)


@sock.route("/copies")
def copies(ws):
    @copy_current_request_context
    def beside():
        ws.send(f"{request.path} {'mine' in g}")

    g.mine = True
    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    ws.send(f"{request.path} {'mine' in g}")
    ws.receive()


@sock.route("/streams")
def streams(ws):
    def parts():
        yield request.path
        yield str(g.seen)

    ws.send(" ".join(stream_with_context(parts())))
    ws.send(str(has_request_context()))


@sock.route("/cookie")
def cookie(ws):
    ws.send(str(session["visits"]))


@app.before_request
def count_visits():
    if request.path == "/cookie":
        session["visits"] = session.get("visits", 0) + 1


@app.before_request
def headers_of_its_own():
    if request.path == "/cookie":

        @after_this_request
        def add(response):
            response.headers["X-This-Request"] = "yes"
            response.headers["Upgrade"] = "h2c"
            return response


@app.after_request
def change_its_mind(response):
    if request.args.get("instead") == "stream":

        @stream_with_context
        def parts():
            yield f"instead of {request.path} of {of_the_application.get('nobody')}"

        return Response(parts(), status=409)
    if request.args.get("instead") == "status":
        response.status_code = 410
    return response


@sock.route("/private", decorators=[flask_login.login_required])
def private(ws):
    ws.send(flask_login.current_user.id)


@sock.route("/late")
def late(ws):
    abort(403)


@sock.route("/later")
def later(ws):
    return redirect("/login")


@sock.route("/fails")
def fails(ws):
    ws.receive()
    raise ValueError("after the first message")


@sock.route("/talks")
@conversation(protocols=("chat.v2",), max_message_size=10)
def talks(ws):
    ws.send(f"{ws.subprotocol}")
    ws.send(ws.receive())


@sock.route("/member")
def member(ws):
    room = Group("members")
    room.add(ws)
    for message in ws:
        if message == "leave":
            return
        room.send(message)


@sock.route("/<name>/<int:number>", bp=rooms)
def room(ws, name, number):
    ws.send(f"{name} {number + 1} of {request.blueprint}")


@rooms.before_request
def only_some():
    return make_response("closed today", 401) if request.view_args["name"] == "closed" else None


languages = Blueprint("languages", __name__, url_prefix="/<language>")


@languages.url_value_preprocessor
def take_language(endpoint, values):
    g.language = values.pop("language")


@sock.route("/page/<int:number>", bp=languages)
def translated(ws, number):
    ws.send(f"{g.language} {request.view_args}")


@sock.route("/class/<name>")
class Room(Server[str]):
    @classmethod
    def authorize(cls, environ):
        return session.get("color")

    def on_open(self):
        g.mine = True
        self.on_message("opened")

    def on_message(self, message):
        if message == "fail":
            raise ValueError("an event failed")
        if message == "close":
            self.ws.close(4000)
        opened = database()
        told = {
            "message": message,
            "path": request.path,
            "args": request.view_args,
            "params": self.ws.params,
            "user": self.ws.user,
            "color": session.get("color"),
            "mine": "mine" in g,
            "number": opened.number,
        }
        self.ws.send(json.dumps(told))

    def on_close(self):
        say(f"{request.path} is over in {current_app.name}")


class Elsewhere(Server):
    def on_message(self, message):
        self.ws.send(f"elsewhere {message} {self.ws.protocol}")


sock.route("/elsewhere", server=Elsewhere)

app.config["SOCK_SERVER_OPTIONS"] = json.loads(os.environ.get("UWASP_OPTIONS", "{}"))
app.register_blueprint(rooms)
app.register_blueprint(languages)
sock.init_app(app)
application = app
