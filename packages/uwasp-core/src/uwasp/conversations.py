"""Conversations: a plain function is a server too, which receives messages when it wants them.

    def echo(ws):
        for message in ws:
            ws.send(message)

A function runs beside all else, in a thread or greenlet that its handler spawns, and takes the events of its connection
by the same steps as a consumer does: `begin`, `take`, `put_back`, `done`. A consumer that finds such a connection in
`Listener.ready` only wakes it. How a function waits is the handler's; what uWSGI is, this module does not know.
"""

from __future__ import annotations

import errno
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from types import FrameType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from uwasp.codec import Codec, decode
from uwasp.events import Told
from uwasp.exceptions import ConnectionClosed, Undecodable
from uwasp.incoming import SLICE_IS_OVER
from uwasp.native import new_lock
from uwasp.options import Options
from uwasp.protocol import CloseCode

if TYPE_CHECKING:
    from uwasp.connection import Connection
    from uwasp.incoming import Event
    from uwasp.listener import Waiter
    from uwasp.websocket import WebSocket

__all__ = ["NOTHING", "Conversation", "conversation", "is_function", "running"]

logger = logging.getLogger("uwasp.server")

Function = TypeVar("Function", bound=Callable[..., Any])

# What a class has as attributes, a function is given.
ATTRIBUTES = frozenset({"authorize", "codec", "protocols", *(field.name for field in fields(Options))})
NOTHING: Any = object()  # what `Conversation.next` returns then
NONE: Sequence[Any] = ()
LONGEST_WAIT = 3600.0  # seconds; what somebody waits for may take longer than the system can wait at a time

_running: set[Conversation] = set()  # of this process, from before the handshake is answered until the function returns
_running_lock = threading.Lock()


def conversation(without_parentheses: None = None, /, **attributes: Any) -> Callable[[Function], Function]:
    """Give a function what a server class has as attributes, and return it.

        @uwasp.conversation(protocols=("chat.v1",), authorize=user_of, max_message_size=4096)
        def chat(ws): ...

    Args:
        attributes: `protocols`, `authorize` (a plain function of the environ), `codec` (see `uwasp.Codec`) and the
            options of `uwasp.Options`.

    Raises:
        TypeError: there is no such attribute; or it decorates what is no function, or has no parentheses.
    """
    if without_parentheses is not None:
        raise TypeError(f"above a function stands @conversation(), with parentheses, not given {without_parentheses!r}")
    unknown = sorted(set(attributes) - ATTRIBUTES)
    if unknown:
        raise TypeError(
            f"a conversation has no attribute {', '.join(unknown)}; it may have {', '.join(sorted(ATTRIBUTES))}"
        )

    def give(function: Function) -> Function:
        if not isinstance(function, FunctionType):
            raise TypeError(f"@conversation(...) stands above a function, not {function!r}")
        vars(function).update(attributes, converses=True)
        return function

    return give


def is_function(described: Any) -> bool:
    """Whether something is a plain function, which converses; or a method that has `@conversation` above it. A class,
    or what else can be called, makes servers.
    """
    if isinstance(described, MethodType):
        return getattr(described, "converses", False) is True
    return isinstance(described, FunctionType)


def running() -> list[Conversation]:
    """The conversations of this process whose functions have not returned yet."""
    with _running_lock:
        return list(_running)


class Conversation:
    """What a connection has in the place of a server object, if its server is a function.

    Args:
        function: the user's, which is called with the WebSocket.
        ws: the connection.
        name: what messages call it.
        codec: makes values of what it receives (default: nothing does).

    Attributes:
        alarm: is called, from a consumer, when `next` may have something: by it whoever waits is woken. It must not
            wait.
    """

    __slots__ = (
        "_codec",
        "_connection",
        "_events",
        "_has_ended",
        "_is_mine",
        "_is_over",
        "_is_receiving",
        "_lock",
        "_seen",
        "_thread",
        "_waiter",
        "alarm",
        "function",
        "name",
        "ws",
    )

    def __init__(self, function: Callable[..., Any], ws: WebSocket, name: str, codec: Codec[Any] | None = None) -> None:
        self.function = function
        self.ws = ws
        self.name = name
        self.alarm: Callable[[], object] | None = None
        self._codec = codec
        self._connection: Connection | None = None  # from its first event on
        self._lock = new_lock()
        self._events: Sequence[Event] = NONE  # what `take` returned last
        self._seen = 0  # of these
        self._is_mine = False  # the connection was taken out of `ready`, and has not been given back
        self._has_ended = False  # `take` has said that it was the end
        self._is_over = False  # the function has returned
        self._is_receiving = False  # somebody does, and sees the connection off if the function returns meanwhile
        self._thread = 0  # in which it runs
        self._waiter: Waiter | None = None  # of that

    # For the middleware

    def enter(self, limit: int) -> bool:
        """Count it among those that are running, unless there are so many; return whether there was room."""
        with _running_lock:
            if len(_running) >= limit:
                return False
            _running.add(self)
            return True

    def spawn(self, spawn: Callable[..., object], new_event: Callable[[], Any]) -> None:
        """Start what will run the function, as soon as the connection is open. Before that is promised to a client.

        Args:
            spawn: of the handler.
            new_event: makes what the function's thread or greenlet waits with, in there.

        Raises:
            OSError: no thread is left for it (EAGAIN).
        """
        is_due = new_event()
        self.alarm = is_due.set
        try:
            spawn(self._run, is_due)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"a thread for {self.name}: {error}") from error

    def abandon(self) -> None:
        """The connection has come to nothing: the function is never called."""
        with self._lock:
            self._is_over = True
        with _running_lock:
            _running.discard(self)
        self._ring()

    # For a consumer

    def wake(self) -> None:
        """The connection was taken out of `ready`: the conversation goes on with it."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self.ws.connection
        connection.begin()
        with self._lock:
            self._is_mine = True
            is_over = self._is_over and not self._is_receiving
        if is_over:
            self._see_off()
        else:
            self._ring()

    def _ring(self) -> None:
        alarm = self.alarm  # whoever has waited may withdraw it just now
        if alarm is not None:
            alarm()

    # For whoever receives, who need not be whoever runs the function

    def begin_receiving(self, timeout: float | None) -> None:
        """The first step of who receives.

        Args:
            timeout: for how long, in seconds.

        Raises:
            RuntimeError: another does.
            ConnectionClosed: the function has returned.
            ValueError: the timeout is no time.
        """
        if timeout is not None and (not isinstance(timeout, int | float) or math.isnan(timeout)):
            raise ValueError(f"timeout is a number of seconds, or None, not {timeout!r}")
        with self._lock:
            if self._is_receiving:
                raise RuntimeError("another one receives from this connection just now: one at a time can")
            if self._is_over:
                raise self.ws.connection.closed_error()
            self._is_receiving = True
        observer = self.ws.connection.observer
        if observer is not None:
            observer.receives()

    def end_receiving(self) -> None:
        """The last step, however it has ended."""
        with self._lock:
            self._is_receiving = False
            is_mine = self._is_over and self._is_mine  # the function has returned meanwhile
        if is_mine:
            self._see_off()

    # For whoever runs the function

    @property
    def is_over(self) -> bool:
        """The function has returned, or is never called."""
        return self._is_over

    def next(self) -> Any:
        """The next message, or `NOTHING`: when there is one, `alarm` will be called. Never waits.

        Raises:
            ConnectionClosed: there will be none.
        """
        connection = self._connection
        while connection is not None:
            try:  # at any moment somebody may close the connection, and it becomes empty
                event = self._events[self._seen]
            except IndexError:
                pass
            else:
                if self._seen == 0 or not connection.slice_is_over:
                    self._seen += 1
                    if isinstance(event, Told):
                        continue  # it is for server objects
                    if self._codec is None:
                        return event
                    try:
                        return decode(self._codec, event)
                    except Undecodable as error:
                        connection.fail(error)
                        continue
                connection.put_back(list(self._events[self._seen :]))
            self._events = NONE
            if self._has_ended:
                raise connection.closed_error()
            if not self._is_mine:
                break
            events = self._take(connection)
            if events is None:
                self._has_ended = self._is_mine = True
            elif events:
                self._is_mine = True
                self._events, self._seen = events, 0
        return NOTHING

    def _take(self, connection: Connection) -> list[Event] | None:
        self._is_mine = False  # first: when it is given back, another may wake us at once
        events = connection.take()
        if events is SLICE_IS_OVER:
            connection.listener.wake()  # it is in `ready`, and this is no consumer, who would look there
        return events

    def finish(self, error: BaseException | None, result: Any = None) -> None:
        """The function has returned, or raised an error: close the connection as is due, and see it to its end."""
        connection = self.ws.connection
        if error is None and hasattr(result, "on_message"):
            error = TypeError(
                f"{self.name} returned a {type(result).__name__}: a function is called with the open WebSocket, and "
                "converses. To have servers made, give the class itself, or functools.partial of it"
            )
        if isinstance(error, ConnectionClosed) and error.id in (None, connection.number) and not connection.open:
            error = None  # the ordinary end
        if error is not None:
            connection.tell_failed(error)
            logger.error("error in %s, closing %s with code 1011", self.name, connection, exc_info=error)
            connection.close(CloseCode.INTERNAL_ERROR, "internal error", "an error in the server")
        else:
            connection.close(CloseCode.NORMAL_CLOSURE, "")
        with _running_lock:
            _running.discard(self)
        with self._lock:
            self._is_over = True
            is_mine = self._is_mine and not self._is_receiving
        if is_mine:
            self._see_off()

    def _see_off(self) -> None:
        """Take what comes after the function until the end, which is due since the connection is closing."""
        connection = self.ws.connection
        events: Sequence[Event] | None = None
        if not self._has_ended:
            while events := self._take(connection):
                pass
        if events is None:
            connection.done()

    # With threads and greenlets

    def receive(self, timeout: float | None) -> Any:
        """See `uwasp.WebSocket.receive`."""
        self.begin_receiving(timeout)
        try:
            message = self.next()
            return self._wait(timeout) if message is NOTHING else message
        finally:
            self.end_receiving()

    def _wait(self, timeout: float | None) -> Any:
        waiter = self._find_waiter()
        if waiter is None:
            raise RuntimeError("receive waits, and whoever polls must not")
        deadline = None if timeout is None else time.monotonic() + timeout
        self.alarm = waiter.set
        try:
            while True:
                message = self.next()
                if message is not NOTHING:
                    return message
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"no message came within {timeout} s")
                waiter.wait(LONGEST_WAIT if left is None else min(left, LONGEST_WAIT))
                waiter.clear()
        finally:
            self.alarm = None

    def _find_waiter(self) -> Waiter | None:
        """What the caller waits with. The function's own thread does so for most messages, and keeps its one."""
        if threading.get_ident() != self._thread:
            return self.ws.connection.listener.new_waiter()
        if self._waiter is None:
            self._waiter = self.ws.connection.listener.new_waiter()
        return self._waiter

    def _run(self, is_due: Any) -> None:
        """In a thread or greenlet of its own."""
        is_due.wait()
        if self._is_over:
            return
        self.alarm = None
        self._thread = threading.get_ident()
        error = result = None
        try:
            result = self.function(self.ws)
        except BaseException as raised:
            error = raised
            if not isinstance(raised, Exception | SystemExit | KeyboardInterrupt):
                raise  # it is for whoever has spawned this, such as gevent's GreenletExit
        finally:
            self.finish(error, result)
            error = None  # or its traceback, which has this frame, would be kept with all that it refers to

    def __str__(self) -> str:
        return f"{self.name} for {self._connection or self.ws}{self._whereabouts()}"

    def _whereabouts(self) -> str:
        """Where in the function its thread is, as far as that can be told."""
        innermost: FrameType | None = sys._current_frames().get(self._thread)
        frame = innermost
        while frame is not None and innermost is not None:
            if frame.f_code is Conversation._run.__code__ and frame.f_locals.get("self") is self:
                return f", in {innermost.f_code.co_filename}:{innermost.f_lineno}"
            frame = frame.f_back
        return ""
