"""One taken-over connection: its socket, what waits to be delivered, what waits to be sent, and how it ends.

Three parties meet here. The *listener* calls `receive` and `flush` when the socket is ready, and is alone in closing
the descriptor. One *consumer* at a time calls `consume`, which runs the server's methods. Any thread or greenlet calls
`send`, `ping` and `close`. What they share is guarded by `lock`, which nobody holds while waiting or while user code
runs. The rules of RFC 6455 are not here but in `uwasp.protocol`.
"""

from __future__ import annotations

import itertools
import logging
import socket
import time
from _socket import socket as Socket  # the C class: the name in `socket` is replaced when gevent patches it
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uwasp.exceptions import ConnectionClosed
from uwasp.poller import READABLE, WRITABLE
from uwasp.protocol import OPEN, CloseCode, FrameProtocol, State

if TYPE_CHECKING:
    from uwasp.listener import Listener, Timer, Waiter
    from uwasp.options import Options
    from uwasp.server import ServerInterface

__all__ = ["Connection"]

logger = logging.getLogger("uwasp.connection")
server_logger = logging.getLogger("uwasp.server")

_numbers = itertools.count(1)

READ_SIZE = 2**16  # bytes
LARGE_READ_SIZE = 2**18  # bytes; of a frame of which so much is still to come
# Of compressed data, which can be a thousand times as much when it is decompressed, before any limit is looked at.
COMPRESSED_READ_SIZE = 2**12  # bytes
# Without it, a client that is gone would end the process by SIGPIPE, or have uWSGI log it.
SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
# The client's close frame is answered after the replies to what came before it, if they are given this soon (seconds).
CLOSE_ANSWER_DELAY = 0.1
# For how long what a server sends may be kept back to be sent with what it sends next, in seconds, and how many bytes.
CORKED_TIME = 0.0001
CORKED_SIZE = 2**16


class Connection:
    """A connection after its handshake.

    Args:
        fd: the descriptor of the connected socket; the connection owns it from here on.
        protocol: its frames, fresh.
        options: its limits and times.
        peer: the client's address, for the log.
        path: the path that it asked for, for the log.

    Attributes:
        open: messages can be sent: no close frame has been sent, and the connection is not lost.
        close_code: the code of the close frame that came first, from either side (RFC 6455 §7.4); 1006 if the
            connection was lost without one; `None` while there has been neither.
        close_reason: the reason that goes with it.
        fd: the descriptor; -1 once it is closed.
        number: tells it from the other connections of this process, in the log.
        messages_in, messages_out, bytes_in, bytes_out: what has gone over it; bytes on the wire, after the handshake.
    """

    __slots__ = (
        "_busy",
        "_corked",
        "_deflate_lock",
        "_discarding",
        "_half_closed",
        "_heard",
        "_inbox",
        "_is_fast",
        "_listener",
        "_lock",
        "_may_cork",
        "_opened",
        "_options",
        "_outgoing",
        "_over",
        "_path",
        "_paused",
        "_peer",
        "_pinged",
        "_protocol",
        "_queued",
        "_server",
        "_socket",
        "_timer",
        "_waiting",
        "_withheld",
        "bytes_in",
        "bytes_out",
        "close_code",
        "close_reason",
        "corked_since",
        "fd",
        "messages_in",
        "messages_out",
        "number",
        "open",
    )

    def __init__(self, fd: int, protocol: FrameProtocol, options: Options, peer: str, path: str) -> None:
        self.fd = fd
        self.number = next(_numbers)
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self.open = True
        self.close_code: int | None = None
        self.close_reason = ""
        self._socket = Socket(fileno=fd)
        self._socket.setblocking(False)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # uWSGI leaves Nagle's algorithm on
        self._protocol = protocol
        self._options = options
        self._peer = peer
        self._path = path
        self._listener: Listener
        self._lock: Any
        self._deflate_lock: Any
        self._server: ServerInterface | None = None
        self._inbox: list[str | bytes] | None = None  # messages that no consumer has taken yet
        self._outgoing: bytearray | None = None  # what the socket has not taken yet
        self._corked: bytearray | None = None  # what a consumer keeps back, to send it with what its server sends next
        self.corked_since = 0.0
        self._may_cork = False  # not once others have sent what was kept back
        self._is_fast = False  # the server's last `on_message` was
        self._busy = False  # in the listener's `ready`, or with a consumer
        self._opened = False  # `on_open` has been called
        self._over = False  # no message will be added to the inbox any more
        self._discarding = False  # the server closed: what it has not seen yet, it will not see
        self._half_closed = False  # all is said from our side, and what comes in is only waited out
        self._timer: Timer | None = None
        self._queued = 0  # bytes that were read for the messages in the inbox
        self._paused = False  # the inbox is full, and nothing is read
        self._waiting: list[Waiter] | None = None  # senders, until there is room in `_outgoing`
        self._withheld: bytes | bytearray = b""  # the last pongs, until there is room in `_outgoing`
        self._heard = 0.0  # when something came last, in seconds of `time.monotonic()`
        self._pinged = 0.0  # when a ping was sent that nothing has answered yet; 0 for none

    def __str__(self) -> str:
        return f"connection {self.number} of {self._peer} at {self._path}"

    def attach(self, listener: Listener, server: ServerInterface, new_lock: Callable[[], Any]) -> None:
        """Called by the listener: what it and the consumers need."""
        self._listener = listener
        self._server = server
        self._lock = new_lock()
        self._deflate_lock = new_lock() if self._protocol.deflate is not None else None
        self._heard = time.monotonic()

    def start(self) -> None:
        """Called by the listener, once it looks for what arrives: `on_open` is due."""
        with self._lock:
            self._schedule()

    def abandon(self) -> None:
        """Give up a connection whose handler failed. A listener that has it already closes it, and calls `on_close`."""
        if getattr(self, "_listener", None) is not None:
            self.close(CloseCode.INTERNAL_ERROR, "internal error")
            return
        self.open = False
        self.fd = -1
        self._socket.close()

    # For any thread or greenlet

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message. See `uwasp.WebSocket.send`."""
        if self._outgoing is not None:
            self._wait_for_room()
        if self._protocol.deflate is None:
            frame = self._protocol.encode_message(message)
            with self._lock:
                self._send(frame)
        else:
            # What is compressed with the context of what went before has to go out in the same order. It can take
            # long, and the listener, which takes the other lock, must not wait.
            with self._deflate_lock:
                self._check_open()
                frame = self._protocol.encode_message(message)
                with self._lock:
                    self._send(frame)

    def _wait_for_room(self) -> None:
        """Wait until less than the limit is queued, where this thread or greenlet may wait. Takes the lock."""
        options = self._options
        deadline = None if options.send_timeout is None else time.monotonic() + options.send_timeout
        waiter = None
        while True:
            with self._lock:
                self._check_open()
                if self.buffered_amount < options.write_limit:
                    return
                waiter = waiter or self._listener.new_waiter()
                if waiter is None:
                    return
                waiter.clear()
                self._waiting = [*(self._waiting or ()), waiter]
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and (left <= 0 or not waiter.wait(left)):
                logger.warning("%s does not read: cut after %s s", self, options.send_timeout)
                with self._lock:
                    self._cut(f"the client did not read for {options.send_timeout} s")
                    self._check_open()
            elif left is None:
                waiter.wait()

    def ping(self, data: bytes) -> None:
        """Send a ping. See `uwasp.WebSocket.ping`."""
        with self._lock:
            self._check_open()
            self._write(self._protocol.encode_ping(data))

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, unless it has begun. See `uwasp.WebSocket.close`."""
        frame = self._protocol.encode_close(code, reason)
        with self._lock:
            if not self.open:
                return
            self._discarding = True
            self._inbox = None
            if self._over:
                self._send_answer()  # the client's close frame, or its fault, came first
            else:
                self._send_close(frame, code, reason)
            scheduled = self._schedule()
        if scheduled:
            self._listener.wake()

    def terminate(self) -> None:
        """Cut the connection; the listener finds it lost. See `uwasp.WebSocket.terminate`."""
        with self._lock:
            self._cut()

    @property
    def buffered_amount(self) -> int:
        """The bytes that wait for the client to read; not those that are kept back for a moment."""
        outgoing = self._outgoing
        return 0 if outgoing is None else len(outgoing)

    @property
    def queued_messages(self) -> int:
        """The messages that wait for the server."""
        inbox = self._inbox
        return 0 if inbox is None else len(inbox)

    # For the listener

    def receive(self, hung_up: bool = False) -> None:
        """Read once what has arrived, answer what RFC 6455 has answered at once, and put the messages in the inbox.

        While the inbox is full nothing is read, so that TCP slows the client down; unless the connection is
        `hung_up`, when what is left of it is as much as the kernel holds.
        """
        if self._inbox is not None and self._is_full() and not hung_up:
            self._pause()
            return
        protocol = self._protocol
        try:
            if protocol.deflate is not None:
                data = self._socket.recv(COMPRESSED_READ_SIZE)
            elif protocol.remaining > READ_SIZE:
                data = self._socket.recv(LARGE_READ_SIZE)
            else:
                data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._heard = self._listener.now
        if protocol.state is not OPEN:
            return
        self._deliver(protocol.receive(data), len(data))

    def _deliver(self, messages: list[str | bytes], size: int) -> None:
        """Put what was read in the inbox, and answer what the protocol has answered. Takes the lock."""
        protocol = self._protocol
        with self._lock:
            self.bytes_in += size
            if protocol.replies:
                if self.open:
                    self._reply(protocol.replies)
                protocol.replies = b""
            if not self._over:
                if messages:
                    self.messages_in += len(messages)
                    # What was compressed can be a thousand times as large now.
                    self._queued += size if protocol.deflate is None else sum(map(len, messages))
                    if self._inbox:
                        self._inbox += messages
                    else:
                        self._inbox = messages
                if protocol.state is not OPEN:
                    self._over = True
                    self._set_close_code(protocol.close_code, protocol.close_reason)
                    self._timer = self._listener.call_later(CLOSE_ANSWER_DELAY, self._answer_close)
                elif not messages:
                    return
                self._schedule()
            elif protocol.state is not OPEN:
                self._half_close()  # the answer to our close frame, or a fault instead of it

    def _pause(self) -> None:
        """Read no more until a consumer has taken what is in the inbox. Takes the lock."""
        with self._lock:
            if self._is_full() and not self._paused:
                self._paused = True
                self._watch()

    def keep_alive(self, now: float) -> None:
        """Ping a client that has been silent for long; close the connection if that is not answered.

        Args:
            now: in seconds of `time.monotonic()`.
        """
        options = self._options
        if options.ping_interval is None or self._paused or self._over or not self.open:
            return
        if self._pinged:
            if self._heard >= self._pinged:
                self._pinged = 0.0
            elif options.ping_timeout is not None and now - self._pinged >= options.ping_timeout:
                self.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        elif now - self._heard >= options.ping_interval:
            with self._lock:
                if self.open:
                    self._write(self._protocol.encode_ping())
                    self._pinged = now

    def flush(self) -> None:
        """The socket takes more: send what waits."""
        with self._lock:
            outgoing = self._outgoing
            if outgoing is None:
                return
            sent = self._send_some(outgoing)
            if self._outgoing is None:
                return  # it was cut
            del outgoing[:sent]
            if len(outgoing) < self._options.write_limit:
                if self._withheld:
                    outgoing += self._withheld
                    self._withheld = b""
                self._end_waiting()
            if not outgoing:
                self._outgoing = None
                self._watch()
                if not self.open and self._protocol.state is not OPEN:
                    self._half_close()

    # For a consumer

    def consume(self, cork: bool = False) -> None:
        """Run the server's methods for all that has been received, in order. One consumer at a time.

        Args:
            cork: what the server sends on this connection, while it handles several messages that have been waiting
                for it, is sent together where it comes fast enough. Who asks for that and can be suspended in here,
                as a greenlet can, has `uncork` called when it is.
        """
        server = self._server
        assert server is not None
        self._may_cork = cork
        try:
            if not self._opened:
                self._opened = True
                logger.info("%s is open", self)
                server.on_open()
            on_message = server.on_message
            while True:
                with self._lock:
                    messages = self._inbox
                    if not messages:
                        if self._over:
                            break
                        self._busy = False
                        return
                    self._inbox = None
                    self._queued = 0
                    if self._paused:
                        self._paused = False
                        self._heard = self._listener.now  # it could not be heard
                        self._watch()
                if self._may_cork and len(messages) > 1:
                    self._consume_corked(messages, on_message)
                    continue
                for message in messages:
                    if self._discarding:
                        break
                    on_message(message)
        except BaseException as error:
            self._fail(error)
        else:
            self._finish()

    def _consume_corked(self, messages: list[str | bytes], on_message: Callable[[str | bytes], None]) -> None:
        """Send the answers to several messages in one write, as long as the server is fast."""
        before = time.monotonic()
        try:
            for message in messages:
                if self._discarding:
                    break
                if self._is_fast and self._may_cork and self._corked is None:
                    self._corked = bytearray()
                    self.corked_since = before
                    self._listener.cork(self)
                on_message(message)
                now = time.monotonic()
                self._is_fast = now - before < CORKED_TIME
                if self._corked is not None and now - self.corked_since >= CORKED_TIME:
                    self.flush_corked()
                before = now
        finally:
            if self._corked is not None:
                self.flush_corked()

    def uncork(self) -> None:
        """Send at once what is kept back, and keep nothing back any more before `consume` returns. From anywhere."""
        self._may_cork = False
        self.flush_corked()

    def _watch_outgoing(self) -> None:
        """Have the poller tell when the socket takes more. Takes the lock."""
        with self._lock:
            self._watch()

    def flush_corked(self) -> None:
        """Send what is kept back. Takes the lock."""
        with self._lock:
            self._send_corked()

    def _finish(self) -> None:
        """The last event. The connection stays scheduled for ever, so there is none after it."""
        self._answer_close()
        server, self._server = self._server, None
        assert server is not None
        logger.info("%s is closed with %s %a", self, self.close_code, self.close_reason)
        try:
            server.on_close()
        except Exception:
            server_logger.exception("error in on_close of %s for %s", type(server).__name__, self)
        finally:
            self._listener.count_served()

    def _fail(self, error: BaseException) -> None:
        """An exception came out of the server: say so, and close this connection.

        Raises:
            BaseException: that one, where it is for whoever consumes and not about the server.
        """
        if isinstance(error, ConnectionClosed) and not self.open:
            server_logger.debug("%s tried to send on the closed %s", type(self._server).__name__, self)
        else:
            server_logger.error(
                "error in %s, closing %s with code 1011",
                type(self._server).__name__,
                self,
                exc_info=(type(error), error, error.__traceback__),
            )
        self.close(CloseCode.INTERNAL_ERROR, "internal error")
        self._finish()
        if not isinstance(error, Exception):
            raise error

    # Below, the caller holds the lock, unless the docstring says otherwise

    def _schedule(self) -> bool:
        """Have a consumer look at this connection; return whether that is new."""
        if self._busy:
            return False
        self._busy = True
        self._listener.ready.append(self)
        return True

    def _send(self, frame: bytes) -> None:
        """Send a message, or keep it back if a consumer has asked for that."""
        if not self.open:
            self._check_open()
        self.messages_out += 1
        if self._corked is None:
            self._write(frame)
            return
        self._corked += frame
        if len(self._corked) >= CORKED_SIZE:
            self._send_corked()

    def _send_corked(self) -> None:
        # Always, and first: a consumer that begins to cork just now adds it after this, or has it taken out next time.
        self._listener.corked.discard(self)
        if self._corked is not None:
            corked, self._corked = self._corked, None
            if corked:
                self._write(corked)

    def _write(self, data: bytes | bytearray) -> None:
        """Send, or queue what the socket does not take."""
        if self._corked is not None:
            self._send_corked()
        self.bytes_out += len(data)
        if self._outgoing is not None:
            self._outgoing += data
            return
        sent = self._send_some(data)
        if sent < len(data) and self.open:
            self._outgoing = bytearray(memoryview(data)[sent:])
            self._watch()

    def _reply(self, pongs: bytes | bytearray) -> None:
        """Answer pings. Of those whose answers a client does not read, only the last are (RFC 6455 §5.5.3)."""
        if self.buffered_amount < self._options.write_limit:
            self._write(pongs)
        else:
            self._withheld = pongs

    def _watch(self) -> None:
        """Have the poller look for what is wanted now."""
        if self.fd >= 0:
            wanted = (0 if self._paused else READABLE) | (0 if self._outgoing is None else WRITABLE)
            self._listener.poller.modify(self.fd, wanted)

    def _is_full(self) -> bool:
        inbox = self._inbox
        if inbox is None or self._over:
            return False
        return len(inbox) >= self._options.max_queue or self._queued >= self._options.max_queue_size

    def _end_waiting(self) -> None:
        """Let the senders look again."""
        waiting, self._waiting = self._waiting, None
        for waiter in waiting or ():
            waiter.set()

    def _send_some(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data, SEND_FLAGS)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._cut()
            return len(data)

    def _send_close(self, frame: bytes, code: int, reason: str) -> None:
        """Send the close frame, ours or in answer, which is the last; then wait for the peer, not for ever."""
        self._write(frame)
        self._over = True
        if not self.open:
            return
        self.open = False
        self._end_waiting()
        self._set_close_code(code, reason)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._listener.call_later(self._options.close_timeout, self.terminate)
        if self._paused:  # the answer is behind what was not read
            self._paused = False
            self._watch()
        if self._protocol.state is not OPEN:
            self._half_close()

    def _half_close(self) -> None:
        """Both sides are done: say so to the TCP peer, who closes. To close at once could lose what is on its way.

        RFC 6455 §7.1.1.
        """
        if self._outgoing is None and not self._half_closed and self.fd >= 0:
            self._half_closed = True
            self._shutdown(socket.SHUT_WR)

    def _cut(self, reason: str = "") -> None:
        self._break()
        self._set_close_code(CloseCode.ABNORMAL_CLOSURE, reason)
        if self.fd >= 0:
            self._shutdown(socket.SHUT_RDWR)

    def _break(self) -> None:
        """Nothing more will be sent or delivered."""
        self.open = False
        self._over = True
        self._outgoing = self._corked = None
        self._listener.corked.discard(self)
        self._end_waiting()

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError as error:
            logger.debug("%s: shutdown: %s", self, error)  # the peer was faster

    def _set_close_code(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code = int(code)
            self.close_reason = reason

    def _check_open(self) -> None:
        if not self.open:
            raise ConnectionClosed(self.close_code or CloseCode.ABNORMAL_CLOSURE, self.close_reason)

    def _answer_close(self) -> None:
        """Answer the client's close frame or fail the connection, if that is still to be done. Takes the lock.

        By the consumer, after what came before it; by the listener, where a busy server would keep the client
        waiting.
        """
        with self._lock:
            if self.open:
                self._send_answer()

    def _send_answer(self) -> None:
        """Answer the client's close frame with its own code (RFC 6455 §5.5.1), or fail the connection."""
        protocol = self._protocol
        failed = protocol.state is State.FAILED
        frame = protocol.encode_close(protocol.close_code, protocol.close_reason if failed else "")
        self._send_close(frame, protocol.close_code, protocol.close_reason)

    def _lost(self) -> None:
        """The peer's side has ended, or the connection is broken. For the listener; takes the lock."""
        with self._lock:
            self._break()
            self._set_close_code(CloseCode.ABNORMAL_CLOSURE, "")
            if self._timer is not None:
                self._timer.cancel()
            self._listener.forget(self)
            self.fd = -1
            self._socket.close()
            self._schedule()
