"""What goes over a connection to Redis: commands, and replies by RESP3, the protocol of Redis 6 and newer.

By RESP3 a connection that hears channels can publish too: what is heard comes as a `Push`, marked as such, between the
replies. Works on values: no socket, and nothing of what the replies mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Push", "Replies", "ServerError", "command", "publish"]

# How what is published on a channel begins, which is nearly all that comes.
MESSAGE = b">3\r\n$7\r\nmessage\r\n$"
# The longest line, and the deepest nesting, of what we ask for.
LONGEST_LINE = 65536
DEEPEST = 8


def command(*arguments: bytes) -> bytes:
    """A command as it is sent."""
    parts = [b"*%d\r\n" % len(arguments)]
    parts += [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"".join(parts)


def publish(channel: bytes, payload: bytes) -> bytes:
    """The command for what is sent most."""
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(payload), payload)


class Push(list[Any]):
    """What comes unasked: a message on a channel, or that a channel is subscribed to."""


class ServerError(str):
    """An error, in the server's words. The first is its kind, in capitals."""

    __slots__ = ()


class ProtocolError(ValueError):
    """What came is no RESP3."""


class _Incomplete(Exception):
    """The rest has not arrived. Its argument: how long the data has to be at least."""


class Replies:
    """Makes values of the bytes that come from Redis.

    Args:
        largest: the most bytes of one message; a longer one is passed over as it comes, and is `None` in its `Push`.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._pieces: list[bytes] = []
        self._length = 0
        self._needed = 0  # there is nothing to be made of less than so many bytes
        self._pass_over = 0

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values that are complete with these bytes.

        Raises:
            ProtocolError: these are none.
        """
        if self._pass_over:
            passed_over = min(self._pass_over, len(data))
            self._pass_over -= passed_over
            data = data[passed_over:]
        self._pieces.append(data)
        self._length += len(data)
        if self._length < self._needed:
            return
        data = b"".join(self._pieces) if len(self._pieces) > 1 else data
        at = 0
        self._needed = 0
        try:
            while at < len(data):
                value, at = self._value(data, at, 0)
                yield value
                if at > len(data):  # within a message that is passed over
                    self._pass_over = at - len(data)
                    at = len(data)
        except _Incomplete as incomplete:
            self._needed = incomplete.args[0] - at
        finally:
            rest = data[at:]
            self._pieces = [rest] if rest else []
            self._length = len(rest)

    def _value(self, data: bytes, at: int, depth: int) -> tuple[Any, int]:
        if data.startswith(MESSAGE, at):
            return self._message(data, at)
        kind = data[at : at + 1]
        line, at = self._line(data, at + 1)
        if kind == b":":
            return _number(line), at
        if kind == b"+":
            return line, at
        if kind == b"-":
            return ServerError(line.decode(errors="replace")), at
        if kind == b"$":
            length = _number(line)
            if length < 0:
                return None, at
            if length > self._largest:
                raise ProtocolError(f"a reply of {length} bytes")
            return self._bytes(data, at, length)
        if kind in b">*~%" and depth < DEEPEST:
            values: list[Any] = Push() if kind == b">" else []
            for _ in range(_number(line) * (2 if kind == b"%" else 1)):
                value, at = self._value(data, at, depth + 1)
                values.append(value)
            return values, at
        if kind in b"_#,":  # null, a boolean, a floating-point number
            return (None if kind == b"_" else line), at
        raise ProtocolError(f"{kind + line[:32]!r} begins no reply")

    def _message(self, data: bytes, at: int) -> tuple[Push, int]:
        line, begin = self._line(data, at + len(MESSAGE))
        end = begin + _number(line)
        channel = data[begin:end]
        line, begin = self._line(data, end + 3)  # behind the end of that line, and a dollar
        length = _number(line)
        end = begin + length
        if length > self._largest:
            return Push((b"message", channel, None)), end + 2
        if end + 2 > len(data):
            raise _Incomplete(end + 2)
        return Push((b"message", channel, data[begin:end])), end + 2

    @staticmethod
    def _line(data: bytes, at: int) -> tuple[bytes, int]:
        end = data.find(b"\r\n", at)
        if end >= 0:
            return data[at:end], end + 2
        if len(data) - at > LONGEST_LINE:
            raise ProtocolError("a line without an end")
        raise _Incomplete(0)

    @staticmethod
    def _bytes(data: bytes, at: int, length: int) -> tuple[bytes, int]:
        end = at + length
        if end + 2 > len(data):
            raise _Incomplete(end + 2)
        return data[at:end], end + 2


def _number(line: bytes) -> int:
    try:
        return int(line)
    except ValueError:
        raise ProtocolError(f"{line[:32]!r} is no number") from None
