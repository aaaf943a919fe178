"""The threads of one process: a listener thread that reads, and consumer threads that run the servers' methods.

One consumer that keeps up is faster than several, which would wait for each other's turn at the interpreter. So the
listener wakes a further one only when those that are awake take nothing: because their servers block.
"""

from __future__ import annotations

import errno
import itertools
import logging
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from uwasp import Listener, signals
from uwasp.signals import start_thread
from uwasp.stall import Stall

__all__ = ["Threads"]

logger = logging.getLogger("uwasp.threads")

# How long the listener waits at most while a ready connection lies untaken, in seconds.
PATIENCE = 0.001
# After so many of these waits, in which none was taken, another consumer is called: those awake block.
MISSES = 2
# A wait that took longer was one for the interpreter, and so was theirs, perhaps. Then they, and a listener that always
# has something to read instead of waiting, have this long, in seconds. One that computes takes one each millisecond.
CONTENDED = 4 * PATIENCE
LONG_PATIENCE = 0.05
# After a connection whose slice was over a consumer rests, for so long, in seconds. Else whoever wants the
# interpreter, the listener above all, would have to wait for it five times as long, again and again.
REST = 0.00005
# How long a consumer waits for work before its thread ends, unless it is the last, in seconds.
IDLE_TIMEOUT = 30.0
# How long to go on with the consumers that there are when no further one could be started, in seconds.
RETRY_PERIOD = 0.5


class Threads:
    """Starts the listener thread; consumer threads come and go with need.

    Args:
        max_consumers: the largest number of consumer threads, at least 1.

    Raises:
        OSError: no thread (EAGAIN), or no descriptor, is left for the listener.
    """

    def __init__(self, max_consumers: int) -> None:
        if max_consumers < 1:
            raise ValueError(f"max_consumers is at least 1, not {max_consumers!r}")
        self._max_consumers = max_consumers
        self._lock = threading.Lock()
        self._asleep: list[threading.Lock] = []  # each held, and released to wake its consumer
        self._consumers = 0
        self._idents: set[int] = set()  # of their threads
        self._numbers = itertools.count(1)
        self._retry_at: float | None = None  # a consumer could not be started; in seconds of `time.monotonic()`
        self._taken = 0  # goes up whenever a consumer takes a connection
        self.listener: Listener
        is_made = threading.Event()
        self._listener_thread = threading.Thread(
            target=self._listen, args=(is_made,), name="uwasp-listener", daemon=True
        )
        try:
            self._listener_thread.start()  # first: if it cannot be, no descriptor is left open
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"the listener's thread: {error}") from error
        try:
            self.listener = Listener(new_waiter=self._new_waiter)
            self._stall = Stall(
                self.listener,
                lambda: self._taken,
                f"max_consumers is {max_consumers}",
                self._frames_of_consumers,
                lambda say: start_thread("uwasp-stall", say),
            )
        finally:
            is_made.set()

    def _new_waiter(self) -> threading.Event | None:
        return None if threading.current_thread() is self._listener_thread else threading.Event()

    def _listen(self, is_made: threading.Event) -> None:
        signals.block_all()
        is_made.wait()
        listener = getattr(self, "listener", None)
        if listener is None:
            return
        ready = listener.ready
        taken = -1
        misses = 0
        since = 0.0  # when `taken` was last seen to go up
        while True:
            lay_ready = bool(ready)
            begin = time.monotonic()
            listener.poll(self._patience() if lay_ready else None)
            if not ready:
                continue
            if taken != self._taken or not lay_ready:
                taken = self._taken
                since = listener.now
                misses = 0
            elif PATIENCE <= listener.now - begin < CONTENDED:
                misses += 1
            if self._all_asleep() or misses >= MISSES or listener.now - since >= LONG_PATIENCE:
                self._call_consumer()
                since = listener.now
                misses = 0

    def _all_asleep(self) -> bool:
        with self._lock:
            return len(self._asleep) == self._consumers

    def _patience(self) -> float | None:
        """How long what is ready may lie untaken before another consumer is called; `None` if none can be."""
        with self._lock:
            if self._asleep:
                return PATIENCE
            are_all_busy = self._consumers >= self._max_consumers
        if are_all_busy:
            self._stall.suspect()
            return None
        return PATIENCE if self._retry_at is None else max(PATIENCE, self._retry_at - time.monotonic())

    def _frames_of_consumers(self) -> Iterator[FrameType]:
        frames = sys._current_frames()
        return (frames[ident] for ident in list(self._idents) if ident in frames)

    def _call_consumer(self) -> None:
        """Wake a consumer, or start one if all are awake and there may be more."""
        with self._lock:
            if self._asleep:
                self._asleep.pop().release()
                return
            if self._consumers >= self._max_consumers:
                return
            if self._retry_at is not None and time.monotonic() < self._retry_at:
                return
            self._consumers += 1
        name = f"uwasp-consumer-{next(self._numbers)}"
        try:
            start_thread(name, self._consume)
        except RuntimeError as error:
            with self._lock:
                self._consumers -= 1
                left = self._consumers
            if self._retry_at is None:  # else that has been said
                logger.error("no further consumer thread can be started, going on with %d: %s", left, error)
            self._retry_at = time.monotonic() + RETRY_PERIOD
        else:
            if self._retry_at is not None:
                logger.warning("consumer threads can be started again")
            self._retry_at = None

    def _consume(self) -> None:
        ident = threading.get_ident()
        self._idents.add(ident)
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
                if connection.consume(cork=True):
                    time.sleep(REST)
        finally:
            self._idents.discard(ident)
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
