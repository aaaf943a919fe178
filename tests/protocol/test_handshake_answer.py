"""The answer to an opening handshake, from the environ alone: the table of `handshakes.py`, with no process."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handshakes import EXTENSIONS, HANDSHAKES, PROTOCOLS, Handshake, Reply
from uwasp import Deflate, handshake
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


ORDINARY = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/",
    "HTTP_HOST": "localhost:8000",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}
OFFER = "permessage-deflate; client_max_window_bits"
CHROME = {"HTTP_SEC_WEBSOCKET_EXTENSIONS": OFFER}
FIREFOX = {"HTTP_CONNECTION": "keep-alive, Upgrade", "HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate"}
COMPRESSIONS = (None, Deflate(), Deflate(9, 8, True, True, level=1), Deflate(15, 15, memory_level=9))
SENT = {"nothing": {}, "Chrome": CHROME, "Firefox": FIREFOX, "a protocol": {"HTTP_SEC_WEBSOCKET_PROTOCOL": "chat"}}
each_compression = pytest.mark.parametrize("compression", COMPRESSIONS, ids=["none", "default", "least", "most"])


def by_the_rules(monkeypatch: pytest.MonkeyPatch, *asked) -> Answer:
    with monkeypatch.context() as patch:
        patch.setattr(handshake, "_ordinary_answer", lambda *_: None)
        return answer(*asked)


def agreed(answered: Answer) -> tuple[object, ...]:
    """All that an answer is, less zlib's streams."""
    if answered.deflate is None:
        return answered
    kept = {name: value for name, value in vars(answered.deflate._extension).items() if "coder" not in name}
    return (*answered[:4], answered.deflate.threshold, kept)


@each_compression
@pytest.mark.parametrize("protocols", [(), PROTOCOLS], ids=["no-protocols", "protocols"])
def test_each_handshake_gets_the_answer_of_the_rules(monkeypatch, protocols, compression):
    for each in ANSWERED:
        asked = each.environ, protocols, compression
        assert agreed(answer(*asked)) == agreed(by_the_rules(monkeypatch, *asked)), each.name


@each_compression
@pytest.mark.parametrize("sent", SENT.values(), ids=SENT)
def test_for_what_browsers_send_the_rules_are_not_asked(monkeypatch, sent, compression):
    asked = ORDINARY | sent, ("other", "chat"), compression
    expected = agreed(by_the_rules(monkeypatch, *asked))
    answer(*asked)  # the first that makes this offer to a server with this compression is answered by the rules
    monkeypatch.setattr(handshake, "_rules", None)
    assert agreed(answer(*asked)) == expected
    assert expected[0].startswith("101")


def test_two_connections_that_agree_on_the_same_compress_each_for_itself():
    one, other = (answer(ORDINARY | CHROME, (), Deflate(threshold=0)).deflate for _ in range(2))
    message = b"a message" * 20
    first = one.compress(message)
    assert len(one.compress(message)) < len(first)  # it refers to what went before it
    assert other.compress(message) == first


def values(*ordinary: str) -> st.SearchStrategy[str | None]:
    """A header's: as it often is, or nearly, or with what else is in the grammars, or not at all."""
    around = st.sampled_from(["{}", " {}", "{}\t", "{},", "{}, other", "other, {}", '{}; q="1"', "{}=", "{}\n"])
    within = st.sampled_from([str, str.upper, str.title, lambda value: value[1:], lambda value: value.replace(";", "")])
    changed = st.builds(lambda text, form, change: form.format(change(text)), st.sampled_from(ordinary), around, within)
    return st.one_of(st.none(), st.sampled_from(ordinary), changed, st.text('aA=+/,; "\t\n\u00e9', max_size=26))


HEADERS = {
    "HTTP_UPGRADE": values("websocket", "websocket, h2c"),
    "HTTP_CONNECTION": values("Upgrade", "keep-alive, Upgrade", "close"),
    "HTTP_SEC_WEBSOCKET_KEY": values("dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAAB==", "AQ=="),
    "HTTP_SEC_WEBSOCKET_VERSION": values("13", "8"),
    "HTTP_SEC_WEBSOCKET_EXTENSIONS": values(OFFER, "permessage-deflate", "x-webkit-deflate-frame"),
    "HTTP_SEC_WEBSOCKET_PROTOCOL": values("chat", "superchat, chat", "unknown"),
}


@settings(max_examples=500)
@given(sent=st.fixed_dictionaries(HEADERS), one=st.sampled_from([*HEADERS, None]), how=st.sampled_from(COMPRESSIONS))
def test_any_request_gets_the_answer_of_the_rules(sent, one, how):
    """Strange in everything, and strange in one header alone."""
    environ = ORDINARY | (sent if one is None else {one: sent[one]})
    environ = {name: value for name, value in environ.items() if value is not None}
    asked = environ, ("superchat", "chat"), how
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert agreed(answer(*asked)) == agreed(by_the_rules(monkeypatch, *asked))
