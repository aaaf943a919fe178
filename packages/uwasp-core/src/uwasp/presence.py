"""Who is in a group: the members of one group in all processes, as far as they are known in this one.

Sans-I/O: it is told who came and who left, in whichever order that was heard, and says who is there and what has
changed. What is told twice changes nothing. Of bus, processes and connections it knows the names alone.

A *member* is one connection. Members with the same key are one *person*: two tabs of a user. A member without a key
stands for itself.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection
from typing import Any

from uwasp.envelope import MemberState

__all__ = ["Member", "Presence", "member_id"]


def member_id(process: bytes, number: int) -> str:
    """What tells a connection from all others on a bus."""
    return f"{process.hex()}-{number}"


class Member:
    """Somebody in a group; two that have the same key are one.

    Attributes:
        key: what it was added with, as a `str`, or the `ws.member_id` of its connection if that was without.
        connections: how many connections it has in the group, an `int`.
    """

    __slots__ = ("_info", "connections", "key")

    def __init__(self, key: str, info: str, connections: int = 1) -> None:
        self.key = key
        self._info = info
        self.connections = connections

    @property
    def info(self) -> Any:
        """What it was added with, of JSON: of several connections, what the last of them was added with."""
        return json.loads(self._info)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Member):
            return NotImplemented
        return (self.key, self._info, self.connections) == (other.key, other._info, other.connections)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Member {self.key!r} {self._info}>"


_Person = dict[tuple[bytes, int], MemberState]


class Presence:
    """Who is in one group."""

    __slots__ = ("_known", "_people", "_processes")

    def __init__(self) -> None:
        self._processes: dict[bytes, dict[int, MemberState]] = {}
        # Each person's members, the one that was added last at the end: (process, number) -> what is known of it.
        self._people: dict[str, _Person] = {}
        # Of those who have changed, what somebody may take for true of them: their info, or `None` for being away. That
        # is how it was before, and what `members` has said since. A `dict` is an ordered set.
        self._known: dict[str, dict[str | None, None]] = {}

    def put(self, process: bytes, state: MemberState) -> None:
        """A member is there, or has another info or key now."""
        members = self._processes.setdefault(process, {})
        known = members.get(state.number)
        if known == state:
            return
        if known is not None:
            self._take_out(process, known)
        members[state.number] = state
        key = _key(process, state)
        self._changes(key)
        person = self._people.setdefault(key, {})
        last = next(reversed(person)) if person else None
        person[process, state.number] = state
        if last is not None and state.since < person[last].since:  # it was heard of late
            person[last] = person.pop(last)

    def drop(self, process: bytes, number: int) -> None:
        """A member has left."""
        members = self._processes.get(process)
        known = None if members is None else members.pop(number, None)
        if known is not None:
            self._take_out(process, known)
            if not members:
                del self._processes[process]

    def drop_some(self, process: bytes, most: int) -> bool:
        """So many of a process's members have left, at most; returns whether it has more."""
        for number in list(itertools.islice(self._processes.get(process, ()), most)):
            self.drop(process, number)
        return process in self._processes

    def keep(self, process: bytes, numbers: Collection[int]) -> None:
        """These are all that a process has: others have left."""
        for number in [number for number in self._processes.get(process, ()) if number not in numbers]:
            self.drop(process, number)

    def of(self, process: bytes) -> list[MemberState]:
        """The members that a process has."""
        return list(self._processes.get(process, {}).values())

    def members(self) -> list[Member]:
        """Everybody who is there."""
        for key, known in self._known.items():
            known[self._info(key)] = None
        return [_member(key, person) for key, person in self._people.items()]

    def __len__(self) -> int:
        """How many are there."""
        return len(self._people)

    @property
    def has_changed(self) -> bool:
        """Whether `changes` would say anything, or they have cancelled each other out."""
        return bool(self._known)

    def changes(self, most: int | None = None) -> tuple[list[Member], list[Member]]:
        """Who has joined, or has another info, and who has left since this was called last.

        Who is again as before is not among them, unless `members` has said otherwise meanwhile.

        Args:
            most: so many people are looked at, those who changed first (default: all).
        """
        joined, left = [], []
        for key in list(itertools.islice(self._known, most)):
            known = self._known.pop(key)
            info = self._info(key)
            if len(known) == 1 and info in known:
                continue
            if info is None:
                left.append(Member(key, next(one for one in known if one is not None), 0))
            else:
                joined.append(_member(key, self._people[key]))
        return joined, left

    def _take_out(self, process: bytes, state: MemberState) -> None:
        key = _key(process, state)
        self._changes(key)
        person = self._people[key]
        was_last = next(reversed(person)) == (process, state.number)
        del person[process, state.number]
        if not person:
            del self._people[key]
        elif was_last:
            last = max(reversed(person), key=lambda one: person[one].since)
            person[last] = person.pop(last)

    def _changes(self, key: str) -> None:
        """To be called before a person is changed."""
        if key not in self._known:
            self._known[key] = {self._info(key): None}

    def _info(self, key: str) -> str | None:
        person = self._people.get(key)
        return None if person is None else _last(person)


def _key(process: bytes, state: MemberState) -> str:
    return member_id(process, state.number) if state.key is None else state.key


def _member(key: str, person: _Person) -> Member:
    return Member(key, _last(person), len(person))


def _last(person: _Person) -> str:
    return person[next(reversed(person))].info
