"""`WebSocketMiddleware`: what users wrap their application in. It decides where a request goes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from uwasp import handshake, takeover
from uwasp.compression import Deflate
from uwasp.connection import Connection
from uwasp.handler import Handler, check_handler_class, find_handler
from uwasp.protocol import FrameProtocol
from uwasp.server import ServerInterface
from uwasp.websocket import WebSocket

__all__ = ["WebSocketMiddleware"]

logger = logging.getLogger("uwasp.middleware")

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ServerClass = Callable[[WebSocket], ServerInterface]


class WebSocketMiddleware:
    """A WSGI application that serves WebSockets on some paths and leaves all else to the application that it wraps.

    A request for a WebSocket (one with `Upgrade: websocket`) goes to the server of its path, or gets 404. Every other
    request goes to `application` untouched, whatever its path.

    Args:
        application: the WSGI application to wrap.
        handler_class: a `Handler` class, or the name of one that an installed distribution offers in the entry-point
            group `uwasp.handlers` (default: `"threads"`, of uwasp-threads).
        servers: pairs of a path, such as `"/echo"`, and the server class for it. The path is the whole of the
            request's path within the application (PATH_INFO).
        max_message_size: the largest message that is accepted from a client, in bytes (default: 1 MiB); a larger one
            closes its connection with code 1009.
        max_fragments: the largest number of fragments of one message (default: 131,072); more close the connection
            with code 1008.
        compression: `"deflate"`, or a `Deflate` with other than its defaults, compresses messages for clients that
            offer permessage-deflate (RFC 7692). The default, `None`, is not to: it costs memory in each connection
            and time in each message, which small messages do not repay.

    Attributes:
        application: as given.
        handler_class: the class, found if its name was given.
        servers: as given, as a tuple of pairs.

    Raises:
        HandlerNotFound: no installed distribution offers that name.
        ConfigurationError: uWSGI is not set up for this handler; the message names the option to set.
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        application: WSGIApplication,
        handler_class: type[Handler] | str = "threads",
        servers: Iterable[tuple[str, ServerClass]] = (),
        *,
        max_message_size: int = 2**20,
        max_fragments: int = 2**17,
        compression: Deflate | str | None = None,
    ) -> None:
        if not callable(application):
            raise TypeError(f"application is a WSGI application, a callable, not {application!r}")
        self.application = application
        self.servers = tuple(servers)
        self._server_classes = _by_path(self.servers)
        self._max_message_size = _positive("max_message_size", max_message_size)
        self._max_fragments = _positive("max_fragments", max_fragments)
        self._compression = _compression(compression)
        if isinstance(handler_class, str):
            self.handler_class = find_handler(handler_class)
        else:
            self.handler_class = check_handler_class(handler_class, "handler_class")
        check = getattr(self.handler_class, "check", None)
        if check is not None:
            check()
        _warn_about_routers()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not handshake.is_upgrade(environ):
            return self.application(environ, start_response)
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")
        server_class = self._server_classes.get(path)
        if server_class is None:
            answer = handshake.refuse(HTTPStatus.NOT_FOUND, "there is no WebSocket at this path")
        else:
            reason = takeover.refusal()
            if reason is not None:
                logger.error("WebSocket refused: %s", reason)
                answer = handshake.refuse(HTTPStatus.NOT_IMPLEMENTED, reason)
            else:
                answer = handshake.answer(environ, getattr(server_class, "protocols", ()), self._compression)
                if answer.accepts:
                    return self._accept(environ, start_response, server_class, path, answer)
        start_response(answer.status, answer.headers)
        return [answer.body]

    def _accept(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        server_class: ServerClass,
        path: str,
        answer: handshake.Answer,
    ) -> Iterable[bytes]:
        """Make what the connection needs, then take it over. What can fail comes before the 101."""
        ws = WebSocket(environ, path, answer.protocol)
        server = server_class(ws)
        handler = self.handler_class(ws, server)
        protocol = FrameProtocol(self._max_message_size, self._max_fragments, answer.deflate)
        connection = Connection(takeover.duplicate(), protocol)
        try:
            takeover.release(start_response, answer.status, answer.headers)
            ws.connection = connection
            return handler.handle(environ, answer.protocol)
        except BaseException:
            connection.abandon()
            raise


def _by_path(servers: tuple[tuple[str, ServerClass], ...]) -> dict[str, ServerClass]:
    found: dict[str, ServerClass] = {}
    for pair in servers:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"servers holds pairs (path, server class), not {pair!r}")
        path, server_class = pair
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError(f"a server's path is a str that begins with a slash, not {path!r}")
        if not callable(server_class):
            raise TypeError(f"the server for {path} is a class, not {server_class!r}")
        missing = [name for name in ("on_open", "on_message", "on_close") if not hasattr(server_class, name)]
        if isinstance(server_class, type) and missing:
            raise TypeError(f"{server_class.__name__} has no {', '.join(missing)}; inherit from uwasp.Server")
        if path in found:
            raise ValueError(f"two servers for the path {path}")
        found[path] = server_class
    return found


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
    return value


def _compression(compression: Deflate | str | None) -> Deflate | None:
    if compression is None or isinstance(compression, Deflate):
        return compression
    if compression == "deflate":
        return Deflate()
    raise ValueError(f'compression is "deflate", a uwasp.Deflate, or None, not {compression!r}')


def _warn_about_routers() -> None:
    for option in ("http", "https", "http-to", "https-to"):
        if takeover.values(option) and not takeover.is_set("http-websockets"):
            logger.warning(
                "uWSGI's --%s router forwards no WebSocket frames without --http-websockets: clients would hang; "
                "add http-websockets to uWSGI's options",
                option,
            )
            return
