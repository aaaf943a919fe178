"""A chat on one page: rooms, their people, and the WSGI application that serves both. `uwasp dev chat.py` starts it.

A room is what its URL names, "/rooms/blue" for instance: its page is served there, and speaks with a WebSocket at the
same path, in JSON, an object in each message:

    from the page   {"type": "join", "name": "Ada"}                   first, and once
                    {"type": "say", "text": "Hello"}
    to the page     {"type": "welcome", "name": "Ada", "room": "blue", "place": "worker 1, process 4711"}
                    {"type": "people", "people": {"Ada": "worker 1, process 4711", "Bob": "..."}}   all of them
                    {"type": "presence", "joined": {"Bob": "..."}, "left": ["Eve"]}                 since then
                    {"type": "said", "name": "Ada", "text": "Hello"}

The people of a room may be in any worker, and with a bus for it on any machine: a room is a `Group`. A name is a
person: who is in two tabs is there once, and who lost the network and returns has never been two.

UWASP_HANDLER names the handler, UWASP_BUS the bus, CHAT_INSTANCE this uWSGI, where there are several.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import uwsgi
from uwasp import JSON, Group, Member, Refusal, Server, WebSocketMiddleware

MAX_NAME = 24  # characters, of a person's name and of a room's; the page has the same limits
MAX_TEXT = 2000
POLICY_VIOLATION = 1008  # RFC 6455 §7.4.1

logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")


class Chat(Server[Any]):
    """One person's connection."""

    codec = JSON
    name: str | None = None  # until they have joined

    @classmethod
    def authorize(cls, environ: dict[str, Any]) -> None:
        _, params = environ["wsgiorg.routing_args"]
        if len(params["room"]) > MAX_NAME:
            raise Refusal(404, "there is no such room")

    def on_open(self) -> None:
        self.room = Group("room", self.ws.params["room"])

    def on_message(self, message: Any) -> None:
        match message:
            case {"type": "join", "name": str(name)} if self.name is None and len(name) <= MAX_NAME:
                self.join(_tidy(name) or f"Guest {random.randrange(1000, 10_000)}")
            case {"type": "say", "text": str(text)} if self.name is not None and len(text) <= MAX_TEXT:
                if text.strip():
                    self.room.send_json({"type": "said", "name": self.name, "text": text.strip()})
            case _:
                self.ws.close(POLICY_VIOLATION, "not a message of this chat")  # our page sends no such thing

    def join(self, name: str) -> None:
        self.name = name
        self.tell("welcome", name=name, room=self.ws.params["room"], place=_place())
        self.room.add(self.ws, info=_place(), key=name)
        self.tell("people", people=_places(self.room.members()))

    def on_presence(self, group: Group, joined: Iterable[Member], left: Iterable[Member]) -> None:
        self.tell("presence", joined=_places(joined), left=[member.key for member in left])

    def on_missed(self, group: Group) -> None:
        self.tell("people", people=_places(group.members()))

    def tell(self, event: str, **what: Any) -> None:
        self.ws.send_json({"type": event, **what})


def _place() -> str:
    """Where this runs."""
    instance = os.environ.get("CHAT_INSTANCE")
    return f"{instance + ', ' if instance else ''}worker {uwsgi.worker_id()}, process {os.getpid()}"


def _places(members: Iterable[Member]) -> dict[str, str]:
    return {member.key: member.info for member in members}


def _tidy(name: str) -> str:
    """One line without control characters, so that a name looks the same to everybody."""
    return " ".join("".join(character if character.isprintable() else " " for character in name).split())


HERE = Path(__file__).parent
PAGE = "text/html", (HERE / "index.html").read_bytes()
SCRIPT = "text/javascript", (HERE / "uwasp.js").read_bytes()


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The plain WSGI application around which the WebSockets go."""
    path = environ["PATH_INFO"]
    if path not in ("/", "/uwasp.js") and not path.startswith("/rooms/"):
        start_response("404 Not Found", [("Content-Type", "text/plain"), ("Content-Length", "10")])
        return [b"not found\n"]
    kind, body = SCRIPT if path == "/uwasp.js" else PAGE
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("200 OK", [*headers, ("Cache-Control", "no-cache")])
    return [body]


application = WebSocketMiddleware(
    page,
    handler_class=os.environ.get("UWASP_HANDLER", "gevent"),
    servers=[("/rooms/<room>", Chat)],
    bus=os.environ.get("UWASP_BUS"),
    max_message_size=2**14,
)
