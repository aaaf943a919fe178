"""What the tests of uwasp.js connect to: a page, the file, and a server that ends connections as it is told.

UWASP_HANDLER names the handler.
"""

from __future__ import annotations

import os
from pathlib import Path

from uwasp import Refusal, Server, WebSocketMiddleware

SCRIPT = Path(__file__).parents[2] / "packages" / "uwasp-js" / "uwasp.js"


class Told(Server):
    """Sends back what it is sent, after a word about where it runs; but for `close CODE REASON` and `cut`."""

    protocols = ("told.v1",)

    @classmethod
    def authorize(cls, environ):
        if environ["QUERY_STRING"] == "refuse":
            raise Refusal(401)

    def on_open(self):
        self.ws.send(f"process {os.getpid()} {self.ws.environ['QUERY_STRING']}")

    def on_message(self, message):
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            self.ws.close(int(code), reason)
        elif message == "cut":
            self.ws.terminate()
        else:
            self.ws.send(message)

    def on_close(self):
        print(f"ended with {self.ws.close_code} {self.ws.close_reason}", flush=True)


def app(environ, start_response):
    kind, body = "text/html", b"<!doctype html><link rel=icon href=data:,>"
    if environ["PATH_INFO"] == "/uwasp.js":
        kind, body = "text/javascript", SCRIPT.read_bytes()
    start_response("200 OK", [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]


application = WebSocketMiddleware(app, os.environ["UWASP_HANDLER"], [("/told", Told)])
