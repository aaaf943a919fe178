"""The greenlets of one process: the hub watches the listener, and consumer greenlets run the servers' methods.

The watcher's callback runs in the hub. It reads what has arrived, then switches into a consumer greenlet. That comes
back to the callback in two cases: there is nothing left to do, and the consumer waits for more; or its server waits
for something, as greenlets do by switching to the hub. In the second case the callback goes on with another consumer.
So a consumer needs no wake-up of its own, and one that is blocked is not missed.
"""

from __future__ import annotations

import time

import gevent
import greenlet
from gevent.event import Event
from gevent.monkey import get_original

from uwasp import Listener
from uwasp.connection import Connection
from uwasp.listener import Waiter
from uwasp_gevent.loop import new_poller

__all__ = ["Greenlets"]

READ = 1  # libev's name for a watcher's event
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
        self._consumers = 0
        self._fresh: greenlet.greenlet | None = None  # the consumer that `_run_consumers` waits for to come back
        self._at_work: Connection | None = None  # the connection that it consumes
        self._timer = self._hub.loop.timer(0)
        self._timer_due: float | None = None
        self._watcher = self._hub.loop.io(self.listener.poller.fileno(), READ)
        self._watcher.start(self._poll)

    def _new_waiter(self) -> Waiter | None:
        """In greenlets, gevent's event; in another thread, a real one; in the hub there is no waiting."""
        if get_original("threading", "get_ident")() != self._thread:
            return get_original("threading", "Event")()  # type: ignore[no-any-return]
        return None if gevent.getcurrent() is self._hub else Event()

    def _poll(self) -> None:
        """In the hub: something is ready."""
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
        consumer: greenlet.greenlet
        while ready:
            if self._waiting:
                consumer = self._waiting.pop()
            elif self._consumers < self._max_consumers:
                consumer = gevent.Greenlet(self._consume)
                self._consumers += 1
            else:
                return  # each takes from `ready` when its server is done
            self._fresh = consumer
            consumer.switch()
            self._fresh = None
            if self._at_work is not None:  # its server waits for something, and nobody will see when it does so again
                self._at_work.uncork()
                self._at_work = None

    def _consume(self) -> None:
        ready = self.listener.ready
        me = gevent.getcurrent()
        try:
            while True:
                while ready:
                    connection = ready.popleft()
                    if self._fresh is me:
                        self._at_work = connection
                    connection.consume(cork=self._fresh is me)
                    if self._fresh is me:
                        self._at_work = None
                if len(self._waiting) >= IDLE_CONSUMERS:
                    return
                self._waiting.append(me)
                self._hub.switch()
        finally:  # it is one too many, was killed, or its server raised something that is no Exception
            self._consumers -= 1
            if me in self._waiting:
                self._waiting.remove(me)
