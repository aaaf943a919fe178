"""What goes out on a connection: writing, keeping back what can go together, waiting for a client that does not read.

Any thread or greenlet sends. What they share is guarded by the connection's lock, which nobody holds while waiting, and
under which nothing foreign runs: no user code, no logging, no callback. A method whose name ends in `_locked` wants it
held by its caller; every other one takes it where it needs it. How a connection ends is not decided here.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import socket
import sys
import termios
import time
from _socket import socket as Socket  # the C class: the name in `socket` is replaced when gevent patches it
from typing import TYPE_CHECKING, Any

from uwasp.exceptions import ConnectionClosed
from uwasp.poller import READABLE, WRITABLE
from uwasp.protocol import CLOSE_SENT, OPEN, CloseCode, FrameProtocol

if TYPE_CHECKING:
    from uwasp.listener import Listener, Waiter
    from uwasp.options import Options

__all__ = ["Outgoing", "Patience"]

logger = logging.getLogger("uwasp.connection")

# Without it, a client that is gone would end the process by SIGPIPE, or have uWSGI log it.
SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
# For how long what a server sends may be kept back to be sent with what it sends next, in seconds, and how many bytes.
CORKED_TIME = 0.0001
CORKED_SIZE = 2**16
# How often in the time of `send_timeout` a sender looks whether the client has read anything.
LOOKS = 4


class Patience:
    """That of one sender with a client that does not read.

    Args:
        waiter: what it waits with between two looks.
    """

    __slots__ = ("delivered", "ends", "waiter")

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.delivered = -1  # bytes, when the client was last seen to read
        self.ends = math.inf  # in seconds of `time.monotonic()`


class Outgoing:
    """The socket of a connection, and what is sent on it. `Connection` says what the arguments are."""

    __slots__ = (
        "_corked",
        "_deflate_lock",
        "_is_slow",
        "_listener",
        "_lock",
        "_may_cork",
        "_options",
        "_outgoing",
        "_paused",
        "_protocol",
        "_socket",
        "_waiting",
        "_withheld",
        "bytes_out",
        "corked_since",
        "fd",
        "messages_out",
        "number",
    )

    number: int

    def __init__(self, fd: int, protocol: FrameProtocol, options: Options) -> None:
        self.fd = fd
        self.messages_out = self.bytes_out = 0
        self._socket = Socket(fileno=fd)
        self._socket.setblocking(False)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # uWSGI leaves Nagle's algorithm on
        self._protocol = protocol
        self._options = options
        self._listener: Listener
        self._lock: Any
        self._deflate_lock: Any
        self._outgoing: bytearray | None = None  # what the socket has not taken yet
        self._corked: bytearray | None = None  # what a consumer keeps back, to send it with what its server sends next
        self.corked_since = 0.0
        self._may_cork = False  # not once others have sent what was kept back
        self._waiting: list[Waiter] | None = None  # senders, until there is room in `_outgoing`
        self._withheld: bytes | bytearray = b""  # the last pongs, until there is room in `_outgoing`
        self._paused = False  # nothing is read
        self._is_slow = False  # was once too slow for a group

    # For any thread or greenlet

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message. See `uwasp.WebSocket.send`."""
        if self._outgoing is not None:
            self._wait_for_room()
        protocol = self._protocol
        if protocol.deflate is None:
            frame = protocol.encode_message(message)
            with self._lock:
                self._send_locked(frame)
        else:
            # What is compressed with the context of what went before has to go out in the same order. It can take
            # long, and the listener, which takes the other lock, must not wait.
            with self._deflate_lock:
                self._check_open()
                frame = protocol.encode_message(message)
                with self._lock:
                    self._send_locked(frame)

    def send_shared(self, frame: bytes) -> bool:
        """Send a message that goes to others too, as the frame that was made for all of them. Never waits.

        Where the connection is over, there is nobody to send to.

        Args:
            frame: of `uwasp.protocol.encode_shared`. What is compressed before it and after it is as if it were not.

        Returns:
            False: more than `slow_member` bytes wait for this client. It was not sent, and unless slow members are
            skipped, the connection is being closed with 1013.
        """
        with self._lock:
            if not self.open:
                return True
            if self._outgoing is None or len(self._outgoing) <= self._options.slow_limit:
                self._send_locked(frame)
                return True
            was_slow, self._is_slow = self._is_slow, True
        self._too_slow(was_slow)
        return False

    def ping(self, data: bytes) -> None:
        """Send a ping. See `uwasp.WebSocket.ping`."""
        frame = self._protocol.encode_ping(data)
        if self._outgoing is not None:
            self._wait_for_room()
        with self._lock:
            self._check_open()
            self._write_locked(frame)

    def _wait_for_room(self) -> None:
        """Wait until less than the limit is queued, where this thread or greenlet may wait."""
        if self.has_room:
            return
        waiter = self._listener.new_waiter()
        if waiter is None:
            return
        patience = Patience(waiter)
        while (seconds := self.look_for_room(patience)) is not None:
            waiter.wait(None if seconds == math.inf else seconds)

    @property
    def has_room(self) -> bool:
        """Whether less than `write_limit` waits for the client to read."""
        outgoing = self._outgoing
        return outgoing is None or len(outgoing) < self._options.write_limit

    def look_for_room(self, patience: Patience) -> float | None:
        """One look of a sender that waits for room; between two it waits with what its patience has. Never waits.

        A client that has read nothing for `send_timeout` is cut.

        Returns:
            `None`: there is room. Else for how long to wait before the next look at most, in seconds; `math.inf`: until
            the waiter is set.

        Raises:
            ConnectionClosed: there is nothing to wait for.
        """
        timeout = self._options.send_timeout
        with self._lock:
            self._check_open()
            if self.has_room:
                return None
            now = time.monotonic()
            before, patience.delivered = patience.delivered, self._delivered_locked()
            if timeout is not None and patience.delivered != before:
                patience.ends = now + timeout
            is_too_slow = now >= patience.ends
            if is_too_slow:
                self._cut_locked("send_timeout", f"the client did not read for {timeout} s")
            else:
                patience.waiter.clear()
                if self._waiting is None:
                    self._waiting = [patience.waiter]
                elif patience.waiter not in self._waiting:
                    self._waiting.append(patience.waiter)
        if is_too_slow:
            logger.warning("%s does not read: cut after %s s", self, timeout)
            self._check_open()
        return math.inf if timeout is None else min(patience.ends - now, timeout / LOOKS)

    @property
    def listener(self) -> Listener:
        """The listener that it was added to."""
        return self._listener

    @property
    def open(self) -> bool:
        """Whether messages can be sent: no close frame has been, and the connection is not lost."""
        return self._protocol.state < CLOSE_SENT

    @property
    def close_code(self) -> int | None:
        """See `uwasp.WebSocket.close_code`."""
        return self._protocol.close_code

    @property
    def close_reason(self) -> str:
        """See `uwasp.WebSocket.close_reason`."""
        return self._protocol.close_reason

    @property
    def buffered_amount(self) -> int:
        """The bytes that wait for the client to read; not those that are kept back for a moment."""
        outgoing = self._outgoing
        return 0 if outgoing is None else len(outgoing)

    def uncork(self) -> None:
        """Send at once what is kept back, and keep nothing back any more before `consume` returns."""
        self._may_cork = False
        self.flush_corked()

    def flush_corked(self) -> None:
        """Send what is kept back."""
        with self._lock:
            self._send_corked_locked()

    # For the listener

    def flush(self) -> None:
        """The socket takes more: send what waits."""
        with self._lock:
            outgoing = self._outgoing
            if outgoing is None:
                return
            sent = self._send_some_locked(outgoing)
            if self._outgoing is None:
                return  # it was cut
            del outgoing[:sent]
            if len(outgoing) < self._options.write_limit:
                if self._withheld:
                    outgoing += self._withheld
                    self.bytes_out += len(self._withheld)
                    self._withheld = b""
                self._end_waiting_locked()
            if not outgoing:
                self._outgoing = None
                self._watch_locked()
                self._all_sent_locked()

    # For a consumer

    def _watch_outgoing(self) -> None:
        """Have the poller tell when the socket takes more."""
        with self._lock:
            self._watch_locked()

    # The caller holds the lock

    def _send_locked(self, frame: bytes) -> None:
        """Send a message, or keep it back if a consumer has asked for that."""
        if self._protocol.state is not OPEN:
            self._check_open()
        self.messages_out += 1
        corked = self._corked
        if corked is None:
            self._write_locked(frame)
            return
        corked += frame
        if len(corked) >= CORKED_SIZE:
            self._send_corked_locked()

    def _send_corked_locked(self) -> None:
        # Always, and first: a consumer that begins to cork just now adds it after this, or has it taken out next time.
        self._listener.corked.discard(self)
        if self._corked is not None:
            corked, self._corked = self._corked, None
            if corked:
                self._write_locked(corked)

    def _write_locked(self, data: bytes | bytearray) -> None:
        """Send, or queue what the socket does not take."""
        if self._corked is not None:
            self._send_corked_locked()
        self.bytes_out += len(data)
        if self._outgoing is not None:
            self._outgoing += data
            return
        sent = self._send_some_locked(data)
        if sent < len(data):
            self._outgoing = bytearray(memoryview(data)[sent:])
            self._watch_locked()

    def _reply_locked(self, pongs: bytes | bytearray) -> None:
        """Answer pings. Of those whose answers a client does not read, only the last are (RFC 6455 §5.5.3)."""
        if self.buffered_amount < self._options.write_limit:
            self._write_locked(pongs)
        else:
            self._withheld = pongs

    def _send_some_locked(self, data: bytes | bytearray) -> int:
        """How many bytes the socket took; all, in a way, where the connection is broken."""
        try:
            return self._socket.send(data, SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._cut_locked(f"the kernel ({error})")
            return len(data)

    def _watch_locked(self) -> None:
        """Have the poller look for what is wanted now."""
        if self.fd >= 0:
            wanted = (0 if self._paused else READABLE) | (0 if self._outgoing is None else WRITABLE)
            self._listener.poller.modify(self.fd, wanted)

    def _delivered_locked(self) -> int:
        """The bytes that the client's side has taken, as far as the kernel knows: it has a large buffer of its own."""
        unsent = bytearray(4)
        with contextlib.suppress(OSError):  # a kernel that does not tell: then what it takes counts
            fcntl.ioctl(self.fd, termios.TIOCOUTQ, unsent)
        return self.bytes_out - self.buffered_amount - int.from_bytes(unsent, sys.byteorder)

    def _end_waiting_locked(self) -> None:
        """Let the senders look again."""
        waiting, self._waiting = self._waiting, None
        for waiter in waiting or ():
            waiter.set()

    def _check_open(self) -> None:
        if not self.open:
            raise self.closed_error()

    def closed_error(self) -> ConnectionClosed:
        """What is raised where somebody wants something of this connection that has ended."""
        code = self.close_code or CloseCode.ABNORMAL_CLOSURE
        return ConnectionClosed(code, self.close_reason, self.number)

    # How a connection ends, in `uwasp.closing`

    def _too_slow(self, was_slow: bool) -> None:
        raise NotImplementedError

    def _cut_locked(self, by: str, reason: str = "") -> None:
        raise NotImplementedError

    def _all_sent_locked(self) -> None:
        raise NotImplementedError
