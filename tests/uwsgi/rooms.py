"""The application of the tests of rooms by URL: a WebSocket is told what its server knows of its path.

UWASP_HANDLER names the handler.
"""

from __future__ import annotations

import json
import logging
import os

from uwasp import Server, WebSocketMiddleware, stats

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")


class Telling(Server):
    @classmethod
    def authorize(cls, environ):
        return environ.get("wsgiorg.routing_args", ((), {}))

    def on_open(self):
        ws = self.ws
        positional, named = ws.user
        assert (positional, named) == ((), ws.params)
        ws.send(json.dumps([type(self).__name__, ws.path, ws.params, ws.environ.get("SCRIPT_NAME", "")], default=repr))


class Lobby(Telling):
    """At an exact path."""


def plain(environ, start_response):
    body = json.dumps(stats()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


application = WebSocketMiddleware(
    plain,
    os.environ["UWASP_HANDLER"],
    [
        ("/rooms/<name>", Telling),
        ("/devices/<int:id>/<path:rest>", Telling),
        ("/things/<uuid:id>", Telling),
        ("/rooms/lobby", Lobby),
    ],
)
