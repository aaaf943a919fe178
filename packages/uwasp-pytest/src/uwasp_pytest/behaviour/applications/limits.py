"""The application of the tests of backpressure, overload, access, figures, and of sending from anywhere.

UWASP_HANDLER names the handler; UWASP_OPTIONS is JSON, further keywords of the middleware; UWASP_PATCH=1 has gevent
patch the standard library first; LIMITS_NOFILE is the number of descriptors that the process may have; LIMITS_TIMER=1
starts a timer of uWSGI's. A WebSocket is known by the query string that it was asked for with.
"""

from __future__ import annotations

import os

if os.environ.get("UWASP_PATCH"):
    from gevent import monkey

    monkey.patch_all()

import atexit
import json
import logging
import resource
import threading
import time
from typing import Any
from urllib.parse import parse_qsl

import uwsgi
from uwasp import ConnectionClosed, Refusal, Server, WebSocket, WebSocketMiddleware, stats
from waiting import WAITS, Event, event, waited

if WAITS == "gevent":
    import gevent

if "LIMITS_NOFILE" in os.environ:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["LIMITS_NOFILE"]),) * 2)

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")
logger = logging.getLogger("application")

BLOCK = bytes(2**16)
SIGNAL, TIMER = 17, 18

rooms: dict[str, WebSocket] = {}
gates: dict[str, Any] = {}
sent: dict[str, int] = {}
held: list[int] = []
ticks: list[float] = []  # of a thread, in seconds of `time.monotonic()`


class Echo(Server):
    def on_open(self):
        rooms[self.ws.environ["QUERY_STRING"]] = self.ws

    @event
    async def on_message(self, message):
        await waited(self.ws.send(message))

    def on_close(self):
        logger.info("%s on_close %s %s", self.ws.environ["QUERY_STRING"], self.ws.close_code, self.ws.close_reason)


class Talkative(Echo):
    """Sends as many blocks as it is told."""

    @event
    async def on_message(self, message):
        name = self.ws.environ["QUERY_STRING"]
        sent[name] = 0
        try:
            for number in range(int(message)):
                await waited(self.ws.send(number.to_bytes(8, "big") + BLOCK))
                sent[name] += 1
        except ConnectionClosed as error:
            logger.info("%s send raised %s %s", name, error.code, error.reason)
            raise


class Gate(Echo):
    """Looks at nothing until its gate is opened; then counts, as long as the messages are 0, 1, 2 and so on."""

    def __init__(self, ws):
        super().__init__(ws)
        self.gate = gates[ws.environ["QUERY_STRING"]] = Event()
        self.count = 0

    @event
    async def on_message(self, message):
        await waited(self.gate)
        if message == "count":
            self.ws.send(str(self.count))
        elif int(message[:8]) == self.count:
            self.count += 1


class Working(Server):
    """Takes some time for each message, in which nothing else runs in its thread or hub. Tells that it had the last."""

    def on_message(self, message):
        ends = time.perf_counter() + 25e-6
        while time.perf_counter() < ends:
            pass
        if message == "last":
            self.ws.send(message)


async def never() -> None:
    raise AssertionError("this was run")


class Guarded(Server):
    """Lets in who says so in the query string."""

    protocols = ("a",)

    @classmethod
    def authorize(cls, environ):
        asked = dict(parse_qsl(environ["QUERY_STRING"]))
        if "user" in asked:
            return {"name": asked["user"]}
        if "false" in asked:
            return False
        if "later" in asked:
            return never()
        if "raise" in asked:
            raise LookupError("raised in authorize")
        if "login" in asked:
            raise Refusal(401, "log in first", [("WWW-Authenticate", 'Basic realm="chat"')])
        if "move" in asked:
            raise Refusal(302, headers=[("Location", "/login")])
        if "json" in asked:
            raise Refusal(403, '{"error": "no"}', [("Content-Type", "application/json")])
        if "header" in asked:
            raise Refusal(403, headers=[("X-Asked", asked["header"])])
        raise Refusal

    def on_open(self):
        self.ws.send(f"{self.ws.user['name']} {self.ws.id}")

    def on_message(self, message):
        try:
            self.ws.close(4000, message)
        except ValueError as error:
            self.ws.send(f"ValueError {error}")


def say(to: str, what: str) -> None:
    """Send, and log how that went."""
    try:
        rooms[to].send(what)
    except Exception as error:
        logger.info("%s: %s %s", what, type(error).__name__, error)
    else:
        logger.info("%s: sent", what)


def send_from(place: str, to: str) -> None:
    if place == "request":
        say(to, "request")
    elif place == "thread":
        threading.Thread(target=say, args=(to, "thread")).start()
    elif place == "signal":
        uwsgi.signal(SIGNAL)
    elif place == "threadpool":
        gevent.get_hub().threadpool.spawn(say, to, "threadpool")
    elif place == "greenlet":
        gevent.spawn(say, to, "greenlet")
    elif place == "hub":
        gevent.get_hub().loop.run_callback(say, to, "hub")


def fill(to: str) -> None:
    try:
        while True:
            rooms[to].send(BLOCK)
    except ConnectionClosed as error:
        logger.info("%s filled until %s %s", to, error.code, error.reason)


def tick() -> None:
    while True:
        time.sleep(0.001)
        ticks.append(time.monotonic())


def figures() -> dict[str, Any]:
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        **stats(),
        "buffered": {name: ws.buffered_amount for name, ws in rooms.items()},
        "sent": sent,
        "memory": pages * resource.getpagesize(),
        "cpu": usage.ru_utime + usage.ru_stime,
        "pid": os.getpid(),
    }


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The wrapped application: what a test wants to know, or to have done."""
    _, what, *rest = environ["PATH_INFO"].split("/")
    answer: Any = what
    if what == "figures":
        answer = figures()
    elif what == "open":
        gates[rest[0]].set()
    elif what == "send":
        send_from(*rest)
    elif what == "fill":
        threading.Thread(target=fill, args=rest).start()
    elif what == "hold":
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            threading.Timer(float(rest[0]), lambda: [os.close(held.pop()) for _ in list(held)]).start()
    elif what == "tick":
        threading.Thread(target=tick, daemon=True).start()
    elif what == "ticks":
        answer = len(ticks)
    elif what == "metric":
        answer = uwsgi.metric_get(rest[0])
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def on_signal(number: int) -> None:
    say("anywhere", "signal" if number == SIGNAL else "timer")


def at_exit() -> None:
    if "anywhere" in rooms:
        say("anywhere", "uwsgi.atexit")


def at_python_exit() -> None:
    if "anywhere" in rooms:
        say("anywhere", "atexit")


uwsgi.register_signal(SIGNAL, "worker", on_signal)
if "LIMITS_TIMER" in os.environ:
    uwsgi.register_signal(TIMER, "worker", on_signal)
    uwsgi.add_timer(TIMER, 1)
uwsgi.atexit = at_exit
atexit.register(at_python_exit)

application = WebSocketMiddleware(
    plain,
    os.environ["UWASP_HANDLER"],
    [("/echo", Echo), ("/talk", Talkative), ("/working", Working), ("/gate", Gate), ("/guarded", Guarded)],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
