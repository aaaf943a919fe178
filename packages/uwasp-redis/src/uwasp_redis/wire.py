"""What we publish on a channel of Redis: a kind, the process that it comes from, and what it carries.

    kind, 1 byte    process, 8 bytes    what it carries

| kind | on | carries |
|---|---|---|
| `m` | any channel | messages, each with its length, 4 bytes, the highest first |
| `x` | any channel | nothing: something that was for this channel has been lost, or may have been |
| `h` | that of all | nothing: the process has come, and wants to hear who is there |
| `a` | that of all | nothing: the process is alive |
| `g` | that of all | nothing: the process says goodbye |

The kind is the version too: another form is another letter, and a process ignores those that it does not know. Works
on values: no socket, and nothing of what the messages mean.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ALIVE", "GOODBYE", "HEADER", "HELLO", "LOST", "MESSAGES", "Malformed", "pack", "unpack"]

MESSAGES, LOST, HELLO, ALIVE, GOODBYE = b"m", b"x", b"h", b"a", b"g"
PROCESS = 8  # bytes of a process's identity
HEADER = 1 + PROCESS
LENGTH = 4  # bytes of a message's length


class Malformed(ValueError):
    """This was not published by any of ours, or by a newer one."""


def pack(kind: bytes, process: bytes, messages: Iterable[bytes] = ()) -> bytes:
    parts = [kind, process]
    for message in messages:
        parts += (len(message).to_bytes(LENGTH, "big"), message)
    return b"".join(parts)


def unpack(data: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """The kind, the process and the messages.

    Raises:
        Malformed: it is none of the above, wholly: then no part of it counts.
    """
    kind, process = data[:1], data[1:HEADER]
    if len(process) < PROCESS or kind not in (MESSAGES, LOST, HELLO, ALIVE, GOODBYE):
        raise Malformed(f"it begins with {data[:HEADER]!r}")
    messages: list[bytes] = []
    if kind != MESSAGES:
        return kind, process, messages
    at = HEADER
    while at < len(data):
        begin = at + LENGTH
        at = begin + int.from_bytes(data[at:begin], "big")
        messages.append(data[begin:at])
    if at != len(data):
        raise Malformed("its last message is cut")
    return kind, process, messages
