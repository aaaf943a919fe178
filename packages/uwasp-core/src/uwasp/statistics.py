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
    from uwasp.connection import Connection
    from uwasp.listener import Listener
    from uwasp.membership import Membership

__all__ = [
    "Totals",
    "add_listener",
    "add_membership",
    "count_refusal",
    "figures_of",
    "remove_membership",
    "stats",
]

COUNTED = ("messages_in", "messages_out", "bytes_in", "bytes_out")
OF_A_ROUTE = ("open", "opened", *COUNTED)

_listeners: list[Listener] = []
_memberships: list[Membership] = []
_refused: Counter[str] = Counter()
_refused_lock = threading.Lock()


class Totals:
    """What a listener has counted of the connections that it had."""

    def __init__(self) -> None:
        self.opened = 0
        self.slow_members = 0
        self.closed: Counter[int] = Counter()
        self.traffic = dict.fromkeys(COUNTED, 0)
        self.by_route: dict[str, Counter[str]] = {}

    def count_opened(self, route: str) -> None:
        """A connection is open."""
        counted = self.by_route.get(route)
        if counted is None:
            counted = Counter(dict.fromkeys(OF_A_ROUTE, 0))
            self.by_route = {**self.by_route, route: counted}  # another: somebody may be reading this
        counted["opened"] += 1

    def count_traffic(self, connection: Connection) -> None:
        """A connection has ended."""
        of_route = self.by_route[connection.route]
        for name in COUNTED:
            self.traffic[name] += getattr(connection, name)
            of_route[name] += getattr(connection, name)


def add_listener(listener: Listener) -> None:
    """Have a listener counted."""
    _listeners.append(listener)


def add_membership(membership: Membership) -> None:
    """Have the groups of a bus counted."""
    _memberships.append(membership)


def remove_membership(membership: Membership) -> None:
    """Have them counted no longer: their bus is closed."""
    if membership in _memberships:
        _memberships.remove(membership)


def count_refusal(reason: str) -> None:
    """A request for a WebSocket was refused; `reason` is one of a few fixed words."""
    with _refused_lock:
        _refused[reason] += 1
    of_this_worker = f"uwasp.worker.{takeover.worker_id()}.refused"
    for name in ("uwasp.refused", f"uwasp.refused.{reason}", of_this_worker):
        if takeover.has_metric(name):
            takeover.add_to_metric(name, 1)


def stats() -> dict[str, Any]:
    """The figures of this process since it started.

    Returns:
        `open`: connections now; `opened`: connections ever; `closed`: how many by close code, a `dict`; `refused`:
        requests by reason (`path`, `takeover`, `handshake`, `origin`, `authorize`, `full`, `conversations`,
        `descriptors`, `threads`), a `dict`; `messages_in`, `messages_out`; `bytes_in`, `bytes_out`: of frames after the
        handshake, those that are queued among them; `queued_in`: messages, and what else, that wait for their servers;
        `queued_out`: bytes that wait for clients to read; `slow_members`: how often a client was too slow for a message
        to its group, and closed or left out; `paths`: for each path of a server, or its pattern, a `dict` with `open`,
        `opened`, `messages_in`, `messages_out`, `bytes_in` and `bytes_out` of its connections (of those that `accept`
        handed over, under the name of the server); `groups`: a `dict` for each first part of the groups' names, with
        `groups` and `members` that are here now, and what there was of them: envelopes `sent` to other processes and
        `received` from them, `delivered` to members here, and `missed`. Beyond 100 first parts, all others are
        together. What came over a bus and was not understood is `malformed`, in that of the empty name.
    """
    closed: Counter[int] = Counter()
    figures: Counter[str] = Counter({"open": 0, "opened": 0, **dict.fromkeys(COUNTED, 0), "queued_in": 0})
    figures.update({"queued_out": 0, "slow_members": 0})
    for listener in _listeners:
        figures.update(figures_of(listener))
        closed.update(dict(listener.totals.closed))  # a copy, at once: the listener goes on counting
    with _refused_lock:
        refused = dict(_refused)
    groups: dict[str, Counter[str]] = {}
    for membership in _memberships:
        for first, counted in membership.figures().items():
            groups.setdefault(first, Counter()).update(counted)
    of_groups = {first: dict(counted) for first, counted in groups.items()}
    by_route: dict[str, Counter[str]] = {}
    for listener in _listeners:
        for route, counted in figures_by_route(listener).items():
            by_route.setdefault(route, Counter(dict.fromkeys(OF_A_ROUTE, 0))).update(counted)
    paths = {route: dict(counted) for route, counted in by_route.items()}
    return {**figures, "closed": dict(closed), "refused": refused, "paths": paths, "groups": of_groups}


def figures_by_route(listener: Listener) -> dict[str, Counter[str]]:
    """The figures of one listener by the path, or pattern, that the servers of its connections have."""
    figures = {route: Counter(dict(counted)) for route, counted in listener.totals.by_route.items()}
    for connection in listener.connections():
        of_route = figures.get(connection.route)
        if of_route is not None:  # else it has come since
            of_route["open"] += 1
            for name in COUNTED:
                of_route[name] += getattr(connection, name)
    return figures


def figures_of(listener: Listener) -> dict[str, int]:
    """The figures of one listener, all but those by close code."""
    totals = listener.totals
    figures = {"open": len(listener), "opened": totals.opened, **totals.traffic, "slow_members": totals.slow_members}
    figures.update({"queued_in": 0, "queued_out": 0})
    for connection in listener.connections():
        for name in COUNTED:
            figures[name] += getattr(connection, name)
        figures["queued_in"] += connection.queued_messages
        figures["queued_out"] += connection.buffered_amount
    return figures
