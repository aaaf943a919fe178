"""permessage-deflate (RFC 7692) in the frame protocol: the limit, broken streams, what goes compressed."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, PerMessageDeflate

from test_frames import BINARY, CONTINUATION, PING, TEXT, frame
from uwasp.compression import Deflate, MessageDeflate
from uwasp.protocol import FrameProtocol, State

RSV1 = 0x40


def protocol(threshold=0, client_no_context_takeover=False, **limits):
    extension = PerMessageDeflate(client_no_context_takeover, False, 15, 15)
    return FrameProtocol(deflate=MessageDeflate(extension, threshold), **limits)


def deflate(payload, compressor=None):
    compressor = compressor or zlib.compressobj(wbits=-15)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def test_the_examples_of_the_rfc():
    """RFC 7692 §7.2.3."""
    whole = bytes.fromhex("f248cdc9c90700")
    receiver = protocol()
    assert receiver.receive(frame(TEXT, whole, rsv=RSV1)) == ["Hello"]
    fragments = frame(TEXT, whole[:3], False, rsv=RSV1) + frame(PING) + frame(CONTINUATION, whole[3:])
    assert protocol().receive(fragments) == ["Hello"]
    assert receiver.receive(frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1)) == ["Hello"]  # §7.2.3.2, the context
    stored = bytes.fromhex("000500faff48656c6c6f00")
    assert protocol().receive(frame(TEXT, stored, rsv=RSV1)) == ["Hello"]
    two_blocks = bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", ""))
    assert protocol().receive(frame(TEXT, two_blocks, rsv=RSV1)) == ["Hello"]


@pytest.mark.parametrize("no_context", [False, True])
def test_a_final_block_ends_a_message_and_not_the_connection(no_context):
    """RFC 7692 §7.2.3.4."""
    receiver = protocol(client_no_context_takeover=no_context)
    for _ in range(3):
        assert receiver.receive(frame(TEXT, bytes.fromhex("f348cdc9c9070000"), rsv=RSV1)) == ["Hello"]


def test_compressed_and_plain_messages_may_alternate():
    receiver = protocol()
    data = frame(TEXT, b"plain") + frame(TEXT, deflate(b"pressed"), rsv=RSV1) + frame(BINARY, b"\0")
    assert receiver.receive(data) == ["plain", "pressed", b"\0"]


@pytest.mark.parametrize(
    "data",
    [
        frame(CONTINUATION, b"", rsv=RSV1),
        frame(TEXT, deflate(b"a"), False, rsv=RSV1) + frame(CONTINUATION, b"", rsv=RSV1),
        frame(PING, b"", rsv=RSV1),
        frame(8, b"", rsv=RSV1),
        frame(TEXT, b"", rsv=0x20),
    ],
)
def test_reserved_bits_elsewhere_fail(data):
    """RFC 7692 §6: RSV1 marks the first frame of a message, and nothing else."""
    receiver = protocol()
    receiver.receive(data)
    assert (receiver.state, receiver.close_code) == (State.FAILED, 1002)


def test_a_broken_stream_fails():
    receiver = protocol()
    assert receiver.receive(frame(TEXT, b"fine") + frame(TEXT, b"\xff" * 20, rsv=RSV1)) == ["fine"]
    assert (receiver.state, receiver.close_code) == (State.FAILED, 1007)
    assert receiver.close_reason == "broken deflate stream"


def test_decompressed_text_is_checked_as_it_arrives():
    receiver = protocol()
    receiver.receive(frame(TEXT, deflate(b"\xff"), False, rsv=RSV1))
    assert (receiver.state, receiver.close_code) == (State.FAILED, 1007)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5_000, 1_000_000])
@pytest.mark.parametrize("pieces", [1, 3])
def test_the_limit_is_of_the_decompressed_message(size, pieces):
    receiver = protocol(max_message_size=100)
    whole = deflate(b"x" * size)
    if pieces == 1:
        data = frame(BINARY, whole, rsv=RSV1)
    else:
        data = frame(BINARY, whole[:1], False, rsv=RSV1) + frame(0, whole[1:2], False) + frame(0, whole[2:])
    messages = receiver.receive(data)
    if size <= 100:
        assert messages == [b"x" * size]
    else:
        assert (messages, receiver.close_code) == ([], 1009)


def test_what_cannot_be_compressed_is_allowed_up_to_the_limit():
    import random

    payload = random.Random(0).randbytes(100_000)
    assert len(deflate(payload)) > 100_000
    assert protocol(max_message_size=100_000).receive(frame(BINARY, deflate(payload), rsv=RSV1)) == [payload]


def test_a_bomb_costs_at_most_the_limit():
    """A GiB of zeros in a MiB: 1009, and no more memory than a few times the limit at any time."""
    compressor = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(2**10)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 1.1 * 2**20
    receiver = protocol(max_message_size=2**20)
    head = b"\xc2\xff" + len(bomb).to_bytes(8, "big") + bytes(4)
    tracemalloc.start()
    receiver.receive(head)
    for start in range(0, len(bomb), 2**16):
        receiver.receive(bomb[start : start + 2**16])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (receiver.state, receiver.close_code) == (State.FAILED, 1009)
    assert peak < 4 * 2**20


def test_small_messages_go_uncompressed():
    sender = protocol(threshold=100)
    assert sender.encode_message("x" * 99)[0] == 0x81
    assert sender.encode_message("x" * 100)[0] == 0x81 | RSV1
    assert sender.encode_message(b"x" * 100)[0] == 0x82 | RSV1


def test_what_is_compressed_is_what_an_independent_client_reads():
    from websockets.frames import Frame, Opcode

    _, extension = Deflate().factory().process_request_params(ClientPerMessageDeflateFactory().get_request_params(), [])
    client = PerMessageDeflate(False, False, 12, 12)
    sender = FrameProtocol(deflate=MessageDeflate(extension, 0))
    for message in ("", "x" * 10, "x" * 10, "ünï" * 50_000):
        data = sender.encode_message(message)
        size = {126: 4, 127: 10}.get(data[1], 2)
        decoded = client.decode(Frame(Opcode.TEXT, data[size:], rsv1=True))
        assert bytes(decoded.data).decode() == message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("server_max_window_bits", 8),
        ("client_max_window_bits", 16),
        ("threshold", -1),
        ("level", 10),
        ("memory_level", 0),
        ("level", "fast"),
    ],
)
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option} is a whole number from"):
        Deflate(**{option: value})
