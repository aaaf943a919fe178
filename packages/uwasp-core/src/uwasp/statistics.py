"""The figures of this process: how many connections, messages and bytes, and what was refused.

Each listener counts its own connections, in the one thread in which it polls. What is refused never gets that far and
is counted here.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uwasp.listener import Listener

__all__ = ["Totals", "add_listener", "count_refusal", "open_connections", "stats"]

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


def open_connections() -> int:
    """How many connections this process has."""
    return sum(len(listener) for listener in _listeners)


def stats() -> dict[str, Any]:
    """The figures of this process since it started.

    Returns:
        `open`: connections now; `opened`: connections ever; `closed`: how many by close code, a `dict`; `refused`:
        requests by reason (`path`, `tls`, `handshake`, `origin`, `authorize`, `full`, `descriptors`), a `dict`;
        `messages_in`, `messages_out`, and `bytes_in`, `bytes_out`, on the wire after the handshake; `queued_in`:
        messages that wait for their servers; `queued_out`: bytes that wait for clients to read.
    """
    closed: Counter[int] = Counter()
    figures: dict[str, Any] = {"open": 0, "opened": 0, **dict.fromkeys(COUNTED, 0), "queued_in": 0, "queued_out": 0}
    for listener in _listeners:
        figures["open"] += len(listener)
        figures["opened"] += listener.totals.opened
        closed += listener.totals.closed
        for name in COUNTED:
            figures[name] += listener.totals.traffic[name]
        for connection in listener.connections():
            for name in COUNTED:
                figures[name] += getattr(connection, name)
            figures["queued_in"] += connection.queued_messages
            figures["queued_out"] += connection.buffered_amount
    with _refused_lock:
        refused = dict(_refused)
    return {**figures, "closed": dict(closed), "refused": refused}
