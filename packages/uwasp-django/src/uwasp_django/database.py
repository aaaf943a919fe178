"""Connections to databases live as in a view: looked at before an event and after it, and closed when they are too old.

Django has them by thread, or greenlet where gevent has replaced threads, and looks at those of a request when it begins
and when it ends. An event of a server is no request, and its thread may have another one's connections, or live for
long. What is `async def` has Django's own thread for all that would block, with its connections.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from inspect import iscoroutinefunction
from types import new_class
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.signals import connection_created

from uwasp import Handler, WebSocket

__all__ = ["event", "in_event", "of_a_thread_that_ends", "releasing"]


def close_old_connections() -> None:
    """What Django's function of this name does, but for a transaction within which somebody receives: it goes on."""
    for one in connections.all(initialized_only=True):
        if not one.in_atomic_block:
            one.close_if_unusable_or_obsolete()


@contextmanager
def event() -> Iterator[None]:
    """Around what a view does in a request."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@contextmanager
def of_a_thread_that_ends() -> Iterator[None]:
    """The same, around all that a thread or greenlet has to do: nobody will come for what it leaves."""
    close_old_connections()
    try:
        yield
    finally:
        connections.close_all()


async def in_event(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns; around it, the connections of Django's own thread are looked at."""
    await _look()
    try:
        result = await work
    except GeneratorExit:  # nothing can be awaited any more
        raise
    except BaseException:
        await _look()
        raise
    await _look()
    return result


# Django's own thread, for what async def calls by `sync_to_async`. To go there costs more than most events, which need
# no connection.
_own_thread: int | None = None
_own_thread_has_connections = True  # or may have: nobody has looked


def _note_connection(**_: Any) -> None:
    global _own_thread_has_connections
    if threading.get_ident() == _own_thread:
        _own_thread_has_connections = True


connection_created.connect(_note_connection, dispatch_uid="uwasp_django")


async def _look() -> None:
    if _own_thread_has_connections:
        await _look_in_own_thread()


@sync_to_async
def _look_in_own_thread() -> None:
    global _own_thread, _own_thread_has_connections
    _own_thread = threading.get_ident()
    close_old_connections()
    _own_thread_has_connections = any(one.connection is not None for one in connections.all(initialized_only=True))


def releasing(handler_class: type[Handler]) -> type[Handler]:
    """The same handler, whose WebSockets let go of connections while a function waits for a message."""
    own = getattr(handler_class, "websocket_class", Handler.websocket_class)
    kind = _AwaitedReceiving if iscoroutinefunction(own.receive) else _Receiving
    websocket_class = new_class(own.__name__, (kind, own), exec_body=lambda names: names.update(__slots__=()))
    names = {"__module__": handler_class.__module__, "websocket_class": websocket_class}
    return cast("type[Handler]", type(handler_class.__name__, (handler_class,), names))


class _Receiving(WebSocket):
    __slots__ = ()

    def receive(self, timeout: float | None = None) -> Any:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        try:
            while True:
                now = time.monotonic()
                close_old_connections()
                left, age = deadline - now, _until_too_old(now)
                wait = min(left, age)
                try:
                    return super().receive(None if wait == math.inf else wait)
                except TimeoutError:
                    if left <= age:
                        raise TimeoutError(f"no message came within {timeout} s") from None
        finally:
            close_old_connections()


class _AwaitedReceiving(WebSocket):
    __slots__ = ()

    async def receive(self, timeout: float | None = None) -> Any:
        return await in_event(super().receive(timeout))


def _until_too_old(now: float) -> float:
    """In how many seconds a connection of this thread has to be closed (CONN_MAX_AGE); infinite, if none has.

    One whose time has been over before cannot be closed, such as that of an SQLite in memory.
    """
    ends = [
        one.close_at
        for one in connections.all(initialized_only=True)
        if one.connection is not None and one.close_at is not None and not one.in_atomic_block
    ]
    return min((end - now for end in ends if end > now), default=math.inf)
