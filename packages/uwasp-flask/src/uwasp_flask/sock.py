"""`Sock`: the extension of Flask, with the names of flask-sock's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from flask import Blueprint, Flask, Response, current_app
from werkzeug.routing import Rule

from uwasp import Handler, Options
from uwasp.callables import refuses, refuses_to_begin_with, runs_later
from uwasp.routing import find_route
from uwasp_flask import servers
from uwasp_flask.opening import NAME, Opening
from uwasp_flask.visit import Entrance

__all__ = ["Sock"]

S = TypeVar("S", bound=Callable[..., Any])
View = Callable[..., Any]
Decorators = Iterable[Callable[[View], View]]


class Sock:
    """Gives a Flask application routes for WebSockets, on uWSGI.

    Args:
        app: the Flask application (default: `init_app` is called for it later).
        handler_class: a `uwasp.Handler` class, or the name of an installed one (default: `"gevent"` on uWSGI's gevent
            loop, or else `"threads"`).

    Attributes:
        app: the application, the last one if there are several; `None` before there is one.
        bp: the blueprint of the routes that had none, and no application either; `None` where there is no such route.

    Raises:
        HandlerNotFound: that handler is not installed.
        ConfigurationError: uWSGI is not set up for it; the message names the option to set.
        TypeError, ValueError: `SOCK_SERVER_OPTIONS` has something in it that it cannot have.
    """

    def __init__(self, app: Flask | None = None, *, handler_class: type[Handler] | str | None = None) -> None:
        self.app: Flask | None = None
        self.bp: Blueprint | None = None
        self._handler_class = handler_class
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give an application the routes. Raises what the class raises.

        `app.config["SOCK_SERVER_OPTIONS"]` is read now, and again at a WebSocket for which it has changed.
        """
        if NAME not in app.extensions:
            app.extensions[NAME] = Opening(app, self._handler_class)
            app.wsgi_app = Entrance(app.wsgi_app)  # type: ignore[method-assign]
        if self.bp is not None:
            app.register_blueprint(self.bp)
        self.app = app

    @overload
    def route(
        self, path: str, bp: Blueprint | None = None, *, server: S, decorators: Decorators = (), **kwargs: Any
    ) -> S: ...

    @overload
    def route(
        self, path: str, bp: Blueprint | None = None, *, server: None = None, decorators: Decorators = (), **kwargs: Any
    ) -> Callable[[S], S]: ...

    def route(
        self,
        path: str,
        bp: Blueprint | None = None,
        *,
        server: S | None = None,
        decorators: Decorators = (),
        **kwargs: Any,
    ) -> Any:
        """Put a WebSocket at a path: above a function, `f(ws, **params)`, or above a server class, `Room(ws)`.

            @sock.route("/rooms/<name>")
            def room(ws, name):
                ws.send(name)

        Args:
            path: a rule of Flask's.
            bp: the blueprint to which it belongs (default: none).
            server: the function or the class, where it is not decorated: `sock.route("/x", server=Room)`. It is
                returned.
            decorators: what decides before the WebSocket opens, such as Flask-Login's `login_required`; applied to the
                view in this order, as Flask's `View.decorators` are.
            kwargs: options of `flask.Flask.route`, such as `endpoint`.

        Raises:
            TypeError: that cannot be a server. Where a blueprint is given to the application later, that raises it if
                the function does not take what the rule has.
        """

        def add(server: S) -> S:
            check(path, server)
            bare = view = make_view(server)
            for decorator in decorators:
                view = decorator(view)
            place = self._place(bp)
            place.route(path, **{**kwargs, "websocket": True})(view)
            if isinstance(place, Blueprint):
                place.record(lambda state: check_rules(state.app, server, view, view is not bare))
            else:
                check_rules(place, server, view, view is not bare)
            return server

        return add if server is None else add(server)

    def _place(self, bp: Blueprint | None) -> Blueprint | Flask:
        """Where a route belongs."""
        if bp is None and self.app is None and self.bp is None:
            self.bp = Blueprint("__uwasp_flask", __name__)
        return bp or self.app or self.bp  # type: ignore[return-value]  # one of them is there

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.app!r}>"


def check(path: str, server: Any) -> None:
    """Whether something can be a server.

    Raises:
        TypeError: it cannot.
    """
    if servers.is_class(server):
        find_route(path, server, Options(), Handler)
    elif not callable(server):
        raise TypeError(f"the server for {path} is a function or a class, not {server!r}")
    elif later := runs_later(server):
        raise TypeError(f"{name_of(server)} is {later}: nothing of it would be run. Make it a plain function (def)")


def check_rules(app: Any, server: Any, view: View, is_decorated: bool) -> None:
    """Whether a function takes what the rules that lead to it have in them.

    Args:
        app: the Flask application, which has the rules.
        server: the function; a class has all this as `ws.params`.
        view: its view, as the application has it.
        is_decorated: whether something is around the view, which may take parameters or give others.

    Raises:
        TypeError: it does not.
    """
    if servers.is_class(server):
        return
    may_differ = is_decorated or any(app.url_value_preprocessors.values())
    for rule in app.url_map.iter_rules():
        if app.view_functions.get(rule.endpoint) is view:
            _check_rule(rule, server, may_differ)


def _check_rule(rule: Rule, function: Any, may_differ: bool) -> None:
    if may_differ:
        params, reason = ["..."], refuses_to_begin_with(function, "ws")
    else:
        params = sorted(rule.arguments)
        reason = refuses(function, "ws", **dict.fromkeys(params))
    if reason:
        name = name_of(function)
        expected = f"{name}({', '.join(('ws', *params))})"
        raise TypeError(
            f"{name} is called as {expected} at {rule.rule}, which it does not accept ({reason}): "
            f"write def {expected}, or change the rule; what else it needs, functools.partial can give it"
        )


def make_view(server: Any) -> View:
    """The view of a route, which Flask calls with what it has found in the path."""

    def view(**params: Any) -> Response:
        opening: Opening | None = current_app.extensions.get(NAME)
        if opening is None:
            raise RuntimeError(f"{current_app.name} has WebSockets, and no Sock: call sock.init_app(app)")
        return opening.renewed(current_app).response(server, params)

    view.__name__ = name_of(server)
    view.__qualname__ = getattr(server, "__qualname__", view.__name__)
    view.__module__ = getattr(server, "__module__", __name__)
    view.__doc__ = server.__doc__
    return view


def name_of(server: Any) -> str:
    """The name of a function or a class, or of what a `functools.partial` calls, or of an object's class."""
    while isinstance(server, functools.partial):
        server = server.func
    return getattr(server, "__name__", type(server).__name__)
