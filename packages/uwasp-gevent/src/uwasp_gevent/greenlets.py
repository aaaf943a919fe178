"""The greenlets of one process: the hub watches the listener, and consumer greenlets run the servers' methods.

The watcher's callback runs in the hub. It reads what has arrived, then switches into a consumer greenlet. That comes
back to the callback in two cases: there is nothing left to do, and the consumer waits for more; or its server waits
for something, as greenlets do by switching to the hub. In the second case the callback goes on with another consumer.
So a consumer needs no wake-up of its own, and one that is blocked is not missed.

Only within the callback does a consumer take connections, one slice after the other, and only for a *turn*: then the
loop looks at all else, and calls back. One that comes back from elsewhere, its server having waited, takes none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import gevent
import greenlet
from gevent.event import Event
from gevent.monkey import get_original

from uwasp import Listener
from uwasp.connection import Connection
from uwasp.listener import Waiter
from uwasp.stall import Stall
from uwasp_gevent.loop import new_poller

__all__ = ["Greenlets"]

logger = logging.getLogger("uwasp.gevent")

READ = 1  # libev's name for a watcher's event
LOWEST = -2  # libev's lowest priority
# For how long the hub runs consumers before it looks at what else has come, HTTP requests for instance, in seconds.
TURN = 0.005
# After how many connections a consumer looks at the time, unless one took its whole slice.
LOOK_AFTER = 8
# So many consumers wait for more when there is nothing to do; the others, which blocked servers made necessary, end.
IDLE_CONSUMERS = 16


class Greenlets:
    """Has the current hub watch a listener of its own.

    Args:
        max_consumers: the largest number of consumer greenlets, at least 1.
    """

    def __init__(self, max_consumers: int) -> None:
        if max_consumers < 1:
            raise ValueError(f"max_consumers is at least 1, not {max_consumers!r}")
        self._hub = gevent.get_hub()
        self._thread = get_original("threading", "get_ident")()
        self.listener = Listener(new_poller(), get_original("threading", "Lock"), self._new_waiter)
        self._max_consumers = max_consumers
        self._waiting: list[greenlet.greenlet] = []
        self._consumers: set[greenlet.greenlet] = set()
        self._taken = 0  # goes up whenever a consumer begins to take connections
        self._stall = Stall(
            self.listener,
            lambda: self._taken,
            f"max_consumers is {max_consumers}",
            self._frames_of_consumers,
            self.spawn,
        )
        self._fresh: greenlet.greenlet | None = None  # the consumer that `_run_consumers` waits for to come back
        self._at_work: Connection | None = None  # the connection that it consumes
        self._timer = self._hub.loop.timer(0)
        self._timer_due: float | None = None
        self._turn_ends = 0.0  # in seconds of `time.monotonic()`
        # Where the loop knows priorities, what it finds ready comes first; if that has us called, this is not due.
        self._next_turn = self._hub.loop.timer(0, priority=LOWEST)
        self._has_next_turn = False
        self._watcher = self._hub.loop.io(self.listener.poller.fileno(), READ)
        self._watcher.start(self._poll)

    def spawn(self, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` in a greenlet of this hub. From any thread or greenlet."""
        if self._is_our_thread():
            gevent.spawn(_run, function, args)
        else:
            self._hub.loop.run_callback_threadsafe(gevent.spawn, _run, function, args)

    def _is_our_thread(self) -> bool:
        return get_original("threading", "get_ident")() == self._thread  # type: ignore[no-any-return]

    def _new_waiter(self) -> Waiter | None:
        """In greenlets, gevent's event; in another thread, a real one; in the hub there is no waiting."""
        if not self._is_our_thread():
            return get_original("threading", "Event")()  # type: ignore[no-any-return]
        return None if gevent.getcurrent() is self._hub else Event()

    def _poll(self) -> None:
        """In the hub: something is ready."""
        if self._has_next_turn:
            self._has_next_turn = False
            self._next_turn.stop()
        listener = self.listener
        listener.poll(0)
        self._run_consumers()
        self._set_timer()

    def _set_timer(self) -> None:
        due = self.listener.next_due
        if due == self._timer_due:
            return
        self._timer.stop()
        self._timer_due = due
        if due is not None:
            self._timer = self._hub.loop.timer(max(0.0, due - time.monotonic()))
            self._timer.start(self._on_timer)

    def _on_timer(self) -> None:
        self._timer_due = None  # the loop's clock lags behind: what is not quite due is waited for once more
        self._poll()

    def _run_consumers(self) -> None:
        ready = self.listener.ready
        self._turn_ends = self.listener.now + TURN
        consumer: greenlet.greenlet
        while ready:
            if self._waiting:
                consumer = self._waiting.pop()
            elif len(self._consumers) < self._max_consumers:
                consumer = gevent.Greenlet(self._consume)
                self._consumers.add(consumer)
            else:
                self._stall.suspect()
                return  # the first whose server is done has this called again
            self._taken += 1
            self._fresh = consumer
            consumer.switch()
            self._fresh = None
            if self._at_work is not None:  # its server waits for something, and nobody will see when it does so again
                self._at_work.uncork()
                self._at_work = None
            if ready and time.monotonic() >= self._turn_ends:
                self._come_back()
                return

    def _frames_of_consumers(self) -> Iterator[FrameType]:
        return (consumer.gr_frame for consumer in list(self._consumers) if consumer.gr_frame is not None)

    def _come_back(self) -> None:
        """Have the loop call again, once it has looked at all else, if there is something to do."""
        if self.listener.ready:
            self._has_next_turn = True
            self._next_turn.start(self._poll)

    def _consume(self) -> None:
        me = gevent.getcurrent()
        try:
            while True:
                self._consume_ready(me)
                if self._fresh is not me:
                    self._come_back()
                if len(self._waiting) >= IDLE_CONSUMERS:
                    return
                self._waiting.append(me)
                self._hub.switch()
        finally:  # it is one too many, was killed, or its server raised something that is for the consumer
            self._consumers.discard(me)
            if me in self._waiting:
                self._waiting.remove(me)
            self._come_back()

    def _consume_ready(self, me: greenlet.greenlet) -> None:
        """Until nothing is ready, the turn is over, or a server has waited, and the hub has gone on without us."""
        ready = self.listener.ready
        while ready:
            for _ in range(LOOK_AFTER):
                self._at_work = connection = ready.popleft()
                slice_is_over = connection.consume(cork=True)
                if self._fresh is not me:
                    return
                self._at_work = None
                if not ready or slice_is_over:
                    break
            if ready and time.monotonic() >= self._turn_ends:
                return


def _run(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """In a greenlet of its own. Were `sys.exit()` raised out of it, gevent would end the process."""
    try:
        function(*args)
    except (Exception, SystemExit, KeyboardInterrupt):
        logger.exception("error in %r, which was spawned", function)
