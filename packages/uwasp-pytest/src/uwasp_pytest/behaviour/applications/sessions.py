"""The application of the tests of sessions that end: who comes in says until when, and what is said after that.

A path names what `authorize` does; its query is for how many seconds it allows that. UWASP_HANDLER and UWASP_OPTIONS
are as in `application.py`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from datetime import datetime, timedelta, timezone

from uwasp import Allowed, Refusal, Server, WebSocketMiddleware, conversation, stats
from waiting import WAITS, event, messages, nap

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")

if WAITS == "gevent":
    import gevent


def note(*what):
    os.write(2, f"session {' '.join(map(str, what))}\n".encode())


def seconds(environ):
    return float(environ["QUERY_STRING"].split("&")[0])


class Closed(Server):
    """Notes its end, and tells who its user is."""

    times: dict[str, int]  # how often each was asked

    @classmethod
    def authorize(cls, environ):
        return Allowed("Ada", time.time() + seconds(environ))

    def __init__(self, ws):
        super().__init__(ws)
        self.user = ws.user

    def on_message(self, message):
        if message == "user":
            self.ws.send(f"{self.user} {self.ws.user}")
        else:
            self.ws.send(message)

    def on_close(self):
        note("closed", self.ws.environ["QUERY_STRING"], self.ws.close_code, self.ws.close_reason)


class ClosedByDatetime(Closed):
    @classmethod
    def authorize(cls, environ):
        zone = timezone(timedelta(hours=5))
        return Allowed("Ada", datetime.now(zone) + timedelta(seconds=seconds(environ)))


class Naive(Closed):
    @classmethod
    def authorize(cls, environ):
        return Allowed("Ada", datetime.now())


class Again(Closed):
    """Asked again, it does what its name says."""

    def __init_subclass__(cls):
        cls.times = {}

    @classmethod
    def authorize(cls, environ):
        query = environ["QUERY_STRING"]
        cls.times[query] = cls.times.get(query, 0) + 1
        note("asked", query, cls.times[query], threading.current_thread().name, where())
        if cls.times[query] == 1:
            return Allowed("Ada", time.time() + seconds(environ), again=True)
        return cls.asked_again(environ, cls.times[query])

    @classmethod
    def asked_again(cls, environ, times):
        raise NotImplementedError


def where():
    is_hub = WAITS == "gevent" and gevent.getcurrent() is gevent.get_hub()
    return "in the hub" if is_hub else "not in the hub"


class Prolongs(Again):
    @classmethod
    def asked_again(cls, environ, times):
        return Allowed(f"Ada {times}", time.time() + seconds(environ), again=times < 4)


class LetsOn(Again):
    @classmethod
    def asked_again(cls, environ, times):
        return f"Ada {times}"


class Refuses(Again):
    @classmethod
    def asked_again(cls, environ, times):
        raise Refusal(403, "no longer")


class ReturnsFalse(Again):
    @classmethod
    def asked_again(cls, environ, times):
        return False


class IsOver(Again):
    @classmethod
    def asked_again(cls, environ, times):
        return Allowed("Ada", time.time() - 1)


class Raises(Again):
    @classmethod
    def asked_again(cls, environ, times):
        raise SystemExit("raised in authorize")


class Slow(Again):
    @classmethod
    def asked_again(cls, environ, times):
        nap(1.0)
        return "Ada, after a while"


class Hangs(Again):
    @classmethod
    def asked_again(cls, environ, times):
        nap(1000)


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


@conversation(authorize=lambda environ: Allowed("Ada", time.time() + seconds(environ)))
@event
async def talk(ws):
    async for message in messages(ws):
        ws.send(f"{ws.user}: {message}")
    note("talked until", ws.close_code)


SERVERS = [Closed, ClosedByDatetime, Naive, Prolongs, LetsOn, Refuses, ReturnsFalse, IsOver, Raises, Slow, Hangs, Echo]


def application(environ, start_response):
    start_response("200 OK", [])
    return [json.dumps(stats()["closed"]).encode()]


application = WebSocketMiddleware(
    application,
    os.environ["UWASP_HANDLER"],
    [(f"/{server.__name__}", server) for server in (*SERVERS, talk)],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
