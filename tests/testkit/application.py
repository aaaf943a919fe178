"""What `uwasp_server` serves in tests: a room, in whichever worker, that says who is in which."""

from __future__ import annotations

import os

from uwasp import Group, Refusal, Server, WebSocketMiddleware


class Room(Server):
    protocols = ("chat.v1",)

    @classmethod
    def authorize(cls, environ):
        if environ.get("HTTP_X_NAME") == "mallory":
            raise Refusal(403, "not you")

    def on_open(self):
        self.room = Group("room", self.ws.params["name"])
        self.room.add(self.ws)
        self.ws.send("welcome")

    def on_message(self, message):
        if message == "pid":
            self.ws.send_json(os.getpid())
        elif message == "close":
            self.ws.close(4002, "closed by the server")
        elif message == "raise":
            raise ValueError("raised in on_message")
        else:
            self.room.send(message)

    def on_close(self):
        print("closed with", self.ws.close_code, flush=True)


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


application = WebSocketMiddleware(plain, os.environ.get("HANDLER", "threads"), [("/rooms/<name>", Room)])
