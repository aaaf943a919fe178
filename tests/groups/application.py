"""The application that the tests in this folder run on several workers of a real uWSGI, and beside it.

UWASP_HANDLER names the handler, UWASP_BUS the bus (default: the middleware's own); UWASP_OPTIONS is JSON, further
keywords of the middleware; UWASP_PATCH=1 has gevent patch the standard library first.
"""

from __future__ import annotations

import os

if os.environ.get("UWASP_PATCH"):
    from gevent import monkey

    monkey.patch_all()

import ctypes
import json
import logging
import signal
from typing import Any
from urllib.parse import parse_qs

import uwasp
from uwasp import Group, Server, WebSocketMiddleware
from waiting import HANDLER, event, waited

AwaitedGroup: Any = Group
if HANDLER == "asyncio":
    from uwasp_asyncio import Group as AwaitedGroup

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")
logger = logging.getLogger("application")


def group_of(name: str) -> Group:
    return Group(*name.split(":"))


def said(members: Any) -> list[Any]:
    return sorted([member.key, member.info, member.connections] for member in members)


class Talker(Server):
    """A member of the group `?group=`, which does what its messages say, and says what it is told."""

    @event
    async def on_open(self) -> None:
        query = parse_qs(self.ws.environ["QUERY_STRING"])
        self.group = AwaitedGroup(*query["group"][0].split(":"))
        info = json.loads(query.get("info", ["null"])[0])
        await waited(self.group.add(self.ws, info=info, key=query.get("key", [None])[0]))
        self.say(joined=os.getpid(), id=self.ws.member_id)

    def say(self, **what: Any) -> None:
        self.ws.send(json.dumps(what))

    @event
    async def on_message(self, message: str | bytes) -> None:
        word, *arguments = json.loads(message)
        await waited(getattr(self, f"do_{word}")(*arguments))

    def do_send(self, text: str, exclude: Any = None) -> None:
        self.group.send(text, exclude=self.ws if exclude == "me" else exclude)

    def do_send_many(self, count: int, size: int) -> None:
        for number in range(count):
            self.group.send(f"{number:08d}".ljust(size))

    def do_notify(self, data: Any) -> None:
        self.group.notify(data)

    def do_close(self, code: int, reason: str, key: str | None = None) -> None:
        self.group.close(code, reason, key=key)

    def do_add(self, info: Any, key: str | None = None) -> Any:
        return self.group.add(self.ws, info=info, key=key)

    def do_remove(self) -> None:
        self.group.remove(self.ws)
        self.say(removed=True)

    async def do_members(self) -> None:
        members, count = await waited(self.group.members()), await waited(self.group.count())
        self.say(members=said(members), count=count, local=len(self.group.local))

    def do_stats(self) -> None:
        self.say(stats=uwasp.stats()["groups"], slow=uwasp.stats()["slow_members"])

    def do_fork_and_die(self) -> None:
        """A child keeps all that this worker has open, past the hooks of Python's own fork; the worker is killed."""
        libc = ctypes.CDLL(None)
        if libc.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        libc.sleep(10)
        os._exit(0)

    def on_notify(self, group: Group, data: Any) -> None:
        self.say(notified=data, group=group.parts)
        if isinstance(data, dict):
            data["seen"] = True  # nobody else's

    def on_missed(self, group: Group) -> None:
        self.say(missed=group.parts)

    @event
    async def on_close(self) -> None:
        there = await waited(self.group.count()) if self.group.local else 0
        logger.info("closed %s %s, with %d in %s", self.ws.close_code, self.ws.close_reason, there, self.group.name)


class Watcher(Talker):
    """One that wants to know who is there."""

    def on_presence(self, group: Group, joined: tuple[Any, ...], left: tuple[Any, ...]) -> None:
        self.say(joined=said(joined), left=said(left))


def view(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    answer: Any = os.getpid()
    if "group" in query:
        group = group_of(query["group"])
        path = environ["PATH_INFO"]
        if path == "/send":
            group.send(query["text"], exclude=query.get("exclude"))
        elif path == "/notify":
            group.notify(json.loads(query["data"]))
        elif path == "/close":
            group.close(int(query["code"]), query["reason"], key=query.get("key"))
        elif path == "/members":
            answer = said(group.members())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


application = WebSocketMiddleware(
    view,
    os.environ["UWASP_HANDLER"],
    [("/talk", Talker), ("/watch", Watcher)],
    bus=os.environ.get("UWASP_BUS"),
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
