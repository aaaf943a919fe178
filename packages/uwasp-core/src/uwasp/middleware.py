"""`WebSocketMiddleware`: the WSGI application that users wrap theirs in.

It leads a request on its way: to its server (`uwasp.routing`), past what may refuse it (`uwasp.admission`), off uWSGI
(`uwasp.takeover`), and to the handler. What is decided there is answered, counted and logged here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from uwasp import admission, handshake, metrics, preflight, routing, statistics, takeover
from uwasp.admission import Refused
from uwasp.background import Background
from uwasp.bus import Bus, set_default
from uwasp.connection import Connection
from uwasp.conversations import Conversation
from uwasp.exceptions import check_headers
from uwasp.handler import Handler, check_handler_class, find_handler
from uwasp.options import GivenOptions, Options
from uwasp.protocol import CloseCode, FrameProtocol
from uwasp.routing import Match, Route, ServerClass
from uwasp.server import hint
from uwasp.session import session_of
from uwasp.websocket import shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["WebSocketMiddleware"]

logger = logging.getLogger("uwasp.middleware")
server_logger = logging.getLogger("uwasp.server")

# An empty body, of which uWSGI is done at once: for any other iterable its gevent loop goes through the hub once more.
NOTHING: Iterable[bytes] = b""  # type: ignore[assignment]  # it has no items, of whatever type
MOST_ACCEPTED = 1024  # servers that `accept` was given, whose routes are kept

Function = TypeVar("Function", bound=Callable[[], Any])
WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class WebSocketMiddleware:
    """A WSGI application that serves WebSockets on some paths and leaves all else to the application that it wraps.

    A request for a WebSocket (one with `Upgrade: websocket`) goes to the server of its path, or gets 404. Every other
    request goes to `application` untouched, whatever its path. Without `servers` all requests do, and `application` has
    a router of its own, which calls `accept`.

    Args:
        application: the WSGI application to wrap.
        handler_class: a `Handler` class, or the name of one that an installed distribution offers in the entry-point
            group `uwasp.handlers` (default: `"threads"`, of uwasp-threads).
        servers: pairs of a path, such as `"/echo"` or `"/rooms/<name>"`, and the server class for it, or a function
            that is called with the `WebSocket` (see `WebSocket.receive`). The path is the whole of the request's path
            within the application (PATH_INFO); what stands in the places that it leaves open is `ws.params`.
        bus: what the groups of several processes have in common, a `uwasp.Bus` or the URL of one (default: the one that
            the process has; `"local:"`, for all processes of one uWSGI, if it has none). See `uwasp.Group`.
        options: see `uwasp.Options`; a server class overrides one by an attribute of the same name.

    Attributes:
        application: as given.
        handler_class: the class, found if its name was given.
        servers: as given, as a tuple of pairs.
        options: the `uwasp.Options`, as given or by default.
        bus: the `uwasp.Bus`, found if its URL was given or none.
        takeover: what takes the connections over from the WSGI server, a `uwasp.takeover.Takeover` (default: the
            module `uwasp.takeover`, for which that is uWSGI). A test that has a socket of its own puts another there;
            `uwasp.testing` has one come with the request, see `takeover_for`.

    Raises:
        HandlerNotFound: no installed distribution offers that name.
        ConfigurationError: uWSGI is not set up for this handler; the message names the option to set. Or the bus cannot
            be one, or the process has another.
        TypeError, ValueError: an argument is not what it should be.
    """

    def __init__(
        self,
        application: WSGIApplication,
        handler_class: type[Handler] | str = "threads",
        servers: Iterable[tuple[str, ServerClass]] = (),
        *,
        bus: Bus | str | None = None,
        **options: Unpack[GivenOptions],
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
        self.options = Options.named(options)
        self._routes = routing.find_routes(self.servers, self.options, self.handler_class)
        self._accepted: dict[ServerClass, Route] = {}  # what `accept` was given
        check = getattr(self.handler_class, "check", None)
        if check is not None:
            check()
        self.bus = set_default(bus, getattr(self.handler_class, "new_waiter", Handler.new_waiter))
        self._background = Background(self.handler_class, self.bus, self.options.shutdown_timeout)
        metrics.begin_in_each_worker()

    def every(self, seconds: float, *, once: bool = False) -> Callable[[Function], Function]:
        """Have a function called every so many seconds in each worker: put this above it, as a decorator.

        The first time is so many seconds after the worker has begun; nobody has to come before that. It runs in the
        handler's own way, in a thread or a greenlet, and never beside itself. It is counted from start to start: a run
        that is late, or takes longer, does not put off those that follow, and what it misses is not made up for. What
        it raises is logged. When the worker ends, no further run is started, and one that is on its way has
        `shutdown_timeout` to end.

        Outside uWSGI nothing is called, nor in mules and spoolers.

        Args:
            seconds: from the start of a run to the next, above 0 and at most 604,800: seven days. Less than 0.001 is
                taken for 0.001.
            once: only one worker of all on the bus calls it, the one that holds its name (default: no); for a moment
                it may be none or two, when that one is replaced.

        Returns:
            A decorator, which returns the function as it is. It is called without arguments; `async def` where the
            handler runs coroutines.

        Raises:
            ValueError: the number of seconds cannot be one.
            TypeError: the function cannot be called so.
            ConfigurationError: the handler cannot start anything beside, or the bus does not say who is the one.
        """
        self._background.check(seconds, once)

        def decorate(function: Function) -> Function:
            self._background.add(function, seconds, once)
            return function

        return decorate

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not self.servers or not handshake.is_upgrade(environ):
            takeover.look_at_server(environ)
            return self.application(environ, start_response)
        path = routing.path_of(environ)
        return self._answer(environ, start_response, self._routes.find(path), path)

    def accept(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        server: ServerClass,
        params: dict[str, Any] | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Iterable[bytes]:
        """Answer a request for which the application's own router has found a server, as one of `servers` is answered.

        The origin, `authorize`, the limits and `max_connections` hold as ever. It is for whoever has the request's
        `start_response`, in uWSGI's thread or greenlet of the request. The application that is wrapped gets the
        requests for WebSockets where `servers` is left out.

        Args:
            environ, start_response: of the request (PEP 3333), as the WSGI server gave them.
            server: a server class, or a function, as in `servers`.
            params: what the router has found in the path, for `ws.params` and `authorize`.
            headers: further headers of the answer, be it the 101 or a refusal: pairs of `str`, such as a session's
                `("Set-Cookie", "...")`.

        Returns:
            The response's body, for the WSGI server.

        Raises:
            RuntimeError: it is called elsewhere, or once more for the same request.
            TypeError: the server, the params or the headers cannot be any.
            ValueError: a header that could end it, or that is the handshake's own.
        """
        if not self.takeover_for(environ).has_request():  # uWSGI would crash when it is answered
            raise RuntimeError("accept is called once for a request, in uWSGI's thread or greenlet of that request")
        headers = list(headers)
        check_headers(headers)
        if params is not None and not isinstance(params, Mapping):
            raise TypeError(
                f'params are what the router has found, by their names, such as {{"name": "a"}}, not {params!r}'
            )
        path = routing.path_of(environ)
        found = None
        if path is not None:
            route = self._find_accepted(server)
            found = Match(route, path, handshake.quote(path), params or {})
        return self._answer(environ, start_response, found, path, headers)

    def takeover_for(self, environ: dict[str, Any]) -> takeover.Takeover:
        """What takes the connection of a request over: `takeover`, or what a test has put where uWSGI is not."""
        found: takeover.Takeover = environ.get(takeover.STAND_IN, self.takeover)
        return found

    def _find_accepted(self, server: ServerClass) -> Route:
        try:
            known = self._accepted.get(server)
        except TypeError:  # an object that makes servers and has no hash: it is looked at each time
            return self._look_at(server)
        if known is not None:
            return known
        route = self._look_at(server)
        if len(self._accepted) >= MOST_ACCEPTED:  # they are made anew for each request
            self._accepted.clear()
        routing.warn_about_misspelt(server)
        self._accepted[server] = route
        return route

    def _look_at(self, server: ServerClass) -> Route:
        route = routing.find_route("accept", server, self.options, self.handler_class)
        return route._replace(quoted=f"accept {route.name}")

    def _answer(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        found: Match | None,
        path: str | None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> Iterable[bytes]:
        """Answer a request for a WebSocket, whose `path` leads to what was `found`."""
        stand_in: takeover.StandIn | None = environ.get(takeover.STAND_IN)
        instead = None if stand_in is None else stand_in.authorize
        try:
            if found is None:
                raise admission.unknown_path(path)
            found.tell(environ)
            answer = admission.decide(environ, found.route, self.takeover_for(environ))
            try:
                user = admission.authorize(environ, found.route, instead)
            except (Exception, *admission.EXITS) as error:
                admission.refuse_for(error)
                _tell_failed(environ, found, f"{found.route.name}.authorize", error)
                raise
            return self._accept(environ, start_response, found, answer, user, headers)
        except Refused as refused:
            answer = refused.answer
            statistics.count_refusal(refused.reason)
            peer = admission.peer(environ, found.route.options if found is not None else None)
            unknown = environ["PATH_INFO"] if path is None else path
            place = found.place if found is not None else handshake.quote(unknown)
            why = f"{refused.reason}, {refused.why}" if refused.why else refused.reason
            logger.log(refused.level, "WebSocket refused to %s at %s%s: %s", peer, admission.mount(environ), place, why)
        start_response(answer.status, [*answer.headers, *headers])
        return [answer.body]

    def _accept(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        found: Match,
        answer: handshake.Answer,
        user: Any,
        headers: Sequence[tuple[str, str]],
    ) -> Iterable[bytes]:
        """Make what the connection needs, then take it over. What can fail comes before the 101.

        Raises:
            Refused: no place, descriptor or thread is left, or the server refuses while it is made.
        """
        route, path, place, _ = found
        options = route.options
        admission.take_place(options.max_connections)
        connection = server = None
        try:
            ws = self._websocket_class(environ, path, answer.protocol, options, user)
            session = session_of(ws, route, user)
            protocol = FrameProtocol(options.max_message_size, options.max_fragments, answer.deflate)
            try:
                server = route.make_server(ws)
            except (Exception, *admission.EXITS) as error:
                admission.refuse_for(error, "descriptors")  # EAGAIN is about other things
                _tell_failed(environ, found, route.making, error)
                raise
            try:
                if isinstance(server, Conversation):
                    admission.begin(server, self.handler_class)
                handler = self.handler_class(ws, server)
                fd = self.takeover_for(environ).duplicate()
            except Exception as error:
                admission.refuse_for(error, "descriptors", "threads")
                raise
            protocol.accepts = route.accepts(server)
            place = admission.mount(environ) + place
            peer = shared(admission.peer(environ, options))
            connection = Connection(fd, protocol, options, peer, place, route.quoted)
            connection.give_place_back = admission.give_place_back
            connection.session = session
            if (stand_in := environ.get(takeover.STAND_IN)) is not None:
                stand_in.opens(connection, handler)
            try:
                try:
                    hasty = self.takeover_for(environ).release(
                        start_response, answer.status, [*answer.headers, *headers], self._before_release
                    )
                except OSError as error:
                    # Were it raised, uWSGI would log a traceback, and keep it with all that it refers to.
                    logger.info("%s was gone before its handshake was answered: %s", connection, error)
                    connection.abandon()
                    return []
                if hasty:  # RFC 6455 §4.1 has the client wait
                    protocol.fail(CloseCode.PROTOCOL_ERROR, "a frame before the answer to the handshake")
                ws.connection = connection
                return handler.handle(environ, answer.protocol) or NOTHING
            except BaseException:
                connection.abandon()
                raise
        finally:
            admission.end_accepting()
            if connection is None:
                admission.give_place_back()
            if isinstance(server, Conversation) and (connection is None or connection.conversation is None):
                server.abandon()


def _tell_failed(environ: dict[str, Any], found: Match, called: str, error: BaseException) -> None:
    """Say whose error it is that the WSGI server is about to be given, unless it is a refusal.

    What the error says may be a client's words. It is in the traceback, which the WSGI server logs.
    """
    if isinstance(error, Refused):
        return
    peer, place = admission.peer(environ, found.route.options), admission.mount(environ) + found.place
    server_logger.error(
        "error in %s, no WebSocket for %s at %s: %s%s", called, peer, place, type(error).__name__, hint(error)
    )
