"""What a bus on Redis is made of, as far as it works on values: replies, what we publish, leases, the outbox."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwasp_redis import wire
from uwasp_redis.alive import Alive
from uwasp_redis.outbox import MOST_LOST, OVERHEAD, Entry, Outbox
from uwasp_redis.resp import ProtocolError, Push, Replies, ServerError, command, publish

MESSAGE = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$6\r\na\r\nb\r\n\r\n"
REPLIES = [
    (b":12\r\n", 12),
    (b"+OK\r\n", b"OK"),
    (b"-NOPERM no\r\n", ServerError("NOPERM no")),
    (b"$-1\r\n", None),
    (b"_\r\n", None),
    (b"%1\r\n+proto\r\n:3\r\n", [b"proto", 3]),
    (b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", [b"master", 0, []]),
    (b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", Push([b"subscribe", b"c", 1])),
    (MESSAGE, Push([b"message", b"c", b"a\r\nb\r\n"])),
]


def fed(data: bytes, cuts: list[int], largest: int = 100) -> list[Any]:
    replies = Replies(largest)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [value for begin, end in pairwise(edges) for value in replies.feed(data[begin:end])]


@given(st.lists(st.sampled_from(REPLIES), max_size=8), st.lists(st.integers(0, 10_000), max_size=8))
def test_replies_are_the_same_however_they_are_cut(replies: list[tuple[bytes, Any]], cuts: list[int]) -> None:
    assert fed(b"".join(data for data, _ in replies), cuts) == [value for _, value in replies]


@given(st.lists(st.integers(0, 10_000), max_size=5))
def test_a_message_that_is_too_large_is_passed_over(cuts: list[int]) -> None:
    large = MESSAGE.replace(b"$6\r\na\r\nb\r\n", b"$1000\r\n" + b"x" * 1000)
    expected = [Push([b"message", b"c", None]), Push([b"message", b"c", b"a\r\nb\r\n"]), 1]
    assert fed(large + MESSAGE + b":1\r\n", cuts) == expected


@pytest.mark.parametrize("data", [b"text\r\n", b":x\r\n", b"*x\r\n", b"$101\r\n", b"*1\r\n" * 20, b"+" + b"x" * 70_000])
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        fed(data, [])


def test_a_command_is_what_redis_reads() -> None:
    expected = b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na\r\n\r\n$0\r\n\r\n"
    assert command(b"PUBLISH", b"a\r\n", b"") == publish(b"a\r\n", b"") == expected


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_packed_is_what_is_unpacked(messages: list[bytes]) -> None:
    packed = wire.pack(wire.MESSAGES, b"12345678", messages)
    assert wire.unpack(packed) == (wire.MESSAGES, b"12345678", messages)


@given(st.binary(max_size=30))
def test_what_is_malformed_is_nothing_else(data: bytes) -> None:
    try:
        kind, process, messages = wire.unpack(data)
    except wire.Malformed:
        return
    assert len(process) == 8
    if kind == wire.MESSAGES:
        assert wire.pack(kind, process, messages) == data


def test_who_is_not_heard_for_a_lease_is_gone_and_appears_again() -> None:
    alive = Alive(10)
    assert alive.heard(b"a", 0)
    assert not alive.heard(b"a", 5)
    assert alive.heard(b"b", 6)
    assert alive.expire(15) == []
    assert alive.expire(15.1) == [b"a"]
    alive.renew(15.1)
    assert alive.expire(25) == []
    assert alive.leave(b"b")
    assert not alive.leave(b"b")
    assert alive.heard(b"a", 30)


def channels(entries: list[Entry]) -> list[tuple[bytes, bool]]:
    return [(channel, data is None) for channel, data, _ in entries]


def test_what_finds_no_place_leaves_one_note_in_its_place() -> None:
    outbox = Outbox(1000 + 2 * OVERHEAD, b"all")
    answers: list[int] = []
    outbox.put(b"a", b"x" * 500)
    outbox.put(b"b", b"x" * 600)
    outbox.put(b"b", b"x" * 600, answers.append)
    outbox.put(b"c", b"x" * 400)
    taken = outbox.take()
    assert channels(list(taken.entries)) == [(b"a", False), (b"b", True), (b"c", False)]
    assert len(taken.unanswered) == 1
    assert outbox.dropped == 2
    outbox.put(b"b", b"x")  # what was taken has its place until it is sent
    outbox.put(b"b", b"x" * 200)
    assert channels(list(outbox.take().entries)) == []  # the note about b is on its way
    outbox.sent(list(taken.entries))
    outbox.put(b"b", b"x" * 600)
    outbox.put(b"b", b"x" * 600)
    assert channels(list(outbox.take().entries)) == [(b"b", False), (b"b", True)]
    outbox.end()


def test_one_message_has_a_place_though_it_is_larger_than_the_bound() -> None:
    outbox = Outbox(1000, b"all")
    outbox.put(b"a", b"x" * 5000)
    outbox.put(b"a", b"x")
    assert channels(list(outbox.take().entries)) == [(b"a", False), (b"a", True)]
    outbox.end()


def test_of_losses_on_very_many_channels_one_note_goes_to_all() -> None:
    outbox = Outbox(1000, b"all")
    lost = outbox.lose([b"%d" % number for number in range(MOST_LOST)])
    assert len(lost) == MOST_LOST
    assert channels(outbox.lose([b"another", b"1"])) == [(b"all", True)]
    assert outbox.lose([b"yet another"]) == []
    outbox.sent([*lost, (b"all", None, None)])
    assert channels(outbox.lose([b"another"])) == [(b"another", True)]
    outbox.end()
