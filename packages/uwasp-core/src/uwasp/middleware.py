"""`WebSocketMiddleware`: what users wrap their application in. It decides where a request goes."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

from uwasp import handshake, origin, statistics, takeover
from uwasp.connection import Connection
from uwasp.exceptions import Refusal
from uwasp.handler import Handler, check_handler_class, find_handler
from uwasp.options import Options
from uwasp.protocol import FrameProtocol
from uwasp.server import ServerInterface
from uwasp.websocket import WebSocket

__all__ = ["WebSocketMiddleware"]

logger = logging.getLogger("uwasp.middleware")

RETRY_AFTER = "5"  # seconds, in a 503

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
        options: see `uwasp.Options`; a server class overrides one by an attribute of the same name.

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
        **options: Any,
    ) -> None:
        if not callable(application):
            raise TypeError(f"application is a WSGI application, a callable, not {application!r}")
        self.application = application
        self.servers = tuple(servers)
        common = Options.named(options)
        self._routes = {
            path: _Route(found, common.overridden_by(found)) for path, found in _by_path(self.servers).items()
        }
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
        route = self._routes.get(path)
        try:
            if route is None:
                raise _Refused("path", handshake.refuse(HTTPStatus.NOT_FOUND, "there is no WebSocket at this path"))
            answer = _decide(environ, route)
            user = getattr(route.server_class, "authorize", _anybody)(environ)
            return self._accept(environ, start_response, path, route, answer, user)
        except _Refused as refused:
            reason, answer, why = refused.reason, refused.answer, refused.why
        except Refusal as refusal:
            reason, answer = "authorize", handshake.refuse(refusal.status, refusal.body, *refusal.headers)
            why = str(refusal.status.value)
        statistics.count_refusal(reason)
        peer = _peer(environ, route.options if route is not None else None)
        level = logging.WARNING if reason in _FOR_THE_OPERATOR else logging.INFO
        logger.log(
            level, "WebSocket refused to %s at %s: %s%s", peer, handshake.quote(path), reason, f", {why}" * bool(why)
        )
        start_response(answer.status, answer.headers)
        return [answer.body]

    def _accept(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        path: str,
        route: _Route,
        answer: handshake.Answer,
        user: Any,
    ) -> Iterable[bytes]:
        """Make what the connection needs, then take it over. What can fail comes before the 101."""
        options = route.options
        if not statistics.take_place(options.max_connections):
            raise _full(options)
        try:
            ws = WebSocket(environ, path, answer.protocol, options, user)
            protocol = FrameProtocol(options.max_message_size, options.max_fragments, answer.deflate)
            try:
                handler = self.handler_class(ws, route.server_class(ws))
                fd = takeover.duplicate()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                busy = _busy("no descriptor is left for another WebSocket")
                raise _Refused("descriptors", busy, str(error.strerror)) from error
            connection = Connection(fd, protocol, options, _peer(environ, options), path)
            try:
                try:
                    takeover.release(start_response, answer.status, answer.headers)
                except OSError as error:
                    # Were it raised, uWSGI would log a traceback, and keep it with all that it refers to.
                    logger.info("%s was gone before its handshake was answered: %s", connection, error)
                    connection.abandon()
                    return []
                ws.connection = connection
                return handler.handle(environ, answer.protocol)
            except BaseException:
                connection.abandon()
                raise
        finally:
            statistics.give_place_back()


# The reasons for which the operator has to do something, or wants to know.
_FOR_THE_OPERATOR = frozenset({"takeover", "origin", "full", "descriptors"})


class _Route(NamedTuple):
    server_class: ServerClass
    options: Options


class _Refused(Exception):
    """A request that gets no WebSocket; `reason` is the word that it is counted under, `why` is for the log."""

    def __init__(self, reason: str, answer: handshake.Answer, why: str = "") -> None:
        self.reason = reason
        self.answer = answer
        self.why = why


def _decide(environ: dict[str, Any], route: _Route) -> handshake.Answer:
    """The answer that accepts a request, if nothing but its server speaks against it.

    Raises:
        _Refused: something does.
    """
    options = route.options
    reason = takeover.refusal()
    if reason is not None:
        raise _Refused("takeover", handshake.refuse(HTTPStatus.NOT_IMPLEMENTED, reason), reason)
    answer = handshake.answer(environ, getattr(route.server_class, "protocols", ()), options.deflate)
    if not answer.accepts:
        raise _Refused("handshake", answer, answer.body.decode().strip())
    if not origin.is_allowed(environ, options.allowed_origins, options.trust_proxy):
        why = f"{handshake.quote(environ['HTTP_ORIGIN'])} at host {handshake.quote(environ.get('HTTP_HOST', ''))}"
        answer = handshake.refuse(HTTPStatus.FORBIDDEN, "this origin may not open a WebSocket here")
        raise _Refused("origin", answer, why)
    if options.max_connections is not None and statistics.open_connections() >= options.max_connections:
        raise _full(options)
    return answer


def _full(options: Options) -> _Refused:
    why = f"max_connections is {options.max_connections}"
    return _Refused("full", _busy("as many WebSockets are open as may be"), why)


def _busy(reason: str) -> handshake.Answer:
    return handshake.refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason, ("Retry-After", RETRY_AFTER))


def _anybody(environ: dict[str, Any]) -> None:
    """The `authorize` of a server class that has none."""


def _peer(environ: dict[str, Any], options: Options | None) -> str:
    """The client's address, for the log.

    Of several in X-Forwarded-For it is the last, which the proxy itself has added. The client may have sent the others.
    """
    address: str = environ.get("REMOTE_ADDR", "")
    if options is not None and options.trust_proxy:
        address = environ.get("HTTP_X_FORWARDED_FOR", address).split(",")[-1].strip()
    return handshake.quote(address) or "a Unix socket"


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


def _warn_about_routers() -> None:
    for option in ("http", "https", "http-to", "https-to"):
        if takeover.values(option) and not takeover.is_set("http-websockets"):
            logger.warning(
                "uWSGI's --%s router forwards no WebSocket frames without --http-websockets: clients would hang; "
                "add http-websockets to uWSGI's options",
                option,
            )
            return
