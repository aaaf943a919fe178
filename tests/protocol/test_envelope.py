"""What groups say over a bus, as bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwasp import envelope
from uwasp.envelope import Envelope, Kind, Malformed, MemberState, UnknownVersion

SENDER = bytes(range(8))
# As this release writes it. A later one must still read it, and this one must still write it, while both are on a bus.
WRITTEN = bytes.fromhex("0101001e00010203040506070000000300000000000000090004726f6f6d00006869")


def test_an_envelope_is_written_as_every_release_of_its_version_reads_it() -> None:
    message = Envelope(Kind.TEXT, SENDER, 3, 9, "room", envelope.exclusions([]) + b"hi")
    assert message.encode() == WRITTEN


@given(
    st.integers(0, 255), st.binary(min_size=8, max_size=8), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120), st.binary(),
)  # fmt: skip
def test_what_is_encoded_is_decoded(
    kind: int, sender: bytes, epoch: int, sequence: int, group: str, body: bytes
) -> None:
    message = Envelope(kind, sender, epoch, sequence, group, body)
    assert envelope.decode(message.encode()) == message


@given(st.binary())
def test_any_bytes_are_an_envelope_or_malformed(data: bytes) -> None:
    for candidate in (data, b"\x01" + data, WRITTEN + data, WRITTEN[: len(data)] + data):
        try:
            message = envelope.decode(candidate)
        except Malformed:
            continue
        for read in (
            envelope.without_exclusions,
            envelope.load,
            lambda body: envelope.load_members(envelope.load(body, object)),
            lambda body: envelope.load_numbers(envelope.load(body, object)),
        ):
            try:
                read(message.body)
            except Malformed:
                continue


def test_what_a_later_release_adds_to_the_head_is_passed_over() -> None:
    head = 26 + 4
    later = bytes([1, Kind.BINARY]) + (head + 5).to_bytes(2, "big") + WRITTEN[4:head] + b"later" + b"\0\0body"
    assert envelope.without_exclusions(envelope.decode(later).body) == (b"body", [])


def test_another_version_is_said_to_be_one() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        envelope.decode(b"\x02" + WRITTEN[1:])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(WRITTEN[:10], id="a head that is cut off"),
        pytest.param(WRITTEN[:24] + b"\xff\xff" + WRITTEN[26:], id="a name longer than all"),
        pytest.param(WRITTEN[:2] + b"\xff\xff" + WRITTEN[4:], id="a head longer than all"),
        pytest.param(WRITTEN[:2] + b"\0\x1a" + WRITTEN[4:], id="a head that ends before the name does"),
    ],
)
def test_lengths_that_do_not_fit_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        envelope.decode(data)


def test_a_message_carries_who_is_excluded() -> None:
    body = envelope.exclusions([(SENDER, 5), (SENDER, 2**63 - 1)]) + b"payload"
    assert envelope.without_exclusions(body) == (b"payload", [(SENDER, 5), (SENDER, 2**63 - 1)])


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\1" + bytes(15), b"\xff\xff" + bytes(100)])
def test_exclusions_that_are_cut_off_are_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        envelope.without_exclusions(body)


def test_members_are_told_as_lists() -> None:
    members = [MemberState(1, "alice", '{"name":"Alice"}'), MemberState(2, None, "null")]
    assert envelope.load_members(envelope.load(envelope.dump(members), list)) == members


@pytest.mark.parametrize(
    "listed",
    [
        {"members": []},
        ["member"],
        [[1, "key"]],
        [["1", "key", "null"]],
        [[True, "key", "null"]],
        [[1, 2, "null"]],
        [[1, "k" * 257, "null"]],
        [[1, "key", {"name": "Alice"}]],
        [[1, "key", "no JSON"]],
        [[1, "key", '"' + 4096 * "x" + '"']],
    ],
)
def test_members_of_another_form_are_malformed(listed: object) -> None:
    with pytest.raises(Malformed):
        envelope.load_members(listed)


def test_json_that_is_nested_too_deeply_is_malformed() -> None:
    with pytest.raises(Malformed):
        envelope.load(b"[" * 100_000, list)


@pytest.mark.parametrize("body", [b'["\\ud800"]', b'["\xed\xa0\x80"]', b'["\xff"]', '["a"]'.encode("utf-16")])
def test_json_that_is_no_utf_8_or_could_not_be_sent_on_as_such_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        envelope.load(body, list)


def test_escapes_that_are_utf_8_are_taken() -> None:
    assert envelope.load(b'["\\u0001", "\\ud83d\\ude00"]', list) == ["\x01", "\U0001f600"]


def nested(levels: int) -> object:
    value: object = [1, {"flat": []}]
    for _ in range(levels - 4):
        value = {"in": value, "beside": [1, 2, "[[[", (3, 4)]}
    return [value]


def test_what_a_user_gives_is_nested_so_that_all_can_read_it() -> None:
    assert envelope.load_given(envelope.dump_given(nested(100)).decode())
    assert envelope.load_given(envelope.dump_given([["["]] * 1000).decode()) == [["["]] * 1000
    with pytest.raises(ValueError, match="more than 100 levels"):
        envelope.dump_given(nested(101))
    with pytest.raises(Malformed):
        envelope.load_given(envelope.dump(nested(101)).decode())
