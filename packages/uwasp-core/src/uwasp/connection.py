"""One taken-over connection: its socket, what waits to be delivered, what waits to be sent, and how it ends.

Three parties meet here. The *listener* calls `receive` and `flush` when the socket is ready, and is alone in closing
the descriptor. One *consumer* at a time calls `consume`, which runs the server's methods. Any thread or greenlet calls
`send`, `ping` and `close`. What they share is guarded by `lock`, which nobody holds while waiting or while user code
runs. The rules of RFC 6455 are not here but in `uwasp.protocol`.
"""

from __future__ import annotations

import logging
import socket
from _socket import socket as Socket  # the C class: the name in `socket` is replaced when gevent patches it
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uwasp.exceptions import ConnectionClosed
from uwasp.poller import READABLE, WRITABLE
from uwasp.protocol import CloseCode, FrameProtocol, State

if TYPE_CHECKING:
    from uwasp.listener import Listener, Timer
    from uwasp.server import ServerInterface

__all__ = ["Connection"]

logger = logging.getLogger("uwasp.connection")
server_logger = logging.getLogger("uwasp.server")

READ_SIZE = 2**16  # bytes
# Without it, a client that is gone would end the process by SIGPIPE, or have uWSGI log it.
SEND_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)
# The client's close frame is answered after the replies to what came before it, if they are given this soon (seconds).
CLOSE_ANSWER_DELAY = 0.1
# How long a peer may take for its part of the closing (seconds), after which the connection is cut.
CLOSE_TIMEOUT = 10.0


class Connection:
    """A connection after its handshake.

    Args:
        fd: the descriptor of the connected socket; the connection owns it from here on.
        protocol: its frames, fresh.

    Attributes:
        open: messages can be sent: no close frame has been sent, and the connection is not lost.
        close_code: the code of the close frame that came first, from either side (RFC 6455 §7.4); 1006 if the
            connection was lost without one; `None` while there has been neither.
        close_reason: the reason that goes with it.
        fd: the descriptor; -1 once it is closed.
    """

    __slots__ = (
        "_busy",
        "_deflate_lock",
        "_discarding",
        "_half_closed",
        "_inbox",
        "_listener",
        "_lock",
        "_opened",
        "_outgoing",
        "_over",
        "_protocol",
        "_server",
        "_socket",
        "_timer",
        "close_code",
        "close_reason",
        "fd",
        "open",
    )

    def __init__(self, fd: int, protocol: FrameProtocol) -> None:
        self.fd = fd
        self.open = True
        self.close_code: int | None = None
        self.close_reason = ""
        self._socket = Socket(fileno=fd)
        self._socket.setblocking(False)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # uWSGI leaves Nagle's algorithm on
        self._protocol = protocol
        self._listener: Listener
        self._lock: Any
        self._deflate_lock: Any
        self._server: ServerInterface | None = None
        self._inbox: list[str | bytes] | None = None  # messages that no consumer has taken yet
        self._outgoing: bytearray | None = None  # what the socket has not taken yet
        self._busy = False  # in the listener's `ready`, or with a consumer
        self._opened = False  # `on_open` has been called
        self._over = False  # no message will be added to the inbox any more
        self._discarding = False  # the server closed: what it has not seen yet, it will not see
        self._half_closed = False  # all is said from our side, and what comes in is only waited out
        self._timer: Timer | None = None

    def attach(self, listener: Listener, server: ServerInterface, new_lock: Callable[[], Any]) -> None:
        """Called by the listener: what it and the consumers need."""
        self._listener = listener
        self._server = server
        self._lock = new_lock()
        self._deflate_lock = new_lock() if self._protocol.deflate is not None else None

    def start(self) -> None:
        """Called by the listener, once it looks for what arrives: `on_open` is due."""
        with self._lock:
            self._schedule()

    def abandon(self) -> None:
        """Close the socket of a connection that no listener has."""
        self.open = False
        self.fd = -1
        self._socket.close()

    # For any thread or greenlet

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message. See `uwasp.WebSocket.send`."""
        if self._protocol.deflate is None:
            frame = self._protocol.encode_message(message)
            with self._lock:
                self._check_open()
                self._write(frame)
        else:
            # What is compressed with the context of what went before has to go out in the same order. It can take
            # long, and the listener, which takes the other lock, must not wait.
            with self._deflate_lock:
                self._check_open()
                frame = self._protocol.encode_message(message)
                with self._lock:
                    self._check_open()
                    self._write(frame)

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
            self._send_close(frame, code, reason)
            scheduled = self._schedule()
        if scheduled:
            self._listener.wake()

    def terminate(self) -> None:
        """Cut the connection; the listener finds it lost."""
        with self._lock:
            self._cut()

    # For the listener

    def receive(self) -> None:
        """Read once what has arrived, answer what RFC 6455 has answered at once, and put the messages in the inbox."""
        try:
            data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        protocol = self._protocol
        if protocol.state is not State.OPEN:
            return
        messages = protocol.receive(data)
        with self._lock:
            if protocol.replies:
                if self.open:
                    self._write(protocol.replies)
                protocol.replies = b""
            if not self._over:
                if messages:
                    if self._inbox:
                        self._inbox += messages
                    else:
                        self._inbox = messages
                if protocol.state is not State.OPEN:
                    self._over = True
                    self._set_close_code(protocol.close_code, protocol.close_reason)
                    self._timer = self._listener.call_later(CLOSE_ANSWER_DELAY, self._answer_close)
                elif not messages:
                    return
                self._schedule()
            elif protocol.state is not State.OPEN:
                self._half_close()  # the answer to our close frame, or a fault instead of it

    def flush(self) -> None:
        """The socket takes more: send what waits."""
        with self._lock:
            outgoing = self._outgoing
            if outgoing is None:
                return
            sent = self._send_some(outgoing)
            del outgoing[:sent]
            if not outgoing:
                self._outgoing = None
                self._listener.poller.modify(self.fd, READABLE)
                if not self.open and self._protocol.state is not State.OPEN:
                    self._half_close()

    # For a consumer

    def consume(self) -> None:
        """Run the server's methods for all that has been received, in order. One consumer at a time."""
        server = self._server
        assert server is not None
        try:
            if not self._opened:
                self._opened = True
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
                for message in messages:
                    if self._discarding:
                        break
                    on_message(message)
        except BaseException as error:
            self._fault(error)
            self._finish()
            if not isinstance(error, Exception):
                raise
        else:
            self._finish()

    def _finish(self) -> None:
        """The last event. The connection stays scheduled for ever, so there is none after it."""
        self._answer_close()
        server, self._server = self._server, None
        assert server is not None
        try:
            server.on_close()
        except Exception:
            server_logger.exception("error in on_close of %s", type(server).__name__)

    def _fault(self, error: BaseException) -> None:
        """An exception came out of the server: say so, and close this connection."""
        if isinstance(error, ConnectionClosed) and not self.open:
            server_logger.debug("%s tried to send on its closed connection", type(self._server).__name__)
        else:
            server_logger.error(
                "error in %s, closing its connection with code 1011",
                type(self._server).__name__,
                exc_info=(type(error), error, error.__traceback__),
            )
        self.close(CloseCode.INTERNAL_ERROR, "internal error")

    # Below, the caller holds the lock, unless the docstring says otherwise

    def _schedule(self) -> bool:
        """Have a consumer look at this connection; return whether that is new."""
        if self._busy:
            return False
        self._busy = True
        self._listener.ready.append(self)
        return True

    def _write(self, data: bytes | bytearray) -> None:
        """Send, or queue what the socket does not take."""
        if self._outgoing is not None:
            self._outgoing += data
            return
        sent = self._send_some(data)
        if sent < len(data) and self.open:
            self._outgoing = bytearray(memoryview(data)[sent:])
            self._listener.poller.modify(self.fd, READABLE | WRITABLE)

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
        self._set_close_code(code, reason)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._listener.call_later(CLOSE_TIMEOUT, self.terminate)
        if self._protocol.state is not State.OPEN:
            self._half_close()

    def _half_close(self) -> None:
        """Both sides are done: say so to the TCP peer, who closes. To close at once could lose what is on its way.

        RFC 6455 §7.1.1.
        """
        if self._outgoing is None and not self._half_closed and self.fd >= 0:
            self._half_closed = True
            self._shutdown(socket.SHUT_WR)

    def _cut(self) -> None:
        self.open = False
        self._over = True
        self._outgoing = None
        self._set_close_code(CloseCode.ABNORMAL_CLOSURE, "")
        if self.fd >= 0:
            self._shutdown(socket.SHUT_RDWR)

    def _shutdown(self, how: int) -> None:
        try:
            self._socket.shutdown(how)
        except OSError as error:
            logger.debug("shutdown: %s", error)  # the peer was faster

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
                protocol = self._protocol
                failed = protocol.state is State.FAILED
                frame = protocol.encode_close(protocol.close_code, protocol.close_reason if failed else "")
                self._send_close(frame, protocol.close_code, protocol.close_reason)

    def _lost(self) -> None:
        """The peer's side has ended, or the connection is broken. For the listener; takes the lock."""
        with self._lock:
            self.open = False
            self._over = True
            self._outgoing = None
            self._set_close_code(CloseCode.ABNORMAL_CLOSURE, "")
            if self._timer is not None:
                self._timer.cancel()
            self._listener.forget(self.fd)
            self.fd = -1
            self._socket.close()
            self._schedule()
