"""The application of the chaos bench: a server that does what its messages say, and writes down what happens to it.

A message is "NUMBER WORD ARGUMENT PADDING". Each worker appends a line for each event to a file of its own, in one
write, so that the line is there even if the worker is killed next.

UWASP_HANDLER names the handler, UWASP_CHAOS_FOLDER is where the files go, UWASP_CHAOS_FAULTS names faults to plant,
separated by commas: the bench has to find them.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import uwasp
from uwasp import Server, WebSocket, WebSocketMiddleware
from waiting import event, sleep, waited

logging.basicConfig(level="WARNING", format="%(name)s %(levelname)s %(message)s")

OPTIONS = {
    "ping_interval": 1.0,
    "ping_timeout": 10.0,
    "close_timeout": 1.0,
    "shutdown_timeout": 3.0,
    "write_limit": 2**16,
    "send_timeout": 1.0,
}

if os.environ["UWASP_HANDLER"] == "gevent":
    from uwasp_gevent import GeventHandler
elif os.environ["UWASP_HANDLER"] == "threads":
    import uwasp_threads.threads

    uwasp_threads.threads.IDLE_TIMEOUT = 1.0  # so that it can be seen soon whether threads end

faults = frozenset(os.environ.get("UWASP_CHAOS_FAULTS", "").split(","))
numbers = itertools.count(1)
servers: weakref.WeakSet[Chaos] = weakref.WeakSet()
kept: list[Any] = []


class AtRandom(Exception):
    """What a server raises because a client asked for it."""


def write_down(line: str) -> None:
    """Append a line to the file of this worker, whichever process that is by now."""
    path = os.path.join(os.environ["UWASP_CHAOS_FOLDER"], f"{os.getpid()}.events")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{line}\n".encode())
    finally:
        os.close(fd)


class Chaos(Server):
    def __init__(self, ws: WebSocket) -> None:
        super().__init__(ws)
        self.id = f"{os.getpid()}-{next(numbers)}"
        self.expected = 0
        self.inside = ""
        self.raises_in_close = False
        servers.add(self)

    @contextlib.contextmanager
    def alone_in(self, name: str) -> Iterator[None]:
        """Events come one at a time."""
        if self.inside:
            write_down(f"overlap {self.id} {self.inside}-{name}")
        self.inside = name
        try:
            yield
        finally:
            self.inside = ""

    @event
    async def on_open(self) -> None:
        with self.alone_in("on_open"):
            write_down(f"open {self.id} -")
            what = self.ws.environ["QUERY_STRING"]
            if what == "raise-in-open":
                raise AtRandom
            if what == "block-in-open":
                await sleep(0.1)
            self.ws.send(f"hello {self.id}")

    @event
    async def on_message(self, message: str | bytes) -> None:
        with self.alone_in("on_message"):
            text = message.decode(errors="replace") if isinstance(message, bytes) else message
            number, word, argument = [*text.split(" ", 3), "", "", ""][:3]
            if number.isdecimal():
                if int(number) != self.expected:
                    write_down(f"disorder {self.id} {number}-not-{self.expected}")
                self.expected = int(number) + 1
            await self.obey(word, argument)
            if word == "swell":
                await waited(self.ws.send("x" * int(argument)))
            elif "drop" in faults and self.expected == 7:
                pass
            else:
                await waited(self.ws.send(message))
                if "twice" in faults and self.expected == 5:
                    self.ws.send(message)

    async def obey(self, word: str, argument: str) -> None:
        if word == "raise":
            raise AtRandom
        if word == "block":
            await sleep(float(argument))
        elif word == "block-hard":
            time.sleep(float(argument))  # the whole hub or loop, where there is one
        elif word == "close":
            self.ws.close(int(argument), "as you said")
        elif word == "terminate":
            self.ws.terminate()
        elif word == "raise-in-close":
            self.raises_in_close = True

    def on_close(self) -> None:
        with self.alone_in("on_close"):
            if "no-close" in faults and self.expected == 4:
                return
            if "leak" in faults:
                kept.append((self, os.dup(0)))
            write_down(f"close {self.id} {self.ws.close_code}")
            if self.raises_in_close:
                raise AtRandom


def idle_consumers() -> int:
    """The greenlets that wait for more to do; of these, the handler keeps some on purpose."""
    if os.environ["UWASP_HANDLER"] != "gevent":
        return 0
    return sum(len(greenlets._waiting) for greenlets in GeventHandler._greenlets.values())


def state(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The wrapped application: what is in this worker."""
    greenlet = sys.modules.get("greenlet")
    gc.collect()
    things = [] if greenlet is None else [one for one in gc.get_objects() if isinstance(one, greenlet.greenlet)]
    consumers = idle_consumers()
    answer = {
        "pid": os.getpid(),
        "open": uwasp.stats()["open"],
        "servers": len(servers),
        "threads": threading.active_count(),
        "greenlets": sum(not one.dead for one in things) - consumers,
        "idle_consumers": consumers,
        "stats": {name: value for name, value in uwasp.stats().items() if not isinstance(value, dict)},
    }
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


application = WebSocketMiddleware(state, os.environ["UWASP_HANDLER"], [("/chaos", Chaos)], **OPTIONS)
