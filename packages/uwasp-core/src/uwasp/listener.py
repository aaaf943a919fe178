"""The listener: all taken-over connections of one process, read as they become ready.

This is what handlers are built on, ours and anybody's. A handler makes one listener in each process, adds its
connections, calls `poll` again and again, and has `consume` called on each connection that `poll` leaves in `ready`:
in threads, in greenlets, in whatever it schedules. The listener itself waits for nothing but the poller, never runs
user code, and knows neither threads nor greenlets.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uwasp.connection import Connection
from uwasp.poller import READABLE, WRITABLE, Poller, new_poller

if TYPE_CHECKING:
    from uwasp.server import ServerInterface
    from uwasp.websocket import WebSocket

__all__ = ["Listener", "Timer"]

logger = logging.getLogger("uwasp.listener")


class Timer:
    """An action that the listener takes at a later time, unless it is cancelled before."""

    __slots__ = ("_action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self._action = None

    def run(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Listener:
    """Reads the connections that are added to it. Make it in the process that uses it: a fork cannot share it.

    Args:
        poller: tells which connections are ready (default: the platform's, see `uwasp.poller.new_poller`).
        new_lock: makes a lock, `threading.Lock` by default. Where gevent has patched that, pass the original.

    Attributes:
        ready: connections with events for their servers, each once; whoever takes one out calls its `consume`.
        poller: the poller; its `fileno()` can be watched by an event loop.
    """

    def __init__(self, poller: Poller | None = None, new_lock: Callable[[], Any] = threading.Lock) -> None:
        self.poller = poller if poller is not None else new_poller()
        self.ready: deque[Connection] = deque()
        self._connections: dict[int, Connection] = {}
        self._new_lock = new_lock
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_lock = new_lock()
        self._timer_numbers = itertools.count()
        self._awake = False  # `poll` is past its wait, so whoever calls it will look at `ready` and the timers
        self._bell, self._bell_button = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._bell_button, False)
        self.poller.register(self._bell, READABLE)

    def add(self, ws: WebSocket, server: ServerInterface) -> None:
        """Deliver the events of an open connection to `server`, from now on. From any thread or greenlet."""
        connection = ws.connection
        connection.attach(self, server, self._new_lock)
        self._connections[connection.fd] = connection
        self.poller.register(connection.fd, READABLE)
        connection.start()
        self.wake()

    def forget(self, fd: int) -> None:
        """For a connection that is about to close its descriptor."""
        self._connections.pop(fd, None)
        self.poller.unregister(fd)

    def __len__(self) -> int:
        """The number of connections whose descriptor is open."""
        return len(self._connections)

    def poll(self, timeout: float | None = None) -> None:
        """Wait until something is ready, read it, and take the actions that are due.

        One caller at a time. What it leaves to do is in `ready`.

        Args:
            timeout: how long to wait at most, in seconds (default: until something is ready). The wait ends
                early when a timer is due or when `wake` is called.
        """
        due = self.next_due
        if due is not None:
            wait = max(0.0, due - time.monotonic())
            timeout = wait if timeout is None else min(wait, timeout)
        events = self.poller.poll(timeout)
        self._awake = True
        for fd, event in events:
            connection = self._connections.get(fd)
            if connection is None:
                if fd == self._bell:
                    os.read(fd, 4096)
                continue
            try:
                if event & WRITABLE:
                    connection.flush()
                if event & ~WRITABLE:
                    connection.receive()
            except Exception:
                logger.exception("a connection failed in the listener and is cut; the others go on")
                connection.terminate()
        if self._timers:
            self._run_timers()
        self._awake = False

    def wake(self) -> None:
        """End the wait of `poll`, because there is something in `ready`. From any thread or greenlet."""
        if not self._awake:
            try:
                os.write(self._bell_button, b"\0")
            except BlockingIOError:
                return  # the pipe is full of rings that have not been heard yet

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Have `poll` call `action` in `delay` seconds. From any thread or greenlet; `action` must not wait."""
        timer = Timer(action)
        with self._timers_lock:
            heapq.heappush(self._timers, (time.monotonic() + delay, next(self._timer_numbers), timer))
        self.wake()
        return timer

    @property
    def next_due(self) -> float | None:
        """When `poll` has the next action to take, in seconds of `time.monotonic()`; `None` if there is none."""
        with self._timers_lock:
            return self._timers[0][0] if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while True:
            with self._timers_lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                timer = heapq.heappop(self._timers)[2]
            try:
                timer.run()
            except Exception:
                logger.exception("an action of the listener failed")
