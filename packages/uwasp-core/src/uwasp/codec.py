"""Codecs: what makes values of messages, and messages of values; JSON is built in.

This module must never know a connection, a server or a handler. `decode` says that a message cannot be decoded, and
what a connection is then closed with; to close it is up to whoever has one.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from uwasp.exceptions import Undecodable

__all__ = ["JSON", "Codec", "decode"]

Value = TypeVar("Value")


class Codec(Protocol[Value]):
    """What a server class has as its `codec`: an object with these methods, which several threads may call at once."""

    def decode(self, message: str | bytes, /) -> Value:
        """The value of a message: of a `str` that came as text, or of `bytes` that came as binary.

        Whatever it raises says that the client sent no such value, and closes the connection with 1007 (RFC 6455
        §7.4.1).
        """

    def encode(self, value: Value, /) -> str | bytes:
        """The message for a value, to be sent as text or as binary."""


class _JSON:
    """JSON (RFC 8259). What it decodes, it can encode."""

    def decode(self, message: str | bytes, /) -> Any:
        """The value of text, or of UTF-8 in a binary message.

        Raises:
            ValueError, RecursionError: it is not JSON. Nor is NaN, nor a number or a lone surrogate in an escape that
                nobody could be sent.
        """
        text = message if isinstance(message, str) else message.decode()
        value = _decoder.decode(text)
        if _ESCAPED_SURROGATE.search(text):  # of a pair, mostly
            _encoder.encode(value).encode()
        return value

    def encode(self, value: Any, /) -> str:
        """JSON, as short as it gets, with what is not ASCII as it is.

        Raises:
            TypeError, ValueError, RecursionError: it is nothing that JSON has, NaN for instance.
        """
        return _encoder.encode(value)

    if not TYPE_CHECKING:  # a checker says it by itself

        def __call__(self, *_: Any, **__: Any) -> NoReturn:
            raise TypeError("uwasp.JSON is a codec, and no class of codecs: write codec = uwasp.JSON, without ()")

    def __repr__(self) -> str:
        return "uwasp.JSON"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:20]} is too large")
    return value


_decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

JSON = _JSON()


def decode(codec: Codec[Value], message: str | bytes) -> Value:
    """Have a message decoded.

    Raises:
        Undecodable: the codec raised something. It has the code and the reason to close with; the server is not at
            fault.
    """
    try:
        return codec.decode(message)
    except Exception as error:
        raise Undecodable(error) from error
