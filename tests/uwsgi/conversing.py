"""Servers that are functions, on a real uWSGI.

UWASP_HANDLER names the handler; UWASP_OPTIONS is JSON, further keywords of the middleware; UWASP_CONVERSATIONS is how
many of them may run at a time, if not as many as usual.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
import time

from uwasp import JSON, ConnectionClosed, Group, Refusal, Server, WebSocketMiddleware, conversation
from uwasp.handler import find_handler
from waiting import Event, event, messages, sleep, waited

logging.basicConfig(level="DEBUG", format="%(name)s %(levelname)s %(message)s")
logger = logging.getLogger("application")


@event
async def echo(ws):
    async for message in messages(ws):
        ws.send(message)
    logger.info("echo is over: %s", ws.close_code)


@event
async def greet(ws, greeting):
    ws.send(f"{greeting}, {await waited(ws.receive())}, {await waited(ws.receive())}")


@event
async def patient(ws):
    """Receives as each message says, and tells what comes of it."""
    async for message in messages(ws):
        try:
            ws.send(f"got {await waited(ws.receive(timeout=float(message)))}")
        except (TimeoutError, ValueError) as error:
            ws.send(f"{type(error).__name__} {error}")


@event
async def closing(ws):
    """Ends as its first message says."""
    word = await waited(ws.receive())
    if word == "close":
        ws.close(4000, "enough")
        try:
            await waited(ws.receive())
        except ConnectionClosed as error:
            logger.info("closing got %s %s", error.code, error.reason)
    elif word == "raise":
        raise RuntimeError("raised in a conversation")
    elif word == "exit":
        raise SystemExit(1)
    elif word == "receive":
        await waited(ws.receive())
    elif word == "server":
        return Server(ws)
    elif word == "late":
        try:
            await waited(ws.receive())
        finally:
            logger.info("late got another %s", await received_again(ws))
    return None


async def received_again(ws):
    try:
        return await waited(ws.receive())
    except ConnectionClosed:
        return "ConnectionClosed"


@event
async def slow(ws):
    """Takes no message before it is told by a request."""
    await waited(go_on)
    async for message in messages(ws):
        ws.send(f"{len(message)}")


@event
async def hanging(ws):
    try:
        async for _ in messages(ws):
            pass
    finally:
        logger.info("hanging hangs")
        while True:
            await sleep(1)


@event
async def ticking(ws):
    """Sends, and never receives."""
    while True:
        ws.send("tick")
        await sleep(0.01)


@event
async def leisurely(ws):
    """Takes longer for each message than a slice lasts."""
    async for message in messages(ws):
        await sleep(0.005)
        ws.send(message)


@event
async def busy(ws):
    """Needs 25 microseconds for a message, as a flood finds it."""
    async for message in messages(ws):
        until = time.perf_counter() + 25e-6
        while time.perf_counter() < until:
            pass
        if message == "answer":
            ws.send("answered")


@event
async def member(ws):
    room = Group("room")
    room.add(ws, key="somebody")
    ws.send("there")
    async for message in messages(ws):
        if message == "notify":
            room.notify({"nobody": "hears this"})
        else:
            room.send(message)


@event
async def from_two_threads(ws):
    results = []
    is_waiting = threading.Thread(target=lambda: results.append(ws.receive()))
    is_waiting.start()
    while not results:
        try:
            results.append(await waited(ws.receive(timeout=0)))
        except TimeoutError:
            await sleep(0.001)
        except RuntimeError as error:
            ws.send(f"RuntimeError {error}")
            while is_waiting.is_alive():
                await sleep(0.01)
    ws.send(f"got {results}")


@conversation(protocols=("chat.v1",), max_message_size=10, authorize=lambda environ: authorized(environ))
@event
async def guarded(ws):
    ws.send(f"{ws.user} {ws.protocol} {ws.options.max_message_size}")
    async for _ in messages(ws):
        pass


def authorized(environ):
    if environ["QUERY_STRING"] == "stranger":
        raise Refusal(401)
    return environ["QUERY_STRING"]


@conversation(codec=JSON)
@event
async def adding(ws):
    async for numbers in messages(ws):
        ws.send_json(sum(numbers))
    logger.info("adding is over: %s", ws.close_code)


class Asking(Server):
    @event
    async def on_message(self, message):
        try:
            await waited(self.ws.receive())
        except RuntimeError as error:
            self.ws.send(f"RuntimeError {error}")


go_on = Event()


def plain(environ, start_response):
    if environ["PATH_INFO"] == "/go-on":
        go_on.set()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"plain"]


handler_class = find_handler(os.environ["UWASP_HANDLER"])
if "UWASP_CONVERSATIONS" in os.environ:
    handler_class = type("Few", (handler_class,), {"max_conversations": int(os.environ["UWASP_CONVERSATIONS"])})

application = WebSocketMiddleware(
    plain,
    handler_class,
    [
        ("/echo", echo),
        ("/greet", functools.partial(greet, greeting="hello")),
        ("/patient", patient),
        ("/closing", closing),
        ("/slow", slow),
        ("/hanging", hanging),
        ("/ticking", ticking),
        ("/leisurely", leisurely),
        ("/busy", busy),
        ("/member", member),
        ("/two-threads", from_two_threads),
        ("/guarded", guarded),
        ("/adding", adding),
        ("/asking", Asking),
    ],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
