"""Answers to what came together go out together, and none waits for a server that takes its time."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest
from websockets.frames import Opcode

from uwasp_pytest.behaviour.raw import RawClient, frame

BATCH = 8


def batch(*messages: str) -> bytes:
    return b"".join(frame(Opcode.TEXT, message.encode()) for message in messages)


def segments(client: RawClient) -> int:
    """How many segments with data have come: one for each write, where Nagle's algorithm is off."""
    about = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("I", about, 152)[0])  # tcpi_data_segs_in


def answered_at_once(client: RawClient) -> bool:
    """Whether the answers to a batch came in one write; a machine under load may well cut it."""
    messages = [str(number) for number in range(BATCH)]
    before = segments(client)
    client.send(batch(*messages))
    assert [bytes(client.recv().data).decode() for _ in messages] == messages
    return segments(client) == before + 1


@pytest.fixture
def client(server) -> Iterator[RawClient]:
    """A client whose server has been fast so far, so that answers to its batches are kept back."""
    with RawClient(server.port, "/quick") as client:
        assert any(answered_at_once(client) for _ in range(100))
        yield client


def test_the_answers_to_a_batch_are_one_write(server):
    with RawClient(server.port, "/quick") as client:
        assert any(answered_at_once(client) for _ in range(100))


@pytest.mark.usefixtures("may_wait")
@pytest.mark.parametrize("place", [1, BATCH - 1])
def test_no_answer_waits_for_a_server_that_takes_its_time(client, place):
    """The server was fast up to then, and waits for something in the midst of a batch."""
    messages = [str(number) for number in range(BATCH)]
    messages[place] = "sleep"
    begin = time.monotonic()
    client.send(batch(*messages))
    for message in messages[:place]:
        assert client.recv().data == message.encode()
    assert time.monotonic() - begin < 2
    assert client.recv().data == b"slept"
    assert [client.recv().data for _ in messages[place + 1 :]] == [m.encode() for m in messages[place + 1 :]]


@pytest.mark.usefixtures("may_wait")
def test_an_answer_leaves_before_its_own_server_goes_on_to_something_slow(client):
    """One on_message that sends, and then waits, in a connection that was fast up to then."""
    begin = time.monotonic()
    client.send(batch("1", "send and sleep", "2"))
    assert client.recv().data == b"1"
    assert client.recv().data == b"sent"
    assert time.monotonic() - begin < 2
    assert client.recv().data == b"2"


@pytest.mark.usefixtures("may_wait")
@pytest.mark.parametrize("at_once", [True, False])
def test_no_answer_waits_when_the_server_has_waited_before(client, at_once):
    """It takes a nap, with the batch behind it or coming meanwhile, and then is fast, and then takes its time."""
    client.send(batch("nap", "1", "2", "3", "send and sleep") if at_once else batch("nap"))
    if not at_once:
        client.send(batch("1", "2", "3", "send and sleep"))
    begin = time.monotonic()
    assert [client.recv().data for _ in range(4)] == [b"1", b"2", b"3", b"sent"]
    assert time.monotonic() - begin < 2


def test_what_is_kept_back_does_not_wait_for_the_client(client):
    client.send(batch(*["if nothing waits"] * BATCH))
    assert [client.recv().data for _ in range(BATCH)] == [b"nothing"] * BATCH


def test_a_close_comes_after_the_answers_that_were_kept_back(client):
    client.send(batch("1", "2", "close", "3"))
    assert [client.recv().data for _ in range(2)] == [b"1", b"2"]
    assert client.recv_close() == (4000, "enough")


def test_another_sender_comes_after_what_is_kept_back(client):
    """A ping's answer, and a ping of the server's own: nothing overtakes."""
    client.send(batch("1", "2", "ping", "3"))
    frames = [client.recv() for _ in range(4)]
    assert [each.data for each in frames] == [b"1", b"2", b"now", b"3"]


def test_an_error_comes_after_the_answers_that_were_kept_back(client):
    client.send(batch("1", "2", "raise", "3"))
    assert [client.recv().data for _ in range(2)] == [b"1", b"2"]
    assert client.recv_close() == (1011, "internal error")
