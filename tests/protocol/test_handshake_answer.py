"""The answer to an opening handshake, from the environ alone: the table of `handshakes.py`, with no process."""

from __future__ import annotations

import pytest

from handshakes import EXTENSIONS, HANDSHAKES, PROTOCOLS, Handshake, Reply
from uwasp import Deflate
from uwasp.handshake import Answer, answer, is_upgrade

LONGEST_BODY = 500

# What uWSGI refuses comes to no application, and where there is no server is for the middleware to say.
ANSWERED = [
    handshake
    for handshake in HANDSHAKES
    if handshake.http_socket is not None
    and handshake.http_socket.author in ("uwasp", "application")
    and handshake.http_socket.status != 404
]


def by_name(handshakes: list[Handshake]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("handshake", handshakes, ids=[handshake.name for handshake in handshakes])


def check(given: Answer, expected: Reply, handshake: Handshake) -> None:
    headers = dict(given.headers)
    assert len(headers) == len(given.headers), "a header is there twice"
    assert int(given.status.split(" ")[0]) == expected.status
    assert given.accepts == (expected.status == 101)
    if given.accepts:
        fields = {"Sec-WebSocket-Protocol": expected.protocol, "Sec-WebSocket-Extensions": expected.extensions}
        assert headers == {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": handshake.accept,
            **{name: value for name, value in fields.items() if value is not None},
        }
        assert given.body == b""
        assert given.protocol == expected.protocol
        assert (given.deflate is None) == (expected.extensions is None)
    else:
        assert expected.says in given.body.decode("ascii")
        assert len(given.body) < LONGEST_BODY
        assert headers["Content-Length"] == str(len(given.body))
        assert headers.get("Sec-WebSocket-Version") == ("13" if expected.status == 426 else None)
        assert given.deflate is given.protocol is None


@by_name(ANSWERED)
def test_each_handshake_gets_its_answer(handshake):
    expected = handshake.http_socket
    assert is_upgrade(handshake.environ) == (expected.author == "uwasp")
    if expected.author == "uwasp":
        protocols = PROTOCOLS if handshake.target == "/subprotocols" else ()
        check(answer(handshake.environ, protocols, Deflate()), expected, handshake)


@by_name([handshake for handshake in EXTENSIONS if handshake.http_socket.author == "uwasp"])
def test_without_compression_no_extension_is_agreed_on_and_a_malformed_offer_still_fails(handshake):
    """RFC 6455 §9.1."""
    check(answer(handshake.environ), handshake.http_socket._replace(extensions=None), handshake)


@by_name(ANSWERED)
def test_a_server_with_no_subprotocols_agrees_on_none(handshake):
    if handshake.http_socket.status == 101:
        check(answer(handshake.environ, (), Deflate()), handshake.http_socket._replace(protocol=None), handshake)


def test_the_accept_header_is_that_of_the_rfc():
    """The example of RFC 6455 §1.3."""
    (standard,) = (handshake for handshake in HANDSHAKES if handshake.name == "standard")
    assert dict(answer(standard.environ).headers)["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_the_names_of_the_handshakes_are_different():
    names = [handshake.name for handshake in HANDSHAKES]
    assert sorted(set(names)) == sorted(names)
