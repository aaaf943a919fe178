"""The opening handshake of RFC 6455 §4.2, from a WSGI environ to the answer that goes to `start_response`.

The rules and the grammar of the headers are those of the `websockets` package; what is here turns a WSGI request into
its terms, and its verdict into ours. Nothing here touches a connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.headers import parse_upgrade
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

__all__ = ["Answer", "answer", "is_upgrade", "refuse"]

VERSION = "13"  # RFC 6455 §4.1, 9
_HANDSHAKE_HEADERS = ("Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol")


class Answer(NamedTuple):
    """An HTTP response, in the terms of WSGI; `protocol` is the subprotocol that a 101 agrees on."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    protocol: str | None = None

    @property
    def accepts(self) -> bool:
        """Whether the connection is a WebSocket from here on."""
        return self.status.startswith("101")


def is_upgrade(environ: dict[str, Any]) -> bool:
    """Whether a request asks for a WebSocket: `websocket` is among the protocols of its Upgrade header."""
    upgrade = environ.get("HTTP_UPGRADE")
    if not upgrade:
        return False
    try:
        return any(protocol.lower() == "websocket" for protocol in parse_upgrade(upgrade))
    except InvalidHandshake:
        return "websocket" in upgrade.lower()  # it asks, and will be told what is wrong with the way it does


def refuse(status: HTTPStatus, reason: str, *headers: tuple[str, str]) -> Answer:
    """A response that says in its body why there is no WebSocket."""
    body = f"{reason}\n".encode()
    common = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    return Answer(f"{status.value} {status.phrase}", [*common, *headers], body)


def answer(environ: dict[str, Any], protocols: Sequence[str] = ()) -> Answer:
    """Decide over a request for a WebSocket.

    Args:
        environ: the WSGI environ of the request.
        protocols: the subprotocols of the server, most preferred first.

    Returns:
        The answer: 101; or 400 for a request that RFC 6455 §4.2.1 does not allow; or 426 for another version of the
        protocol than 13 (§4.4).
    """
    if environ["REQUEST_METHOD"] != "GET":
        return refuse(HTTPStatus.BAD_REQUEST, f"a WebSocket is asked for with GET, not {environ['REQUEST_METHOD']!r}")
    if environ.get("SERVER_PROTOCOL") in ("HTTP/0.9", "HTTP/1.0"):
        return refuse(HTTPStatus.BAD_REQUEST, "a WebSocket needs HTTP/1.1 (behind nginx: proxy_http_version 1.1)")
    if environ.get("CONTENT_LENGTH", "") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ:
        return refuse(HTTPStatus.BAD_REQUEST, "a request for a WebSocket has no body")
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION", VERSION).strip()
    if version != VERSION:
        return refuse(
            HTTPStatus.UPGRADE_REQUIRED,
            f"WebSocket version {version!r} is not spoken here; {VERSION} is",
            ("Sec-WebSocket-Version", VERSION),
        )
    try:
        accept, _, protocol = _rules(protocols).process_request(
            Request(environ.get("PATH_INFO", ""), _headers(environ))
        )
    except InvalidHandshake as error:
        return refuse(HTTPStatus.BAD_REQUEST, f"malformed request for a WebSocket: {_explain(error)}")
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if protocol is not None:
        headers.append(("Sec-WebSocket-Protocol", protocol))
    return Answer("101 Switching Protocols", headers, protocol=protocol)


def _rules(protocols: Sequence[str]) -> ServerProtocol:
    def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((Subprotocol(protocol) for protocol in protocols if protocol in offered), None)

    return ServerProtocol(select_subprotocol=select)


def _headers(environ: dict[str, Any]) -> Headers:
    """The headers that the handshake looks at. (WSGI servers join a header's several values with a comma.)"""
    headers = Headers()
    for name in _HANDSHAKE_HEADERS:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        if value is not None:
            headers[name] = value.strip()
    return headers


def _explain(error: BaseException | None) -> str:
    """What is wrong, from the outer error to its cause, with nothing of the client's that is not printable ASCII."""
    reasons = []
    while error is not None:
        reasons.append(ascii(str(error))[1:-1])
        error = error.__cause__
    return "; ".join(reasons)
