"""Background work: functions that each worker calls every so many seconds, `uwasp.WebSocketMiddleware.every`.

When they are due is for one thread of each worker to know, the clock. It is a real one, hears no signal, and runs
nothing of the application: it has `Handler.spawn` start each run, in the handler's own way. This module knows no
handler and no connection. Which of several workers has a function that is for one alone, the bus says.
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from uwasp import goodbye, signals, takeover
from uwasp.callables import COROUTINE, refuses, runs_later
from uwasp.exceptions import ConfigurationError
from uwasp.handler import Handler, can_spawn
from uwasp.native import new_lock, start_thread
from uwasp.options import TIME, is_time

if TYPE_CHECKING:
    from uwasp.bus import Bus
    from uwasp.listener import Waiter

__all__ = ["Background"]

logger = logging.getLogger("uwasp.background")

# How often the clock looks whether uWSGI has the worker ready, when it begins, in seconds.
READY_PERIOD = 0.01
FAILED = "error in %s, which is called again when it is due"
# When the clock looks again after a new function whose name it could not have claimed, in seconds.
RETRY_PERIOD = 1.0
# Below that, an interval would be lost in the clock's own imprecision, and what was missed not be counted to its end.
SHORTEST = 0.001
# What a function may raise without ending more than its run.
OF_THE_FUNCTION = (Exception, SystemExit, KeyboardInterrupt)


class _Work:
    """A function, and when it is due."""

    __slots__ = ("due", "function", "is_async", "is_running", "name", "once", "seconds")

    def __init__(self, function: Callable[[], Any], seconds: float, once: bool) -> None:
        self.function = function
        self.seconds = max(seconds, SHORTEST)
        self.once = once
        self.name = _name(function)
        self.is_async = runs_later(function) == COROUTINE
        self.is_running = False
        self.due: float | None = None  # in seconds of `time.monotonic()`, once the clock knows of it

    def put_off(self, now: float) -> None:
        """Be due at the next of its times that is still to come: what was missed is not made up for."""
        assert self.due is not None
        self.due += self.seconds * math.ceil((now - self.due) / self.seconds)
        while self.due <= now:
            self.due += self.seconds


class Background:
    """The functions of one middleware.

    Args:
        handler_class: starts their runs.
        bus: says which process has a function that is for one alone.
        patience: how long the end of a worker waits for runs, in seconds.
    """

    def __init__(self, handler_class: type[Handler], bus: Bus, patience: float) -> None:
        self._handler_class = handler_class
        self._new_waiter = getattr(handler_class, "new_waiter", Handler.new_waiter)
        self._bus = bus
        self._patience = patience
        self._works: list[_Work] = []
        self._alarm = new_lock()  # held, and released to have the clock look around
        self._alarm.acquire()
        # Without a lock: the end comes in a signal handler, which can have interrupted whoever would hold it.
        self._has_ended = False
        self._ends: float | None = None  # when its patience does, in seconds of `time.monotonic()`
        self._waiters: list[Waiter] = []
        self._has_given_up = False

    @staticmethod
    def check(seconds: Any, once: Any) -> None:
        """Look at what `add` is given beside the function, before there is one: without parentheses,
        `@application.every` would have nothing called.

        Raises:
            ValueError: it cannot be that.
        """
        if not is_time(seconds):
            raise ValueError(f"every how many seconds is {TIME}, not {seconds!r}")
        if not isinstance(once, bool):
            raise ValueError(f"once is True or False, not {once!r}")

    def add(self, function: Callable[[], Any], seconds: float, once: bool) -> None:
        """See `uwasp.WebSocketMiddleware.every`."""
        self._check(function, seconds, once)
        self._works.append(_Work(function, seconds, once))
        if not takeover.running_under_uwsgi():
            return
        if len(self._works) == 1:
            takeover.in_each_worker(self._begin)
        else:
            self._ring()

    def _check(self, function: Any, seconds: float, once: bool) -> None:
        if not callable(function):
            raise TypeError(f"every({seconds!r}) stands above a function, not {function!r}")
        name, handler = _name(function), self._handler_class.__name__
        later = runs_later(function)
        if later == COROUTINE and getattr(self._handler_class, "runs", Handler.runs) != "coroutines":
            raise TypeError(
                f"{name} is {COROUTINE}, which {handler} does not run: make it a plain function (def), or choose a "
                "handler that runs coroutines"
            )
        if later not in (COROUTINE, ""):
            raise TypeError(f"{name} is {later}: nothing of it would be run")
        reason = refuses(function)
        if reason:
            raise TypeError(f"{name} is called without arguments, which it does not accept ({reason})")
        if not can_spawn(self._handler_class):
            raise ConfigurationError(f"{handler} has no spawn, by which background work is started; choose another")
        if once and not self._bus.can_claim:
            raise ConfigurationError(
                f'{self._bus!r} does not say who is the one: once=True needs "local:", Redis, or a transport that has '
                "claim and holds"
            )

    # In a worker, when it begins

    def _begin(self) -> None:
        """In uWSGI's own thread: a handler that has a loop, as gevent's, learns here whose it is."""
        try:
            self._handler_class.spawn(self._start_clock)
        except Exception:
            logger.exception("this worker cannot begin its background work")

    def _start_clock(self) -> None:
        start_thread(self._run_clock)

    # The clock

    def _run_clock(self) -> None:
        while not signals.are_the_workers():
            self._alarm.acquire(timeout=READY_PERIOD)
        goodbye.beforehand(self._end)
        while not self._has_ended and not takeover.is_cheaped():
            now = time.monotonic()
            for work in list(self._works):
                try:
                    self._look_at(work, now)
                except Exception:
                    logger.exception("%s cannot be started now, and will be tried again", work.name)
            next_due = min((work.due for work in self._works if work.due is not None), default=now + RETRY_PERIOD)
            self._alarm.acquire(timeout=max(0.0, next_due - time.monotonic()))

    def _look_at(self, work: _Work, now: float) -> None:
        if work.due is None:
            if work.once:
                self._handler_class.spawn(self._claim, work)
            work.due = now + work.seconds
        elif work.due <= now:
            work.put_off(now)
            if not work.is_running and (not work.once or self._bus.holds(work.name)):
                self._start(work)

    def _start(self, work: _Work) -> None:
        work.is_running = True
        if self._has_ended:  # looked at after that was said, as the end does the other way round
            work.is_running = False
            return
        try:
            self._handler_class.spawn(self._run_async if work.is_async else self._run, work)
        except BaseException:
            work.is_running = False
            raise

    def _ring(self) -> None:
        """Have the clock look around."""
        try:
            self._alarm.release()
        except RuntimeError:
            return  # it is about to

    # In the handler's own way

    def _claim(self, work: _Work) -> None:
        try:
            self._bus.claim(work.name)
        except Exception:
            logger.exception("%s is for one worker alone, and will not be called in this one: no bus", work.name)

    def _run(self, work: _Work) -> None:
        try:
            if isinstance(work.function(), CoroutineType):  # a decorator's that is no coroutine function, above one
                raise TypeError("it returned a coroutine, of which nothing was run: have it be async def itself")
        except OF_THE_FUNCTION:
            logger.exception(FAILED, work.name)
        finally:
            self._has_run(work)

    async def _run_async(self, work: _Work) -> None:
        try:
            await work.function()
        except BaseException as error:
            is_its_own = isinstance(error, OF_THE_FUNCTION)
            if is_its_own or not self._has_ended:  # what it awaited may have been cancelled; or the worker ends
                logger.exception(FAILED, work.name)
            if not is_its_own:
                raise
        finally:
            self._has_run(work)

    def _has_run(self, work: _Work) -> None:
        work.is_running = False
        if self._has_ended:
            for waiter in list(self._waiters):
                waiter.set()

    # At the end of a worker

    def _end(self) -> None:
        """Start nothing more, and wait for what runs. Called more than once; each call waits for the end of all."""
        self._has_ended = True
        if self._ends is None:
            self._ends = time.monotonic() + self._patience
        self._ring()
        waiter = self._new_waiter()
        if waiter is not None:
            self._waiters.append(waiter)
            while self._running() and (left := self._ends - time.monotonic()) > 0:
                waiter.wait(left)
                waiter.clear()
        if self._has_given_up:
            return
        self._has_given_up = True
        for work in self._running():
            logger.warning("%s has run on for %s s, and is not waited for any longer", work.name, self._patience)

    def _running(self) -> list[_Work]:
        return [work for work in self._works if work.is_running]


def _name(function: Any) -> str:
    """What messages call it, and by which workers mean the same."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
