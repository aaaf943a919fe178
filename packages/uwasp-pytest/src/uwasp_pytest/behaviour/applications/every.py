"""The application of the tests of background work: its functions note when they begin and when they end.

UWASP_WORK names those that there are. UWASP_HANDLER and UWASP_OPTIONS are as in `application.py`; the handler
"coroutines" is one that runs them.
"""

from __future__ import annotations

import os

if os.environ.get("UWASP_PATCH"):
    from gevent import monkey

    monkey.patch_all()

import asyncio
import functools
import inspect
import json
import time

import uwsgi
from uwasp import Server, ThreadHandler, WebSocketMiddleware
from waiting import nap

WORK = os.environ["UWASP_WORK"].split()


def note(*what):
    os.write(2, f"work {os.getpid()} {' '.join(map(str, what))}\n".encode())


class Coroutines(ThreadHandler):
    """Runs each coroutine in a loop of its own."""

    runs = "coroutines"

    @classmethod
    def spawn(cls, function, *args):
        if inspect.iscoroutinefunction(function):
            super().spawn(lambda: asyncio.run(function(*args)))
        else:
            super().spawn(function, *args)


class Echo(Server):
    async def on_open(self):
        note("open")

    async def on_message(self, message):
        self.ws.send(message)


class PlainEcho(Server):
    def on_message(self, message):
        self.ws.send(message)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        note("slow request")
        nap(5)
    elif environ["PATH_INFO"] == "/fork" and not os.fork():
        time.sleep(60)
        os._exit(0)
    start_response("200 OK", [])
    return [b""]


def own_atexit():
    note("atexit")


if "uwsgidecorators-before" in WORK:
    import uwsgidecorators

uwsgi.atexit = own_atexit
is_async = os.environ["UWASP_HANDLER"] == "coroutines"  # of ours
application = WebSocketMiddleware(
    application,
    Coroutines if is_async else os.environ["UWASP_HANDLER"],
    [("/echo", Echo if is_async else PlainEcho)],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)


def tick():
    note("tick", time.monotonic())


if "tick" in WORK:
    assert application.every(0.05)(tick) is tick

if "slow" in WORK:

    @application.every(0.1)
    def slow():
        note("slow begins", time.monotonic())
        nap(0.35)
        note("slow ends", time.monotonic())


if "lasting" in WORK:

    @application.every(0.1)
    def lasting():
        note("lasting begins")
        nap(1.0)
        note("lasting ends")


if "hanging" in WORK:

    @application.every(0.1)
    def hanging():
        note("hanging begins")
        nap(1000)


if "raising" in WORK:

    @application.every(0.05)
    def raising():
        note("raising")
        raise RuntimeError("raised in raising")

    @application.every(0.05)
    def leaving():
        note("leaving")
        raise SystemExit


if "once" in WORK:

    @application.every(0.1, once=True)
    def once():
        note("once")


if "several" in WORK:
    for number in range(3):
        exec(f"def several_{number}():\n    note('several {number}')")
        application.every(0.1, once=True)(globals()[f"several_{number}"])


if "coroutine" in WORK:

    @application.every(0.05)
    async def coroutine():
        note("coroutine begins")
        await asyncio.sleep(0.01)
        note("coroutine ends")

    @application.every(0.05)
    async def failing_coroutine():
        raise RuntimeError("raised in failing_coroutine")

    @application.every(0.05)
    async def cancelled_coroutine():
        note("cancelled coroutine")
        raise asyncio.CancelledError

    @application.every(0.1, once=True)
    async def once_coroutine():
        note("once coroutine")

    @application.every(0.05)
    @functools.wraps(coroutine)
    def decorated():
        return coroutine()


if "hanging-coroutine" in WORK:

    @application.every(0.1)
    async def hanging_coroutine():
        note("hanging coroutine begins")
        try:
            await asyncio.sleep(1000)
        finally:
            note("hanging coroutine ends")


if "uwsgidecorators-after" in WORK:
    import uwsgidecorators

if "uwsgidecorators-before" in WORK or "uwsgidecorators-after" in WORK:

    @uwsgidecorators.postfork
    def forked():
        note("postfork")

    @uwsgidecorators.timer(1)
    def timed(number):
        note("timer")


if "own-hook" in WORK:
    uwsgi.post_fork_hook = lambda: note("own hook")
    assert uwsgi.post_fork_hook.__name__ == "<lambda>"

if "slow-to-load" in WORK:
    time.sleep(0.5)
    note("loaded")
