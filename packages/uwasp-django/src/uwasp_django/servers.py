"""What a WebSocket has as its server, a class or a function, made into what the core takes.

Around each event of a class, and around a function, stands what Django has around a view: connections to databases, and
the language that middleware has chosen.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import new_class
from typing import Any, get_origin

from django.core.exceptions import PermissionDenied
from django.core.handlers.base import BaseHandler
from django.http import Http404

from uwasp import ConfigurationError, Refusal, Server, WebSocket
from uwasp.callables import COROUTINE, runs_later
from uwasp.conversations import is_function
from uwasp.routing import EVENTS, OPTIONAL_EVENTS, ServerClass
from uwasp_django import database

__all__ = ["LOCALE", "REQUEST", "is_class", "made_of", "name_of"]

REQUEST = "uwasp_django.request"  # in the environ: the request, for as long as its connection lives
LOCALE = "uwasp_django.locale"  # in the environ of the handshake: that of the request
OURS = ("uwasp", "uwasp_asyncio")  # whose events do nothing


def made_of(server: Any) -> ServerClass:
    """What the core is given for a server class, for a function, or for a `functools.partial` of one.

    Raises:
        TypeError: it is neither.
        ConfigurationError: it cannot be atomic.
    """
    if is_class(server):
        return _with_events(server)
    if not is_function(_called(server)):
        raise TypeError(f"the server of a WebSocket is a class or a function, not {server!r}")
    decorator = getattr(_called(server), "__globals__", {}).get("__name__", "")
    if decorator.startswith("django."):
        raise TypeError(
            f"what decorates {name_of(server)} is for views, and it has become none yet: put @websocket beneath it, "
            f"next to the function ({decorator})"
        )
    later = runs_later(_called(server))
    if later not in ("", COROUTINE):
        raise TypeError(f"{name_of(server)} is {later}: nothing of it would be run")
    return _conversing(server)


def is_class(server: Any) -> bool:
    """Whether servers are made of it: a class, such an alias as `Chat[str]`, or a partial of one."""
    called = _called(server)
    return isinstance(get_origin(called) or called, type)


def name_of(server: Any) -> str:
    """What a class or a function is called."""
    called = _called(server)
    return getattr(called, "__name__", type(called).__name__)


def _called(server: Any) -> Any:
    while isinstance(server, functools.partial):
        server = server.func
    return server


# Functions


def _conversing(function: Any) -> Callable[..., Any]:
    """The function that the core calls, with what Django has found in the path for the user's."""
    called = _called(function)
    converse: Any

    def converse_now(ws: Any) -> Any:
        match = ws.environ[REQUEST].resolver_match
        with ws.environ.pop(LOCALE).active(), database.of_a_thread_that_ends():
            return function(ws, *match.args, **match.kwargs)

    async def converse_later(ws: Any) -> Any:
        match = ws.environ[REQUEST].resolver_match
        with ws.environ.pop(LOCALE).active():
            return await database.in_event(function(ws, *match.args, **match.kwargs))

    converse = converse_later if runs_later(called) == COROUTINE else converse_now
    converse.__name__ = called.__name__
    converse.__qualname__ = called.__qualname__
    converse.__module__ = called.__module__
    vars(converse).update(called.__dict__, authorize=_authorize_by(getattr(called, "authorize", None)))
    return converse  # type: ignore[no-any-return]


# Classes


def _with_events(server: Any) -> ServerClass:
    """The same class, or partial of it, whose events do what surrounds a view."""
    if isinstance(server, functools.partial):
        return functools.partial(_with_events(server.func), *server.args, **server.keywords)
    described = get_origin(server) or server

    def __init__(self: Any, ws: WebSocket, *args: Any, **keywords: Any) -> None:
        self._uwasp_django_locale = ws.environ.pop(LOCALE)
        self._uwasp_django_is_in_event = False
        with _refusing():
            super(made, self).__init__(ws, *args, **keywords)

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update({name: getattr(described, name) for name in ("__module__", "__qualname__", "__doc__")})
        namespace["__init__"] = __init__
        own = described.authorize if _has_own(described, "authorize") else None
        namespace["authorize"] = staticmethod(_authorize_by(own))
        for name in (*EVENTS, *OPTIONAL_EVENTS):
            if _has_own(described, name):
                namespace[name] = _event(described, name, lambda: made)

    made: Any = new_class(described.__name__, (server,), exec_body=fill)
    return made  # type: ignore[no-any-return]


def _has_own(described: Any, name: str) -> bool:
    """Whether a class has a method that does something, be it by inheritance."""
    module = getattr(getattr(described, name, Server.on_open), "__module__", "") or ""
    return module.partition(".")[0] not in OURS


def _event(described: Any, name: str, made: Callable[[], Any]) -> Callable[..., Any]:
    """An event of a class, with all that is around it."""
    method = getattr(described, name)
    is_coroutine = runs_later(method) == COROUTINE

    def own(self: Any, *args: Any) -> Any:
        return getattr(super(made(), self), name)(*args)

    vars(own).update(getattr(method, "__dict__", {}))  # such as what transaction.non_atomic_requests has noted there
    atomic = BaseHandler().make_view_atomic(own)
    if is_coroutine and atomic is not own:
        raise ConfigurationError(
            f"{described.__name__}.{name} is async def, which no transaction can surround (ATOMIC_REQUESTS): "
            "put @transaction.non_atomic_requests above it"
        )

    def call(self: Any, *args: Any) -> Any:
        if self._uwasp_django_is_in_event:
            return own(self, *args)  # one event calls another
        with _in_event(self), database.event():
            return atomic(self, *args)

    async def acall(self: Any, *args: Any) -> Any:
        if self._uwasp_django_is_in_event:
            return await own(self, *args)
        with _in_event(self):
            return await database.in_event(own(self, *args))

    return acall if is_coroutine else call


@contextmanager
def _in_event(self: Any) -> Iterator[None]:
    self._uwasp_django_is_in_event = True
    try:
        with self._uwasp_django_locale.active():
            yield
    finally:
        self._uwasp_django_is_in_event = False


# Who may come in


def _authorize_by(own: Callable[[dict[str, Any]], Any] | None) -> Callable[[dict[str, Any]], Any]:
    """What decides that: what a server has for it; or the user of the request comes in, who may be anonymous."""

    def authorize(environ: dict[str, Any]) -> Any:
        with _refusing():
            if LOCALE in environ:  # within the request, around which Django looks at the connections
                return own(environ) if own is not None else _user_of(environ[REQUEST])
            with database.of_a_thread_that_ends():
                return own(environ) if own is not None else _user_of(environ[REQUEST])

    if own is not None and runs_later(own):
        return own  # for the core to refuse
    return authorize


def _user_of(request: Any) -> Any:
    """The user, looked up now: an event may run where nobody can be; `None` if the project knows no users."""
    user = getattr(request, "user", None)
    if user is None:
        return None
    _ = user.is_authenticated  # looks up who a lazy one is, of whom a copy is the user itself
    return copy.copy(user)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except PermissionDenied as error:
        raise Refusal(403, str(error)) from error
    except Http404 as error:
        raise Refusal(404, str(error)) from error
