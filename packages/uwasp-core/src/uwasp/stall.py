"""What the log says of a process in which all consumers are busy, and connections wait in vain.

For handlers that have only so many consumers. This module knows neither threads nor greenlets.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uwasp.listener import Listener

__all__ = ["Stall"]

logger = logging.getLogger("uwasp.stall")

# So long no consumer takes a connection before that is said, in seconds.
PATIENCE = 5.0
# How often it is looked whether one has, in seconds.
PERIOD = 1.0
# Of so many consumers it is looked where they are.
MOST_STACKS = 64


class Stall:
    """Watches for one, of one listener, once it is suspected.

    Args:
        listener: connections wait in its `ready`.
        taken: how many connections have been taken out of it, as a number that goes up.
        limit: what the consumers are bounded by, for the log, such as `"max_consumers is 64"`.
        frames: the innermost frame of each consumer. It must not wait.
    """

    def __init__(
        self, listener: Listener, taken: Callable[[], int], limit: str, frames: Callable[[], Iterable[FrameType]]
    ) -> None:
        self._listener = listener
        self._taken = taken
        self._limit = limit
        self._frames = frames
        self._is_watching = False
        self._told: float | None = None  # of one that was, its begin in seconds of `time.monotonic()`

    def suspect(self) -> None:
        """A connection waits, all consumers are busy, and no further one may be. Where `poll` is called."""
        if not self._is_watching:
            self._is_watching = True
            self._look_later(time.monotonic())

    def _look_later(self, since: float) -> None:
        taken = self._taken()
        self._listener.call_later(PERIOD, lambda: self._look(taken, since))

    def _look(self, taken_before: int, since: float) -> None:
        now, waiting = time.monotonic(), len(self._listener.ready)
        if self._taken() != taken_before or not waiting:
            if self._told is not None:
                logger.warning("consumers take connections again, after %.0f s", now - self._told)
                self._told = None
            since = now
        elif self._told is None and now - since >= PATIENCE:
            self._told = since
            self._tell(waiting)
        if waiting:  # perhaps all are busy once more
            self._look_later(since)
        else:
            self._is_watching = False

    def _tell(self, waiting: int) -> None:
        stacks = Counter("".join(traceback.format_stack(frame)) for frame in islice(self._frames(), MOST_STACKS))
        ((stack, number),) = stacks.most_common(1) or [("", 0)]
        logger.warning(
            "%s, and all have been busy for %.0f s; connections that wait for one: %d. %d consumers are here:\n%s",
            self._limit,
            PATIENCE,
            waiting,
            number,
            stack.rstrip(),
        )
