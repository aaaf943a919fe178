"""The threads of one process: a listener thread that reads, and consumer threads that run the servers' methods.

One consumer that keeps up is faster than several, which would wait for each other's turn at the interpreter. So the
listener wakes a further one only when those that are awake take nothing: because their servers block.
"""

from __future__ import annotations

import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable

from uwasp import Listener

__all__ = ["Threads", "start_thread"]

logger = logging.getLogger("uwasp.threads")

# How long a ready connection may lie untaken before another consumer is called, in seconds.
PATIENCE = 0.001
# How long a consumer waits for work before its thread ends, unless it is the last, in seconds.
IDLE_TIMEOUT = 30.0


def start_thread(name: str, target: Callable[[], None]) -> threading.Thread:
    """Start a thread in which uWSGI's signals are blocked, and in all that it starts.

    They are for uWSGI's own main thread: a handler of it that ends the process from one of ours hangs. uWSGI blocks
    them in its further threads too.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return thread


class Threads:
    """Starts the listener thread; consumer threads come and go with need.

    Args:
        max_consumers: the largest number of consumer threads, at least 1.
    """

    def __init__(self, max_consumers: int) -> None:
        if max_consumers < 1:
            raise ValueError(f"max_consumers is at least 1, not {max_consumers!r}")
        self.listener = Listener(new_waiter=self._new_waiter)
        self._max_consumers = max_consumers
        self._lock = threading.Lock()
        self._asleep: list[threading.Lock] = []  # each held, and released to wake its consumer
        self._consumers = 0
        self._numbers = itertools.count(1)
        self._taken = 0  # goes up whenever a consumer takes a connection
        self._parted = threading.Event()  # all connections are closed, after `part`
        self._patience_ends: float | None = None  # since `part`, in seconds of `time.monotonic()`
        self._listener_thread = start_thread("uwasp-listener", self._listen)  # which starts the consumers

    def part(self) -> None:
        """Close all connections; `wait_for_the_end` waits for that. The first call counts."""
        with self._lock:
            if self._patience_ends is not None:
                return
            self._patience_ends = time.monotonic() + self.listener.shutdown_timeout()
        self.listener.shut_down(self._parted)

    def wait_for_the_end(self) -> None:
        """Come back when all connections are closed, or have had their time since `part`."""
        assert self._patience_ends is not None
        left = self._patience_ends - time.monotonic()
        if not self._parted.wait(max(0.0, left)) and left > 0:
            timeout = self.listener.shutdown_timeout()
            logger.warning("shut down after %s s, with %d connections still open", timeout, len(self.listener))

    def _new_waiter(self) -> threading.Event | None:
        return None if threading.current_thread() is self._listener_thread else threading.Event()

    def _listen(self) -> None:
        listener = self.listener
        ready = listener.ready
        taken = 0
        since = 0.0  # when `taken` was last seen to go up, or a consumer was called
        while True:
            listener.poll(PATIENCE if ready and self._can_call() else None)
            if not ready:
                continue
            now = time.monotonic()
            if self._all_asleep() or (taken == self._taken and now - since >= PATIENCE):
                self._call_consumer()
                since = now
            elif taken != self._taken:
                taken = self._taken
                since = now

    def _all_asleep(self) -> bool:
        with self._lock:
            return len(self._asleep) == self._consumers

    def _can_call(self) -> bool:
        with self._lock:
            return bool(self._asleep) or self._consumers < self._max_consumers

    def _call_consumer(self) -> None:
        """Wake a consumer, or start one if all are awake and there may be more."""
        with self._lock:
            if self._asleep:
                self._asleep.pop().release()
                return
            if self._consumers >= self._max_consumers:
                return
            self._consumers += 1
        name = f"uwasp-consumer-{next(self._numbers)}"
        try:
            threading.Thread(target=self._consume, name=name, daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._consumers -= 1
                left = self._consumers
            logger.exception("no further consumer thread can be started, going on with %d", left)

    def _consume(self) -> None:
        try:
            ready = self.listener.ready
            alarm = threading.Lock()
            alarm.acquire()
            while True:
                try:
                    connection = ready.popleft()
                except IndexError:
                    if self._sleep(alarm):
                        continue
                    return
                self._taken += 1
                connection.consume(cork=True)
        finally:
            with self._lock:
                self._consumers -= 1

    def _sleep(self, alarm: threading.Lock) -> bool:
        """Wait to be woken; return whether to go on. The listener looks at `_asleep` after it has filled `ready`."""
        with self._lock:
            if self.listener.ready:
                return True
            self._asleep.append(alarm)
        while not alarm.acquire(timeout=IDLE_TIMEOUT):
            with self._lock:
                if alarm in self._asleep and self._consumers > 1:
                    self._asleep.remove(alarm)
                    return False
        return True
