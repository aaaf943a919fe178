"""What groups say to each other over a bus: one envelope a message, as bytes.

Sans-I/O: bytes in, envelopes out. Whoever may write to a bus may write anything, so whatever comes is checked here for
its size and its form, and is data alone: numbers, UTF-8, JSON.

The head has its version and its own length, so that a later release can add to it, and add kinds, while earlier ones
are still on the bus:

    version 1 byte | kind 1 | length of head 2 | sender 8 | epoch 4 | sequence 8 | length of name 2 | name | body

All numbers are big-endian. *Sender* is the process that sent it. It counts what it sends to each group, from 1: the
*sequence*; those of a kind that a receiver does not know are counted too. When it has forgotten where it was, it begins
a new *epoch*, which is a larger number. So whoever hears all of a group's envelopes sees what is missing, and a history
of them would have a name for each.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import Any, NamedTuple

__all__ = [
    "LARGEST_HEAD",
    "MAX_INFO",
    "MAX_KEY",
    "MAX_NAME",
    "Envelope",
    "Kind",
    "Malformed",
    "MemberState",
    "UnknownVersion",
    "decode",
    "dump",
    "dump_given",
    "exclusions",
    "load",
    "load_given",
    "load_members",
    "load_names",
    "load_numbers",
    "load_places",
    "without_exclusions",
]

VERSION = 1
MAX_NAME = 512  # bytes of a group's name
MAX_INFO = 4096  # bytes of the JSON of a member's info
MAX_KEY = 256  # characters of a member's key
# Lists and objects within each other, in what users give. Python refuses to read some hundreds of them: not where they
# were taken from a client, but where less of its stack is left, at others.
MAX_DEPTH = 100

_HEAD = struct.Struct("!BBH8sIQH")
MAX_EXCLUDED = 2**16 - 1
LARGEST_HEAD = 1024  # bytes; with its group's name
_COUNT = struct.Struct("!H")
_MEMBER = struct.Struct("!8sQ")
_NOBODY = _COUNT.pack(0)


class Kind(IntEnum):
    """What an envelope is for."""

    TEXT = 1  # a message to every member; the body is who is excluded, and the payload
    BINARY = 2
    NOTIFY = 3  # something for the members' servers; the body is JSON
    CLOSE = 4  # members are sent away; the body is JSON: code, reason, and a key or null
    PRESENCE = 5  # who joined and who left; the body is JSON
    ASK = 6  # who do you have? The body is JSON: a number for the question, and the groups it is about
    STATE = 7  # the answer; the body is JSON
    NOBODY = 8  # an answer about several groups, in which there is nobody; the body is JSON


class Malformed(ValueError):
    """Bytes that are no envelope, or one whose body is not what its kind wants."""


class UnknownVersion(Malformed):
    """An envelope of a version that this release does not read."""


class Envelope(NamedTuple):
    """One message over a bus.

    Attributes:
        kind: a `Kind`, or another number, of a later release: to be ignored.
        sender: the identity of the process that sent it, 8 bytes.
        epoch, sequence: the place in what it has sent to this group; 0 and 0 if it has none.
        group: the group's name; empty for what is about several.
        body: according to its kind.
    """

    kind: int
    sender: bytes
    epoch: int
    sequence: int
    group: str
    body: bytes

    def encode(self) -> bytes:
        name = self.group.encode()
        head = _HEAD.pack(VERSION, self.kind, _HEAD.size + len(name), self.sender, self.epoch, self.sequence, len(name))
        return head + name + self.body


def decode(data: bytes) -> Envelope:
    """The envelope that these bytes are.

    Raises:
        UnknownVersion: it is one of another version.
        Malformed: it is none.
    """
    if not data:
        raise Malformed("it is empty")
    if data[0] != VERSION:
        raise UnknownVersion(f"it is of version {data[0]}, and this release reads version {VERSION}")
    try:
        _, kind, head, sender, epoch, sequence, length = _HEAD.unpack_from(data)
    except struct.error:
        raise Malformed("its head is cut off") from None
    end = _HEAD.size + length
    if length > MAX_NAME or not end <= head <= len(data):  # what a later release adds stands between name and body
        raise Malformed("its lengths do not fit")
    try:
        name = data[_HEAD.size : end].decode()
    except UnicodeDecodeError:
        raise Malformed("its group's name is not UTF-8") from None
    return Envelope(kind, sender, epoch, sequence, name, data[head:])


def exclusions(excluded: list[tuple[bytes, int]]) -> bytes:
    """How the body of a message begins: who shall not get it, each a process and a number there. The payload follows.

    Raises:
        ValueError: these are more than 65,535.
    """
    if len(excluded) > MAX_EXCLUDED:
        raise ValueError(f"at most {MAX_EXCLUDED} in other processes are excluded, not {len(excluded)}")
    if not excluded:  # as nearly always
        return _NOBODY
    return _COUNT.pack(len(excluded)) + b"".join(_MEMBER.pack(*one) for one in excluded)


def without_exclusions(body: bytes) -> tuple[bytes, list[tuple[bytes, int]]]:
    """The payload of a message's body, and who shall not get it.

    Raises:
        Malformed: the body is cut off.
    """
    if len(body) < _COUNT.size:
        raise Malformed("a message without its count of exclusions")
    (count,) = _COUNT.unpack_from(body)
    end = _COUNT.size + count * _MEMBER.size
    if not count:
        return body[end:], []
    if end > len(body):
        raise Malformed("a message with fewer exclusions than it says")
    return body[end:], list(_MEMBER.iter_unpack(body[_COUNT.size : end]))


def dump(value: Any) -> bytes:
    """JSON, as short as it gets.

    Raises:
        TypeError, ValueError: it is nothing that JSON has, NaN for instance.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def dump_given(value: Any) -> bytes:
    """JSON of what a user gave for others.

    Raises:
        TypeError, ValueError: it is nothing that JSON has, or nested too deeply.
    """
    dumped = dump(value)
    if _is_too_deep(value, dumped.count(b"[") + dumped.count(b"{")):
        raise ValueError(f"it is nested in more than {MAX_DEPTH} levels")
    return dumped


def load_given(body: bytes | str) -> Any:
    """What a user gave for others.

    Raises:
        Malformed: it could not have been given.
    """
    value = load(body, object)
    text = body if isinstance(body, str) else body.decode()
    if _is_too_deep(value, text.count("[") + text.count("{")):
        raise Malformed("it is nested too deeply")
    return value


def _is_too_deep(value: Any, brackets: int, levels: int = MAX_DEPTH) -> bool:
    """Whether it has more levels than that. It has no more than there are opening brackets in its JSON."""
    if brackets <= levels or not isinstance(value, dict | list | tuple):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_too_deep(one, brackets, levels - 1) for one in inner)


def load(body: bytes | str, expected: type = dict) -> Any:
    """What a body of JSON holds.

    Args:
        expected: of which type it has to be; `object` for any.

    Raises:
        Malformed: it is no JSON, or something else.
    """
    try:
        text = body if isinstance(body, str) else body.decode()
        value = json.loads(text)
        if "\\u" in text:  # by which a lone surrogate may come, that nobody could send on
            dump(value)
    except (ValueError, RecursionError):
        raise Malformed("its body is not JSON") from None
    if not isinstance(value, expected):
        raise Malformed(f"its body is a {type(value).__name__}, not a {expected.__name__}")
    return value


class MemberState(NamedTuple):
    """What other processes know of one connection in a group.

    Attributes:
        number: the connection's, in its process.
        key: names whom it belongs to; `None` if it stands for itself.
        info: what it was added with, as JSON.
        since: when it was added with that, in microseconds of Unix time, by its process's clock; 0 if that is not said.
    """

    number: int
    key: str | None
    info: str
    since: int = 0


def load_members(listed: Any) -> list[MemberState]:
    """Members, as they stand in a body: a list of number, key, info and since each.

    Raises:
        Malformed: they do not.
    """
    if not isinstance(listed, list):
        raise Malformed("its members are not a list")
    members = []
    for one in listed:
        if not isinstance(one, list) or len(one) < 3:
            raise Malformed("a member is not a list of number, key and info")
        number, key, info, since = [*one, 0][:4]
        if type(since) is not int:
            raise Malformed("the time since when a member is there is none")
        if type(number) is not int or not (key is None or (isinstance(key, str) and len(key) <= MAX_KEY)):
            raise Malformed("a member's number or key is none")
        if not isinstance(info, str) or len(info) > MAX_INFO:
            raise Malformed("a member's info is no JSON, or too long")
        load_given(info)
        members.append(MemberState(number, key, info, since))
    return members


def load_names(listed: Any) -> list[str]:
    """Names of groups, as they stand in a body.

    Raises:
        Malformed: they do not, or one is too long.
    """
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise Malformed("its groups are not a list of names")
    if any(len(one.encode()) > MAX_NAME for one in listed):
        raise Malformed("the name of a group is too long")
    return listed


def load_places(listed: Any) -> list[tuple[str, int, int]]:
    """Names of groups, as they stand in a body, each with an epoch and a sequence.

    Raises:
        Malformed: they do not.
    """
    if not isinstance(listed, list) or not all(isinstance(one, list) and len(one) >= 3 for one in listed):
        raise Malformed("its groups are not a list of name, epoch and sequence")
    names = load_names([one[0] for one in listed])
    numbers = load_numbers([number for one in listed for number in one[1:3]])
    return list(zip(names, numbers[::2], numbers[1::2], strict=True))


def load_numbers(listed: Any) -> list[int]:
    """Numbers of connections, as they stand in a body.

    Raises:
        Malformed: they do not.
    """
    if not isinstance(listed, list) or not all(type(one) is int for one in listed):
        raise Malformed("its numbers are not a list of them")
    return listed
