"""The application that the tests in this folder run on real uWSGI: one server for each behaviour.

UWASP_HANDLER names the handler; UWASP_CONSUMERS is how many consumers it may have, if not as many as usual;
UWASP_OPTIONS is JSON, further keywords of the middleware; UWASP_PATCH=1 has gevent patch the standard library first, as
many applications do.
"""

from __future__ import annotations

import os

if os.environ.get("UWASP_PATCH"):
    from gevent import monkey

    monkey.patch_all()

import json
import logging
import multiprocessing
import socket
import threading
from typing import Any

from uwasp import ConnectionClosed, Server, WebSocket, WebSocketMiddleware
from uwasp.handler import find_handler
from waiting import WAITS, event, nap, sleep

try:
    from greenlet import GreenletExit
except ImportError:  # without gevent there are no greenlets to end
    GreenletExit = SystemExit

logging.basicConfig(level="DEBUG", format="%(name)s %(levelname)s %(message)s")
logger = logging.getLogger("application")

if WAITS != "never":  # a log can wait, for the network for instance
    logging.getLogger("uwasp.stall").addFilter(lambda record: nap(0.01) or True)

rooms: dict[str, WebSocket] = {}


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


class Lifecycle(Server):
    """Logs its events, and does what its messages say."""

    def __init__(self, ws):
        super().__init__(ws)
        self.seen: list[str] = []

    def note(self, event):
        self.seen.append(event)
        logger.info("%s %s", self.ws.environ["QUERY_STRING"], event)

    def on_open(self):
        self.note("open")
        rooms[self.ws.environ["QUERY_STRING"]] = self.ws
        if self.ws.environ["QUERY_STRING"] == "raise-in-open":
            raise RuntimeError("raised in on_open")

    @event
    async def on_message(self, message):
        self.note(f"message {message}")
        word, _, rest = str(message).partition(" ")
        if word == "raise":
            raise RuntimeError("raised in on_message")
        if word == "close":
            code, _, reason = rest.partition(" ")
            self.ws.close(int(code), reason)
        elif word == "send-after-close":
            self.ws.close(4000, "over")
            try:
                self.ws.send("too late")
            except ConnectionClosed as error:
                self.note(f"ConnectionClosed {error.code} {error.reason}")
        elif word == "wrong-type":
            try:
                self.ws.send(12)
            except TypeError as error:
                self.ws.send(f"TypeError {error}")
        elif word == "bytes-likes":
            self.ws.send(bytearray(b"bytearray"))
            self.ws.send(memoryview(b"-memoryview-")[1:-1])
        elif word == "sleep":
            await sleep(float(rest))
            self.ws.send(f"slept {rest}")
        elif word == "ping":
            self.ws.ping(rest.encode())
        elif word == "to":
            to, _, text = rest.partition(" ")
            rooms[to].send(text)
        elif word == "from-thread":
            threading.Thread(target=self.ws.send, args=(rest,)).start()
        elif word == "threads":
            self.ws.send(" ".join(sorted(thread.name for thread in threading.enumerate())))
        elif word == "child":
            child = multiprocessing.get_context("fork").Process(target=nap, args=(1000,))
            child.start()
            child.terminate()
            child.join()
            self.ws.send(f"the child's exit code is not 0: {child.exitcode != 0}")
        elif word == "nodelay":
            with socket.socket(fileno=os.dup(self.ws.fileno())) as same:
                self.ws.send(str(same.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        elif word == "describe":
            ws = self.ws
            self.ws.send(json.dumps([ws.path, ws.protocol, ws.closed, ws.close_code, ws.fileno() > 2]))
        else:
            self.ws.send(message)

    def on_close(self):
        self.note(f"close {self.ws.close_code} {self.ws.close_reason}".rstrip())
        rooms.pop(self.ws.environ["QUERY_STRING"], None)
        if self.ws.environ["QUERY_STRING"] == "raise-in-close":
            raise RuntimeError("raised in on_close")


class Quick(Server):
    """Answers at once, unless a message says otherwise."""

    ping_interval = None  # so that nothing but its messages makes anything happen

    @event
    async def on_message(self, message):
        if message.isdigit():
            self.ws.send(message)
        elif message == "if nothing waits":
            if self.ws.buffered_amount == 0:
                self.ws.send("nothing")
        elif message == "nap":
            await sleep(0.3)
        elif message == "sleep":
            await sleep(3)
            self.ws.send("slept")
        elif message == "send and sleep":
            self.ws.send("sent")
            await sleep(3)
        elif message == "ping":
            self.ws.ping(b"now")
        elif message == "close":
            self.ws.close(4000, "enough")
        else:
            raise RuntimeError(message)


class Raising(Server):
    """Raises in the event, and what, that its query string names: `on_open=SystemExit`."""

    def happens(self, event):
        where, _, what = self.ws.environ["QUERY_STRING"].partition("=")
        if where == event:
            raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "GreenletExit": GreenletExit}[what]

    def on_open(self):
        self.happens("on_open")

    def on_message(self, message):
        self.happens("on_message")
        self.ws.send(message)

    def on_close(self):
        logger.info("raising %s close %s", self.ws.environ["QUERY_STRING"], self.ws.close_code)
        self.happens("on_close")


class Subprotocols(Server):
    protocols = ("chat.v2", "chat.v1")

    def on_open(self):
        self.ws.send(f"protocol {self.ws.protocol}")


class OnlyTheMethods:
    """A server that does not inherit."""

    def __init__(self, ws):
        self.ws = ws

    def on_open(self):
        self.ws.send("open")

    def on_message(self, message):
        self.ws.send(f"got {message}")

    def on_close(self):
        logger.info("only-the-methods closed")


class Unmakeable(Server):
    def __init__(self, ws):
        raise RuntimeError("raised in __init__")


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The wrapped application: says what was asked, and pushes to a WebSocket from an ordinary request."""
    body = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode()
    if environ["PATH_INFO"].startswith("/push/"):
        rooms[environ["PATH_INFO"].removeprefix("/push/")].send("pushed")
    elif environ["PATH_INFO"].startswith("/push-too-late/"):
        ws = rooms[environ["PATH_INFO"].removeprefix("/push-too-late/")]
        with socket.socket(fileno=os.dup(ws.fileno())) as same:
            same.shutdown(socket.SHUT_WR)  # as the client's leaving is between the kernel's and the listener's noticing
        ws.send("to nobody")
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


handler_class = find_handler(os.environ["UWASP_HANDLER"])
if "UWASP_CONSUMERS" in os.environ:
    handler_class = type("Few", (handler_class,), {"max_consumers": int(os.environ["UWASP_CONSUMERS"])})

application = WebSocketMiddleware(
    plain,
    handler_class,
    [
        ("/echo", Echo),
        ("/life", Lifecycle),
        ("/quick", Quick),
        ("/raising", Raising),
        ("/subprotocols", Subprotocols),
        ("/methods", OnlyTheMethods),
        ("/unmakeable", Unmakeable),
        ("/wörld", Echo),
    ],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
