"""The local bus: carries a bus between the processes of one machine by Unix sockets, without a server between them.

Each process listens in the bus's folder, connects to every other that it finds there, and writes on the links that it
made; what it is subscribed to is said on them, so that nobody sends what nobody hears. A publisher writes itself, where
it can without waiting. All else is done in one real thread.

Here is what a channel is: who hears what, and from when on.
"""

from __future__ import annotations

import _socket
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakSet

from uwasp import local_link as link
from uwasp import takeover
from uwasp.exceptions import ConfigurationError
from uwasp.local_claim import Claim
from uwasp.local_folder import Address
from uwasp.local_mesh import SILENCE, Mesh, call
from uwasp.local_outgoing import MOST_LOST, Outgoing, Peer
from uwasp.native import new_lock, start_thread
from uwasp.transport import Receiver, Transport

__all__ = ["LocalTransport"]

# For how long `heard`, and what is published before it is known who hears, wait for processes that do not answer.
PATIENCE = 1.0  # seconds

_open: WeakSet[LocalTransport] = WeakSet()


class LocalTransport(Transport):
    """`local:`, the bus of a uWSGI instance, and `local:/run/mysite`, that of all processes which may use the folder.

    Options in the query of the URL: `owner`, `group` and `mode` of the folder, and `bound`, how many bytes may wait for
    one process (default: 16 MiB).
    """

    def __init__(self, url: str, process: bytes, receiver: Receiver) -> None:
        super().__init__(url, process, receiver)
        self._address = Address.parse(url)
        self._pid = os.getpid()
        self._lock = new_lock()  # for all that follows
        self._outgoing = Outgoing(process, self._address.bound)
        self._mesh: Mesh | None = None
        self._is_open = False
        # What was published before it is known who hears: (channel, process, data, expected); None from then on.
        self._held: list[tuple[str | None, bytes | None, bytes, Callable[[int], None] | None]] | None = []
        self._held_size = 0
        self._has_overflowed = False
        self._patience_ends = 0.0
        # Who waits to hear: (mark, until when, channel, heard).
        self._waiting: deque[tuple[int, float, str, Callable[[], None]]] = deque()
        self._calls: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._claims: dict[str, Claim] = {}

    @classmethod
    def check(cls, url: str) -> None:
        if not hasattr(_socket, "SO_PEERCRED"):
            raise ConfigurationError("the local bus needs Linux: epoll, and sockets that tell who is at their end")
        address = Address.parse(url)
        if address.path is not None or takeover.running_under_uwsgi():  # else it is refused where it is used
            address.check()

    @property
    def dropped(self) -> int:
        """How many messages were dropped because too much waited for a process, each counted once for each process."""
        return self._outgoing.dropped

    @property
    def malformed(self) -> int:
        """How many links were cut because something else than frames came through."""
        return self._mesh.malformed if self._mesh is not None else 0

    def open(self) -> None:
        self._address.folder()  # or say why there is none
        self._patience_ends = time.monotonic() + PATIENCE
        self._mesh = Mesh(self._address, self._outgoing, self._lock, self.receiver, self._obey, self._settle)
        start_thread(self._mesh.run)
        self._is_open = True
        _open.add(self)

    def publish(self, channel: str, data: bytes) -> None:
        self._carry(channel, None, data)

    def may_be_heard(self, channel: str) -> bool:
        return self._held is not None or channel in self._outgoing.hearing

    def tell(self, process: bytes, data: bytes) -> None:
        self._carry(None, process, data)

    def tell_all(self, data: bytes) -> None:
        self._carry(None, None, data)

    def ask(self, channel: str, data: bytes, expected: Callable[[int], None]) -> None:
        self._carry(channel, None, data, expected)

    def _carry(
        self,
        channel: str | None,
        process: bytes | None,
        data: bytes,
        expected: Callable[[int], None] | None = None,
    ) -> None:
        if len(data) > self.max_message_size:
            raise ValueError(f"{len(data)} bytes, where a bus takes {self.max_message_size} at once")
        with self._lock:
            if self._held is None:
                self._send(channel, process, data, expected)
            elif self._held and self._held_size + len(data) > self._outgoing.bound:
                self._has_overflowed = True
                self._outgoing.dropped += 1
                if expected is not None:
                    self._call_soon(expected, -1)
            else:
                self._held_size += len(data)
                self._held.append((channel, process, data, expected))

    def _send(
        self, channel: str | None, process: bytes | None, data: bytes, expected: Callable[[int], None] | None
    ) -> None:
        to: Iterable[Peer]
        if channel is not None:
            to = self._outgoing.hearing.get(channel, ())
            if expected is not None:
                self._call_soon(expected, sum(peer.silent < SILENCE for peer in to))
        elif process is None:
            to = self._outgoing.peers.values()
        elif process in self._outgoing.peers:
            to = (self._outgoing.peers[process],)
        else:
            return
        if to:
            self._outgoing.send(to, channel, data)

    def subscribe(self, channel: str, heard: Callable[[], None]) -> None:
        frame = link.frame(link.SUBSCRIBE, channel.encode())
        with self._lock:
            outgoing = self._outgoing
            outgoing.own.add(channel)
            outgoing.mark += 1
            self._waiting.append((outgoing.mark, time.monotonic() + PATIENCE, channel, heard))
            outgoing.say(frame + link.frame(link.MARK, link.NUMBER.pack(outgoing.mark)))
            outgoing.ring()  # it may be that nobody is there to acknowledge it

    def unsubscribe(self, channel: str) -> None:
        with self._lock:
            if channel in self._outgoing.own:
                self._outgoing.own.discard(channel)
                self._outgoing.say(link.frame(link.UNSUBSCRIBE, channel.encode()))

    def claim(self, name: str) -> None:
        self._claims.setdefault(name, Claim(self._address.folder(), name))

    def holds(self, name: str) -> bool:
        claim = self._claims.get(name)
        if claim is None or not self._is_open or not self._is_in_folder() or os.getpid() != self._pid:
            return False
        return claim.is_held()

    def close(self, timeout: float) -> None:
        for claim in self._claims.values():
            claim.release()
        self._claims.clear()
        if self._is_open and self._mesh is not None and os.getpid() == self._pid:
            self._is_open = False
            _open.discard(self)
            self._mesh.close(timeout)

    def _abandon(self) -> None:
        """For the child of a fork, in which the thread is not, and the lock may be held for ever."""
        self._lock = new_lock()
        self._is_open = False
        self._held = None
        if self._mesh is not None:
            self._mesh.abandon()
        self._outgoing.close()

    # What the thread calls.

    def _obey(self, peer: Peer, kind: int, body: bytes) -> None:
        """Do what a frame says that is about channels."""
        outgoing = self._outgoing
        with self._lock:
            if kind == link.SUBSCRIBE:
                outgoing.hear(peer, body.decode())
            elif kind == link.UNSUBSCRIBE:
                outgoing.unhear(peer, body.decode())
            elif kind == link.MARK:
                peer.has_said_all = True
                peer.buffer += link.frame(link.ACK, link.NUMBER.pack(link.number(body)))
                outgoing.write_soon()
            elif kind == link.ACK:
                self._acknowledged(peer, link.number(body))

    def _acknowledged(self, peer: Peer, mark: int) -> None:
        peer.acknowledged = max(peer.acknowledged, mark)
        for channel, owed in list(peer.owes.items()):
            if owed <= mark:
                del peer.owes[channel]
                if channel is None or channel in self._outgoing.own:  # it was said to be heard, and was not by all
                    self._calls.append((self.receiver.missed, (channel,)))

    def _settle(self, now: float) -> bool:
        """Let out what waited for others to be known, and call what is to be called."""
        if self._held is None and not self._waiting and not self._calls:
            return True
        with self._lock:
            if self._held is not None and (self._are_known() or now >= self._patience_ends):
                self._let_out(self._held)
            if self._waiting:
                self._find_heard(now)
            calls, self._calls = self._calls, []
            is_settled = self._held is None
        for function, arguments in calls:
            call(function, *arguments)
        return is_settled

    def _call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        self._calls.append((function, arguments))
        self._outgoing.ring()

    def _is_in_folder(self) -> bool:
        return self._mesh is not None and self._mesh.folder is not None

    def _are_known(self) -> bool:
        """Whether all that are there have said what they are subscribed to."""
        peers = self._outgoing.peers.values()
        return self._is_in_folder() and all(peer.has_said_all or peer.silent >= SILENCE for peer in peers)

    def _let_out(self, held: list[tuple[str | None, bytes | None, bytes, Callable[[int], None] | None]]) -> None:
        self._held = None
        unknown = [peer for peer in self._outgoing.peers.values() if not peer.has_said_all] if held else []
        for what in held:
            self._send(*what)
        for peer in self._outgoing.peers.values() if self._has_overflowed else unknown:
            peer.lost.add(None)
            self._outgoing.say_lost(peer)
        self._outgoing.write_all()

    def _find_heard(self, now: float) -> None:
        """Have `heard` called where all have acknowledged, or have had their time."""
        peers = self._outgoing.peers.values()
        acknowledged = [peer.acknowledged for peer in peers if peer.silent < SILENCE and not peer.owes]
        known = min(acknowledged, default=self._outgoing.mark) if self._is_in_folder() else 0
        while self._waiting and (self._waiting[0][0] <= known or self._waiting[0][1] <= now):
            mark, _, channel, heard = self._waiting.popleft()
            self._outgoing.was_deaf |= not self._is_in_folder()
            for peer in peers:
                if peer.acknowledged < mark:
                    is_any = None in peer.owes or len(peer.owes) >= MOST_LOST
                    peer.owes[None if is_any else channel] = mark
            self._calls.append((heard, ()))


def _abandon_all() -> None:
    for transport in list(_open):
        transport._abandon()
    _open.clear()


os.register_at_fork(after_in_child=_abandon_all)
