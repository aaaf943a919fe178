"""What the benchmarks run on uWSGI: an echo, also as a function, a broadcast, members of groups, and a page.

The environment variable UWASP_HANDLER names the handler. UWASP_PACKAGES, if set, is the folder that uWASP has to come
from, so that a comparison of two revisions cannot compare one with itself by accident.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable
from typing import Any

import uwasp
from uwasp import Server, WebSocketMiddleware
from uwasp.websocket import WebSocket

NAME = 8  # as in members.py
TEXT = "-" * NAME + "x" * (100 - NAME)  # likewise
FRAME = b"\x81\x64" + TEXT.encode()
folder = os.environ.get("UWASP_PACKAGES")
if folder is not None and not uwasp.__file__.startswith(folder + os.sep):
    raise ImportError(f"uwasp comes from {uwasp.__file__}, not from {folder}")


if uwasp.__dict__.get("speedups") is not None and os.environ["UWASP_SPEEDUPS"] == "1" and not uwasp.speedups.in_use:
    raise ImportError("uwasp-speedups is not in use")


class Echo(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


class EchoOnALoop(Server):
    async def on_message(self, message: str | bytes) -> None:
        await self.ws.send(message)  # type: ignore[func-returns-value]  # of the handler's own class


def converse(ws: WebSocket) -> None:
    for message in ws:
        ws.send(message)


async def converse_in_a_task(ws: Any) -> None:
    async for message in ws:
        ws.send(message)


class Broadcast(Server):
    """To one after the other."""

    everyone: dict[WebSocket, None] = {}  # noqa: RUF012 - shared by all connections

    def on_open(self) -> None:
        self.everyone[self.ws] = None

    def on_message(self, message: str | bytes) -> None:
        for ws in list(self.everyone):
            ws.send(message)

    def on_close(self) -> None:
        del self.everyone[self.ws]


class Room(Server):
    """The broadcast as groups have it."""

    def on_open(self) -> None:
        everyone.add(self.ws)

    def on_message(self, message: str | bytes) -> None:
        everyone.send(message)


class Writing(Server):
    """Sends messages to everyone as often as it is told, or has a loop in C write the same: see writing.py."""

    def on_open(self) -> None:
        everyone.add(self.ws)
        self.ws.send(str(os.getpid()))  # so that nothing is sent before all are members

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        how, times = message.split()
        if how == "send":
            for _ in range(int(times)):
                everyone.send(TEXT)
        else:
            sockets = [ws.fileno() for ws in everyone.local]
            array = (ctypes.c_int * len(sockets))(*sockets)
            for _ in range(int(times)):
                writes.write_to_all(array, len(sockets), FRAME, len(FRAME))


class Member(Server):
    """Is spoken to as members.py says."""

    aim = ""

    def on_open(self) -> None:
        self.ws.send(str(os.getpid()))

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        if message.startswith("join "):
            for name in message[5:].split(","):
                uwasp.Group("room", name).add(self.ws)
            self.ws.send("ok")
        elif message.startswith("aim "):
            self.aim = message[4:]
            self.ws.send("ok")
        else:
            uwasp.Group("room", message[:NAME] if self.aim == "*" else self.aim).send(message)


try:
    everyone = uwasp.Group("everyone")
except AttributeError:  # a revision that has no groups
    broadcast: type[Server] = Broadcast
else:
    broadcast = Room


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


options: dict[str, Any] = {}
if "UWASP_COMPRESSION" in os.environ:  # arguments of uwasp.Deflate, as Python
    from uwasp import Deflate

    options["compression"] = Deflate(**eval(os.environ["UWASP_COMPRESSION"]))
if "UWASP_MAX_MESSAGE_SIZE" in os.environ:
    options["max_message_size"] = int(os.environ["UWASP_MAX_MESSAGE_SIZE"])
if "UWASP_BUS" in os.environ:
    # Members say nothing, and a ping would be counted as a part of a message.
    options.update(bus=os.environ["UWASP_BUS"], ping_interval=None)

if "UWASP_WRITES" in os.environ:
    writes = ctypes.CDLL(os.environ["UWASP_WRITES"])
    options.update(ping_interval=None)

handler: Any = os.environ["UWASP_HANDLER"]
echo = EchoOnALoop if handler == "asyncio" else Echo
servers: list[Any] = [("/echo", echo), ("/broadcast", broadcast), ("/members", Member), ("/writing", Writing)]
if "UWASP_CONVERSATIONS" in os.environ:  # so many; revisions that have none are not asked for them
    from uwasp.handler import find_handler

    handler = type("Many", (find_handler(handler),), {"max_conversations": int(os.environ["UWASP_CONVERSATIONS"])})
    servers.append(("/conversation", converse_in_a_task if os.environ["UWASP_HANDLER"] == "asyncio" else converse))
application = WebSocketMiddleware(page, handler, servers, **options)
