"""Sock under `uwasp.testing`: Flask's own way of a request, in one process, without uWSGI."""

from __future__ import annotations

import pytest
from flask import Flask, abort, g, request, session

from uwasp import Group, Server
from uwasp.testing import HandshakeRefused, ServerFailed, connect
from uwasp_flask import Sock


@pytest.fixture
def app(handler):
    app = Flask("app")
    app.secret_key = "a secret of the tests"
    sock = Sock(app, handler_class=handler)

    @app.post("/names/<name>")
    def enter(name):
        session["name"] = name
        return ""

    @app.before_request
    def look():
        g.name = session.get("name")
        if g.name == "mallory":
            abort(403, "not you")

    @app.after_request
    def tell(response):
        response.headers["X-Name"] = g.name or "nobody"
        return response

    @sock.route("/rooms/<room>")
    def room(ws, room):
        group = Group("room", room)
        group.add(ws)
        for message in ws:
            if message == "raise":
                raise ValueError("raised in a function of Flask's")
            if message == "to the others":
                group.send(message, exclude=ws)
                group.send(f"{message} again", exclude=[ws.member_id])
                continue
            if message == "who is here":
                ws.send(str(ws.websocket in group.local))
                continue
            if message == "leave":
                group.remove(ws)
                ws.send(str(group.local))
                continue
            group.send(f"{session['name']} in {request.view_args['room']}: {message}")

    @sock.route("/class/<room>")
    class Room(Server):
        def on_message(self, message):
            if message == "raise":
                raise ValueError("raised in a class of Flask's")
            self.ws.send(f"{session['name']} in {self.ws.params['room']}: {message}, {self.ws.user}")

    return app


def cookie_of(app, name):
    """What a browser sends that has entered by this name."""
    answer = app.test_client().post(f"/names/{name}")
    return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


def test_functions_converse_in_the_context_of_their_request(app):
    cookie = cookie_of(app, "ann")
    with connect(app, "/rooms/a", headers=cookie) as first, connect(app, "/rooms/a", headers=cookie) as second:
        assert ("X-Name", "ann") in first.headers
        first.send("hello")
        assert (first.receive(), second.receive()) == ("ann in a: hello", "ann in a: hello")


def test_a_group_takes_the_websocket_of_a_function(app):
    cookie = cookie_of(app, "ann")
    with connect(app, "/rooms/a", headers=cookie) as first, connect(app, "/rooms/a", headers=cookie) as second:
        second.send("who is here")
        assert second.receive() == "True"
        first.send("to the others")
        first.send("to all")
        assert [second.receive() for _ in range(3)] == ["to the others", "to the others again", "ann in a: to all"]
        assert first.receive() == "ann in a: to all"
    with connect(app, "/rooms/b", headers=cookie) as ws:
        ws.send("leave")
        assert ws.receive() == "[]"


def test_classes_have_their_events(app):
    with connect(app, "/class/a", headers=cookie_of(app, "ann"), user="stands for it") as ws:
        ws.send("hello")
        assert ws.receive() == "ann in a: hello, stands for it"


@pytest.mark.parametrize(
    ("path", "name", "status", "body"), [("/rooms/a", "mallory", 403, "not you"), ("/nothing", "ann", 404, "Not Found")]
)
def test_what_flask_answers_is_a_refusal(app, path, name, status, body):
    with pytest.raises(HandshakeRefused, match=body) as refused:
        connect(app, path, headers=cookie_of(app, name))
    assert refused.value.status == status


@pytest.mark.parametrize("path", ["/rooms/a", "/class/a"])
def test_what_a_server_raises_is_shown(app, path):
    with connect(app, path, headers=cookie_of(app, "ann")) as ws:
        ws.send("raise")
        with pytest.raises(ServerFailed, match="raised in a") as failed:
            ws.receive()
    assert isinstance(failed.value.__cause__, ValueError)
