"""`Driver`: what an Engine.IO server uses in the place of one of `engineio.async_drivers`, and how it is put there.

Threads or greenlets, events and sleep are those of python-engineio's own driver. WebSockets, the queues of what is
sent, and pings are uWASP's. In here is what is used of python-engineio without being documented there, and its version
has been checked by then: `Server._async` and its contents, the methods of sockets that `websocket` and
`start_background_task` are called with, and that a server's own methods may be replaced.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import engineio
from engineio.socket import Socket

from uwasp import Handler, WebSocketMiddleware
from uwasp_socketio.outbox import outbox_class
from uwasp_socketio.pings import Pings
from uwasp_socketio.transport import KEY, Opening, Transport

__all__ = ["Driver"]

logger = logging.getLogger("uwasp.socketio")

# What uWSGI has for one request, and takes back when that is over, or lets another request have.
OF_THE_REQUEST = ("wsgi.file_wrapper", "x-wsgiorg.fdevent.readable", "x-wsgiorg.fdevent.writable")
NO_POLLING = (
    'this server has no polling, only WebSockets: say transports: ["websocket"] to the client, as in '
    'io({transports: ["websocket"]}) or connect(url, transports=["websocket"])'
)
UNKNOWN = (
    "this process has no session of that name. Either it has ended, and the client connects anew; or another process "
    'has it, and then all requests of a client have to come to one process, or else transports=["websocket"] is for '
    "the server and for the client"
)

Headers = list[tuple[str, str]]
StartResponse = Callable[[str, Headers], Any]


class Driver:
    """What one Engine.IO server runs on.

    Args:
        server: the Engine.IO server.
        mode: whose threads, events and queues it goes on with: `"threading"` or `"gevent"`.
        handler_class: for its WebSockets.
        options: of `WebSocketMiddleware`.

    Raises:
        ConfigurationError, TypeError, ValueError: as from `WebSocketMiddleware`.
    """

    def __init__(
        self, server: engineio.Server, mode: str, handler_class: type[Handler], options: dict[str, Any]
    ) -> None:
        self._server = server
        self._mode = mode
        self._spawn = handler_class.spawn
        self._handle_request = server.handle_request
        self._start_background_task = server.start_background_task
        self._middleware = WebSocketMiddleware(server.handle_request, handler_class, **options)
        self._pings = Pings(server.ping_interval, handler_class.spawn, server.sleep)

    def take_over(self) -> None:
        """Have the server use this from now on."""
        server = self._server
        theirs = importlib.import_module(f"engineio.async_drivers.{self._mode}")._async
        server._async = {**theirs, "queue": outbox_class(theirs["queue"]), "websocket": self.websocket}
        server.async_mode = self._mode
        server.handle_request = self.handle_request
        server.start_background_task = self.start_background_task

    # In the place of the server's

    def websocket(self, handle: Callable[..., Any], server: engineio.Server) -> Callable[..., Iterable[bytes]]:
        """What a socket answers a request for a WebSocket by.

        Args:
            handle: the socket's own loop over the WebSocket, a method.
            server: the Engine.IO server.
        """
        return functools.partial(self._open, handle.__self__)  # type: ignore[attr-defined]

    def start_background_task(self, target: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Start a function in a thread or greenlet of its own. The ping of a socket needs none."""
        if getattr(target, "__func__", None) is Socket._send_ping:
            return self._pings.schedule(target.__self__)  # type: ignore[attr-defined]
        return self._start_background_task(target, *args, **keywords)

    def handle_request(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request for Engine.IO, whose environ the application may keep."""
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if query.get("transport", ["polling"])[0] == "polling" and "polling" not in self._server.transports:
            warn_of_polling()
            return refuse(start_response, NO_POLLING)
        if "sid" in query and query["sid"][0] not in self._server.sockets:
            return refuse(start_response, UNKNOWN)
        return self._handle_request(kept(environ), start_response)  # type: ignore[no-any-return]

    # In uWSGI's thread or greenlet of the request

    def _open(self, socket: Socket, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        environ[KEY] = opening = Opening(socket, self._spawn)
        is_new = not socket.connected
        try:
            body = self._middleware.accept(environ, start_response, Transport)
        finally:
            del environ[KEY]  # which the application keeps
            if is_new and not opening.has_opened:
                socket.close(wait=False, abort=True, reason=socket.server.reason.TRANSPORT_ERROR)
                socket.server.sockets.pop(socket.sid, None)
        return tuple(body)  # a list would be taken for packets


def kept(environ: dict[str, Any]) -> dict[str, Any]:
    """An environ that may outlive its request. What comes with a POST is read at once."""
    environ = environ.copy()  # uWSGI empties its own, and fills it for the next request
    if environ["REQUEST_METHOD"] != "POST":
        environ |= {"wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr}
        for name in OF_THE_REQUEST:
            environ.pop(name, None)
    return environ


def refuse(start_response: StartResponse, why: str) -> Iterable[bytes]:
    """Answer as python-engineio refuses: 400, and a text in JSON."""
    start_response("400 BAD REQUEST", [("Content-Type", "text/plain")])
    return [json.dumps(why).encode()]


@functools.cache
def warn_of_polling() -> None:
    """Once in a process."""
    logger.warning("a client that polls got 400: %s", NO_POLLING)
