"""The application of the tests of messages: its servers take those of one type. UWASP_HANDLER names the handler."""

from __future__ import annotations

import json
import logging
import math
import os
from typing import Any

import uwasp
from uwasp import JSON, Group, Server, WebSocketMiddleware

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")


class Text(Server[str]):
    def on_message(self, message):
        self.ws.send(message)


class Binary(Server[bytes]):
    def on_message(self, message):
        self.ws.send(message)


class Compressed(Text):
    compression = uwasp.Deflate(threshold=1)


class Values(Server[Any]):
    """Answers with the same; `"raise"` raises."""

    codec = JSON

    def on_message(self, message):
        if message == "raise":
            raise ValueError("raised in on_message")
        self.ws.send_json(message)


class Told(Server[Any]):
    """Members of a group, which send JSON to it, and hear of it by `on_notify`."""

    codec = JSON

    def on_open(self):
        self.group = Group("told")
        self.group.add(self.ws)

    def on_message(self, message):
        try:
            others = self.ws if "others" in message else None
            self.group.send_json({"ü": message.get("number", math.nan)}, exclude=others)
        except ValueError as error:
            self.ws.send_json(str(error))
        self.group.notify(message)

    def on_notify(self, group, data):
        self.ws.send_json({"notified": data})


def stats(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(uwasp.stats()).encode()]


servers = [("/text", Text), ("/binary", Binary), ("/compressed", Compressed), ("/values", Values), ("/told", Told)]
application = WebSocketMiddleware(stats, os.environ["UWASP_HANDLER"], servers)
