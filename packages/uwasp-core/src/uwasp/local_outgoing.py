"""What goes out on the local bus: to which processes, what waits for each, and what each has lost.

All of it belongs to one lock, which whoever calls here holds. Nothing waits: what a link does not take is kept within a
bound, and beyond that dropped, which the process is told as soon as its link takes something again.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

from uwasp import local_link as link
from uwasp.local_link import Incoming
from uwasp.poller import READABLE, WRITABLE

__all__ = ["Outgoing", "Peer"]

# A publisher writes at once when nobody has written for this long, and leaves it to gather otherwise. Seconds.
GATHERING = 0.00005
MOST_LOST = 256  # channels, until all are said to have lost something


class Peer:
    """Another process on the bus.

    Attributes:
        process: its identity.
        pid: of the process; 0 if that cannot be known here.
        socket: the link to it; `None` while there is none.
        is_full: the link takes nothing now.
        buffer: what the link has not taken yet.
        lost: channels of which something was dropped that it has not been told of; `None` for any.
        incoming: the link from it; `None` until it has said who it is.
        silent: for how many ticks nothing has come from it.
        is_here: the receiver was told that it appeared, and not that it is gone.
        channels: what it is subscribed to.
        has_said_all: what it is subscribed to is known.
        acknowledged: the number of the last MARK that it has read.
        owes: channels of which something may be missed until it has acknowledged a MARK of this number: they are said
            to be heard already, or it has parted meanwhile. `None` for any.
    """

    __slots__ = (
        "acknowledged",
        "buffer",
        "channels",
        "has_said_all",
        "incoming",
        "is_full",
        "is_here",
        "lost",
        "owes",
        "pid",
        "process",
        "silent",
        "socket",
    )

    def __init__(self, process: bytes, silent: int) -> None:
        self.process = process
        self.pid = 0
        self.socket: _socket.socket | None = None
        self.is_full = False
        self.buffer = bytearray()
        self.lost: set[str | None] = set()
        self.incoming: Incoming | None = None
        self.silent = silent
        self.is_here = False
        self.channels: set[str] = set()
        self.has_said_all = False
        self.acknowledged = 0
        self.owes: dict[str | None, int] = {}


class Outgoing:
    """
    Args:
        process: the identity of this process.
        bound: how many bytes may wait for one process.

    Attributes:
        peers: the others, by their identities.
        hearing: who is subscribed to a channel.
        own: the channels that this process is subscribed to.
        mark: the number of the last MARK.
        was_deaf: this process has been in no folder, and what it is subscribed to was said to be heard: whoever is
            found there now may have published what it has missed.
        dropped: messages, once for each process that should have had them.
        is_rung: the thread is awake, or will be soon.
        bell: a descriptor that wakes it.
        poller: what it waits with.
    """

    def __init__(self, process: bytes, bound: int) -> None:
        self.process = process
        self.bound = bound
        self.peers: dict[bytes, Peer] = {}
        self.hearing: dict[str, set[Peer]] = {}
        self.own: set[str] = set()
        self.mark = 0
        self.was_deaf = False
        self.dropped = 0
        self.is_rung = False
        self.bell = -1
        self.poller: Any = None
        self._pid = os.getpid()
        self._written = 0.0  # when a publisher wrote last, in seconds of `time.monotonic()`
        self._has_gathered = False  # something was left to be written by who comes next

    def open(self, poller: Any) -> None:
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.poller = poller
        poller.register(self.bell, READABLE)

    def close(self) -> None:
        """From now on nothing goes out."""
        self.peers, self.hearing = {}, {}
        if self.poller is not None:
            self.poller.close()
            os.close(self.bell)
            self.poller = None

    def ring(self) -> None:
        """Have the thread look at what there is to do; where it has just done so, in a moment (`Mesh.PATROL`).

        To be woken it has to take Python's lock from the one who publishes, which costs as much as many messages.
        """
        if not self.is_rung and self.poller is not None:
            self.is_rung = True
            os.eventfd_write(self.bell, 1)

    def add(self, process: bytes, silent: int = 0) -> Peer:
        """Another process was found. What this one is subscribed to goes to it first."""
        peer = self.peers[process] = Peer(process, silent)
        peer.buffer += link.hello(self.process)
        for channel in self.own:
            peer.buffer += link.frame(link.SUBSCRIBE, channel.encode())
        peer.buffer += link.frame(link.MARK, link.NUMBER.pack(self.mark))
        if self.was_deaf:
            peer.owes[None] = self.mark
        return peer

    def connect(self, peer: Peer, socket: _socket.socket, pid: int) -> None:
        """There is a link to a process."""
        peer.socket, peer.pid = socket, pid
        self._write(peer)

    def remove(self, peer: Peer) -> None:
        """A process is no longer there, or begins anew."""
        del self.peers[peer.process]
        peer.socket = peer.incoming = None
        for channel in list(peer.channels):
            self.unhear(peer, channel)

    def hear(self, peer: Peer, channel: str) -> None:
        """A process is subscribed to a channel."""
        peer.channels.add(channel)
        self.hearing.setdefault(channel, set()).add(peer)

    def unhear(self, peer: Peer, channel: str) -> None:
        """A process is no longer subscribed to a channel."""
        peer.channels.discard(channel)
        hearing = self.hearing.get(channel)
        if hearing is not None:
            hearing.discard(peer)
            if not hearing:
                del self.hearing[channel]

    def send(self, peers: Iterable[Peer], channel: str | None, data: bytes) -> None:
        """Have a message go to some processes; `channel` is what they will have missed if they do not get it."""
        frame = link.HEADER.pack(len(data), link.DATA) + data
        size, bound = len(frame), self.bound
        for peer in peers:
            buffer = peer.buffer
            if peer.lost or (buffer and len(buffer) + size > bound):
                self._drop(peer, channel)
            else:
                buffer += frame
        self.write_soon()

    def _drop(self, peer: Peer, channel: str | None) -> None:
        self.dropped += 1
        if len(peer.lost) < MOST_LOST:
            peer.lost.add(channel)
        else:
            peer.lost = {None}

    def say(self, frame: bytes) -> None:
        """Have a frame go to all others that none of them may miss.

        A link that has too much of these to carry is cut, and its successor begins with all there is to say.
        """
        for peer in self.peers.values():
            peer.buffer += frame
            if len(peer.buffer) > 2 * self.bound and peer.socket is not None:
                with contextlib.suppress(OSError):  # it has been
                    peer.socket.shutdown(_socket.SHUT_RDWR)  # the thread sees that
        self.write_soon()

    def write_soon(self) -> None:
        """Write at once, unless somebody did just now: then it is more at a time, by who comes next or the thread."""
        now = time.monotonic()
        if now - self._written > GATHERING:
            self._written = now
            self.write_all()
        else:
            self._has_gathered = True
            if not self.is_rung:
                self.ring()

    def write_all(self) -> None:
        self._has_gathered = False
        if os.getpid() != self._pid:  # a child of this process would write into the middle of a frame
            return
        for peer in self.peers.values():
            if peer.buffer and not peer.is_full:
                self._write(peer)

    def write_gathered(self) -> bool:
        """Write what was left, if there is something."""
        if self._has_gathered:
            self.write_all()
            return True
        return False

    def write_on(self, peer: Peer) -> None:
        """The link to a process takes something again."""
        if peer.socket is not None:
            peer.is_full = False
            self.poller.modify(peer.socket.fileno(), READABLE)
            self._write(peer)

    def _write(self, peer: Peer) -> None:
        """Write what the link takes; then say what was lost, if there is room for that again."""
        socket, buffer = peer.socket, peer.buffer
        if socket is None:
            return
        try:
            while buffer:
                sent = socket.send(buffer)
                del buffer[:sent]
                if peer.lost and len(buffer) <= self.bound // 2:
                    self.say_lost(peer)
        except BlockingIOError:
            peer.is_full = True
            self.poller.modify(socket.fileno(), READABLE | WRITABLE)
        except OSError:  # it is broken, which the poller tells the thread
            peer.is_full = True

    def say_lost(self, peer: Peer) -> None:
        """Tell a process what was dropped."""
        channels, peer.lost = peer.lost, set()
        for channel in (None,) if None in channels else channels:
            peer.buffer += link.frame(link.MISSED, b"" if channel is None else channel.encode())

    def beat(self) -> None:
        """Let the others know that this process lives, where nothing else does."""
        beat = link.frame(link.BEAT)
        for peer in self.peers.values():
            if not peer.buffer:
                peer.buffer += beat
        self.write_all()
