"""Servers of Flask-SocketIO, python-socketio and python-engineio on uWASP, for tests.

UWASP_SOCKETIO has in JSON: what servers are given, "server"; what `install` is, "install"; and "redis", the URL of one.
"""

import gc
import json
import os
import threading

given = json.loads(os.environ.get("UWASP_SOCKETIO", "{}"))
if given.get("patch"):
    from gevent import monkey

    monkey.patch_all()

import engineio  # noqa: E402 - gevent patches before
import flask  # noqa: E402
import socketio  # noqa: E402
from flask_socketio import ConnectionRefusedError, Namespace, SocketIO, emit, join_room, leave_room, rooms  # noqa: E402
from flask_socketio import disconnect as flask_disconnect  # noqa: E402

import uwasp  # noqa: E402
import uwasp_socketio  # noqa: E402

options = given.get("server", {})
for_install = given.get("install", {})
redis = given.get("redis")

app = flask.Flask(__name__)
app.secret_key = "secret"


def log(*words):
    print(*words, flush=True)


@app.get("/login/<name>")
def login(name):
    flask.session["name"] = name
    return "ok"


@app.get("/emit/<room>/<text>")
def emit_from_a_view(room, text):
    flask_socketio.emit("said", text, to=room)
    return str(os.getpid())


@app.get("/pid")
def pid():
    return str(os.getpid())


@app.get("/figures")
def figures():
    open_now = [each for each in gc.get_objects() if type(each) is uwasp.WebSocket and not each.closed]
    return {
        "threads": [thread.name for thread in threading.enumerate()],
        "sockets": {
            "flask": len(flask_socketio.server.eio.sockets),
            "plain": len(plain.eio.sockets),
            "engine": len(engine.sockets),
        },
        "open": uwasp.stats()["open"],
        "async_mode": flask_socketio.async_mode,
        "options": [[each.options.ping_interval, each.options.max_message_size] for each in open_now],
    }


# Flask-SocketIO, at /socket.io/

flask_socketio = SocketIO(app, **options, **({"message_queue": redis} if redis else {}))
uwasp_socketio.install(flask_socketio, **for_install)


@flask_socketio.on("connect")
def on_connect(auth):
    if auth == {"token": "wrong"}:
        raise ConnectionRefusedError("not with this token")
    emit("welcome", {"name": flask.session.get("name"), "pid": os.getpid()})


@flask_socketio.on("disconnect")
def on_disconnect(reason):
    log("disconnected:", reason)


@flask_socketio.on("echo")
def on_echo(*data):
    return data if len(data) > 1 else data[0]


@flask_socketio.on("back")
def on_back(data):
    emit("back", data)


@flask_socketio.on("ask")
def on_ask(question):
    emit("ask", question, callback=lambda answer: log("answered:", answer))


@flask_socketio.on("join")
def on_join(room):
    join_room(room)
    return sorted(set(rooms()) - {flask.request.sid})


@flask_socketio.on("leave")
def on_leave(room):
    leave_room(room)
    return True


@flask_socketio.on("say")
def on_say(room, text):
    emit("said", text, to=room, include_self=False)


@flask_socketio.on("to all")
def on_to_all(text):
    emit("said", text, broadcast=True)


@flask_socketio.on("remember")
def on_remember(value):
    flask.session["value"] = value
    return True


@flask_socketio.on("recall")
def on_recall():
    return [flask.session.get("name"), flask.session.get("value"), flask.request.args.get("page")]


@flask_socketio.on("raise")
def on_raise():
    raise LookupError("a fault of the application")


@flask_socketio.on("go")
def on_go():
    flask_disconnect()


@flask_socketio.on("count")
def on_count(number):
    flask_socketio.start_background_task(count, flask.request.sid, number)


def count(sid, number):
    for each in range(number):
        flask_socketio.sleep(0.01)
        flask_socketio.emit("counted", each, to=sid)


@flask_socketio.on("flood")
def on_flood(room, number):
    for _ in range(number):
        emit("said", "x" * 100_000, to=room)
    return number


class Chat(Namespace):
    def on_connect(self):
        emit("welcome", {"namespace": "/chat"})

    def on_echo(self, text):
        return f"/chat: {text}"


flask_socketio.on_namespace(Chat("/chat"))


# python-socketio, at /plain/

plain = socketio.Server(**options, **({"client_manager": socketio.RedisManager(redis)} if redis else {}))
uwasp_socketio.install(plain, **for_install)


@plain.event
def connect(sid, environ, auth):
    with plain.session(sid) as session:
        session["query"] = environ["QUERY_STRING"]


@plain.event
def echo(sid, data):
    return data


@plain.event
def query(sid):
    return plain.get_session(sid)["query"], plain.get_environ(sid)["QUERY_STRING"]


@plain.event
def disconnect(sid, reason):
    log("plain disconnected:", reason)


# python-engineio, at /engine.io/

engine = engineio.Server(async_handlers=False, **options)
uwasp_socketio.install(engine, **for_install)


@engine.on("connect")
def engine_connect(sid, environ):
    return "refuse" not in environ["QUERY_STRING"]


@engine.on("message")
def engine_message(sid, data):
    if data == "who":
        engine.send(sid, sid)
    elif isinstance(data, str) and data.startswith("close "):
        engine.disconnect(data[6:])
    else:
        engine.send(sid, data)


@engine.on("disconnect")
def engine_disconnect(sid, reason):
    log("engine disconnected:", reason)


application = engineio.WSGIApp(engine, socketio.WSGIApp(plain, app, socketio_path="plain"))
