"""The opening handshake of RFC 6455 §4.2, from a WSGI environ to the answer that goes to `start_response`.

The rules and the grammar of the headers are those of the `websockets` package; what is here turns a WSGI request into
its terms, and its verdict into ours. A request as all browsers and most clients send it is recognized without them, for
they take most of the time of a handshake, and gets the same answer. Nothing here touches a connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.headers import parse_extension, parse_upgrade
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.utils import accept_key

from uwasp.compression import Deflate, MessageDeflate, again

if TYPE_CHECKING:
    from websockets.extensions.permessage_deflate import PerMessageDeflate

__all__ = ["Answer", "answer", "is_upgrade", "quote", "refuse"]

VERSION = "13"  # RFC 6455 §4.1, 9
WHITE_SPACE = " \t"  # around a header's value: RFC 9110 §5.6.3

_HTTP_1_1_OR_HIGHER = re.compile(r"HTTP/1\.[1-9]")  # HTTP/2 has no Upgrade header: RFC 9113 §8.6
_HOST = re.compile(r"[-0-9A-Za-z._~%!$&'()*+,;=:\[\]]+")  # a host and a port, by the characters of RFC 3986 §3.2.2
MOST_QUOTED = 200  # characters of what a client sent

_TO_UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"))  # of a 426: RFC 9110 §15.5.22

# What ordinary requests have in their headers, with nothing to interpret.
_ORDINARY_CONNECTIONS = frozenset({"Upgrade", "upgrade", "keep-alive, Upgrade"})
_ORDINARY_OFFERS = frozenset({"permessage-deflate", "permessage-deflate; client_max_window_bits"})
_ORDINARY_KEY = re.compile(r"[+/0-9A-Za-z]{22}==")  # 16 bytes in base64: RFC 6455 §4.2.1, 5
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2

_HANDSHAKE_HEADERS = (
    "Connection",
    "Upgrade",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
)


class Answer(NamedTuple):
    """An HTTP response, in the terms of WSGI, and what a 101 agrees on: a subprotocol and a compression, if any."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    protocol: str | None = None
    deflate: MessageDeflate | None = None

    @property
    def accepts(self) -> bool:
        """Whether the connection is a WebSocket from here on."""
        return self.status.startswith("101")


def is_upgrade(environ: dict[str, Any]) -> bool:
    """Whether a request asks for a WebSocket: `websocket` is among the protocols of its Upgrade header."""
    upgrade = environ.get("HTTP_UPGRADE")
    if upgrade == "websocket":
        return True
    if not upgrade:
        return False
    try:
        return any(protocol.lower() == "websocket" for protocol in parse_upgrade(upgrade.strip(WHITE_SPACE)))
    except InvalidHandshake:
        return "websocket" in upgrade.lower()  # it asks, and will be told what is wrong with the way it does


def refuse(status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> Answer:
    """A response that says in its body why there is no WebSocket."""
    body = f"{reason}\n".encode()
    common = [("Content-Type", "text/plain; charset=utf-8")]
    if any(name.lower() == "content-type" for name, _ in headers):
        common = []
    length = ("Content-Length", str(len(body)))
    return Answer(f"{status.value} {status.phrase}", [*common, length, *headers], body)


def answer(environ: dict[str, Any], protocols: Sequence[str] = (), compression: Deflate | None = None) -> Answer:
    """Decide over a request for a WebSocket.

    Args:
        environ: the WSGI environ of the request.
        protocols: the subprotocols of the server, most preferred first.
        compression: how to compress, for clients that offer it (default: not at all).

    Returns:
        The answer: 101; or 400 for a request that RFC 6455 §4.2.1 does not allow; or 426 for one that asks for no
        WebSocket, or for another version of the protocol than 13 (§4.4).
    """
    if not environ.get("HTTP_UPGRADE"):
        return refuse(HTTPStatus.UPGRADE_REQUIRED, "there is a WebSocket here, and nothing else", *_TO_UPGRADE)
    if environ["REQUEST_METHOD"] != "GET":
        method = quote(environ["REQUEST_METHOD"])
        return refuse(HTTPStatus.BAD_REQUEST, f"a WebSocket is asked for with GET, not '{method}'")
    if not _HTTP_1_1_OR_HIGHER.fullmatch(environ.get("SERVER_PROTOCOL", "HTTP/1.1")):
        return refuse(HTTPStatus.BAD_REQUEST, "a WebSocket needs HTTP/1.1 (behind nginx: proxy_http_version 1.1)")
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        return refuse(HTTPStatus.BAD_REQUEST, "a request for a WebSocket has no body")
    if not _HOST.fullmatch(environ.get("HTTP_HOST", "").strip(WHITE_SPACE)):
        return refuse(HTTPStatus.BAD_REQUEST, "a request for a WebSocket has one Host header, with a host in it")
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", VERSION).strip(WHITE_SPACE)
    if version != VERSION:
        return refuse(
            HTTPStatus.UPGRADE_REQUIRED,
            f"WebSocket version '{quote(version)}' is not spoken here; {VERSION} is",
            ("Sec-WebSocket-Version", VERSION),
            *_TO_UPGRADE,
        )
    return _ordinary_answer(environ, protocols, compression) or _answer_by_the_rules(environ, protocols, compression)


def _ordinary_answer(environ: dict[str, Any], protocols: Sequence[str], compression: Deflate | None) -> Answer | None:
    """The 101 to a request which is ordinary in all of its headers; `None`: it is not, and the rules have to say."""
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    offer = environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS")
    offered = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
    if (
        environ["HTTP_UPGRADE"] != "websocket"
        or environ.get("HTTP_CONNECTION") not in _ORDINARY_CONNECTIONS
        or environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION
        or (offer is not None and offer not in _ORDINARY_OFFERS)
        or not _ORDINARY_KEY.fullmatch(key)
        or (offered is not None and not _TOKEN.fullmatch(offered))
    ):
        return None
    protocol = offered if offered in protocols else None
    if compression is None or offer is None:
        return _accept(accept_key(key), protocol)
    extensions, extension = _negotiated(compression, offer)
    deflate = MessageDeflate(again(extension), compression.threshold)
    return _accept(accept_key(key), protocol, extensions, deflate)


@cache
def _negotiated(compression: Deflate, offer: str) -> tuple[str, PerMessageDeflate]:
    """What the rules make of an ordinary offer, which can always be met: the answer's header, and what it means."""
    headers = Headers({"Sec-WebSocket-Extensions": offer})
    extensions, (extension,) = _rules((), compression).process_extensions(headers)
    return cast("str", extensions), cast("PerMessageDeflate", extension)


def _answer_by_the_rules(environ: dict[str, Any], protocols: Sequence[str], compression: Deflate | None) -> Answer:
    rules = _rules(protocols, compression)
    try:
        request = Request(environ.get("PATH_INFO", ""), _headers(environ))
        accept, extensions, protocol = rules.process_request(request)
        if compression is None and "Sec-WebSocket-Extensions" in request.headers:
            parse_extension(request.headers["Sec-WebSocket-Extensions"])  # malformed fails, wanted or not: §9.1
    except InvalidHandshake as error:
        return refuse(HTTPStatus.BAD_REQUEST, f"malformed request for a WebSocket: {_explain(error)}")
    if compression is None or extensions is None:
        return _accept(accept, protocol)
    (extension,) = rules.extensions
    deflate = MessageDeflate(cast("PerMessageDeflate", extension), compression.threshold)
    return _accept(accept, protocol, extensions, deflate)


def _accept(
    accept: str, protocol: str | None, extensions: str | None = None, deflate: MessageDeflate | None = None
) -> Answer:
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if protocol is not None:
        headers.append(("Sec-WebSocket-Protocol", protocol))
    if extensions is not None:
        headers.append(("Sec-WebSocket-Extensions", extensions))
    return Answer("101 Switching Protocols", headers, protocol=protocol, deflate=deflate)


def _rules(protocols: Sequence[str], compression: Deflate | None) -> ServerProtocol:
    def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((Subprotocol(protocol) for protocol in protocols if protocol in offered), None)

    extensions = [compression.factory()] if compression is not None else None
    return ServerProtocol(select_subprotocol=select, extensions=extensions)


def _headers(environ: dict[str, Any]) -> Headers:
    """The headers that the handshake looks at. (WSGI servers join a header's several values with a comma.)"""
    headers = Headers()
    for name in _HANDSHAKE_HEADERS:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        if value is not None:
            headers[name] = value.strip(WHITE_SPACE)
    return headers


def _explain(error: BaseException | None) -> str:
    """What is wrong, from the outer error to its cause, with nothing of the client's that is not printable ASCII."""
    reasons = []
    while error is not None:
        reasons.append(quote(str(error)))
        error = error.__cause__
    return "; ".join(reasons)


def quote(text: str) -> str:
    """What a client sent, for an answer or the log: as printable ASCII, and not much of it."""
    quoted = ascii(text)[1:-1]
    return quoted if len(quoted) <= MOST_QUOTED else f"{quoted[:MOST_QUOTED]}..."
