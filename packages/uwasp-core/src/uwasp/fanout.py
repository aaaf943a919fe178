"""From one to many: what goes to the members that a group has in this process, in order and in slices of time.

A *delivery* is one thing for many connections: a message, an event, a farewell. Whoever has one puts it in the queue of
its group, its `FanOut`, and runs that for a slice. What is left then is gone on with by the listeners of the members,
a slice each time that they poll, so that they read, and serve others, in between. Nobody is held for longer, and nobody
waits for a member.

This module must never know who is in which group, nor where a delivery comes from.
"""

from __future__ import annotations

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING

from uwasp.events import Told
from uwasp.native import new_lock
from uwasp.protocol import FrameProtocol

if TYPE_CHECKING:
    from uwasp.connection import Connection
    from uwasp.listener import Listener

__all__ = ["Backlog", "FanOut", "Farewell"]

logger = logging.getLogger("uwasp.fanout")

# For how long deliveries go on at a time, in seconds.
SLICE = 0.001
# What a delivery takes beside its payload, about, in bytes.
COST = 256


class Farewell:
    """Closes the connections of a group's members.

    Raises:
        ValueError: see `uwasp.WebSocket.close`.
    """

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        FrameProtocol().encode_close(code, reason)
        self.code = code
        self.reason = reason


Payload = bytes | Told | Farewell


class Backlog:
    """What waits to be delivered in all groups of a process: bounded together, and gone on with in turn.

    Args:
        bound: so many bytes may wait at most (default: 16 MiB); what goes to many members counts once.

    Attributes:
        queued: how many do.
    """

    def __init__(self, bound: int = 2**24) -> None:
        self.bound = bound
        self.queued = 0
        self._lock = new_lock()
        self._waiting: deque[FanOut] = deque()  # each once
        self._called: set[Listener] = set()  # to whom it is left to go on

    def _go_on_later(self, fan_out: FanOut, listeners: set[Listener]) -> None:
        """Leave it to all these listeners: one that has ended must not be waited for."""
        with self._lock:
            if not fan_out.is_waiting:
                fan_out.is_waiting = True
                self._waiting.append(fan_out)
        for listener in listeners:
            self._call(listener)

    def _call(self, listener: Listener) -> None:
        with self._lock:
            if listener in self._called:
                return
            self._called.add(listener)
        try:
            listener.call_later(0, functools.partial(self._go_on, listener))
        except Exception:
            self._called.discard(listener)
            logger.exception("a listener cannot be called to deliver to its members")

    def _go_on(self, listener: Listener) -> None:
        """Called by a listener: deliver for a slice, whatever waits, and come back while anything does."""
        self._called.discard(listener)
        deadline = time.monotonic() + SLICE
        try:
            while (fan_out := self._next()) is not None:
                fan_out.deliver(deadline)
                if time.monotonic() >= deadline:
                    break
        finally:
            if self._waiting:
                self._call(listener)

    def _next(self) -> FanOut | None:
        with self._lock:
            if not self._waiting:
                return None
            fan_out = self._waiting.popleft()
            fan_out.is_waiting = False
            return fan_out


class _Delivery:
    """One thing for many.

    Attributes:
        following: goes through the members, so that each gets it once, whatever happens in between.
        has_begun: somebody may have got it.
    """

    __slots__ = ("following", "has_begun", "members", "payload", "size")

    def __init__(self, payload: Payload, members: tuple[Connection, ...], size: int) -> None:
        self.payload = payload
        self.members = members
        self.size = size
        self.following = iter(members)
        self.has_begun = False

    def go_on(self, deadline: float) -> bool:
        """Deliver it to at least one more; return whether all have got it."""
        payload = self.payload
        if isinstance(payload, bytes):
            return send_to_all(payload, self.members, self.following, deadline, _cut)
        for member in self.following:
            try:
                if isinstance(payload, Told):
                    member.tell(payload)
                else:
                    member.close(payload.code, payload.reason, "its group")
            except Exception as error:
                _cut(member, error)
            if time.monotonic() >= deadline:
                return False
        return True


class FanOut:
    """The deliveries of one group in this process, in order.

    Args:
        backlog: that of the process.
    """

    __slots__ = ("__weakref__", "_backlog", "_is_running", "_listeners", "_members", "_queue", "is_waiting")

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._queue: deque[_Delivery] = deque()
        self._is_running = False  # somebody delivers; whoever does alone takes away from the queue
        self.is_waiting = False  # for its turn, in the backlog
        self._members: tuple[Connection, ...] = ()  # those that `_listeners` are of
        self._listeners: set[Listener] = set()

    def put(self, payload: Payload, members: tuple[Connection, ...], size: int) -> bool:
        """Have something delivered to all of `members`, after what was put before; `run` does it.

        For a caller who holds a lock of its own, so that the order is right. It takes no time.

        Args:
            payload: a frame of `uwasp.protocol.encode_shared`; an event; or a `Farewell`.
            members: may be gone when it is their turn; then they get nothing.
            size: the bytes that it counts for. Of 0, it is always taken, as what tells that something was lost has to
                be; but nothing is added for one that would come at once behind itself.

        Returns:
            Whether it will be delivered; `False`: too much waits in this process.
        """
        if not members:
            return True
        backlog = self._backlog
        with backlog._lock:
            if size:
                size += COST
                if backlog.queued and backlog.queued + size > backlog.bound:
                    return False
                backlog.queued += size
            elif self._queue:
                last = self._queue[-1]
                if last.payload is payload and last.members is members and not last.has_begun:
                    return True
            self._queue.append(_Delivery(payload, members, size))
        return True

    def run(self) -> None:
        """Deliver for a slice, unless somebody does, and have the rest delivered later. With no lock held.

        Where something is left for the listeners already, so is this: who sends many in a row is not held for a slice
        each time.

        From any thread or greenlet. What a member raises is logged, and cuts its connection alone.
        """
        if not self.is_waiting:
            self.deliver(time.monotonic() + SLICE)

    def deliver(self, deadline: float) -> None:
        """Deliver until then (seconds of `time.monotonic()`), unless somebody does, and have the rest done later."""
        backlog = self._backlog
        with backlog._lock:
            if self._is_running or not self._queue:
                return
            self._is_running = True
        try:
            while True:
                delivery = self._queue[0]
                delivery.has_begun = True
                is_done = delivery.go_on(deadline)
                with backlog._lock:
                    if is_done:
                        self._queue.popleft()
                        backlog.queued -= delivery.size
                        if not self._queue:
                            self._is_running = False
                            return
                if time.monotonic() >= deadline:
                    break
        except BaseException:  # what is not about a member: a greenlet that is killed while it logs
            self._leave()
            raise
        self._leave()

    def _leave(self) -> None:
        # Before others may deliver: where they have delivered all by then, it would wait for a turn from nobody.
        listeners = self._listeners_of_the_next()
        self._is_running = False
        self._backlog._go_on_later(self, listeners)

    def _listeners_of_the_next(self) -> set[Listener]:
        """Those of the members that are next."""
        members = self._queue[0].members
        if members is not self._members:
            self._members = members
            self._listeners = set(map(attrgetter("listener"), members))
        return self._listeners


def send_to_all(
    frame: bytes,
    members: tuple[Connection, ...],
    following: Iterator[Connection],
    deadline: float,
    cut: Callable[[Connection, Exception], None],
) -> bool:
    """Send a shared frame to at least one more of the members, and until the deadline.

    Args:
        frame: of `uwasp.protocol.encode_shared`.
        members: to whom it goes; of use to the C, which looks ahead.
        following: goes through them; those who have not got it.
        deadline: in seconds of `time.monotonic()`.
        cut: is called with a member and the exception that came out of it.

    Returns:
        Whether all have got it.
    """
    for member in following:
        try:
            member.send_shared(frame)
        except Exception as error:
            cut(member, error)
        if time.monotonic() >= deadline:
            return False
    return True


def _cut(member: Connection, error: Exception) -> None:
    """An exception that nobody expected came out of a member: part from it."""
    logger.error("%s failed when its group was sent to, and is cut; the others go on", member, exc_info=error)
    try:
        member.terminate("a fault of uWASP's")
    except Exception:
        logger.exception("%s cannot be cut", member)
