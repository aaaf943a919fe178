"""The errors that uWASP raises towards its users, in one place so that they can be caught by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus

__all__ = ["ConfigurationError", "ConnectionClosed", "HandlerNotFound", "Refusal", "Undecodable", "UwaspError"]


LONGEST_FAULT = 200  # characters of what a codec had to say

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_OWN = ("connection", "content-length", "transfer-encoding", "upgrade")  # headers that a handshake's answer has


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """Whether an answer of ours may have further headers.

    Raises:
        TypeError: one is no pair of `str`.
        ValueError: there is a character in one that could end it, or it is one that uWASP sets itself.
    """
    for header in headers:
        if not isinstance(header, tuple | list) or [isinstance(part, str) for part in header] != [True, True]:
            raise TypeError(f'headers are pairs of str, such as [("Set-Cookie", "a=b")]; {header!r} is none')
        name, value = header
        if not (_TOKEN.fullmatch(name) and value.isascii() and value.isprintable()):
            raise ValueError(f"a header has a token for a name and printable ASCII in it, not {name!r}: {value!r}")
        if name.lower() in _OWN or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"{name} is set by uWASP")


class UwaspError(Exception):
    """The base of every error that uWASP raises on its own account."""


class ConfigurationError(UwaspError):
    """This process cannot run WebSockets the way it is set up; the message names what to change."""


class HandlerNotFound(ConfigurationError, LookupError):
    """No handler, or more than one, answers to the name that was asked for."""


class ConnectionClosed(UwaspError):
    """The connection is closed, or closing: nothing more can be sent on it.

    Args:
        code: the close code, an ``int`` (RFC 6455 §7.1.5 and §7.4): that of the close frame that came first, from
            either side; 1006 where the connection was lost without one.
        reason: the close reason, a ``str``, often empty (RFC 6455 §7.1.6).
        id: the `id` of the `WebSocket` that this is about, an ``int``; ``None`` if that is not known.
    """

    def __init__(self, code: int, reason: str = "", id: int | None = None) -> None:
        super().__init__(code, reason, id)
        self.code = code
        self.reason = reason
        self.id = id

    def __str__(self) -> str:
        which = "the connection" if self.id is None else f"connection {self.id}"
        return f"{which} is closed (code {self.code}{f', reason {self.reason!r}' if self.reason else ''})"


class Undecodable(UwaspError):
    """A message is nothing that the codec of its server can decode: the client's fault, not the server's.

    Args:
        error: what the codec raised.

    Attributes:
        code: what the connection is closed with: 1007 (RFC 6455 §7.4.1).
        reason: the close reason that goes with it. What the codec had to say is for the log alone.
    """

    code = 1007
    reason = "a message that this server cannot decode"

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"{type(self.error).__name__}: {ascii(str(self.error))[1:-1][:LONGEST_FAULT]}"  # with what a client sent


class Refusal(UwaspError):
    """Raised by a server class's `authorize`: there is no WebSocket for this request.

    Args:
        status: the HTTP status of the answer, 300 to 599 (default: 403).
        body: the text of the answer (default: the status' own words).
        headers: further headers, pairs of `str`, such as `("WWW-Authenticate", "Basic")`.

    Raises:
        TypeError: the headers are no pairs of `str`.
        ValueError: another status, a header with a character that could end it, or one that says how long the answer
            is.
    """

    def __init__(self, status: int = 403, body: str = "", headers: Iterable[tuple[str, str]] = ()) -> None:
        self.headers = list(headers)
        if not isinstance(status, int) or not 300 <= status <= 599:
            raise ValueError(f"a refusal has a status from 300 to 599, not {status!r}")
        check_headers(self.headers)
        self.status = HTTPStatus(status)
        self.body = body or self.status.phrase
        super().__init__(f"{status} {self.body}")
