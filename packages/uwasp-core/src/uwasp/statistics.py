"""The figures of this process: how many connections, messages and bytes, and what was refused.

Each listener counts its own connections, in the one thread in which it polls. What is refused never gets that far and
is counted here. Where uWSGI's metrics subsystem is on, `uwasp.metrics` passes the same figures on.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
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
    "of_connections",
    "remove_membership",
    "stats",
    "when_refused",
]

COUNTED = ("messages_in", "messages_out", "bytes_in", "bytes_out")
OF_A_ROUTE = ("open", "opened", *COUNTED, "queued_in", "queued_out")

_listeners: list[Listener] = []
_memberships: list[Membership] = []
_refused: Counter[str] = Counter()
_refused_lock = threading.Lock()
_when_refused: list[Callable[[], object]] = []


class Totals:
    """What a listener has counted of the connections that it had."""

    def __init__(self) -> None:
        self.slow_members = 0
        self.closed: Counter[int] = Counter()
        self.by_route: dict[str, Counter[str]] = {}

    def count_opened(self, route: str) -> None:
        """A connection is open."""
        counted = self.by_route.get(route)
        if counted is None:
            counted = _nothing()
            self.by_route = {**self.by_route, route: counted}  # another: somebody may be reading this
        counted["opened"] += 1

    def count_traffic(self, connection: Connection) -> None:
        """A connection has ended."""
        of_route = self.by_route[connection.route]
        for name in COUNTED:
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
    for name in ("uwasp.refused", f"uwasp.refused.{reason}"):
        if takeover.has_metric(name):
            takeover.add_to_metric(name, 1)
    if not _listeners:  # nobody who looks at the figures from time to time
        for action in _when_refused:
            action()


def when_refused(action: Callable[[], object]) -> None:
    """Have `action` called after each refusal as long as this process has no listener."""
    _when_refused.append(action)


def stats() -> dict[str, Any]:
    """The figures of this process since it started.

    Returns:
        `open`: connections now; `opened`: connections ever; `closed`: how many by close code, a `dict`; `refused`:
        requests by reason (`path`, `takeover`, `handshake`, `origin`, `authorize`, `full`, `conversations`,
        `descriptors`, `threads`), a `dict`; `messages_in`, `messages_out`; `bytes_in`, `bytes_out`: of frames after the
        handshake, those that are queued among them; `queued_in`: messages, and what else, that wait for their servers;
        `queued_out`: bytes that wait for clients to read; `slow_members`: how often a client was too slow for a message
        to its group, and closed or left out; `paths`: for each path of a server, or its pattern, a `dict` with `open`,
        `opened`, `messages_in`, `messages_out`, `bytes_in`, `bytes_out`, `queued_in` and `queued_out` of its
        connections (of those that `accept` handed over, under the name of the server); `groups`: a `dict` for each
        first part of the groups' names, with `groups` and `members` that are here now, and what there was of them:
        envelopes `sent` to other processes and `received` from them, `delivered` to members here, and `missed`. Beyond
        100 first parts, all others are together. What came over a bus and was not understood is `malformed`, in that of
        the empty name.
    """
    groups: dict[str, Counter[str]] = {}
    for membership in _memberships:
        for first, counted in membership.figures().items():
            groups.setdefault(first, Counter()).update(counted)
    return {**of_connections(), "groups": {first: dict(counted) for first, counted in groups.items()}}


def of_connections() -> dict[str, Any]:
    """The same without those of groups, of which there can be many."""
    closed: Counter[int] = Counter()
    by_route: dict[str, Counter[str]] = {}
    slow_members = 0
    for listener in _listeners:
        for route, figures in figures_by_route(listener).items():
            by_route.setdefault(route, _nothing()).update(figures)
        closed.update(dict(listener.totals.closed))  # a copy, at once: the listener goes on counting
        slow_members += listener.totals.slow_members
    with _refused_lock:
        refused = dict(_refused)
    paths = {route: dict(counted) for route, counted in by_route.items()}
    of_all = {**_sum(by_route), "slow_members": slow_members, "closed": dict(closed), "refused": refused}
    return {**of_all, "paths": paths}


def figures_by_route(listener: Listener) -> dict[str, Counter[str]]:
    """The figures of one listener by the path, or pattern, that the servers of its connections have."""
    figures = {route: Counter(dict(counted)) for route, counted in listener.totals.by_route.items()}
    of_those: dict[str, list[Connection]] = {}
    for connection in listener.connections():
        of_those.setdefault(connection.route, []).append(connection)
    for route, connections in of_those.items():
        of_route = figures.setdefault(route, _nothing())  # else it has come since
        of_route["open"] += len(connections)
        of_route["messages_in"] += sum([each.messages_in for each in connections])
        of_route["messages_out"] += sum([each.messages_out for each in connections])
        of_route["bytes_in"] += sum([each.bytes_in for each in connections])
        of_route["bytes_out"] += sum([each.bytes_out for each in connections])
        of_route["queued_in"] += sum([each.queued_messages for each in connections])
        of_route["queued_out"] += sum([each.buffered_amount for each in connections])
    return figures


def figures_of(listener: Listener) -> dict[str, int]:
    """The figures of one listener, all but those by close code."""
    return {**_sum(figures_by_route(listener)), "slow_members": listener.totals.slow_members}


def _sum(by_route: dict[str, Counter[str]]) -> dict[str, int]:
    figures = _nothing()
    for counted in by_route.values():
        figures.update(counted)
    return dict(figures)


def _nothing() -> Counter[str]:
    return Counter(dict.fromkeys(OF_A_ROUTE, 0))
