"""The application of the tests of what goes to many: UWASP_HANDLER and UWASP_OPTIONS are as in `application.py`."""

from __future__ import annotations

import json
import os
import resource
from typing import Any
from urllib.parse import parse_qs

from uwasp import Server, WebSocketMiddleware
from uwasp.events import Told
from uwasp.fanout import Backlog, FanOut
from uwasp.native import new_lock
from uwasp.protocol import encode_shared

most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Between(Server):
    """Answers three times: the second goes as a frame that others could get too."""

    def on_message(self, message):
        self.ws.send(message)
        self.ws.connection.send_shared(encode_shared(message))
        self.ws.send(message)


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


class Member(Server):
    """A member of the one group."""

    members: dict[Any, None] = {}  # noqa: RUF012 - shared by all
    lock = new_lock()
    fan_out = FanOut(Backlog())

    def on_open(self):
        with self.lock:
            self.members[self.ws.connection] = None

    def on_message(self, message):
        self.deliver(message)

    def on_notify(self, group, data):
        self.ws.send(f"{group} {data}")

    def on_close(self):
        with self.lock:
            del self.members[self.ws.connection]

    @classmethod
    def deliver(cls, message, times=1):
        kind, _, rest = message.partition(" ")
        payload = Told("on_notify", "the group", rest) if kind == "notify" else encode_shared(message)
        with cls.lock:
            members = tuple(cls.members)
            for _ in range(times):
                cls.fan_out.put(payload, members, len(message))
        cls.fan_out.run()


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Says how many members there are; `/deliver?message=...&times=...` delivers to all."""
    if environ["PATH_INFO"] == "/deliver":
        asked = parse_qs(environ["QUERY_STRING"])
        Member.deliver(asked["message"][0], int(asked["times"][0]))
    body = b"%d" % len(Member.members)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


application = WebSocketMiddleware(
    plain,
    os.environ["UWASP_HANDLER"],
    [("/between", Between), ("/echo", Echo), ("/member", Member)],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
