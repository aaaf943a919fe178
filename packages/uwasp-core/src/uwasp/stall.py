"""What the log says of a process in which all consumers are busy, and connections wait in vain.

For handlers that have only so many consumers. This module knows neither threads nor greenlets.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING

from uwasp.whereabouts import Stack, described, of_the_server

if TYPE_CHECKING:
    from uwasp.listener import Listener

__all__ = ["Stall"]

logger = logging.getLogger("uwasp.stall")

# How often it is looked whether a consumer has taken a connection, in seconds.
PERIOD = 1.0
# After so many looks in a row at which none had, that is said. They are counted, and not the time: a process that was
# stopped, or could not look, has seen nothing.
PATIENCE = 5
# How long after one that was told a further one is not, in seconds: where each message takes long, they never end.
QUIET = 60.0


class Stall:
    """Watches for one, of one listener, once it is suspected.

    Args:
        listener: connections wait in its `ready`.
        taken: how many connections have been taken out of it, as a number that goes up.
        limit: what the consumers are bounded by, for the log, such as `"max_consumers is 64"`.
        frames: the innermost frame of each consumer. It must not wait.
        elsewhere: calls a function, soon, where it may wait as long as it likes: what is logged may go to a handler
            that waits, perhaps for the very thing that the consumers wait for.
    """

    def __init__(
        self,
        listener: Listener,
        taken: Callable[[], int],
        limit: str,
        frames: Callable[[], Iterable[FrameType]],
        elsewhere: Callable[[Callable[[], None]], object],
    ) -> None:
        self._listener = listener
        self._taken = taken
        self._limit = limit
        self._frames = frames
        self._elsewhere = elsewhere
        self._is_watching = False
        self._began = 0.0  # when a consumer was last seen to take one, in seconds of `time.monotonic()`
        self._told: float | None = None  # when the last was, likewise
        self._is_told = False  # the one that goes on

    def suspect(self) -> None:
        """A connection waits, all consumers are busy, and no further one may be. Where `poll` is called."""
        if not self._is_watching:
            self._is_watching = True
            self._began = time.monotonic()
            self._look_later(0)

    def _look_later(self, looks: int) -> None:
        taken = self._taken()
        self._listener.call_later(PERIOD, lambda: self._look(taken, looks))

    def _look(self, taken_before: int, looks: int) -> None:
        """Look whether one has been taken since; there were so many looks at which none had."""
        waiting = len(self._listener.ready)
        goes_on = waiting > 0 and self._taken() == taken_before
        looks = looks + 1 if goes_on else 0
        self._is_watching = waiting > 0  # perhaps all are busy once more
        if self._is_watching:  # first: whatever fails below, it is looked again
            self._look_later(looks)
        now = time.monotonic()
        lasted = now - self._began
        if not goes_on:
            self._began = now
            if self._is_told:
                self._is_told = False
                self._elsewhere(lambda: logger.warning("consumers take connections again, after %.0f s", lasted))
        elif looks >= PATIENCE and not self._is_told and (self._told is None or now - self._told >= QUIET):
            self._is_told = True
            self._told = now
            stacks: Counter[Stack] = Counter(map(_stack, self._frames()))
            self._elsewhere(lambda: self._tell(lasted, waiting, stacks))

    def _tell(self, lasted: float, waiting: int, stacks: Counter[Stack]) -> None:
        ((stack, number),) = stacks.most_common(1) or [((), 0)]
        logger.warning(
            "%s, and all have been busy for %.0f s; connections that wait for one: %d. %d consumers are here:\n%s",
            self._limit,
            lasted,
            waiting,
            number,
            described(stack),
        )


def _stack(frame: FrameType) -> Stack:
    return of_the_server(list(traceback.walk_stack(frame))[::-1])
