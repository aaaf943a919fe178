"""What a route has as its server, made into what the core takes: a function that converses, or a class.

A function runs in the context of the request, which lasts as long as it does. A class is for connections that are idle
most of their time, and would keep what belongs to a request for as long: each of its events has a context of its own,
of the same request.
"""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Callable, Sequence
from types import new_class
from typing import Any, get_origin

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

import uwasp
from uwasp.handler import Handler
from uwasp.routing import ServerClass
from uwasp_flask import visit
from uwasp_flask.websocket import ConnectionClosed, WebSocket

__all__ = ["conversing", "in_contexts", "is_class"]

logger = logging.getLogger("uwasp.flask")

EVENTS = ("on_open", "on_message", "on_close", "on_notify", "on_presence", "on_missed")
TOO_LATE = 1008  # RFC 6455 §7.4.1, a message that violates a policy: the nearest that there is to a refusal

_event_of: contextvars.ContextVar[object] = contextvars.ContextVar("uwasp_flask.event_of")


def is_class(server: Any) -> bool:
    """Whether servers are made of it: a class, such an alias as `Chat[str]`, or a `functools.partial` of one."""
    while isinstance(server, functools.partial):
        server = server.func
    return isinstance(get_origin(server) or server, type)


def conversing(
    function: Callable[..., Any], subprotocols: Sequence[str], handler_class: type[Handler]
) -> Callable[[uwasp.WebSocket], None]:
    """The function that the core calls, in whose visit the user's is called."""
    new_waiter = getattr(handler_class, "new_waiter", Handler.new_waiter)

    def converse(websocket: uwasp.WebSocket) -> None:
        here: visit.Visit = websocket.environ.pop(visit.KEY)
        here.follow(new_waiter, functools.partial(_converse, function, websocket, here.params))

    converse.__name__ = getattr(function, "__name__", type(function).__name__)
    converse.__qualname__ = getattr(function, "__qualname__", converse.__name__)
    vars(converse).update({"protocols": subprotocols, **getattr(function, "__dict__", {})})
    return converse


def _converse(function: Callable[..., Any], websocket: uwasp.WebSocket, params: dict[str, Any]) -> None:
    try:
        result = function(WebSocket(websocket), **params)
    except (ConnectionClosed, uwasp.ConnectionClosed):
        if not websocket.closed:
            raise  # it is about another connection
    except HTTPException as error:
        _refuse_late(function, websocket, error.get_response())
    else:
        if isinstance(result, Response):
            _refuse_late(function, websocket, result)


def _refuse_late(function: Callable[..., Any], websocket: uwasp.WebSocket, response: Any) -> None:
    """The function has aborted, or returned a response, which no client can get any more."""
    logger.warning(
        "%s answered %s when the WebSocket was open already, which is closed with %d: what decides who may come in "
        "stands in sock.route(..., decorators=[...]), or in a before_request",
        getattr(function, "__name__", function),
        response.status,
        TOO_LATE,
    )
    websocket.close(TOO_LATE, response.status[:123])


def in_contexts(server: Any, subprotocols: Sequence[str]) -> ServerClass:
    """The same class, or partial of it, whose events have a context each."""
    if isinstance(server, functools.partial):
        return functools.partial(in_contexts(server.func, subprotocols), *server.args, **server.keywords)
    described = get_origin(server) or server

    def __init__(self: Any, ws: uwasp.WebSocket, *args: Any, **keywords: Any) -> None:
        self._uwasp_flask_context = ws.environ.pop(visit.KEY).flask
        super(made, self).__init__(ws, *args, **keywords)

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update({name: getattr(described, name) for name in ("__module__", "__qualname__", "__doc__")})
        namespace["__init__"] = __init__
        if subprotocols and not getattr(described, "protocols", ()):
            namespace["protocols"] = subprotocols
        for event in EVENTS:
            method = getattr(described, event, None)
            if method is not None and method is not getattr(uwasp.Server, event):
                namespace[event] = _in_context(event, lambda: made)

    made: Any = new_class(described.__name__, (server,), exec_body=fill)
    return made  # type: ignore[no-any-return]


def _in_context(event: str, made: Callable[[], Any]) -> Callable[..., Any]:
    def call(self: Any, *args: Any) -> Any:
        method = getattr(super(made(), self), event)
        if _event_of.get(None) is self:
            return method(*args)  # one event calls another
        # Not in the one that is here, where a greenlet may have come by the context of whoever spawned it.
        return contextvars.Context().run(_call, self, method, args)

    call.__name__ = event
    return call


def _call(self: Any, method: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    _event_of.set(self)
    with visit.pushed(self._uwasp_flask_context.copy()):
        try:
            return method(*args)
        except uwasp.ConnectionClosed as error:
            closed = error  # an ordinary end, or for the core to log
    raise closed
