"""Messages of the wrong type, and such as a codec cannot decode, close their own connection and nothing else."""

from __future__ import annotations

import contextlib
import json
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.processes import wait_until


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "typed.py"


def closed(client, message):
    """How the connection is closed for this message; for its first fragment, perhaps."""
    with contextlib.suppress(ConnectionClosed):
        client.send(message)
    with pytest.raises(ConnectionClosed) as raised:
        client.recv(10)
    return raised.value.rcvd.code, raised.value.rcvd.reason


TEXT_ONLY = (1003, "this server takes text messages only")
BINARY_ONLY = (1003, "this server takes binary messages only")


@pytest.mark.parametrize(
    ("path", "accepted", "other", "end"),
    [
        ("/text", "text", b"binary", TEXT_ONLY),
        ("/compressed", "text", b"binary", TEXT_ONLY),
        ("/binary", b"binary", "text", BINARY_ONLY),
    ],
)
@pytest.mark.parametrize("in_fragments", [False, True])
def test_a_message_of_the_other_type_closes_with_1003(server, path, accepted, other, end, in_fragments):
    with connect(f"{server.url}{path}") as client, connect(f"{server.url}{path}") as bystander:
        client.send(accepted)
        assert client.recv(10) == accepted
        assert closed(client, [other, other] if in_fragments else other) == end
        bystander.send(accepted)
        assert bystander.recv(10) == accepted


def closed_with(server, code):
    with urlopen(f"http://{server.address}/", timeout=10) as response:
        return json.load(response)["closed"].get(str(code), 0)


@pytest.mark.parametrize("undecodable", ["{", b"\xff", "NaN", "[" * 100_000])
def test_what_cannot_be_decoded_closes_with_1007_and_nobody_else_notices(server, undecodable):
    before = closed_with(server, 1007)
    with connect(f"{server.url}/values") as client, connect(f"{server.url}/values") as bystander:
        client.send('{"a": 1}')
        assert client.recv(10) == '{"a":1}'
        assert closed(client, undecodable) == (1007, "a message that this server cannot decode")
        bystander.send(b'"binary"')
        assert bystander.recv(10) == '"binary"'
    wait_until(lambda: closed_with(server, 1007) == before + 1, "the end to be counted")


def test_each_fault_is_logged_as_whose_it_is(serve):
    uwsgi = serve()
    with connect(f"{uwsgi.url}/values") as client:
        closed(client, '{"a": \x1b')
    uwsgi.wait_for_output("is closed with 1007 'a message that this server cannot decode' by a fault of the client's, ")
    (line,) = [line for line in uwsgi.output.splitlines() if "sent what" in line]
    assert line.startswith("uwasp.server INFO connection 1 of 127.0.0.1 at /values sent what Values cannot decode: ")
    assert line.endswith(": JSONDecodeError: Expecting value: line 1 column 7 (char 6)")
    assert "Traceback" not in uwsgi.output
    with connect(f"{uwsgi.url}/values") as client:
        assert closed(client, '"raise"')[0] == 1011
    uwsgi.wait_for_output("ValueError: raised in on_message")
    assert "uwasp.server ERROR error in Values, closing connection 2" in uwsgi.output


def test_a_group_is_sent_json_and_told_in_turn(server):
    with connect(f"{server.url}/told") as client:
        client.send('{"number": 7}')
        assert [client.recv(10), client.recv(10)] == ['{"ü":7}', '{"notified":{"number":7}}']
        client.send("{}")
        assert "not JSON compliant" in client.recv(10)
        assert client.recv(10) == '{"notified":{}}'
        client.send('{"number": 8, "others": true}')
        assert client.recv(10) == '{"notified":{"number":8,"others":true}}'
