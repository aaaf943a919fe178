"""What other threads hand over to the one that talks to Redis: what is to be published, and which channels to hear.

Nobody waits here. The bell is a descriptor that this thread polls; it is rung once for all that has come since it last
took what there is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from uwasp.native import new_lock

__all__ = ["Change", "Entry", "Outbox", "Taken"]

# What an entry takes besides its data, about, in bytes.
OVERHEAD = 100
# Of so many channels it is remembered that something for them was lost; of more, it is told to all processes.
MOST_LOST = 1000

# What goes to a channel: its data, or `None` where something was lost; and who is told how many it went to.
Entry = tuple[bytes, "bytes | None", "Callable[[int], None] | None"]


class Change(NamedTuple):
    """A channel is to be heard, and somebody told when it is; or, with `None`, no longer."""

    channel: bytes
    heard: Callable[[], None] | None


class Taken(NamedTuple):
    """What has come since it was last taken.

    Attributes:
        entries: in the order in which they were handed over.
        changes: likewise.
        unanswered: of questions that found no place, who is to be told so.
        close_by: by when it is to end, on the clock of the caller of `close`; `None` as long as it is not.
    """

    entries: deque[Entry]
    changes: list[Change]
    unanswered: list[Callable[[int], None]]
    close_by: float | None


class Outbox:
    """Args:
    bound: the most bytes of entries that are here or, when taken, not yet `sent`; one entry has always a place.
    everybody: the channel that all processes hear.
    """

    def __init__(self, bound: int, everybody: bytes) -> None:
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.dropped = 0  # entries that found no place
        self._bound = bound
        self._everybody = everybody
        self._lock = new_lock()
        self._rung = False
        self._ended = False
        self._size = 0
        self._entries: deque[Entry] = deque()
        self._changes: list[Change] = []
        self._unanswered: list[Callable[[int], None]] = []
        self._lost: set[bytes] = set()  # the channels for which there is such an entry
        self._close_by: float | None = None

    def put(self, channel: bytes, data: bytes, expected: Callable[[int], None] | None = None) -> None:
        size = len(data) + OVERHEAD
        with self._lock:
            if self._ended:
                self.dropped += 1
                return
            if self._size == 0 or self._size + size <= self._bound:
                self._size += size
                self._entries.append((channel, data, expected))
            else:
                self.dropped += 1
                self._entries.extend(self._lose_locked([channel]))
                if expected is not None:
                    self._unanswered.append(expected)
            self._ring_locked()

    def change(self, change: Change) -> None:
        with self._lock:
            if self._ended:
                return
            self._changes.append(change)
            self._ring_locked()

    def ring(self) -> None:
        """Have the thread look around."""
        with self._lock:
            if not self._ended:
                self._ring_locked()

    def close(self, by: float) -> None:
        with self._lock:
            self._close_by = by
            if not self._ended:
                self._ring_locked()

    def end(self) -> None:
        """Nobody takes any more: what comes is dropped from now on."""
        with self._lock:
            self._ended = True
            self.dropped += len(self._entries)
            self._entries.clear()
            os.close(self.bell)

    def take(self) -> Taken:
        """What there is. Silence the bell before."""
        with self._lock:
            taken = Taken(self._entries, self._changes, self._unanswered, self._close_by)
            self._entries, self._changes, self._unanswered, self._rung = deque(), [], [], False
            return taken

    def sent(self, entries: list[Entry]) -> None:
        """These entries, which were taken, are no longer kept."""
        if not entries:
            return
        with self._lock:
            for channel, data, _ in entries:
                if data is None:
                    self._lost.discard(channel)
                else:
                    self._size -= len(data) + OVERHEAD

    def lose(self, channels: list[bytes]) -> list[Entry]:
        """The entries that say of these channels that something was lost, as far as there are none that do."""
        with self._lock:
            return self._lose_locked(channels)

    def _lose_locked(self, channels: list[bytes]) -> list[Entry]:
        new = set(channels) - self._lost
        if len(new) + len(self._lost) > MOST_LOST:
            new = {self._everybody} - self._lost
        self._lost |= new
        return [(channel, None, None) for channel in new]

    def _ring_locked(self) -> None:
        if not self._rung:
            self._rung = True
            os.eventfd_write(self.bell, 1)
