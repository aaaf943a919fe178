"""The opening handshake as real uWSGI hands it to us, and what is refused before a connection is taken over."""

from __future__ import annotations

import http.client

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from raw import RawClient, frame

GOOD = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def ask(server, method="GET", path="/echo", **changes):
    headers = {**GOOD, **{name.replace("_", "-"): value for name, value in changes.items()}}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers={name: value for name, value in headers.items() if value is not None})
    response = connection.getresponse()
    body = response.read() if response.status != 101 else b""
    connection.close()
    return response, body.decode()


def test_the_accept_header_is_that_of_the_rfc(server):
    """The example of RFC 6455 §1.3."""
    response, _ = ask(server)
    assert response.status == 101
    assert response.getheader("Sec-WebSocket-Accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert response.getheader("Upgrade") == "websocket"
    assert response.getheader("Sec-WebSocket-Protocol") is None
    assert response.getheader("Sec-WebSocket-Extensions") is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "POST"}, "GET"),
        ({"Connection": None}, "Connection"),
        ({"Connection": "keep-alive"}, "Connection"),
        ({"Upgrade": "websocket, h2c"}, "Upgrade"),
        ({"Sec_WebSocket_Key": None}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "not base64!"}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Version": None}, "Sec-WebSocket-Version"),
        ({"Sec_WebSocket_Protocol": "a b"}, "Sec-WebSocket-Protocol"),
        ({"Content_Length": "0x"}, "body"),
    ],
)
def test_a_malformed_request_is_answered_with_400_and_the_reason(server, change, says):
    response, body = ask(server, **change)
    assert response.status == 400
    assert says in body


def test_another_version_is_answered_with_426_and_the_version_that_is_spoken(server):
    response, body = ask(server, Sec_WebSocket_Version="8")
    assert response.status == 426
    assert response.getheader("Sec-WebSocket-Version") == "13"
    assert "13" in body


def test_a_path_without_a_server_is_answered_with_404(server):
    response, body = ask(server, path="/nowhere")
    assert response.status == 404
    assert "no WebSocket" in body
    with pytest.raises(InvalidStatus, match="404"):
        connect(f"{server.url}/echo/")


@pytest.mark.parametrize("change", [{"Upgrade": None}, {"Upgrade": "h2c"}])
def test_a_request_that_is_no_upgrade_goes_to_the_application_whatever_its_path(server, change):
    response, body = ask(server, **change)
    assert (response.status, body) == (200, "GET /echo")


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "upgrade", "UPGRADE"])
def test_the_connection_header_may_hold_more(server, connection):
    assert ask(server, Connection=connection, Upgrade="WebSocket")[0].status == 101


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("chat.v1", "chat.v1"),
        ("chat.v1, chat.v2", "chat.v2"),
        ("other, chat.v1", "chat.v1"),
        ("other", None),
        (None, None),
    ],
)
def test_the_servers_first_subprotocol_that_the_client_offers_is_chosen(server, offered, chosen):
    changes = {} if offered is None else {"Sec-WebSocket-Protocol": offered}
    with RawClient(server.port, "/subprotocols", *(f"{name}: {value}" for name, value in changes.items())) as client:
        assert client.recv().data == f"protocol {chosen}".encode()
        header = f"Sec-WebSocket-Protocol: {chosen}"
        assert (header in client.head) if chosen else ("Sec-WebSocket-Protocol" not in client.head)


def test_a_refused_connection_is_not_taken_over(server):
    """The same connection refused a thousand times leaves no descriptor behind, and others go on."""
    with connect(f"{server.url}/echo") as client:
        for _ in range(300):
            assert ask(server, Sec_WebSocket_Key="wrong")[0].status == 400
        client.send("unharmed")
        assert client.recv(10) == "unharmed"


def test_a_frame_right_behind_the_servers_answer_is_not_lost(server):
    for _ in range(100):
        with RawClient(server.port) as client:
            client.send(frame(1, b"at once"))
            assert client.recv().data == b"at once"
