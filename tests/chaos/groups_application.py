"""The application of the chaos bench for groups: each connection joins a group, and sends to it what its client says.

UWASP_HANDLER names the handler, UWASP_BUS the bus; UWASP_CHAOS_FAULTS names faults to plant, separated by commas: the
bench has to find them.
"""

from __future__ import annotations

import itertools
import logging
import os
from typing import Any

from uwasp import Server, WebSocketMiddleware
from waiting import event, waited

if os.environ["UWASP_HANDLER"] == "asyncio":
    from uwasp_asyncio import Group
else:
    from uwasp import Group

logging.basicConfig(level="WARNING", format="%(name)s %(levelname)s %(message)s")

faults = frozenset(os.environ.get("UWASP_CHAOS_FAULTS", "").split(","))
numbers = itertools.count(1)


class Member(Server):
    """Says `hello` once it is a member, `ack N` once what its client numbers N was accepted, `missed` when told so."""

    @event
    async def on_open(self) -> None:
        self.id = f"{os.getpid()}-{next(numbers)}"
        self.group = Group("chaos", self.ws.environ["QUERY_STRING"])
        await waited(self.group.add(self.ws))
        self.ws.send(f"hello {self.id}")

    def on_message(self, message: str | bytes) -> None:
        assert isinstance(message, str)
        number, _, _padding = message.partition(" ")
        if not ("drop" in faults and number == "7"):
            self.group.send(f"{self.id} {message}")
        if "twice" in faults and number == "5":
            self.group.send(f"{self.id} {message}")
        self.ws.send(f"ack {number}")

    def on_missed(self, group: Group) -> None:
        if "silent" not in faults:
            self.ws.send("missed")


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\n"]


application = WebSocketMiddleware(
    plain, os.environ["UWASP_HANDLER"], [("/member", Member)], bus=os.environ.get("UWASP_BUS"), slow_member=2**17
)
