"""An application whose own router leads to servers, by `middleware.accept`.

UWASP_HANDLER names the handler; UWASP_OPTIONS is JSON, keywords of the middleware.
"""

from __future__ import annotations

import json
import os
import threading

from uwasp import Refusal, Server, WebSocketMiddleware, conversation
from waiting import event, messages, waited


class Room(Server):
    @classmethod
    def authorize(cls, environ):
        name = environ["wsgiorg.routing_args"][1]["name"]
        if name == "closed":
            raise Refusal(401, headers=[("WWW-Authenticate", "Basic")])
        return f"user of {name}"

    def on_open(self):
        self.ws.send(f"{self.ws.user} at {self.ws.path} with {self.ws.params}")

    def on_message(self, message):
        self.ws.send(message)


@event
async def echo(ws):
    async for message in messages(ws):
        ws.send(message)


class Maker(dict):
    """An object that makes servers, and cannot be hashed."""

    def __call__(self, ws):
        return Echo(ws)


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


class Talker:
    def __init__(self, greeting):
        self.greeting = greeting

    @conversation(protocols=("talk",))
    @event
    async def talk(self, ws):
        ws.send(f"{self.greeting}, {await waited(ws.receive())}, by {ws.protocol}")


def attempt(environ, start_response):
    try:
        application.accept(environ, start_response, echo)
    except Exception as error:
        print(f"refused with {type(error).__name__}: {error}", flush=True)


def app(environ, start_response):
    _, place, *rest = environ["PATH_INFO"].split("/")
    if place == "rooms":
        cookie = ("Set-Cookie", "session=1; Path=/")
        return application.accept(environ, start_response, Room, {"name": rest[0]}, [cookie])
    if place == "echo":
        return application.accept(environ, start_response, echo)
    if place == "wrong":
        return application.accept(environ, start_response, echo, headers=[("Upgrade", "h2c")])
    if place == "twice":
        body = application.accept(environ, start_response, Room, {"name": "blue"})
        attempt(environ, start_response)
        return body
    if place == "thread":  # or a greenlet, where that is patched; and once more when the request is over
        thread = threading.Thread(target=attempt, args=(environ, start_response))
        thread.start()
        thread.join()
        threading.Timer(0.1, attempt, (environ, start_response)).start()
    if place == "maker":
        return application.accept(environ, start_response, Maker())
    if place == "talker":
        return application.accept(environ, start_response, Talker("hello").talk)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]


application = WebSocketMiddleware(app, os.environ["UWASP_HANDLER"], **json.loads(os.environ.get("UWASP_OPTIONS", "{}")))
