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
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from uwasp import metrics
from uwasp.connection import Connection
from uwasp.native import original
from uwasp.poller import READABLE, WRITABLE, Poller, new_poller
from uwasp.statistics import Totals, add_listener

if TYPE_CHECKING:
    from uwasp.conversations import Conversation
    from uwasp.options import Options
    from uwasp.server import ServerInterface
    from uwasp.websocket import WebSocket

__all__ = ["Listener", "Timer", "Waiter"]

logger = logging.getLogger("uwasp.listener")

# How often the connections are looked through for silent ones, in seconds; oftener where their options ask for that.
KEEPALIVE_PERIOD = 1.0
# glibc gives memory back to the kernel as soon as a little lies unused at the end, and a worker that echoes messages of
# 16 KiB spends half of its time in the kernel on that. To free one block of this size (bytes) makes it less hasty.
LARGE = 2**22
# For how long a consumer may keep something back while its server does nothing new, in seconds.
CORKED_PATIENCE = 0.001
# The longest that `poll` waits without looking up, in seconds; epoll takes no more than 24 days.
LONGEST_WAIT = 3600.0
# Who polls without waiting lets other threads have the interpreter so often, in seconds: as often as Python would.
COMPUTING = 0.005
# For so long, in seconds, of which Linux makes some 60 µs.
REST = 1e-6
# When more timers than this are kept, and most of them are cancelled, those are thrown away.
FEW_TIMERS = 64
# How often a listener that fails again and again says so, in seconds.
FAILURE_PERIOD = 1.0
# How often a listener that tells its connections one after the other to go looks whether it still may, in seconds.
SPREAD_PERIOD = 0.1
HUNG_UP = getattr(select, "EPOLLHUP", 0) | getattr(select, "EPOLLERR", 0)


class Waiter(Protocol):
    """What a sender waits with: the part of `threading.Event` that is used, and gevent's has too."""

    def set(self) -> object: ...

    def clear(self) -> object: ...

    def wait(self, timeout: Any = None) -> Any:
        """Wait for `set`, up to `timeout` seconds; return whether it was called."""


class Timer:
    """An action that the listener takes at a later time, unless it is cancelled before.

    Args:
        action: what to do; it must not wait.
        cancelled: is called when it is cancelled before it was run.

    Attributes:
        is_over: it was run, or cancelled.
        connection: whose method the action is, if it is a connection's.
    """

    __slots__ = ("_action", "_cancelled", "connection")

    def __init__(self, action: Callable[[], None], cancelled: Callable[[], None]) -> None:
        self._action: Callable[[], None] | None = action
        self._cancelled: Callable[[], None] | None = cancelled
        owner = getattr(action, "__self__", None)
        self.connection = owner if isinstance(owner, Connection) else None

    @property
    def is_over(self) -> bool:
        return self._action is None

    def cancel(self) -> None:
        cancelled, self._cancelled = self._cancelled, None
        self._action = self.connection = None
        if cancelled is not None:
            cancelled()

    def run(self) -> None:
        action, self._action = self._action, None
        self._cancelled = None
        if action is not None:
            action()


class Listener:
    """Reads the connections that are added to it. Make it in the process that uses it: a fork cannot share it.

    Args:
        poller: tells which connections are ready (default: the platform's, see `uwasp.poller.new_poller`).
        new_lock: makes a lock, `threading.Lock` by default. Where gevent has patched that, pass the original.
        new_waiter: makes what a sender waits with until a slow client has read, `threading.Event` by default; it
            returns `None` where the caller must not wait, as in the thread or greenlet that polls.

    Attributes:
        ready: connections with events for their servers, each once; whoever takes one out calls its `consume`.
        poller: the poller; its `fileno()` can be watched by an event loop.
        corked: connections of which a consumer keeps back what was sent.
        now: when `poll` last stopped waiting, in seconds of `time.monotonic()`.
        totals: the figures of the connections that it has had.
    """

    def __init__(
        self,
        poller: Poller | None = None,
        new_lock: Callable[[], Any] = threading.Lock,
        new_waiter: Callable[[], Waiter | None] = threading.Event,
    ) -> None:
        bytearray(LARGE)
        self.poller = poller if poller is not None else new_poller()
        self.ready: deque[Connection] = deque()
        self.corked: set[Connection] = set()
        self._corked_lately = False  # so that `poll` does not wait for long, as it would be woken soon
        self._waits_long = False
        self.now = time.monotonic()
        self.totals = Totals()
        self.new_waiter = new_waiter
        self._connections: dict[int, Connection] = {}
        self._new_lock = new_lock
        self._serving_lock = new_lock()
        self._serving = 0  # connections whose `on_close` is still to come, or to return
        self._goodbye: Waiter | None = None  # set when the last is gone, after `shut_down`
        self._shutdown_timeout = 0.0
        self._keepalive_period = KEEPALIVE_PERIOD
        self._keeping_alive = False
        self._watched: dict[int, Callable[[], None]] = {}
        self._failure_told = -math.inf  # when, in seconds of `time.monotonic()`
        self._timers: list[tuple[float, int, Timer]] = []  # a heap; whoever polls alone takes one away
        self._timers_cancelled = 0  # of those
        self._timers_lock = new_lock()
        self._timer_numbers = itertools.count()
        self._rest_due = self._looked = 0.0  # at how long the thread has computed, in seconds of `time.monotonic()`
        self._computed = 0.0
        self._sleep = original("time", "sleep")
        self._awake = False  # `poll` is past its wait, so whoever calls it will look at `ready` and the timers
        self._bell, self._bell_button = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._bell_button, False)
        self.poller.register(self._bell, READABLE)
        self._metrics = metrics.Metrics(self, new_lock) if metrics.are_wanted() else None
        if self._metrics is not None:
            self._publish()
        add_listener(self)

    def add(self, ws: WebSocket, server: ServerInterface | Conversation) -> None:
        """Deliver the events of an open connection to `server`, from now on. From any thread or greenlet.

        Raises:
            OSError: the poller does not take another connection.
        """
        connection = ws.connection
        self.poller.register(connection.fd, READABLE)  # if it cannot be, nothing has happened
        with self._serving_lock:
            self._serving += 1
            self._shutdown_timeout = max(self._shutdown_timeout, ws.options.shutdown_timeout)
            self.totals.count_opened(connection.route)
        connection.attach(self, server, self._new_lock)
        self._connections[connection.fd] = connection
        connection.start()
        if self._goodbye is not None:
            connection.go_away()
        self._keep_alive_as_often_as(ws.options)
        self.wake()

    def forget(self, connection: Connection) -> None:
        """For a connection that is about to close its descriptor."""
        self._connections.pop(connection.fd, None)
        self.poller.unregister(connection.fd)
        self.totals.closed[connection.close_code or 0] += 1
        self.totals.count_traffic(connection)
        self._look_for_the_end()

    def count_served(self) -> None:
        """For a connection whose `on_close` has returned."""
        with self._serving_lock:
            self._serving -= 1
        self._look_for_the_end()

    @property
    def serving(self) -> int:
        """The number of connections whose `on_close` is still to come, or to return."""
        return self._serving

    def count_slow_member(self) -> None:
        """For a connection that was too slow for a message to its group. From any thread or greenlet."""
        with self._serving_lock:
            self.totals.slow_members += 1

    def connections(self) -> list[Connection]:
        """The connections whose descriptor is open."""
        return list(self._connections.values())

    def shut_down(self, done: Waiter, may_spread: Callable[[], bool] = bool) -> None:
        """Close all connections with 1001, "going away", for a process that is about to end (RFC 6455 §7.4.1).

        Args:
            done: is set when every client has parted and every `on_close` has returned. `poll` and the consumers
                have to go on until then, or until patience ends.
            may_spread: whether each may be closed at a time of its own within its option `shutdown_spread` (default:
                no). Once it returns no, the others are closed too. It must not wait.
        """
        self._goodbye = done
        spreads = may_spread()  # one answer for all that follows: another worker may be gone a moment later
        connections = self.connections()
        for number, connection in enumerate(connections):
            connection.go_away(number / len(connections) if spreads else 0.0)
        if spreads:
            self._look_at_spreading(may_spread)
        self._look_for_the_end()

    def _look_at_spreading(self, may_spread: Callable[[], bool]) -> None:
        """Close those that are left as soon as they may not be closed at a time of their own any more."""
        if not may_spread():
            for connection in self.connections():
                connection.go_away()
        elif self._connections:
            self.call_later(SPREAD_PERIOD, lambda: self._look_at_spreading(may_spread))

    def _look_for_the_end(self) -> None:
        if self._goodbye is not None and not self._connections and not self._serving:
            self._goodbye.set()

    def shutdown_timeout(self) -> float:
        """How long `shut_down` may take, in seconds: the longest that a connection was given.

        A connection that is gone counts: its `on_close` may not have returned yet.
        """
        return self._shutdown_timeout

    def _keep_alive_as_often_as(self, options: Options) -> None:
        if options.ping_interval is None:
            return
        shortest = min(options.ping_interval, options.ping_timeout or options.ping_interval)
        with self._serving_lock:
            self._keepalive_period = min(self._keepalive_period, shortest / 4)
            is_running, self._keeping_alive = self._keeping_alive, True
        if not is_running:
            self.call_later(self._keepalive_period, self._keep_alive)

    def _keep_alive(self) -> None:
        """Look for silent connections, and look again later while there are any."""
        for connection in self.connections():
            try:
                connection.keep_alive(self.now)
            except Exception as error:
                self._cut(connection, error)
        with self._serving_lock:
            self._keeping_alive = bool(self._connections)
        if self._keeping_alive:
            self.call_later(self._keepalive_period, self._keep_alive)

    def _publish(self) -> None:
        if self._metrics is not None:
            try:
                self._metrics.publish()
            finally:
                self.call_later(self._metrics.PERIOD, self._publish)

    def __len__(self) -> int:
        """The number of connections whose descriptor is open."""
        return len(self._connections)

    def poll(self, timeout: float | None = None) -> None:
        """Wait until something is ready, read it, and take the actions that are due.

        One caller at a time. What it leaves to do is in `ready`. One who never waits here, and computes most of the
        time, is made to sleep for a moment now and then: other threads would hardly have a turn.

        Args:
            timeout: how long to wait at most, in seconds (default: until something is ready). The wait ends
                early when a timer is due or when `wake` is called.
        """
        try:
            if timeout != 0:
                timeout = self._wait(timeout)
            elif self.now >= self._rest_due:
                self._rest()
            events = self.poller.poll(timeout)
            self.now = time.monotonic()
            self._awake = True
            self._waits_long = False
            self._dispatch(events)
            if self._timers and self._timers[0][0] <= self.now:
                self._run_timers()
            if self.corked:
                self._corked_lately = True
                self._flush_corked(self.now - CORKED_PATIENCE)
            elif not events:
                self._corked_lately = False
        except Exception:  # nothing that is known; whoever polls has to go on for all the others
            now = time.monotonic()
            if now - self._failure_told >= FAILURE_PERIOD:
                self._failure_told = now
                logger.exception("the listener failed, and goes on")
        finally:
            self._awake = False

    def _rest(self) -> None:
        """Let another thread have the interpreter, if this one has computed half of the time or more.

        Python would see to that, after 5 ms, were it not for what we read and send. Each call lets go of the
        interpreter for some microseconds, in which no other thread wakes up and takes it; and the 5 ms begin anew.
        """
        now, computed = time.monotonic(), time.thread_time()
        if computed - self._computed >= (now - self._looked) / 2:
            self._sleep(REST)
        self._looked, self._computed = now, computed
        self._rest_due = now + COMPUTING

    def _wait(self, timeout: float | None) -> float:
        """How long to wait at most, in seconds."""
        wait = LONGEST_WAIT if timeout is None else min(timeout, LONGEST_WAIT)
        if self._timers:
            wait = min(max(0.0, self._timers[0][0] - time.monotonic()), wait)
        # Whoever corks looks at `_waits_long` after adding to `corked`; here it is the other way round.
        self._waits_long = not self._corked_lately
        if self.corked or self._corked_lately:
            wait = min(CORKED_PATIENCE, wait)
        return wait

    def _dispatch(self, events: list[tuple[int, int]]) -> None:
        for fd, event in events:
            connection = self._connections.get(fd)
            if connection is None:
                self._react_to_other(fd)
                continue
            try:
                if event == READABLE:
                    connection.receive()
                    continue
                if event & WRITABLE:
                    connection.flush()
                if event & ~WRITABLE:
                    connection.receive(event & HUNG_UP != 0)
            except Exception as error:
                self._cut(connection, error)

    def _react_to_other(self, fd: int) -> None:
        if fd == self._bell:
            os.read(fd, 4096)
            return
        callback = self._watched.get(fd)
        if callback is None:
            return  # it was unwatched meanwhile
        try:
            callback()
        except Exception:
            logger.exception("the callback for descriptor %d failed", fd)

    def _cut(self, connection: Connection, error: Exception) -> None:
        """An exception that nobody expected came out of a connection: part from it."""
        logger.error("%s failed in the listener and is cut; the others go on", connection, exc_info=error)
        try:
            connection.terminate("a fault of uWASP's")
        except Exception:
            logger.exception("%s cannot be cut", connection)

    def cork(self, connection: Connection) -> None:
        """For a consumer that begins to keep back what is sent on this connection; `poll` does not let it lie."""
        self.corked.add(connection)
        if self._waits_long:
            self.wake()

    def _flush_corked(self, before: float) -> None:
        """Send what consumers have kept back since before that time (seconds of `time.monotonic()`)."""
        for connection in list(self.corked):
            if connection.corked_since <= before:
                try:
                    connection.flush_corked()
                except Exception as error:
                    self.corked.discard(connection)
                    self._cut(connection, error)

    def wake(self) -> None:
        """End the wait of `poll`, because there is something in `ready`. From any thread or greenlet."""
        if not self._awake:
            try:
                os.write(self._bell_button, b"\0")
            except BlockingIOError:
                return  # the pipe is full of rings that have not been heard yet

    def call_later(self, delay: float, action: Callable[[], None]) -> Timer:
        """Have `poll` call `action` in `delay` seconds. From any thread or greenlet; `action` must not wait."""
        timer = Timer(action, self._count_cancelled)
        entry = (time.monotonic() + delay, next(self._timer_numbers), timer)
        with self._timers_lock:
            if len(self._timers) > FEW_TIMERS and self._timers_cancelled > len(self._timers) / 2:
                kept = [entry, *(other for other in self._timers if not other[2].is_over)]
                heapq.heapify(kept)
                self._timers[:] = kept  # at once: whoever polls looks at it without the lock
                self._timers_cancelled = 0
            else:
                heapq.heappush(self._timers, entry)
        self.wake()
        return timer

    def _count_cancelled(self) -> None:
        with self._timers_lock:
            self._timers_cancelled += 1

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Have `poll` call `callback` whenever a descriptor is readable that is no connection.

        From any thread or greenlet.

        Args:
            fd: the descriptor. Whoever watches it reads it in the callback, and closes it after `unwatch`.
            callback: must not wait. What it raises is logged.

        Raises:
            OSError: the poller does not take it.
        """
        self._watched[fd] = callback
        try:
            self.poller.register(fd, READABLE)
        except BaseException:
            del self._watched[fd]
            raise

    def unwatch(self, fd: int) -> None:
        """Watch it no longer. From any thread or greenlet."""
        del self._watched[fd]
        self.poller.unregister(fd)

    @property
    def next_due(self) -> float | None:
        """When `poll` has the next action to take, in seconds of `time.monotonic()`; `None` if there is none."""
        return self._timers[0][0] if self._timers else None  # only the caller of `poll` takes one away

    def _run_timers(self) -> None:
        now = time.monotonic()
        while True:
            with self._timers_lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                timer = heapq.heappop(self._timers)[2]
                if timer.is_over:
                    self._timers_cancelled -= 1
                    continue
            connection = timer.connection
            try:
                timer.run()
            except Exception as error:
                if connection is not None:
                    self._cut(connection, error)
                else:
                    logger.exception("an action of the listener failed")
