"""`Visit`: a request for a WebSocket on its way through Flask, whose context may outlive it.

Flask has what belongs to a request in a `contextvars.Context`, and a context of its own in there tears down what the
request had when it is popped as often as it was pushed. So such a request runs in a `contextvars.Context` of its own,
Flask's is pushed once more when the WebSocket opens, and whoever converses enters the one, when the request has left
it, and pops the other at the end. Only one at a time can be in there, thread or greenlet.

By Flask's public names alone. What a route, a handler or a WebSocket is, this module does not know.
"""

from __future__ import annotations

import contextvars
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import flask.globals
from flask import got_request_exception, request

from uwasp import takeover
from uwasp.handshake import is_upgrade

__all__ = ["KEY", "Entrance", "Visit", "forget_streams", "pushed"]

KEY = "uwasp_flask.visit"  # of the visit, in the environ of its request
OF_THE_REQUEST = ("wsgi.file_wrapper", "x-wsgiorg.fdevent.readable", "x-wsgiorg.fdevent.writable")

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Entrance:
    """Stands where a Flask application has its `wsgi_app`; a request for a WebSocket becomes a visit here."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if KEY in environ or not is_upgrade(environ):
            takeover.look_at_server(environ)
            return self._application(environ, start_response)
        visit = Visit()
        # A copy, because uWSGI empties its own when the request is over, and fills it for the next.
        return visit.run(self._application, {**environ, KEY: visit}, start_response)


class Visit:
    """A request for a WebSocket.

    Attributes:
        context: in which it runs, and after it the conversation.
        params: what Flask has found in the path, for the function.
        flask: Flask's context of the request, from when a connection may open.
        has_opened: there is a connection: a handler has it.
    """

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self.params: dict[str, Any] = {}
        self.flask: Any = None
        self.has_opened = False
        self._lock = threading.Lock()
        self._has_left = False
        self._waiter: Any = None  # whose turn it is when the request has left

    # In uWSGI's thread or greenlet of the request

    def run(
        self, application: WSGIApplication, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer the request by the application."""
        try:
            body = self.context.run(application, environ, start_response)
        finally:
            with self._lock:
                self._has_left = True
                waiter = self._waiter
            if waiter is not None:
                waiter.set()
        return body if self.has_opened else Body(self.context, body)

    @contextmanager
    def opening(self, stays: bool) -> Iterator[None]:
        """Within, a connection may open. If it does, and Flask's context is to stay, Flask's pop is not the last."""
        self.flask = current_context()
        if stays:
            push(self.flask)
        try:
            yield
        finally:
            if stays and not self.has_opened:
                self.flask.pop()

    # In the thread or greenlet of the conversation

    def follow(self, new_waiter: Callable[[], Any], function: Callable[[], object]) -> None:
        """Call the function in the request's context, once the request has left that; then tear it down.

        Args:
            new_waiter: makes what the calling thread or greenlet waits with.
            function: what to call; an exception out of it is told to Flask, and raised.
        """
        with self._lock:
            if not self._has_left:
                self._waiter = new_waiter()
        if self._waiter is not None:
            self._waiter.wait()
        if self.has_opened:
            self.context.run(self._follow, function)

    def _follow(self, function: Callable[[], object]) -> None:
        with popped(self.flask):
            function()


class Body:
    """The body of an answer that is no 101: what makes it runs where the request ran."""

    def __init__(self, context: contextvars.Context, body: Iterable[bytes]) -> None:
        self._context = context
        self._body = body
        self._iterator = context.run(iter, body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._iterator)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)


def current_context() -> Any:
    """Flask's context of the current request. From Flask 3.2 on that of the application is the same."""
    context = flask.globals.app_ctx._get_current_object()  # type: ignore[attr-defined]
    if not hasattr(context, "request"):
        context = flask.globals.request_ctx._get_current_object()  # type: ignore[attr-defined]
    return context


def push(context: Any) -> None:
    """Push a context of Flask's, which looks at the request's path once more, and leave `view_args` as they are."""
    view_args = context.request.view_args
    context.push()
    context.request.view_args = view_args


@contextmanager
def pushed(context: Any) -> Iterator[None]:
    """Within, this is Flask's context. What is raised is told to Flask."""
    push(context)
    with popped(context):
        yield


@contextmanager
def popped(context: Any) -> Iterator[None]:
    """Pop a context of Flask's in the end. What is raised is told to Flask, and to what tears down."""
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:
        error = raised
        if isinstance(raised, Exception):
            got_request_exception.send(context.app, _async_wrapper=context.app.ensure_sync, exception=raised)
        raise
    finally:
        context.pop(error)
        error = None  # or its traceback, which has this frame, would be kept with all that it refers to


def forget_streams() -> None:
    """Leave the current request nothing of uWSGI's that is another request's soon."""
    environ = request.environ
    environ["wsgi.input"] = io.BytesIO()  # a handshake has no body
    environ["wsgi.errors"] = sys.stderr  # Flask's logger writes there
    for name in OF_THE_REQUEST:
        environ.pop(name, None)
