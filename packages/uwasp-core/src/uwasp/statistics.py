"""The figures of this process: how many connections, messages and bytes, and what was refused.

Each listener counts its own connections, in the one thread in which it polls. What is refused never gets that far and
is counted here. Where uWSGI's metrics subsystem is on, `uwasp.metrics` passes the same figures on.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from uwasp import takeover

if TYPE_CHECKING:
    from uwasp.listener import Listener

__all__ = [
    "Totals",
    "add_listener",
    "count_refusal",
    "figures_of",
    "stats",
]

COUNTED = ("messages_in", "messages_out", "bytes_in", "bytes_out")

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
        figures.update(figures_of(listener))
        closed.update(dict(listener.totals.closed))  # a copy, at once: the listener goes on counting
    with _refused_lock:
        refused = dict(_refused)
    return {**figures, "closed": dict(closed), "refused": refused}


def figures_of(listener: Listener) -> dict[str, int]:
    """The figures of one listener, all but those by close code."""
    totals = listener.totals
    figures = {"open": len(listener), "opened": totals.opened, **totals.traffic, "queued_in": 0, "queued_out": 0}
    for connection in listener.connections():
        for name in COUNTED:
            figures[name] += getattr(connection, name)
        figures["queued_in"] += connection.queued_messages
        figures["queued_out"] += connection.buffered_amount
    return figures
