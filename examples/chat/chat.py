"""A chat on one page: one room, its people, and the WSGI application that serves both. `run.py` starts it.

The page is served at "/" and speaks with "/chat" in JSON, an object in each message:

    from the page   {"type": "join", "name": "Ada"}       first, and once
                    {"type": "say", "text": "Hello"}
    to the page     {"type": "welcome", "name": "Ada", "people": ["Bob", "Ada"]}
                    {"type": "joined", "name": "Ada"}
                    {"type": "said", "name": "Ada", "text": "Hello"}
                    {"type": "left", "name": "Ada"}

The room is in the memory of this process: a second process would be a second room.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from uwasp import ConnectionClosed, Server, WebSocket, WebSocketMiddleware

MAX_NAME = 24  # characters; the page has the same two limits
MAX_TEXT = 2000
MOST_BEHIND = 2**18  # bytes that may wait for a client before it has to leave; less than `write_limit`
POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1
TRY_AGAIN_LATER = 1013  # https://www.iana.org/assignments/websocket

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")


class Room:
    """Everybody who is here. Its methods may be called from any thread or greenlet.

    The lock is held while a message goes out to all, so everybody sees the same things in the same order. Nobody waits
    for a slow client meanwhile: it is closed before so much waits for it that sending to it would wait.
    """

    def __init__(self) -> None:
        self._people: dict[str, WebSocket] = {}
        self._lock = threading.Lock()

    def join(self, wanted: str, ws: WebSocket) -> str:
        """Let somebody in, and return their name: the wanted one, with a number if it is taken."""
        with self._lock:
            name = self._free_name(wanted or "Guest")
            self._tell_everybody({"type": "joined", "name": name})
            self._people[name] = ws
            _tell(ws, json.dumps({"type": "welcome", "name": name, "people": list(self._people)}))
            return name

    def say(self, name: str, text: str) -> None:
        with self._lock:
            self._tell_everybody({"type": "said", "name": name, "text": text})

    def leave(self, name: str) -> None:
        with self._lock:
            del self._people[name]
            self._tell_everybody({"type": "left", "name": name})

    def _free_name(self, wanted: str) -> str:
        # Refusing a taken name would lock out who lost the network and returns before the server has noticed.
        taken = {name.casefold() for name in self._people}
        names = itertools.chain([wanted], (f"{wanted} {number}" for number in itertools.count(2)))
        return next(name for name in names if name.casefold() not in taken)

    def _tell_everybody(self, event: dict[str, str]) -> None:
        message = json.dumps(event)
        for ws in self._people.values():
            _tell(ws, message)


def _tell(ws: WebSocket, message: str) -> None:
    with suppress(ConnectionClosed):  # gone, and about to leave the room: its `on_close` comes next
        if ws.buffered_amount > MOST_BEHIND:
            ws.close(TRY_AGAIN_LATER, "too far behind")
        else:
            ws.send(message)


room = Room()


class Chat(Server):
    """One person's connection."""

    name: str | None = None  # until they have joined

    def on_message(self, message: str | bytes) -> None:
        match _parsed(message):
            case {"type": "join", "name": str(name)} if self.name is None and len(name) <= MAX_NAME:
                self.name = room.join(_tidy(name), self.ws)
            case {"type": "say", "text": str(text)} if self.name is not None and len(text) <= MAX_TEXT:
                if text.strip():
                    room.say(self.name, text.strip())
            case _:
                self.ws.close(POLICY_VIOLATION, "not a message of this chat")  # our page sends no such thing

    def on_close(self) -> None:
        if self.name is not None:
            room.leave(self.name)


def _parsed(message: str | bytes) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):  # not JSON, or a tower of brackets
        return None


def _tidy(name: str) -> str:
    """One line without control characters, so that a name looks the same to everybody."""
    return " ".join("".join(character if character.isprintable() else " " for character in name).split())


PAGE = (Path(__file__).parent / "index.html").read_bytes()


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The plain WSGI application around which the WebSockets go."""
    if environ["PATH_INFO"] != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "10")])
        return [b"not found\n"]
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(PAGE)))]
    start_response("200 OK", [*headers, ("Cache-Control", "no-cache")])
    return [PAGE]


application = WebSocketMiddleware(
    page,
    handler_class=os.environ.get("UWASP_HANDLER", "gevent"),
    servers=[("/chat", Chat)],
    max_message_size=2**14,
)
