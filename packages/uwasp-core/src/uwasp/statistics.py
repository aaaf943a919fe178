"""The figures of this process: how many connections, messages and bytes, and what was refused.

Each listener counts its own connections, in the one thread in which it polls. What is refused never gets that far and
is counted here. Where uWSGI's metrics subsystem is on, the same figures go there, summed over all workers.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uwasp import takeover

if TYPE_CHECKING:
    from uwasp.listener import Listener

__all__ = [
    "Metrics",
    "Totals",
    "add_listener",
    "count_refusal",
    "stats",
]

COUNTED = ("messages_in", "messages_out", "bytes_in", "bytes_out")
# Figures that go down again. What a worker has added to them, it takes back when it ends.
GAUGES = ("open", "queued_in", "queued_out")

_listeners: list[Listener] = []
_refused: Counter[str] = Counter()
_refused_lock = threading.Lock()


class Totals:
    """What a listener has counted of the connections that it had."""

    def __init__(self) -> None:
        self.opened = 0
        self.closed: Counter[int] = Counter()
        self.traffic = dict.fromkeys(COUNTED, 0)


def add_listener(listener: Listener) -> None:
    """Have a listener counted."""
    _listeners.append(listener)


def count_refusal(reason: str) -> None:
    """A request for a WebSocket was refused; `reason` is one of a few fixed words."""
    with _refused_lock:
        _refused[reason] += 1
    if takeover.has_metric("uwasp.refused"):
        takeover.add_to_metric("uwasp.refused", 1)
    if takeover.has_metric(f"uwasp.refused.{reason}"):
        takeover.add_to_metric(f"uwasp.refused.{reason}", 1)


def stats() -> dict[str, Any]:
    """The figures of this process since it started.

    Returns:
        `open`: connections now; `opened`: connections ever; `closed`: how many by close code, a `dict`; `refused`:
        requests by reason (`path`, `takeover`, `handshake`, `origin`, `authorize`, `full`, `descriptors`), a `dict`;
        `messages_in`, `messages_out`; `bytes_in`, `bytes_out`: of frames after the handshake, those that are queued
        among them; `queued_in`: messages that wait for their servers; `queued_out`: bytes that wait for clients to
        read.
    """
    closed: Counter[int] = Counter()
    figures: Counter[str] = Counter({"open": 0, "opened": 0, **dict.fromkeys(COUNTED, 0), "queued_in": 0})
    figures["queued_out"] = 0
    for listener in _listeners:
        figures.update(_figures(listener))
        closed.update(listener.totals.closed)
    with _refused_lock:
        refused = dict(_refused)
    return {**figures, "closed": dict(closed), "refused": refused}


def _figures(listener: Listener) -> dict[str, int]:
    """All but those by close code."""
    totals = listener.totals
    figures = {"open": len(listener), "opened": totals.opened, **totals.traffic, "queued_in": 0, "queued_out": 0}
    for connection in listener.connections():
        for name in COUNTED:
            figures[name] += getattr(connection, name)
        figures["queued_in"] += connection.queued_messages
        figures["queued_out"] += connection.buffered_amount
    return figures


class Metrics:
    """Passes the figures of one listener on to those of uWSGI's metrics that the operator has registered.

    They are named `uwasp.` and the name in `stats`; beside them there are `uwasp.closed`, and `uwasp.closed.1000` and
    so on for the close codes. `count_refusal` does the same for `uwasp.refused`.

    Args:
        listener: whose figures; `publish` is to be called where it polls.
        new_lock: makes a lock.
    """

    PERIOD = 1.0  # seconds

    def __init__(self, listener: Listener, new_lock: Callable[[], Any]) -> None:
        self._listener = listener
        self._lock = new_lock()
        self._published: Counter[str] = Counter()
        takeover.at_exit(self._end)

    @staticmethod
    def are_wanted() -> bool:
        """Whether the operator has registered one of them that a listener has."""
        return any(takeover.has_metric(f"uwasp.{name}") for name in (*GAUGES, "opened", "closed", *COUNTED))

    def publish(self) -> None:
        """Add what has changed since the last time."""
        self._publish(_figures(self._listener))

    def _end(self) -> None:
        """The process ends: all counts in full, and nothing that is open or queued."""
        self._publish({**_figures(self._listener), **dict.fromkeys(GAUGES, 0)})

    def _publish(self, figures: dict[str, int]) -> None:
        closed = dict(self._listener.totals.closed)
        figures["closed"] = sum(closed.values())
        figures.update({f"closed.{code}": number for code, number in closed.items()})
        with self._lock:
            for name, value in figures.items():
                if value != self._published[name]:
                    takeover.add_to_metric(f"uwasp.{name}", value - self._published[name])
                    self._published[name] = value
