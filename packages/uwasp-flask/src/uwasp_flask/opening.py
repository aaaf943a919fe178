"""`Opening`: how one Flask application opens WebSockets, with the middleware that it has for that.

A view returns a response that hands its request over to the middleware when it is called, as the last step of Flask's
answer: all that comes before the answer of a view has been by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

from flask import Flask, Response, abort, current_app, has_app_context, request

from uwasp import ConfigurationError, Handler, WebSocketMiddleware, takeover
from uwasp.handler import find_handler
from uwasp.routing import ServerClass
from uwasp_flask import servers, visit
from uwasp_flask.settings import Settings, given

__all__ = ["NAME", "Opening"]

NAME = "uwasp_flask"  # in `app.extensions`
# What the 101 has of its own, or has not.
NOT_FOR_A_101 = ("connection", "content-length", "content-type", "transfer-encoding", "upgrade")
OUTSIDE = (
    "this application does not run under uWSGI, whose connections uWASP takes over: start it by `uwasp dev`, of "
    "uwasp-cli, or by uwsgi. For instance: uwsgi --http-socket 127.0.0.1:5000 --threads 4 --module yourmodule:app"
)


def is_tested() -> bool:
    """Whether a Flask application that is at work here has `TESTING` set."""
    return has_app_context() and current_app.testing


takeover.be_an_instance_if(is_tested)


class Opening:
    """What a Flask application opens WebSockets with.

    Args:
        app: the application, whose configuration says with which options.
        handler_class: a `Handler` class, or the name of one (default: `"gevent"` on uWSGI's gevent loop, or else
            `"threads"`).

    Attributes:
        settings: what the configuration said when this was made.
        middleware: what takes the connections over.

    Raises:
        HandlerNotFound, ConfigurationError, TypeError, ValueError: as from `WebSocketMiddleware`.
    """

    def __init__(self, app: Flask, handler_class: type[Handler] | str | None) -> None:
        self._handler_class = handler_class
        if handler_class is None:
            handler_class = "gevent" if takeover.loop() == "gevent" else "threads"
        if isinstance(handler_class, str):
            handler_class = find_handler(handler_class)
        if getattr(handler_class, "runs", Handler.runs) != "functions":
            raise ConfigurationError(f"Flask's views are plain functions, and {handler_class.__name__} runs async def")
        self.settings = Settings(app.config)
        self.middleware = WebSocketMiddleware(app.wsgi_app, telling(handler_class), **self.settings.options)
        self._servers: dict[Any, ServerClass] = {}  # what the core is given, by what a route has

    def renewed(self, app: Flask) -> Opening:
        """This one, or another if the configuration has changed since."""
        if given(app.config) == self.settings.given:
            return self
        app.extensions[NAME] = Opening(app, self._handler_class)
        return app.extensions[NAME]  # type: ignore[no-any-return]

    def response(self, server: Any, params: dict[str, Any]) -> Response:
        """The response of a view, for a request that asks for a WebSocket.

        Raises:
            HTTPException: there can be none here: 501.
        """
        reason = self.middleware.takeover_for(request.environ).refusal()
        if reason is not None:
            reason = reason if takeover.running_under_uwsgi() else OUTSIDE
            current_app.logger.error("no WebSocket at %s: %s", request.path, reason)
            abort(501, reason)
        if visit.KEY not in request.environ:
            raise RuntimeError("app.wsgi_app is not what Sock made it: wrap it, as in app.wsgi_app = X(app.wsgi_app)")
        own: Any = current_app.response_class
        response = response_class(own)(status=101)
        response.hand_over = lambda environ, start_response, headers: self._accept(
            environ, start_response, server, params, headers
        )
        return response

    def _accept(
        self,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
        server: Any,
        params: dict[str, Any],
        headers: list[tuple[str, str]],
    ) -> Iterable[bytes]:
        here: visit.Visit = environ[visit.KEY]
        here.params = params
        made = self._servers.get(server)
        if made is None:
            made = self._servers[server] = self._make(server)
        visit.forget_streams()
        try:
            with here.opening(stays=not servers.is_class(server)):
                return self.middleware.accept(environ, start_response, made, params, headers)
        finally:
            del environ[visit.KEY]  # which leads to the request, which leads here

    def _make(self, server: Any) -> ServerClass:
        if servers.is_class(server):
            return servers.in_contexts(server, self.settings.subprotocols)
        return servers.conversing(server, self.settings.subprotocols, self.middleware.handler_class)


class HandOver(Response):
    """A response that is a WebSocket, unless something has made another one of it."""

    hand_over: Callable[[dict[str, Any], Callable[..., Any], list[tuple[str, str]]], Iterable[bytes]]

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if self.status_code != 101:
            return super().__call__(environ, start_response)
        headers = [
            (name, value)
            for name, value in self.get_wsgi_headers(environ)
            if name.lower() not in NOT_FOR_A_101 and not name.lower().startswith("sec-websocket-")
        ]
        return self.hand_over(environ, start_response, headers)


@cache
def response_class(own: Any) -> type[HandOver]:
    """The same for an application whose responses have a class of their own, which Flask would make of ours."""
    return HandOver if own is Response else cast("type[HandOver]", type(own.__name__, (HandOver, own), {}))


@cache
def telling(handler_class: type[Handler]) -> type[Handler]:
    """A handler that tells a visit when it has the connection: from then on there will be a conversation."""

    def handle(self: Handler, environ: dict[str, Any], protocol_name: str | None = None) -> Iterable[bytes]:
        body = handler_class.handle(self, environ, protocol_name)
        environ[visit.KEY].has_opened = True
        return body

    names = {"__module__": handler_class.__module__, "__qualname__": handler_class.__qualname__, "handle": handle}
    return cast("type[Handler]", type(handler_class.__name__, (handler_class,), names))
