"""The application that the Autobahn testsuite talks to: every message goes back as it came.

UWASP_HANDLER names the handler. The largest message of the suite has 16 MiB.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from uwasp import Server, WebSocketMiddleware

# `cases.py` looks for these lines: a server that complains has not passed, whatever the client saw.
logging.basicConfig(level="WARNING", format="%(name)s %(levelname)s %(message)s")


class Echo(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


def nothing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("404 Not Found", [("Content-Length", "0")])
    return []


application = WebSocketMiddleware(
    nothing, os.environ["UWASP_HANDLER"], [("/echo", Echo)], max_message_size=2**24, compression="deflate"
)
