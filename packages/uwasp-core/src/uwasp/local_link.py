"""The links of the local bus: what goes through a Unix stream socket from one process to another.

A link carries frames in one direction. The process that connects writes, the one that accepts reads, and answers on a
link of its own. Here are the frames and how they are read; what they are about is not known here.

A frame is its length (4 bytes, of what follows the kind), its kind (1 byte) and its body. A link begins with HELLO.
Kinds that are not known are skipped, so that a later release can add some.
"""

from __future__ import annotations

import _socket
import struct
from collections.abc import Iterator

__all__ = [
    "ACK",
    "BEAT",
    "BYE",
    "DATA",
    "HELLO",
    "MARK",
    "MAX_MESSAGE_SIZE",
    "MISSED",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "Incoming",
    "Malformed",
    "frame",
    "hello",
    "number",
    "sender_of",
]

VERSION = 1  # of all this; another one cannot be spoken with
MAX_MESSAGE_SIZE = 2**24  # bytes
IDENTITY = 8  # bytes
HEADER = struct.Struct(">IB")
NUMBER = struct.Struct(">Q")

HELLO = 1  # the version (1 byte) and the identity of the sender (8 bytes)
SUBSCRIBE = 2  # a channel
UNSUBSCRIBE = 3  # a channel
MARK = 4  # a number: all that the sender is subscribed to has been said
ACK = 5  # the number of a MARK that was read
DATA = 6  # what was published or told
MISSED = 7  # a channel; of an empty one: any
BEAT = 8  # nothing: the sender lives
BYE = 9  # nothing: the sender parts


class Malformed(Exception):
    """What came through a link is no frame, or not the one that had to come."""


def frame(kind: int, body: bytes = b"") -> bytes:
    return HEADER.pack(len(body), kind) + body


def hello(process: bytes) -> bytes:
    return frame(HELLO, bytes((VERSION,)) + process)


def sender_of(kind: int, body: bytes) -> bytes:
    """The identity in the first frame of a link.

    Raises:
        Malformed: it is no HELLO, or of another version.
    """
    if kind != HELLO or not body:
        raise Malformed(f"a link that begins with {len(body)} bytes of kind {kind}")
    if body[0] != VERSION:
        raise Malformed(f"it speaks version {body[0]} of the local bus, and this process version {VERSION}")
    if len(body) < 1 + IDENTITY:
        raise Malformed(f"a HELLO of {len(body)} bytes")
    return body[1 : 1 + IDENTITY]


def number(body: bytes) -> int:
    """The number in a MARK or an ACK.

    Raises:
        Malformed: there is none.
    """
    if len(body) != NUMBER.size:
        raise Malformed(f"a number of {len(body)} bytes")
    return int(NUMBER.unpack(body)[0])


class Incoming:
    """A link that another process writes.

    Attributes:
        socket: its end here.
        silent: for how many ticks it has not been said who writes.
    """

    __slots__ = ("_needed", "_parts", "_size", "silent", "socket")

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket
        self.silent = 0
        self._parts: list[bytes] = []  # the beginning of a frame
        self._size = 0  # of those, in bytes
        self._needed = 0  # bytes, until that frame is whole

    def frames(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """The kind and the body of each frame that is whole with what has come.

        Raises:
            Malformed: one is longer than any can be.
        """
        if self._parts:
            self._parts.append(chunk)
            self._size += len(chunk)
            if self._size < self._needed:
                return
            chunk = b"".join(self._parts)
            self._parts.clear()
        begin, end, needed = 0, len(chunk), HEADER.size
        while end - begin >= HEADER.size:
            length, kind = HEADER.unpack_from(chunk, begin)
            if length > MAX_MESSAGE_SIZE:
                raise Malformed(f"a frame of {length} bytes, where {MAX_MESSAGE_SIZE} are the most")
            body = begin + HEADER.size
            stop = body + length
            if stop > end:
                needed = HEADER.size + length
                break
            yield kind, chunk[body:stop]
            begin = stop
        if begin < end:
            self._parts.append(chunk[begin:])
            self._size, self._needed = end - begin, needed
