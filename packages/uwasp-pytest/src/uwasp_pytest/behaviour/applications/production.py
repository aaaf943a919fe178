"""The application of the tests of reloads, keepalive and closing: its servers note what happens to them.

UWASP_HANDLER and UWASP_OPTIONS are as in `application.py`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from typing import Any

import uwsgi
from uwasp import Server, WebSocketMiddleware
from uwasp.handler import find_handler
from waiting import Event, event, nap, sleep

HOURS = 10_000.0  # seconds
kept: list[Any] = []
released = Event()


class Noting(Server):
    """Notes that it was opened and closed, and tells its client the process that it is in."""

    def note(self, event):
        os.write(1, f"{self.ws.environ['QUERY_STRING']} {event}\n".encode())  # one write: one line

    def on_open(self):
        self.note("open")
        self.ws.send(str(os.getpid()))

    @event
    async def on_message(self, message):
        if message == "block":
            self.note("blocked")
            await sleep(HOURS)
        elif message == "block the process":
            self.note("blocked")
            time.sleep(HOURS)  # the whole hub or loop, where there is one
        elif message == "pause the process":
            self.note("paused")
            time.sleep(0.5)
        elif message == "release":
            released.set()
        elif message == "wait for uWSGI":  # it may be busy with the handshake still, in its own books
            while uwsgi.workers()[uwsgi.worker_id() - 1]["status"] != b"idle":
                await sleep(0.01)
            self.ws.send("idle")
        elif message == "terminate":
            self.ws.terminate()
        elif message == "close":
            self.ws.close(4000, "enough")
        else:
            self.ws.send(message)

    def on_close(self):
        self.note(f"closed {self.ws.close_code} {self.ws.close_reason}".rstrip())


class FailingHandler(find_handler(os.environ["UWASP_HANDLER"])):
    """Fails when the listener has the connection already."""

    def handle(self, environ, protocol_name=None):
        answer = super().handle(environ, protocol_name)
        if environ["PATH_INFO"] == "/failing-handler":
            raise RuntimeError("raised in handle")
        return answer


class OtherHandler(FailingHandler):
    """Has a listener of its own."""


class SlowToClose(Noting):
    @event
    async def on_close(self):
        super().on_close()
        await sleep(HOURS)


class Restless(Noting):
    ping_interval = 0.3


class Watchful(Noting):
    ping_interval = 0.2
    ping_timeout = 0.4
    close_timeout = 0.2


class Unconcerned(Noting):
    ping_interval = None


class Patient(Noting):
    """Pings, and cares for no answer."""

    ping_interval = 0.2
    ping_timeout = None


class Brief(Noting):
    close_timeout = 0.3


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path == "/reload":
        uwsgi.reload()
    elif path == "/grow":
        kept.append(b"x" * 150 * 2**20)
    elif path == "/sleep":
        os.write(1, b"at work\n")
        nap(HOURS)
    elif path == "/hold":
        os.write(1, b"held\n")
        released.wait()
    elif path == "/compute":
        os.write(1, b"at work\n")
        while True:
            nap(0)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def say_goodbye() -> None:
    os.write(1, b"the application's own atexit\n")


uwsgi.atexit = say_goodbye

options = json.loads(os.environ.get("UWASP_OPTIONS", "{}"))
other = WebSocketMiddleware(plain, OtherHandler, [("/other-handler", Noting)], **options)
middleware = WebSocketMiddleware(
    plain,
    FailingHandler,
    [
        ("/noting", Noting),
        ("/failing-handler", Noting),
        ("/slow-to-close", SlowToClose),
        ("/restless", Restless),
        ("/watchful", Watchful),
        ("/unconcerned", Unconcerned),
        ("/patient", Patient),
        ("/brief", Brief),
    ],
    **options,
)


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return (other if environ["PATH_INFO"] == "/other-handler" else middleware)(environ, start_response)
