"""RFC 6455 §5 to §7, rule by rule, on values alone."""

from __future__ import annotations

import itertools

import pytest

from uwasp.protocol import FrameProtocol, State


def frame(opcode, payload=b"", fin=True, mask=b"\x0a\x0b\x0c\x0d", rsv=0):
    first = (0x80 if fin else 0) | rsv | opcode
    length = len(payload)
    if length < 126:
        head = bytes((first, 0x80 | length))
    elif length < 2**16:
        head = bytes((first, 0x80 | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + length.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


def cuts(data):
    """Ways for the network to deliver the same bytes."""
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    for size in (2, 3, 5, 7, 1000):
        yield [data[index : index + size] for index in range(0, len(data), size)]


def receive(data, accepts=None, **limits):
    """What comes of some bytes, which must not depend on how they are cut."""
    results = []
    for parts in cuts(data):
        protocol = FrameProtocol(**limits)
        protocol.accepts = accepts
        messages = [message for part in parts for message in protocol.receive(part)]
        results.append((messages, bytes(protocol.replies), protocol.state, protocol.close_code, protocol.close_reason))
    assert all(result == results[0] for result in results)
    return results[0]


def messages(data, **limits):
    received, _, state, _, _ = receive(data, **limits)
    assert state is State.OPEN
    return received


def failure(data, **limits):
    received, _, state, code, _ = receive(data, **limits)
    assert state is State.FAILED
    return received, code


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_all_three_lengths(size):
    """§5.2."""
    assert messages(frame(TEXT, b"x" * size)) == ["x" * size]
    assert messages(frame(BINARY, b"\xff" * size)) == [b"\xff" * size]


def test_several_messages_at_once():
    assert messages(frame(TEXT, b"a") + frame(BINARY, b"b") + frame(TEXT, b"c")) == ["a", b"b", "c"]


def test_fragments_with_control_frames_between():
    """§5.4."""
    data = frame(TEXT, b"a", False) + frame(PING, b"p") + frame(CONTINUATION, b"", False) + frame(PONG)
    received, replies, state, _, _ = receive(data + frame(CONTINUATION, "ü".encode()) + frame(BINARY, b"next"))
    assert received == ["aü", b"next"]
    assert replies == b"\x8a\x01p"
    assert state is State.OPEN


def test_a_character_may_be_cut_anywhere():
    """§8.1: only the whole message is text, a fragment need not be."""
    text = "zß水🐝"
    encoded = text.encode()
    for cut in range(len(encoded) + 1):
        data = frame(TEXT, encoded[:cut], False) + frame(CONTINUATION, encoded[cut:])
        assert messages(data) == [text]


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x80",
        b"\xc0",
        b"\xe0\x80",
        b"\xed\xa0",
        b"\xf0\x80",
        b"\xf4\x90",
        b"\xf5",
        b"\xff",
        b"a\xc3(",
    ],
)
def test_text_is_refused_at_the_first_byte_that_is_wrong(wrong):
    """§8.1, and not only at the end of the message: what is to come cannot make it right."""
    head = b"\x81\xfe\x40\x00" + bytes(4)  # announces 16 KiB, of which little comes
    protocol = FrameProtocol()
    for byte in head + b"good " + wrong[:-1]:
        protocol.receive(bytes((byte,)))
    assert protocol.state is State.OPEN
    protocol.receive(wrong[-1:])
    assert (protocol.state, protocol.close_code) == (State.FAILED, 1007)
    assert failure(frame(TEXT, wrong)) == ([], 1007)
    assert failure(frame(TEXT, wrong, False)) == ([], 1007)


def test_text_that_ends_within_a_character():
    assert failure(frame(TEXT, b"\xe6\xb0")) == ([], 1007)
    assert failure(frame(TEXT, b"\xe6", False) + frame(CONTINUATION, b"\xb0")) == ([], 1007)


def test_binary_is_not_text():
    assert messages(frame(BINARY, b"\xff\xfe")) == [b"\xff\xfe"]


def in_fragments(opcode, payload):
    return frame(opcode, payload[:1], False) + frame(CONTINUATION, payload[1:])


@pytest.mark.parametrize(("accepts", "opcode", "other"), [(str, TEXT, BINARY), (bytes, BINARY, TEXT)])
@pytest.mark.parametrize("sent", [frame, in_fragments])
def test_a_message_of_the_type_that_is_not_accepted_is_refused(accepts, opcode, other, sent):
    """§7.4.1: 1003."""
    first, second = ("ab", "cd") if accepts is str else (b"ab", b"cd")
    assert messages(sent(opcode, b"ab") + frame(PING) + sent(opcode, b"cd"), accepts=accepts) == [first, second]
    refused = sent(opcode, b"ab") + sent(other, b"cd") + sent(opcode, b"ef")
    assert failure(refused, accepts=accepts) == ([first], 1003)


def test_what_is_not_accepted_is_refused_before_it_has_come():
    protocol = FrameProtocol()
    protocol.accepts = str
    protocol.receive(frame(BINARY, b"x" * 1000)[:4])
    assert (protocol.close_code, protocol.close_reason) == (1003, "this server takes text messages only")


def test_behind_our_close_frame_any_message_may_come_before_the_answer():
    protocol = FrameProtocol()
    protocol.accepts = bytes
    protocol.close(4000)
    assert protocol.receive(frame(TEXT, b"sent before it was seen")) == []
    assert protocol.state is State.CLOSE_SENT
    protocol.receive(frame(CLOSE, b"\x0f\xa0"))
    assert (protocol.state, protocol.close_code) == (State.CLOSED, 4000)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_fail(opcode):
    """§5.2."""
    assert failure(frame(TEXT, b"before") + frame(opcode, b"x")) == (["before"], 1002)


@pytest.mark.parametrize(("opcode", "rsv"), [*itertools.product([0, 1, 2, 8, 9, 10], [0x10, 0x20, 0x40, 0x70])])
def test_reserved_bits_fail(opcode, rsv):
    """§5.2."""
    assert failure(frame(opcode, b"", rsv=rsv)) == ([], 1002)


@pytest.mark.parametrize("data", [b"\x81\x00", b"\x81\x05", b"\x89\x00", b"\x88\x00", b"\x81\x7e\x00\x80"])
def test_an_unmasked_frame_fails(data):
    """§5.1."""
    assert failure(data) == ([], 1002)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_control_frames_are_short_and_whole(opcode):
    """§5.5."""
    assert failure(frame(opcode, b"\x03\xe8", fin=False)) == ([], 1002)
    assert failure(frame(opcode, b"\x03\xe8" + b"x" * 124)) == ([], 1002)


def test_a_continuation_needs_a_message_and_a_message_needs_its_end():
    """§5.4."""
    assert failure(frame(CONTINUATION, b"x")) == ([], 1002)
    assert failure(frame(TEXT, b"a") + frame(CONTINUATION, b"x")) == (["a"], 1002)
    assert failure(frame(TEXT, b"a", False) + frame(TEXT, b"b")) == ([], 1002)
    assert failure(frame(TEXT, b"a", False) + frame(BINARY, b"b", False)) == ([], 1002)


def test_pings_are_answered_in_order_with_their_payload():
    """§5.5.2."""
    _, replies, state, _, _ = receive(b"".join(frame(PING, bytes([number])) for number in range(5)) + frame(PONG, b"x"))
    assert replies == b"".join(b"\x8a\x01" + bytes([number]) for number in range(5))
    assert state is State.OPEN


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_close_frame_with_a_code_that_may_be_sent(code):
    """§7.4."""
    data = frame(CLOSE, code.to_bytes(2, "big") + "adiós".encode()) + frame(TEXT, b"never looked at") + b"\xff"
    assert receive(data) == ([], b"", State.CLOSE_RECEIVED, code, "adiós")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_frame_with_a_code_that_must_not_be_sent(code):
    """§7.4."""
    assert failure(frame(CLOSE, code.to_bytes(2, "big"))) == ([], 1002)


def test_other_close_frames():
    """§5.5.1."""
    assert receive(frame(CLOSE))[2:] == (State.CLOSE_RECEIVED, 1005, "")
    assert failure(frame(CLOSE, b"\x03")) == ([], 1002)
    assert failure(frame(CLOSE, b"\x03\xe8\xff")) == ([], 1007)


def test_a_length_with_its_highest_bit_set_fails():
    """§5.2."""
    assert failure(b"\x82\xff" + (2**63).to_bytes(8, "big") + bytes(4)) == ([], 1002)


def test_a_message_over_the_limit_fails_when_it_is_announced():
    assert messages(frame(BINARY, b"x" * 100), max_message_size=100) == [b"x" * 100]
    assert failure(frame(BINARY, b"x" * 101)[:6], max_message_size=100) == ([], 1009)
    assert failure(frame(TEXT, b"x" * 60, False) + frame(0, b"x" * 41), max_message_size=100) == ([], 1009)
    assert failure(b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4)) == ([], 1009)


def test_the_limit_is_each_messages_own():
    pairs = (frame(TEXT, b"x" * 50, False) + frame(0, b"x" * 50)) * 3
    assert messages(pairs, max_message_size=100) == ["x" * 100] * 3


def test_a_control_frame_does_not_count_towards_the_limit():
    data = frame(TEXT, b"x" * 100, False) + frame(PING, b"x" * 125) + frame(0)
    assert messages(data, max_message_size=100) == ["x" * 100]


def test_the_number_of_fragments_is_limited():
    data = frame(TEXT, b"", False) + frame(0, b"", False) * 8
    assert messages(data + frame(0), max_fragments=10) == [""]
    assert failure(data + frame(0, b"", False) * 2, max_fragments=10) == ([], 1008)


def test_messages_of_the_same_read_survive_a_violation():
    assert failure(frame(TEXT, b"a") + frame(BINARY, b"b") + frame(3)) == (["a", b"b"], 1002)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_encoded_messages_are_what_an_independent_parser_reads(size):
    from websockets.frames import Frame
    from websockets.streams import StreamReader

    for message, opcode in (("x" * size, TEXT), (b"x" * size, BINARY), (bytearray(size), BINARY)):
        reader = StreamReader()
        reader.feed_data(FrameProtocol().encode_message(message))
        parser = Frame.parse(reader.read_exact, mask=False)
        with pytest.raises(StopIteration) as result:
            next(parser)
        parsed = result.value.value
        expected = message.encode() if isinstance(message, str) else bytes(message)
        assert (parsed.opcode, parsed.fin, bytes(parsed.data)) == (opcode, True, expected)


@pytest.mark.parametrize("message", [None, 1, 1.5, ["text"], object()])
def test_a_message_is_str_or_bytes_like(message):
    with pytest.raises(TypeError, match=f"not {type(message).__name__}"):
        FrameProtocol().encode_message(message)


def test_a_lone_surrogate_cannot_be_sent():
    with pytest.raises(UnicodeEncodeError):
        FrameProtocol().encode_message("\ud800")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
def test_a_code_that_must_not_be_sent_is_not(code):
    with pytest.raises(ValueError, match=f"close code {code} must not be sent"):
        FrameProtocol().encode_close(code)


@pytest.mark.parametrize(("code", "reason"), [("1000", ""), (None, ""), (1000.0, ""), (1000, None), (1000, b"bye")])
def test_what_is_no_code_or_no_reason_is_not_sent(code, reason):
    with pytest.raises(TypeError, match="a code, an int, and a reason, a str, not"):
        FrameProtocol().encode_close(code, reason)


def test_encoded_control_frames():
    protocol = FrameProtocol()
    assert protocol.encode_close(1000, "ü") == b"\x88\x04\x03\xe8\xc3\xbc"
    assert protocol.encode_ping(b"x") == b"\x89\x01x"
    with pytest.raises(ValueError, match="123 bytes"):
        protocol.encode_close(1000, "ü" * 62)
    with pytest.raises(ValueError, match="125 bytes"):
        protocol.encode_ping(b"x" * 126)
