"""`WebSocketMiddleware`: the WSGI application that users wrap theirs in.

It leads a request on its way: to its server (`uwasp.routing`), past what may refuse it (`uwasp.admission`), off uWSGI
(`uwasp.takeover`), and to the handler. What is decided there is answered, counted and logged here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from uwasp import admission, handshake, metrics, preflight, routing, statistics, takeover
from uwasp.admission import Refused
from uwasp.connection import Connection
from uwasp.handler import Handler, check_handler_class, find_handler
from uwasp.options import Options
from uwasp.protocol import CloseCode, FrameProtocol
from uwasp.routing import Route, ServerClass

__all__ = ["WebSocketMiddleware"]

logger = logging.getLogger("uwasp.middleware")

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


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
        takeover: what takes the connections over from the WSGI server, a `uwasp.takeover.Takeover` (default: the
            module `uwasp.takeover`, for which that is uWSGI). A test that has a socket of its own puts another there.

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
        preflight.check()
        if isinstance(handler_class, str):
            self.handler_class = find_handler(handler_class)
        else:
            self.handler_class = check_handler_class(handler_class, "handler_class")
        self.application = application
        self.servers = tuple(servers)
        self.takeover: takeover.Takeover = takeover
        self._websocket_class = getattr(self.handler_class, "websocket_class", Handler.websocket_class)
        self._before_release = getattr(self.handler_class, "before_release", Handler.before_release)
        self._routes = routing.find_routes(self.servers, Options.named(options), self.handler_class)
        check = getattr(self.handler_class, "check", None)
        if check is not None:
            check()
        metrics.take_back_in_each_worker()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not handshake.is_upgrade(environ):
            return self.application(environ, start_response)
        path = routing.path_of(environ)
        route = self._routes.get(path)
        try:
            if route is None:
                raise admission.unknown_path()
            answer = admission.decide(environ, route, self.takeover)
            user = admission.authorize(environ, route)
            return self._accept(environ, start_response, route, answer, user)
        except Refused as refused:
            answer = refused.answer
            statistics.count_refusal(refused.reason)
            peer = admission.peer(environ, route.options if route is not None else None)
            why = f"{refused.reason}, {refused.why}" if refused.why else refused.reason
            logger.log(refused.level, "WebSocket refused to %s at %s: %s", peer, handshake.quote(path), why)
        start_response(answer.status, answer.headers)
        return [answer.body]

    def _accept(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        route: Route,
        answer: handshake.Answer,
        user: Any,
    ) -> Iterable[bytes]:
        """Make what the connection needs, then take it over. What can fail comes before the 101.

        Raises:
            Refused: no place or no descriptor is left, or the server refuses while it is made.
        """
        options = route.options
        admission.take_place(options.max_connections)
        connection = None
        try:
            ws = self._websocket_class(environ, route.path, answer.protocol, options, user)
            protocol = FrameProtocol(options.max_message_size, options.max_fragments, answer.deflate)
            with admission.needing_descriptors(), admission.server_may_refuse():
                handler = self.handler_class(ws, route.make_server(ws))
                fd = self.takeover.duplicate()
            connection = Connection(fd, protocol, options, admission.peer(environ, options), route.path)
            connection.give_place_back = admission.give_place_back
            try:
                try:
                    hasty = self.takeover.release(start_response, answer.status, answer.headers, self._before_release)
                except OSError as error:
                    # Were it raised, uWSGI would log a traceback, and keep it with all that it refers to.
                    logger.info("%s was gone before its handshake was answered: %s", connection, error)
                    connection.abandon()
                    return []
                if hasty:  # RFC 6455 §4.1 has the client wait
                    protocol.fail(CloseCode.PROTOCOL_ERROR, "a frame before the answer to the handshake")
                ws.connection = connection
                return handler.handle(environ, answer.protocol)
            except BaseException:
                connection.abandon()
                raise
        finally:
            admission.end_accepting()
            if connection is None:
                admission.give_place_back()
