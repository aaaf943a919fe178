"""A client of groups: one connection that says something, and many that it comes to. Messages are counted by their
bytes, for all of a kind are equally long, so that it costs little beside the servers that it measures.

What it says to a server, in that server's own packets: `join a,b` and `aim a` are answered with `ok`; everything else
goes to the group that was aimed at; after `aim *`, to the one that the first `NAME` characters of the message name.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["NAME", "Carried", "Connection", "Dialect", "Lost", "carry", "latencies", "message"]

NAME = 8
SIZE = 100  # bytes of a message
TIMEOUT = 60.0  # seconds for an answer
LOST_AFTER = 3.0  # seconds without any message, while some are under way
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Lost(Exception):
    """Messages that were said did not come; the message says how many."""


@dataclass(frozen=True)
class Dialect:
    """How a server is spoken to.

    Args:
        path: of its WebSockets.
        packet: what a client sends, around the text.
        delivered: what a member gets, around the text.
        greets: the server begins with a message; ours says which process it is.
        opening: what the client has to say then; each is answered.
        has_groups: it knows `join` and `aim`. Without, everybody is in the one group that there is.
    """

    path: str = "/members"
    packet: str = "%s"
    delivered: str = "%s"
    greets: bool = True
    opening: tuple[str, ...] = ()
    has_groups: bool = True

    def frame(self, text: str) -> bytes:
        """As a client sends it, with a mask of zeros, which changes nothing."""
        return _head(len(self.packet % text), 0x80) + bytes(4) + (self.packet % text).encode()

    def length(self, text: str) -> int:
        """How many bytes a member gets."""
        size = len(self.delivered % text)
        return len(_head(size)) + size


def _head(size: int, mask: int = 0) -> bytes:
    if size < 126:
        return bytes([0x81, mask | size])
    return bytes([0x81, mask | 126]) + size.to_bytes(2, "big")


def message(group: str = "") -> str:
    return group.ljust(NAME, "-").ljust(SIZE, "x")


class Connection:
    """A WebSocket that is open, and greeted.

    Attributes:
        pid: the process at the other end, as far as it says so; otherwise `leader`.
        got: bytes so far, of what was sent to a group.
    """

    def __init__(self, port: int, leader: int, dialect: Dialect) -> None:
        self.dialect = dialect
        self.pid = leader
        self.got = 0
        self._buffer = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(HANDSHAKE.format(dialect.path).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.partition(b"\r\n")[0]:
            raise ConnectionError(head.decode(errors="replace"))
        if dialect.greets:
            greeting = self._read()
            if greeting.isdigit():
                self.pid = int(greeting)
        for text in dialect.opening:
            self.socket.sendall(_head(len(text), 0x80) + bytes(4) + text.encode())
            self._read()

    def join(self, *groups: str) -> None:
        self.begin_to_join(*groups)
        self.has_joined()

    def begin_to_join(self, *groups: str) -> None:
        if self.dialect.has_groups:
            self.socket.sendall(self.dialect.frame("join " + ",".join(groups)))

    def has_joined(self) -> None:
        if self.dialect.has_groups:
            self._read()
        self.socket.setblocking(False)

    def aim(self, group: str) -> None:
        if self.dialect.has_groups:
            self.socket.sendall(self.dialect.frame(f"aim {group}"))
            self._read()

    def close(self) -> None:
        self.socket.close()

    def take(self) -> int:
        """What has come, in bytes."""
        size = 0
        try:
            while chunk := self.socket.recv(2**18):
                size += len(chunk)
                if len(chunk) < 2**18:
                    break
            else:
                raise Lost("a member's connection was closed")
        except BlockingIOError:
            pass
        except ConnectionError as error:
            raise Lost(f"a member's connection: {error}") from None
        self.got += size
        return size

    def _receive(self) -> None:
        chunk = self.socket.recv(2**16)
        if not chunk:
            raise ConnectionError(f"closed by the server; before that came {self._buffer!r}")
        self._buffer += chunk

    def _read(self) -> str:
        """The next message."""
        while len(self._buffer) < 2 or len(self._buffer) < self._end()[1]:
            self._receive()
        begin, end = self._end()
        payload, self._buffer = self._buffer[begin:end], self._buffer[end:]
        return payload.decode()

    def _end(self) -> tuple[int, int]:
        size = self._buffer[1]
        if size < 126:
            return 2, 2 + size
        return 4, 4 + int.from_bytes(self._buffer[2:4], "big")


@dataclass(frozen=True)
class Carried:
    """What came in the time that was measured.

    Args:
        messages: that were said, and have come to all.
        rate: how many of them a second.
        cpu: processor time of each process in it, in seconds.
    """

    messages: float
    rate: float
    cpu: dict[int, float]


def carry(
    sender: Connection,
    members: Sequence[Connection],
    copies: int,
    texts: Sequence[str],
    window: int,
    duration: float,
    cpu: Callable[[], dict[int, float]],
) -> Carried:
    """Say so many messages as can be carried with `window` of them under way; the first third of the time is left out.

    Args:
        copies: members that each message comes to.
        texts: said in turn.

    Raises:
        Lost
    """
    frames = [sender.dialect.frame(text) for text in texts]
    turn = itertools.cycle(range(len(frames)))
    each = copies * sender.dialect.length(texts[0])  # bytes
    by_number = {member.socket.fileno(): member for member in members}
    sender.socket.setblocking(True)
    said = came = 0
    began = time.perf_counter()
    first: tuple[float, int, dict[int, float]] | None = None
    with select.epoll() as poller:
        for number in by_number:
            poller.register(number, select.EPOLLIN)
        while True:
            now = time.perf_counter()
            if first is None and now - began >= duration / 3:
                first = now, came, cpu()
            elif first is not None and now - began >= duration:
                since, before, used = first
                found = {pid: seconds - used[pid] for pid, seconds in cpu().items() if pid in used}
                break
            if (room := window - (said - came // each)) > 0:
                sender.socket.sendall(b"".join(frames[next(turn)] for _ in range(room)))
                said += room
            ready = poller.poll(LOST_AFTER)
            if not ready:
                raise Lost(f"{said - came / each:,.0f} of {said:,} messages did not come within {LOST_AFTER:g} s")
            for number, _ in ready:
                came += by_number[number].take()
        messages = (came - before) / each
        while came < said * each:
            ready = poller.poll(LOST_AFTER)
            if not ready:
                raise Lost(f"{said - came / each:,.0f} of {said:,} messages did not come within {LOST_AFTER:g} s")
            for number, _ in ready:
                came += by_number[number].take()
    return Carried(messages, messages / (now - since), found)


def latencies(sender: Connection, members: Sequence[Connection], rate: float, duration: float) -> list[float]:
    """Say messages at a fixed rate; how long each took to each member, in seconds, in order.

    Counted from when it was written to the server, so that a client that gets no turn at a core is not charged to it.

    Raises:
        Lost
    """
    text = message()
    frame, length = sender.dialect.frame(text), sender.dialect.length(text)
    by_number = {member.socket.fileno(): member for member in members}
    before = {number: member.got for number, member in by_number.items()}
    written: list[float] = []
    took: list[float] = []
    sender.socket.setblocking(True)
    began = time.perf_counter()
    wanted = int(rate * duration)
    with select.epoll() as poller:
        for number in by_number:
            poller.register(number, select.EPOLLIN)
        while len(took) < wanted * len(members):
            now = time.perf_counter()
            while len(written) < wanted and began + len(written) / rate <= now:
                written.append(time.perf_counter())
                sender.socket.sendall(frame)
            is_done = len(written) == wanted
            pause = LOST_AFTER if is_done else max(0.0, began + len(written) / rate - now)
            ready = poller.poll(pause)
            if is_done and not ready:
                raise Lost(f"{wanted * len(members) - len(took):,} of {wanted * len(members):,} did not come")
            for number, _ in ready:
                member = by_number[number]
                first = (member.got - before[number]) // length
                member.take()
                now = time.perf_counter()
                took += [now - written[one] for one in range(first, (member.got - before[number]) // length)]
    return sorted(took)
