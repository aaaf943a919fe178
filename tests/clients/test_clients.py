"""What a client may expect of a WebSocket, with clients that none of us wrote."""

from __future__ import annotations

import random

import pytest

from foreign import CLIENTS

MESSAGES = {
    "text": "text",
    "binary": b"binary",
    "empty-text": "",
    "empty-binary": b"",
    "unicode": "Grüße, 世界 \N{PARTY POPPER} \0 \uffff",
    "every-byte": bytes(range(256)),
    "longer-than-a-short-frame": "x" * 126,
    "longer-than-a-medium-frame": b"y" * 65_536,
    "worth-compressing": "much of the same " * 1000,
}
MEBIBYTE = 2**20


def named(name: str) -> str:
    """A connection's name in the server's log."""
    named.count += 1
    return f"{name}-{named.count}"


named.count = 0


compressed_or_not = pytest.mark.parametrize(
    ("client", "compression"),
    [
        pytest.param(name, compression, id=f"{name}-{'compressed' if compression else 'uncompressed'}")
        for name, client in CLIENTS.items()
        for compression in ((True, False) if client.declines_compression else (True,))
    ],
    indirect=["client"],
)
that_fragment = pytest.mark.parametrize(
    "client", [name for name, client in CLIENTS.items() if client.fragments], indirect=True
)
that_ping = pytest.mark.parametrize("client", [name for name, client in CLIENTS.items() if client.pings], indirect=True)


@compressed_or_not
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_comes_back_as_it_went(connect, client, compression, message):
    connect("/echo", compression=compression)
    client.send(message)
    received = client.receive()
    assert type(received) is type(message)
    assert received == message


@compressed_or_not
def test_compression_is_agreed_on_with_a_client_that_offers_it(connect, client, compression):
    connect("/echo", compression=compression)
    assert client.extensions == (["permessage-deflate"] if compression else [])


@compressed_or_not
def test_many_messages_come_back_in_order(connect, client, compression):
    connect("/echo", compression=compression)
    for number in range(100):
        client.send(f"{number} " * number)
    for number in range(100):
        assert client.receive() == f"{number} " * number


@compressed_or_not
def test_10_mib_of_text_go_both_ways(connect, client, compression):
    connect("/echo", compression=compression)
    message = "Zehn Mebibyte, größtenteils gleich. \N{SNOWMAN}\n" * (10 * MEBIBYTE // 40)
    client.send(message)
    assert client.receive() == message


def test_10_mib_of_noise_go_both_ways(connect, client):
    connect("/echo")
    message = random.Random(10).randbytes(10 * MEBIBYTE)
    client.send(message)
    assert client.receive() == message


@that_fragment
def test_a_fragmented_message_comes_back_whole(connect, client):
    connect("/echo")
    client.send_fragments(["Grü", "", "ße, ", "世界"])
    assert client.receive() == "Grüße, 世界"
    client.send_fragments([b"\0" * 70_000, b"\1", b"\2" * 200])
    assert client.receive() == b"\0" * 70_000 + b"\1" + b"\2" * 200


@that_ping
def test_a_clients_ping_is_answered_with_its_data(connect, client):
    connect("/echo")
    client.ping("")
    client.ping("still there?")
    client.send("yes")
    assert client.receive() == "yes"


def test_a_servers_ping_is_not_seen_by_the_clients_program(connect, client):
    connect(f"/life?{named('pinged')}")
    client.send("ping are you there?")
    client.send("after the ping")
    assert client.receive() == "after the ping"


def test_both_sides_see_the_code_and_the_reason_of_a_client_that_closes(server, connect, client):
    name = named("client-closes")
    connect(f"/life?{name}")
    code, _ = client.close(4001, "adiós")
    if client.sees_answers_to_its_close:
        assert code == 4001
    server.wait_for_output(f"{name} close 4001 adiós\n")


def test_both_sides_see_the_code_and_the_reason_of_a_server_that_closes(server, connect, client):
    name = named("server-closes")
    connect(f"/life?{name}")
    client.send("close 4002 größer")
    assert client.closed() == (4002, "größer")
    server.wait_for_output(f"{name} close 4002 größer\n")


def test_a_client_that_closes_gets_what_was_sent_before(server, connect, client):
    """The server's answers to earlier messages are on their way when the close frame comes."""
    name = named("sent-before")
    connect(f"/life?{name}")
    for number in range(50):
        client.send(f"number {number}")
    for number in range(50):
        assert client.receive() == f"number {number}"
    client.close(1000, "")
    server.wait_for_output(f"{name} close 1000\n")


def test_the_servers_first_subprotocol_is_agreed_on(connect, client):
    connect("/subprotocols", subprotocols=["chat.v1", "other", "chat.v2"])
    assert client.subprotocol == "chat.v2"
    assert client.receive() == "protocol chat.v2"


def test_without_an_offer_no_subprotocol_is_agreed_on(connect, client):
    connect("/subprotocols")
    assert client.subprotocol is None
    assert client.receive() == "protocol None"
