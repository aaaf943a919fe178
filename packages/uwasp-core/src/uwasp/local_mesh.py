"""The processes of a local bus, as one of them finds them: a link to each, a link from each, and signs of life.

All of it is the work of one thread, which gevent does not patch: others are told by its beats that this process lives,
whatever its application does. What is said on the links about channels and messages is not decided here.
"""

from __future__ import annotations

import _socket
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Any

from uwasp import local_link as link
from uwasp import takeover
from uwasp.exceptions import ConfigurationError
from uwasp.local_folder import Address, Credentials, Folder
from uwasp.local_link import Incoming, Malformed
from uwasp.local_outgoing import Outgoing, Peer
from uwasp.native import new_lock, original
from uwasp.poller import READABLE, WRITABLE
from uwasp.transport import Receiver

__all__ = ["SILENCE", "Mesh", "call"]

logger = logging.getLogger("uwasp.bus")

TICK = 0.25  # seconds
TICKS_PER_BEAT = 2
TICKS_PER_LOOK = 4  # at the folder
# Ticks without a sign of a process until it is gone. Not seconds: one that was itself stopped counts none meanwhile.
SILENCE = 6
# Ticks without a sign until its links are cut: a child holds a dead one's sockets, and what waits for it takes memory.
LONG_SILENCE = 240
# How long the thread waits for more to do when there was something, in seconds; epoll cannot wait less.
PATROL = 0.001
CHUNK = 2**16  # bytes read at once: more would be allocated from and given back to the kernel each time
CHUNKS = 4  # of one link, until the others have their turn
LAST_CHUNKS = 256  # of one that has ended: more than a socket holds
MOST_PARTED = 1024  # processes that are remembered
LOG_PERIOD = 60.0  # seconds


class Mesh:
    """
    Args:
        address: of the bus.
        outgoing: what goes out.
        lock: its lock.
        receiver: is told who appears and is gone, and what arrives.
        control: is called with each other frame that is about channels, and by whom.
        settle: is called in each turn of the thread, with the time; returns whether all that was published is
            outgoing.

    Attributes:
        malformed: links that were cut because something else than frames came through.
        folder: of the bus; `None` while it is not in it.
    """

    def __init__(
        self,
        address: Address,
        outgoing: Outgoing,
        lock: Any,
        receiver: Receiver,
        control: Callable[[Peer, int, bytes], None],
        settle: Callable[[float], bool],
    ) -> None:
        self.malformed = 0
        self.folder: Folder | None = None
        self._address = address
        self._outgoing = outgoing
        self._lock = lock
        self._receiver = receiver
        self._control = control
        self._settle = settle
        takeover.keep_standard_descriptors()
        self._poller = original("select", "epoll")()
        outgoing.open(self._poller)
        self._listening: _socket.socket | None = None
        self._incoming: dict[int, Incoming] = {}
        self._writers: dict[int, Peer] = {}  # of those
        self._links: dict[int, Peer] = {}
        self._closed: list[_socket.socket] = []  # to be, when no event of theirs can be at hand
        self._parted: dict[bytes, None] = {}  # processes that did so without a word
        self._ticks = 0
        self._closing: float | None = None  # until when, in seconds of `time.monotonic()`
        self._has_said_goodbye = False
        self._ended = new_lock()  # held until the thread has
        self._ended.acquire()
        self._logged: dict[str, float] = {}

    def close(self, timeout: float) -> None:
        """Write what there is, for at most `timeout` seconds, and part from the others."""
        # Not for long: uWSGI ends a worker out of a signal handler, which can have interrupted who holds the lock.
        has_lock = self._lock.acquire(True, TICK)
        self._closing = time.monotonic() + timeout
        if has_lock:  # else the thread sees that with its next tick; it may end, and the bell be another's descriptor
            self._outgoing.ring()
            self._lock.release()
        # The thread needs no time but for writing; it is given some on a machine that is busy.
        if self._ended.acquire(timeout=timeout + 1.0):
            self._ended.release()

    def abandon(self) -> None:
        """For the child of a fork: this is its parent's, and goes on there."""
        sockets = [peer.socket for peer in self._links.values()] + [own.socket for own in self._incoming.values()]
        for socket in (*sockets, self._listening):
            if socket is not None:
                socket.close()
        if self.folder is not None:
            os.close(self.folder.fd)

    def run(self) -> None:
        """The thread."""
        next_tick = 0.0
        while True:
            try:
                now = time.monotonic()
                if now >= next_tick:
                    next_tick = now + TICK
                    self._tick()
                is_settled = self._settle(now)
                if self._closing is not None and self._has_parted(is_settled, now):
                    break
                self._wait(next_tick)
            except Exception:  # nothing that is known; it has to go on
                self._log("failure", logging.ERROR, "the local bus failed, and goes on", exc_info=True)
                original("time", "sleep")(TICK)  # but not in circles
        try:
            self._end()
            self._settle(math.inf)
        except Exception:
            logger.exception("the local bus failed while it was closed")
        finally:
            self._ended.release()

    def _wait(self, next_tick: float) -> None:
        """Wait for something to do, and do it."""
        while self._closed:
            self._closed.pop().close()
        is_on_patrol = self._outgoing.is_rung
        until = next_tick if self._closing is None else min(next_tick, self._closing)
        wait = max(0.0, until - time.monotonic())
        for fd, event in self._poller.poll(min(PATROL, wait) if is_on_patrol else wait):
            self._react(fd, event)
        if is_on_patrol:
            with self._lock:
                self._outgoing.is_rung = self._outgoing.write_gathered()

    def _react(self, fd: int, event: int) -> None:
        if fd in self._incoming:
            self._read(self._incoming[fd])
        elif fd in self._links:
            if event != WRITABLE:  # nobody writes there: it has ended
                self._lose_link(self._links[fd])
                return
            with self._lock:
                self._outgoing.write_on(self._links[fd])
        elif fd == self._outgoing.bell:
            os.eventfd_read(fd)
            with self._lock:
                self._outgoing.write_all()
        elif self._listening is not None and fd == self._listening.fileno():
            self._accept(self._listening)

    def _close(self, socket: _socket.socket) -> None:
        self._poller.unregister(socket.fileno())
        self._closed.append(socket)  # its number must not be another's while there may be events for it

    # Finding the others.

    def _tick(self) -> None:
        self._ticks += 1
        if self._listening is not None:
            self._poller.modify(self._listening.fileno(), READABLE)  # again, if no descriptor was left
        for fd, incoming in list(self._incoming.items()):
            if fd not in self._writers:
                incoming.silent += 1
                if incoming.silent >= SILENCE:
                    self._close_incoming(incoming)
        for peer in list(self._outgoing.peers.values()):
            self._count_silence(peer)
        if self._ticks % TICKS_PER_BEAT == 0:
            with self._lock:
                self._outgoing.beat()
        if self._ticks % TICKS_PER_LOOK == 1 or self.folder is None:
            try:
                self._look()
            except BlockingIOError:
                pass  # the folder is being removed: at the next tick it can be made
            except (OSError, ConfigurationError) as error:
                self._log("look", logging.ERROR, "the local bus finds no other processes, and tries again: %s", error)

    def _count_silence(self, peer: Peer) -> None:
        peer.silent += 1
        if peer.silent >= SILENCE // 2 and peer.pid and _has_ended(peer.pid):
            if self.folder is not None:
                self.folder.remove(peer.process)  # a child of it holds its sockets, or they would refuse
            self._forget(peer)
        elif peer.silent == SILENCE:
            self._tell_gone(peer)
        elif peer.silent % LONG_SILENCE == 0:
            self._forget(peer)
        elif peer.socket is None:
            self._connect(peer)

    def _look(self) -> None:
        """Be in the folder, and connect to whoever else is.

        Raises:
            ConfigurationError, OSError: as those of `Folder`.
        """
        if self.folder is not None and not self.folder.is_there():
            self._leave()
        if self.folder is None:
            self.folder = Folder(self._address)
            self.folder.remove_dead()
        if self._listening is None or not self.folder.has(self._outgoing.process):
            self._listen(self.folder)
        for process in self.folder.processes() - self._outgoing.peers.keys() - {self._outgoing.process}:
            with self._lock:
                # One that has parted is not waited for until it says something.
                peer = self._outgoing.add(process, silent=SILENCE if process in self._parted else 0)
            self._connect(peer)
        self._outgoing.was_deaf = False  # who comes later finds this process

    def _listen(self, folder: Folder) -> None:
        before, self._listening = self._listening, None
        if before is not None:
            self._close(before)
        self._listening = folder.listen(self._outgoing.process)
        self._poller.register(self._listening.fileno(), READABLE)

    def _leave(self) -> None:
        """Be no longer in the folder, or in what was it."""
        self._outgoing.was_deaf = bool(self._outgoing.own)
        folder, self.folder = self.folder, None
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        if folder is not None:
            folder.remove(self._outgoing.process)
            folder.close()

    def _connect(self, peer: Peer) -> None:
        """Begin a link to a process, if it is there."""
        folder = self.folder
        if folder is None:
            return
        try:
            socket, other = self._link_to(peer.process, folder)
        except BlockingIOError:  # too many are waiting there: at the next tick
            return
        except OSError as error:
            if isinstance(error, ConnectionRefusedError):
                folder.remove_refusing(peer.process)
            elif not isinstance(error, FileNotFoundError):
                self._log("link", logging.WARNING, "the local bus cannot reach %s: %s", peer.process.hex(), error)
            if peer.incoming is None:  # otherwise it has ended, but what it has written is still read
                self._forget(peer)
            return
        self._links[socket.fileno()] = peer
        with self._lock:
            self._outgoing.connect(peer, socket, other.pid)

    def _link_to(self, process: bytes, folder: Folder) -> tuple[_socket.socket, Credentials]:
        """
        Raises:
            OSError: there is nobody, or somebody who may not join, or what else the platform has against it.
        """
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            socket.setblocking(False)
            socket.connect(folder.path_of(process))
            other = Credentials.of(socket)
            if not folder.may_join(other):
                raise PermissionError(f"it is of user {other.uid}, who may not join")
            self._poller.register(socket.fileno(), READABLE)
        except BaseException:
            socket.close()
            raise
        return socket, other

    def _lose_link(self, peer: Peer) -> None:
        """The link to a process has ended. What it wrote before that is still read."""
        if peer.incoming is not None:
            self._read(peer.incoming, LAST_CHUNKS)
        self._forget(peer)

    def _forget(self, peer: Peer, has_said_goodbye: bool = False) -> None:
        """Part from a process: the links to it and from it live and end together.

        If it is still there, it is found again, and both are told that something may be lost.
        """
        if self._outgoing.peers.get(peer.process) is not peer:
            return
        incoming, socket = peer.incoming, peer.socket
        with self._lock:
            self._outgoing.remove(peer)
        if not has_said_goodbye and (incoming is not None or peer.silent >= LONG_SILENCE):
            self._parted[peer.process] = None
            if len(self._parted) > MOST_PARTED:
                del self._parted[next(iter(self._parted))]
        if socket is not None:
            del self._links[socket.fileno()]
            self._close(socket)
        if incoming is not None:
            self._close_incoming(incoming)
        self._tell_gone(peer)

    def _tell_gone(self, peer: Peer) -> None:
        if peer.is_here:
            peer.is_here = False
            call(self._receiver.gone, peer.process)

    # What comes from the others.

    def _accept(self, listening: _socket.socket) -> None:
        try:
            fd, _ = listening._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError as error:
            self._poller.modify(listening.fileno(), 0)  # until the next tick
            self._log("accept", logging.WARNING, "the local bus cannot accept a process: %s", error)
            return
        socket = _socket.socket(fileno=fd)
        socket.setblocking(False)
        other = Credentials.of(socket)
        if self.folder is None or not self.folder.may_join(other):
            self._log("stranger", logging.WARNING, "the local bus refuses a process of user %d", other.uid)
            socket.close()
            return
        self._poller.register(fd, READABLE)
        self._incoming[fd] = Incoming(socket)

    def _close_incoming(self, incoming: Incoming) -> None:
        fd = incoming.socket.fileno()
        if self._incoming.pop(fd, None) is not None:
            self._writers.pop(fd, None)
            self._close(incoming.socket)

    def _lose(self, incoming: Incoming) -> None:
        """A link to this process has ended, or is to end: so does what there is with who wrote it."""
        peer = self._writers.get(incoming.socket.fileno())
        if peer is not None:
            self._forget(peer)
        else:
            self._close_incoming(incoming)

    def _read(self, incoming: Incoming, chunks: int = CHUNKS) -> None:
        for _ in range(chunks):
            try:
                chunk = incoming.socket.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            try:
                if not chunk or not self._take(incoming, chunk):
                    self._lose(incoming)
                    return
            except (Malformed, UnicodeDecodeError) as error:
                self.malformed += 1
                self._log("malformed", logging.WARNING, "the local bus cuts off a process: %s", error)
                self._lose(incoming)
                return
            if len(chunk) < CHUNK and chunks == CHUNKS:
                return

    def _take(self, incoming: Incoming, chunk: bytes) -> bool:
        """Take what has come through a link; returns whether the link goes on.

        Raises:
            Malformed: it is not what could have come.
        """
        received = self._receiver.received
        fd = incoming.socket.fileno()
        peer = self._writers.get(fd)
        if peer is not None:
            self._notice(peer)
        for kind, body in incoming.frames(chunk):
            if peer is None:
                peer = self._meet(incoming, link.sender_of(kind, body))
                if peer is None:
                    return False
                self._writers[fd] = peer
            elif kind == link.DATA:
                call(received, body)
            elif kind == link.BYE:
                self._forget(peer, has_said_goodbye=True)
                return False
            elif kind == link.HELLO:
                raise Malformed("a second HELLO")
            elif kind == link.MISSED:
                call(self._receiver.missed, body.decode() or None)
            else:
                self._control(peer, kind, body)
        return True

    def _notice(self, peer: Peer) -> None:
        """A process has given a sign of life."""
        peer.silent = 0
        if not peer.is_here:
            peer.is_here = True
            call(self._receiver.appeared, peer.process)

    def _meet(self, incoming: Incoming, process: bytes) -> Peer | None:
        """Who writes a link has said its name. Returns what is known of it, or `None` if it has to come again.

        Raises:
            Malformed: it cannot be who it says.
        """
        if process == self._outgoing.process:
            raise Malformed("it says that it is this process itself")
        peer = self._outgoing.peers.get(process)
        if peer is not None and peer.incoming is not None:
            # It begins anew, before the end of what was is seen here. To begin at both ends, end it at both first.
            self._forget(peer)
            return None
        was_here = self._parted.pop(process, 0) is None
        if peer is None:
            with self._lock:
                peer = self._outgoing.add(process)
        peer.incoming = incoming
        if peer.socket is None:
            self._connect(peer)
        self._notice(peer)
        if was_here:
            with self._lock:
                peer.owes[None] = self._outgoing.mark
        return peer

    # The end.

    def _has_parted(self, is_settled: bool, now: float) -> bool:
        """Say goodbye; returns whether all have taken what there was for them, or time is up."""
        if self._closing is None or now >= self._closing:
            return True
        if not is_settled:
            return False
        with self._lock:
            if not self._has_said_goodbye:
                self._has_said_goodbye = True
                self._outgoing.say(link.frame(link.BYE))
            self._outgoing.write_all()
            return not any(peer.buffer for peer in self._outgoing.peers.values() if peer.silent < SILENCE)

    def _end(self) -> None:
        with self._lock:
            self._outgoing.close()
        for peer in self._links.values():
            if peer.socket is not None:
                peer.socket.close()
        for incoming in self._incoming.values():
            incoming.socket.close()
        for socket in self._closed:
            socket.close()
        self._leave()

    def _log(self, what: str, level: int, message: str, *arguments: object, exc_info: bool = False) -> None:
        """Log something, at most once a minute for each thing."""
        now = time.monotonic()
        if now - self._logged.get(what, -LOG_PERIOD) >= LOG_PERIOD:
            self._logged[what] = now
            logger.log(level, message, *arguments, exc_info=exc_info)


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Call what was given by the one above; what it raises ends nothing."""
    try:
        function(*arguments)
    except Exception:
        logger.exception("%s of a bus raised", getattr(function, "__qualname__", function))


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
