"""The closing handshake, RFC 6455 §5.5.1 and §7.1, on values alone: who was first, what is sent, what is read still."""

from __future__ import annotations

import pytest

from test_frames import CLOSE, PING, TEXT, frame
from uwasp.protocol import FrameProtocol, State

GOING_AWAY = b"\x03\xe9"
FAULT = frame(3)


def close_frame(code=None, reason=""):
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
    return bytes((0x88, len(payload))) + payload


@pytest.fixture
def protocol():
    return FrameProtocol()


def test_an_open_connection_has_neither_code_nor_reason(protocol):
    assert (protocol.state, protocol.close_code, protocol.close_reason) == (State.OPEN, None, "")
    assert protocol.may_send
    assert protocol.answer() == b""


def test_the_answer_to_the_clients_close_frame_has_its_code_and_no_reason(protocol):
    """§5.5.1; until then messages may be sent."""
    protocol.receive(frame(CLOSE, GOING_AWAY + b"bye"))
    assert (protocol.state, protocol.close_code, protocol.close_reason) == (State.CLOSE_RECEIVED, 1001, "bye")
    assert protocol.may_send
    assert protocol.answer() == close_frame(1001)
    assert protocol.state is State.CLOSED
    assert not protocol.may_send


def test_a_close_frame_without_a_code_is_answered_without_one(protocol):
    """§7.4.1."""
    protocol.receive(frame(CLOSE))
    assert protocol.close_code == 1005
    assert protocol.answer() == close_frame()


def test_our_close_that_comes_after_the_clients_is_the_answer_to_it(protocol):
    protocol.receive(frame(CLOSE, GOING_AWAY))
    assert protocol.close(4000, "ours") == close_frame(1001)
    assert (protocol.close_code, protocol.close_reason) == (1001, "")


def test_a_fault_fails_the_connection_with_its_code_and_reason(protocol):
    """§7.1.7; also where the server closes before that is said."""
    protocol.receive(FAULT)
    assert (protocol.state, protocol.close_code) == (State.FAILED, 1002)
    assert protocol.close(4000, "ours") == close_frame(1002, "reserved opcode 0x3")
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("end", [frame(CLOSE, GOING_AWAY), FAULT], ids=["answer", "fault"])
def test_after_our_close_frame_only_the_clients_is_looked_for(protocol, end):
    """§1.4: messages are read over, and pings get no pong, since nothing may follow a close frame."""
    assert protocol.close(4000, "enough") == close_frame(4000, "enough")
    assert protocol.state is State.CLOSE_SENT
    assert protocol.receive(frame(TEXT, b"late") + frame(PING, b"late")) == []
    assert protocol.replies == b""
    assert protocol.receive(frame(TEXT, b"later") + end) == []
    assert protocol.state is State.CLOSED
    assert (protocol.close_code, protocol.close_reason) == (4000, "enough")


def test_nothing_is_read_after_both_close_frames(protocol):
    protocol.receive(frame(CLOSE, GOING_AWAY))
    protocol.answer()
    assert protocol.receive(frame(TEXT, b"late") + frame(PING)) == []
    assert (protocol.state, protocol.replies) == (State.CLOSED, b"")


def test_each_close_frame_is_sent_once(protocol):
    assert protocol.close() != b""
    assert protocol.close() == b""
    assert protocol.answer() == b""


@pytest.mark.parametrize("state", ["open", "closing", "lost"])
def test_a_code_that_must_not_be_sent_is_refused_in_every_state(protocol, state):
    if state == "closing":
        protocol.close()
    elif state == "lost":
        protocol.lose()
    with pytest.raises(ValueError, match="must not be sent"):
        protocol.close(1006)


def test_a_connection_that_is_lost_without_a_close_frame_has_1006(protocol):
    """§7.1.5."""
    protocol.lose("cut")
    assert (protocol.state, protocol.close_code, protocol.close_reason) == (State.LOST, 1006, "cut")
    assert protocol.close() == b""
    assert not protocol.may_send


def test_a_connection_that_is_lost_after_a_close_frame_keeps_its_code(protocol):
    protocol.close(4000, "enough")
    protocol.lose("cut")
    assert (protocol.state, protocol.close_code, protocol.close_reason) == (State.LOST, 4000, "enough")


def test_a_message_that_is_under_way_when_we_close_does_not_hide_the_answer(protocol):
    data = frame(TEXT, b"x" * 300)
    protocol.receive(data[:100])
    protocol.close()
    protocol.receive(data[100:] + frame(CLOSE, GOING_AWAY))
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize("most", [1, 2, 3, 7])
def test_so_many_messages_are_read_and_the_rest_stays_unread(most):
    """In order, with the ping between them answered when its turn comes, and the close frame seen at the end."""
    protocol = FrameProtocol(max_messages=most)
    fragments = frame(TEXT, b"4", False) + frame(PING, b"p") + frame(0, b"!")
    data = b"".join(frame(TEXT, str(number).encode()) for number in range(4)) + fragments + frame(TEXT, b"x" * 200)
    found = [protocol.receive(data + frame(CLOSE, GOING_AWAY))]
    assert protocol.replies == (b"" if most < 4 else b"\x8a\x01p")
    while protocol.unread is not None:
        found.append(protocol.receive())
    assert [message for messages in found for message in messages] == ["0", "1", "2", "3", "4!", "x" * 200]
    assert all(len(messages) <= most for messages in found)
    assert protocol.replies == b"\x8a\x01p"
    assert protocol.state is State.CLOSE_RECEIVED


def test_what_comes_later_is_read_after_what_was_left_unread():
    protocol = FrameProtocol(max_messages=1)
    second = frame(TEXT, b"second")
    assert protocol.receive(frame(TEXT, b"first") + second[:4]) == ["first"]
    assert protocol.receive(second[4:] + frame(TEXT, b"third")) == ["second"]
    assert protocol.receive(frame(TEXT, b"fourth")) == ["third"]
    assert protocol.receive(most=5) == ["fourth"]
    assert protocol.unread is None


def test_no_room_means_that_nothing_is_read():
    protocol = FrameProtocol()
    data = frame(TEXT, b"x" * 300)
    assert protocol.receive(data[:100]) == []
    assert protocol.receive(data[100:], most=0) == []
    assert protocol.receive() == ["x" * 300]


def test_closing_looks_at_what_was_left_unread():
    protocol = FrameProtocol(max_messages=1)
    protocol.receive(frame(TEXT, b"first") + frame(TEXT, b"second") + frame(CLOSE, GOING_AWAY))
    protocol.close()
    assert protocol.receive() == []
    assert protocol.state is State.CLOSED
