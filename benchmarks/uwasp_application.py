"""What the benchmarks run on uWSGI: an echo and a broadcast, as in the README, and a plain page.

The environment variable UWASP_HANDLER names the handler. UWASP_PACKAGES, if set, is the folder that uWASP has to come
from, so that a comparison of two revisions cannot compare one with itself by accident.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import uwasp
from uwasp import Server, WebSocketMiddleware
from uwasp.websocket import WebSocket

folder = os.environ.get("UWASP_PACKAGES")
if folder is not None and not uwasp.__file__.startswith(folder + os.sep):
    raise ImportError(f"uwasp comes from {uwasp.__file__}, not from {folder}")


if uwasp.__dict__.get("speedups") is not None and os.environ["UWASP_SPEEDUPS"] == "1" and not uwasp.speedups.in_use:
    raise ImportError("uwasp-speedups is not in use")


class Echo(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


class Broadcast(Server):
    everyone: dict[WebSocket, None] = {}  # noqa: RUF012 - shared by all connections

    def on_open(self) -> None:
        self.everyone[self.ws] = None

    def on_message(self, message: str | bytes) -> None:
        for ws in list(self.everyone):
            ws.send(message)

    def on_close(self) -> None:
        del self.everyone[self.ws]


def page(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


options: dict[str, Any] = {}
if "UWASP_COMPRESSION" in os.environ:  # arguments of uwasp.Deflate, as Python
    from uwasp import Deflate

    options["compression"] = Deflate(**eval(os.environ["UWASP_COMPRESSION"]))
if "UWASP_MAX_MESSAGE_SIZE" in os.environ:
    options["max_message_size"] = int(os.environ["UWASP_MAX_MESSAGE_SIZE"])

application = WebSocketMiddleware(
    page, os.environ["UWASP_HANDLER"], [("/echo", Echo), ("/broadcast", Broadcast)], **options
)
