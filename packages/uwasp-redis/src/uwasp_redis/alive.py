"""Which processes are on the bus: those that have been heard within a lease. Works on values: no clock, no socket.

The time is that for which we have been hearing, as the caller counts it: while we are deaf, nobody's lease runs.
"""

from __future__ import annotations

__all__ = ["Alive"]


class Alive:
    """The processes that are there.

    Args:
        lease: in seconds, how long one counts as alive after it was heard.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._heard: dict[bytes, float] = {}

    def heard(self, process: bytes, now: float) -> bool:
        """This process was heard. Returns whether it was not there before."""
        appeared = process not in self._heard
        self._heard[process] = now
        return appeared

    def leave(self, process: bytes) -> bool:
        """This process said goodbye. Returns whether it was there."""
        return self._heard.pop(process, None) is not None

    def renew(self, now: float) -> None:
        """Begin all leases anew, after a time of being deaf."""
        self._heard = dict.fromkeys(self._heard, now)

    def expire(self, now: float) -> list[bytes]:
        """Take out, and return, those that have not been heard for the lease."""
        gone = [process for process, heard in self._heard.items() if now - heard > self._lease]
        for process in gone:
            del self._heard[process]
        return gone
