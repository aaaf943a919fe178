"""The events of a connection: which, in which order, how often, whatever happens to it."""

from __future__ import annotations

import json
import socket
import struct
import time

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.frames import Opcode
from websockets.sync.client import connect

from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until


@pytest.fixture
def life(server, request):
    """A connection to a server that logs its events, and a function that waits for them."""
    name = request.node.name.translate(str.maketrans("[]", "--"))

    def events(until="close"):
        def seen():
            lines = [line for line in server.output.splitlines() if line.startswith(f"application INFO {name} ")]
            return [line.removeprefix(f"application INFO {name} ") for line in lines]

        wait_until(lambda: any(event.startswith(until) for event in seen()), f"{until!r} of {name}")
        return seen()

    with connect(f"{server.url}/life?{name}", max_size=None) as client:
        yield client, events


def close_seen_by(client):
    with pytest.raises(ConnectionClosed):
        client.recv(10)
    return client.protocol.close_code, client.protocol.close_reason


def test_open_messages_close_come_in_this_order(life):
    client, events = life
    for number in range(100):
        client.send(str(number))
        assert client.recv(10) == str(number)
    client.close(4001, "enough")
    assert events() == ["open", *(f"message {number}" for number in range(100)), "close 4001 enough"]


def test_the_client_closes_without_a_code(life):
    client, events = life
    client.protocol.send_close()
    for data in client.protocol.data_to_send():
        client.socket.sendall(data)
    assert events() == ["open", "close 1005"]


def test_the_client_is_gone_without_a_word(life):
    client, events = life
    client.send("hello")
    assert client.recv(10) == "hello"
    client.socket.shutdown(socket.SHUT_RDWR)
    assert events() == ["open", "message hello", "close 1006"]


def test_the_client_resets_the_connection(server):
    with RawClient(server.port, "/life?reset") as client:
        client.send(frame(1, b"hello"))
        client.recv()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: "reset close 1006" in server.output, "on_close")


def test_the_server_closes(life):
    client, events = life
    client.send("close 4002 done here")
    assert close_seen_by(client) == (4002, "done here")
    assert events() == ["open", "message close 4002 done here", "close 4002 done here"]


def test_messages_behind_the_servers_close_are_not_delivered(life):
    client, events = life
    with client.protocol_mutex:  # one write: the server has all of it when it closes
        client.protocol.send_text(b"close 4003")
        client.protocol.send_text(b"too late")
        client.socket.sendall(b"".join(client.protocol.data_to_send()))
    assert close_seen_by(client) == (4003, "")
    assert events() == ["open", "message close 4003", "close 4003"]


def test_the_replies_to_what_came_before_the_clients_close_are_sent_before_the_answer(server):
    with RawClient(server.port, "/life?replies") as client:
        client.send(frame(1, b"one") + frame(1, b"two") + frame(8, b"\x03\xe8"))
        assert [client.recv().data, client.recv().data] == [b"one", b"two"]
        assert client.recv_close() == (1000, "")
        client.recv_end()


def test_sending_on_a_closed_connection_raises_with_code_and_reason(life):
    client, events = life
    client.send("send-after-close")
    assert close_seen_by(client) == (4000, "over")
    assert "ConnectionClosed 4000 over" in events()


def test_a_message_of_a_wrong_type_raises_and_leaves_the_connection_alone(life):
    client, _ = life
    client.send("wrong-type")
    assert client.recv(10) == "TypeError a message is a str (sent as text) or bytes-like (sent as binary), not int"


def test_anything_bytes_like_goes_out_as_binary(life):
    client, _ = life
    client.send("bytes-likes")
    assert [client.recv(10), client.recv(10)] == [b"bytearray", b"memoryview"]


@pytest.mark.parametrize("where", ["on_open", "on_message"])
def test_an_exception_is_logged_and_closes_that_connection_alone(server, where):
    with connect(f"{server.url}/life?other-{where}") as other:
        with connect(f"{server.url}/life?raise-{'in-open' if where == 'on_open' else where}") as client:
            if where == "on_message":
                client.send("raise")
            assert close_seen_by(client) == (1011, "internal error")
        other.send("still here")
        assert other.recv(10) == "still here"
    wait_until(lambda: f"RuntimeError: raised in {where}" in server.output, "the traceback")
    output = server.output
    assert "uwasp.server ERROR error in Lifecycle" in output
    assert "Traceback (most recent call last)" in output
    name = "raise-in-open" if where == "on_open" else "raise-on_message"
    wait_until(lambda: server.output.count(f"{name} close 1011") == 1, "on_close")


def test_an_exception_in_on_close_is_logged(server):
    with connect(f"{server.url}/life?raise-in-close"):
        pass
    wait_until(lambda: "RuntimeError: raised in on_close" in server.output, "the traceback")


def test_an_exception_in_the_servers_constructor_answers_the_handshake_with_500(server):
    from websockets.exceptions import InvalidMessage, InvalidStatus

    with pytest.raises((InvalidStatus, InvalidMessage, EOFError)):  # EOFError: an old websockets
        connect(f"{server.url}/unmakeable")
    assert "RuntimeError: raised in __init__" in server.output


@pytest.mark.usefixtures("may_wait")
def test_a_server_that_blocks_delays_neither_others_nor_its_own_pings(server):
    with connect(f"{server.url}/life?sleeper") as sleeper, connect(f"{server.url}/life?awake") as awake:
        sleeper.send("sleep 1.5")
        begin = time.monotonic()
        awake.send("hello")
        assert awake.recv(10) == "hello"
        assert sleeper.ping().wait(10)
        assert time.monotonic() - begin < 1.2
        assert sleeper.recv(10) == "slept 1.5"


@pytest.mark.usefixtures("may_wait")
def test_the_close_of_a_client_is_answered_while_its_server_is_busy(server):
    with RawClient(server.port, "/life?busy") as client:
        client.send(frame(1, b"sleep 1.5"))
        begin = time.monotonic()
        client.send(frame(8, b"\x03\xe8"))
        assert client.recv_close() == (1000, "")
        assert time.monotonic() - begin < 1.2
    wait_until(lambda: "busy close 1000" in server.output, "on_close")


def test_another_servers_method_sends(server):
    with connect(f"{server.url}/life?from") as source, connect(f"{server.url}/life?target") as target:
        target.send("hello")  # so that on_open is over
        assert target.recv(10) == "hello"
        source.send("to target message")
        assert target.recv(10) == "message"


def test_an_ordinary_request_sends(server):
    from urllib.request import urlopen

    with connect(f"{server.url}/life?pushed-to") as client:
        client.send("hello")
        assert client.recv(10) == "hello"
        with urlopen(f"http://{server.address}/push/pushed-to", timeout=10) as response:
            assert response.status == 200
        assert client.recv(10) == "pushed"


def test_a_thread_sends(life):
    client, _ = life
    client.send("from-thread hello")
    assert client.recv(10) == "hello"


def test_the_connection_describes_itself(life):
    client, _ = life
    client.send("describe")
    assert json.loads(client.recv(10)) == ["/life", None, False, None, True]


def test_the_server_pings(server):
    with RawClient(server.port, "/life?pings") as client:
        client.send(frame(1, b"ping payload") + frame(1, b"after"))
        ping = client.recv()
        assert (ping.opcode, ping.data) == (Opcode.PING, b"payload")
        assert client.recv().data == b"after"


def test_a_class_that_only_has_the_methods_is_a_server(server):
    with connect(f"{server.url}/methods") as client:
        assert client.recv(10) == "open"
        client.send("message")
        assert client.recv(10) == "got message"
    wait_until(lambda: "only-the-methods closed" in server.output, "on_close")


def test_a_failed_connection_says_why(server):
    with connect(f"{server.url}/life?unmasked") as client:
        client.socket.sendall(b"\x81\x02hi")
        with pytest.raises(ConnectionClosedError):
            client.recv(10)
        assert client.protocol.close_code == 1002
    wait_until(lambda: "unmasked close 1002" in server.output, "on_close")
