"""Functions whose ends race each other, on a real uWSGI. UWASP_HANDLER names the handler."""

from __future__ import annotations

import gc
import json
import logging
import random
import sys
import threading
from functools import partial

import uwasp
from uwasp import ConnectionClosed, WebSocketMiddleware, conversations
from uwasp.handler import find_handler
from waiting import HANDLER, event, sleep, waited

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")
sys.setswitchinterval(1e-6)  # so that threads meet where they seldom do

if HANDLER == "gevent":
    from gevent import Greenlet
    from gevent.threadpool import ThreadPool

    from uwasp_gevent import greenlets

    pool = ThreadPool(4)
elif HANDLER == "asyncio":
    import asyncio

returned = 0
lock = threading.Lock()


@event
async def racing(ws):
    global returned
    try:
        await talk(ws)
    finally:
        with lock:
            returned += 1


async def talk(ws):
    """Sends back what comes, until a word before it says how to end."""
    while True:
        try:
            message = await waited(ws.receive(timeout=random.choice((None, 0, 1e-6, 1e-4, 1e-3))))
        except TimeoutError:
            await sleep(0)
            continue
        way, _, text = message.rpartition(" ")
        ws.send(text)
        if way == "return":
            return
        if way == "raise":
            raise RuntimeError("on purpose")
        if way == "close":
            ws.close(4000)
        elif way == "terminate":
            ws.terminate()
        elif way == "another closes":
            beside(soon, partial(ws.close, 4001))
        elif way == "another terminates":
            beside(soon, ws.terminate)
        elif way == "another receives":
            beside(drain, ws)
            await sleep(random.random() / 500)
            return


@event
async def soon(action):
    await sleep(random.random() / 500)
    action()


@event
async def drain(ws):
    while True:
        try:
            await waited(ws.receive(random.choice((None, 0.001))))
        except TimeoutError:
            continue
        except (ConnectionClosed, RuntimeError):  # the other one receives still
            return


def beside(function, *args):
    if HANDLER == "gevent" and random.random() < 0.5:
        pool.apply_async(function, args)
    else:
        handler_class.spawn(function, *args)


def left():
    """What is there only as long as connections are."""
    stats = uwasp.stats()
    left = {"open": stats["open"], "running": len(conversations.running())}
    left["not returned"] = stats["opened"] - returned
    left["not closed"] = stats["opened"] - sum(stats["closed"].values())
    left["not served"] = sum(listener._serving for listener in uwasp.statistics._listeners)
    left["threads"] = sum(thread.name.startswith("uwasp-spawned") for thread in threading.enumerate())
    if HANDLER == "gevent":
        alive = (one for one in gc.get_objects() if isinstance(one, Greenlet) and not one.dead)
        left["greenlets"] = [repr(one) for one in alive if getattr(one, "_run", None) is greenlets._run]
    elif HANDLER == "asyncio":
        tasks = (one for one in gc.get_objects() if isinstance(one, asyncio.Task) and not one.done())
        left["tasks"] = [repr(one) for one in tasks if getattr(one.get_coro(), "__name__", "") in ("converse", "_run")]
    return left


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(left()).encode()]


handler_class = type("Many", (find_handler(HANDLER),), {"max_conversations": 1000})
application = WebSocketMiddleware(plain, handler_class, [("/racing", racing)])
