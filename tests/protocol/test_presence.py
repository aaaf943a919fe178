"""Who is in a group, as one process knows it."""

from __future__ import annotations

import itertools
import random

from uwasp.envelope import MemberState
from uwasp.presence import Member, Presence, member_id

HERE, THERE = b"p-------", b"q-------"


def names(members: list[Member]) -> list[str]:
    return [member.key for member in members]


def test_a_member_without_a_key_stands_for_itself() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, None, "null"))
    presence.put(THERE, MemberState(1, None, "null"))
    assert names(presence.members()) == [member_id(HERE, 1), member_id(THERE, 1)]
    assert len(presence) == 2


def test_two_tabs_with_one_key_are_one_and_leave_as_one() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", '"first"'))
    presence.put(THERE, MemberState(2, "alice", '"second"'))
    assert [(member.key, member.info, member.connections) for member in presence.members()] == [("alice", "second", 2)]
    assert presence.changes() == ([Member("alice", '"second"', 2)], [])
    presence.drop(THERE, 2)
    assert presence.changes() == ([Member("alice", '"first"', 1)], [])  # another info, which is the first's again
    presence.drop(HERE, 1)
    assert presence.changes() == ([], [Member("alice", '"first"', 0)])
    assert not presence.members()


def test_of_several_connections_the_info_is_that_of_the_one_added_last_in_whichever_order_they_are_heard_of() -> None:
    first, second, third = (MemberState(number, "alice", str(number), 1000 + number) for number in (1, 2, 3))
    told = [(HERE, first), (THERE, second), (HERE, third)]
    for order in itertools.permutations(told):
        presence = Presence()
        for process, state in order:
            presence.put(process, state)
        (alice,) = presence.members()
        assert (alice.info, alice.connections) == (3, 3)
        presence.drop(HERE, 3)
        assert [member.info for member in presence.members()] == [2]
        presence.put(HERE, first._replace(info='"again"', since=2000))
        assert [member.info for member in presence.members()] == ["again"]
        presence.drop(HERE, 1)
        assert [member.info for member in presence.members()] == [2]


def test_what_is_told_twice_changes_nothing() -> None:
    presence = Presence()
    for _ in range(2):
        presence.put(HERE, MemberState(1, "alice", "1"))
    assert len(presence.changes()[0]) == 1
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.drop(HERE, 7)
    presence.drop(THERE, 1)
    assert not presence.has_changed
    assert presence.changes() == ([], [])


def test_who_comes_and_goes_between_two_looks_was_never_there() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.drop(HERE, 1)
    assert presence.changes() == ([], [])


def test_who_goes_and_comes_again_between_two_looks_was_never_away() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.changes()
    presence.keep(HERE, ())
    presence.put(THERE, MemberState(5, "alice", "1"))
    assert presence.changes() == ([], [])


def test_whom_somebody_saw_there_or_away_between_two_looks_is_told_of() -> None:
    """Who joins in between asks for the members once, and is told of changes from then on."""
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.changes()
    presence.drop(HERE, 1)
    assert names(presence.members()) == []
    presence.put(HERE, MemberState(2, "alice", "1"))
    assert presence.changes() == ([Member("alice", "1", 1)], [])
    presence.put(HERE, MemberState(3, "bob", "2"))
    assert names(presence.members()) == ["alice", "bob"]
    presence.drop(HERE, 3)
    assert presence.changes() == ([], [Member("bob", "2", 0)])


def test_what_somebody_saw_as_it_is_now_is_not_told() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.changes()
    presence.put(HERE, MemberState(2, "alice", "1"))
    assert len(presence.members()) == 1
    assert presence.changes() == ([], [])


def test_another_info_is_told_as_joining_once_more() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.changes()
    presence.put(HERE, MemberState(1, "alice", "2"))
    assert presence.changes() == ([Member("alice", "2", 1)], [])


def test_a_member_that_gets_another_key_leaves_under_the_old_one() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.changes()
    presence.put(HERE, MemberState(1, "bob", "1"))
    assert presence.changes() == ([Member("bob", "1", 1)], [Member("alice", "1", 0)])


def test_a_process_that_is_gone_takes_its_members_with_it() -> None:
    presence = Presence()
    presence.put(HERE, MemberState(1, "alice", "1"))
    presence.put(THERE, MemberState(1, "alice", "1"))
    presence.put(THERE, MemberState(2, "bob", "1"))
    presence.changes()
    assert presence.drop_some(THERE, 1)
    assert not presence.drop_some(THERE, 1)
    assert names(presence.members()) == ["alice"]
    assert names(presence.changes()[1]) == ["bob"]
    assert presence.of(THERE) == []


def test_whatever_is_told_in_whichever_order_all_its_parts_agree() -> None:
    chance = random.Random(8)
    presence = Presence()
    expected: dict[tuple[bytes, int], MemberState] = {}
    known: dict[str, str] = {}  # by one who is told of all changes
    late: dict[str, str] = {}  # by one who asked who is there, and is told of all changes since
    for _ in range(5000):
        process, number = chance.choice((HERE, THERE)), chance.randrange(6)
        what = chance.random()
        if what < 0.6:
            state = MemberState(number, chance.choice((None, "a", "b")), chance.choice("12"))
            expected[process, number] = state
            presence.put(process, state)
        elif what < 0.9:
            expected.pop((process, number), None)
            presence.drop(process, number)
        else:
            states = [MemberState(2, "a", "1"), MemberState(9, None, "2")]
            expected = {at: state for at, state in expected.items() if at[0] != process}
            expected.update({(process, state.number): state for state in states})
            presence.keep(process, {state.number for state in states})
            for state in states:
                presence.put(process, state)
        persons = {member_id(*at) if state.key is None else state.key for at, state in expected.items()}
        assert set(names(presence.members())) == persons
        assert sum(member.connections for member in presence.members()) == len(expected)
        there = {member.key: repr(member.info) for member in presence.members()}
        if chance.random() < 0.2:
            late = dict(there)
        if chance.random() < 0.3:
            joined, left = presence.changes()
            for observer in (known, late):
                observer.update({member.key: repr(member.info) for member in joined})
                for member in left:
                    observer.pop(member.key, None)
                assert observer == there
