"""How a connection ends: by the closing handshake, whoever begins it, or by being cut or lost.

What of that is RFC 6455 is decided in `uwasp.protocol`, whose `state` is the only one; what is here sends its close
frames, gives each step its time, and ends TCP. As in `uwasp.outgoing`, `_locked` in a name means that the caller holds
the lock.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from uwasp.incoming import Incoming
from uwasp.options import Options
from uwasp.protocol import OPEN, CloseCode, FrameProtocol, State

if TYPE_CHECKING:
    from uwasp.listener import Timer
    from uwasp.session import Session

__all__ = ["Closing"]

logger = logging.getLogger("uwasp.connection")

# The client's close frame is answered after the replies to what came before it, if they are given this soon (seconds).
CLOSE_ANSWER_DELAY = 0.1


class Membership(Protocol):
    """What a connection is in, and leaves when it ends."""

    def leave(self, connection: Closing) -> object:
        """Called once, in whatever thread or greenlet finds the connection's end, with no lock held. Must not wait."""


class Closing(Incoming):
    """The end of a connection.

    Attributes:
        closed_by: who or what ended it, in words for the log; empty while it is open.
        give_place_back: called once, when it ends; `None` if it took no place (see `uwasp.admission`).
        memberships: what it is in, by `enter`; `None`: nothing so far, or nothing any more.
        session: says when it ends at the latest; `None` if nothing does.
    """

    __slots__ = ("_has_left", "_timer", "closed_by", "give_place_back", "memberships", "session")

    def __init__(self, fd: int, protocol: FrameProtocol, options: Options) -> None:
        super().__init__(fd, protocol, options)
        self._timer: Timer | None = None  # ends the patience with the peer, or with the server
        self.closed_by = ""
        self.give_place_back: Callable[[], None] | None = None
        self.memberships: set[Membership] | None = None
        self.session: Session | None = None
        self._has_left = False

    # For any thread or greenlet

    def enter(self, membership: Membership) -> bool:
        """Have the connection leave it at its end: before `on_close`, or as soon as it is seen to be lost.

        Returns:
            False: it has ended; `leave` will not be called.
        """
        with self._lock:
            if self._has_left:
                return False
            if self.memberships is None:
                self.memberships = set()
            self.memberships.add(membership)
            return True

    def exit(self, membership: Membership) -> None:
        """It has left that already; if it was in it at all."""
        with self._lock:
            if self.memberships is not None:
                self.memberships.discard(membership)

    def close(self, code: int, reason: str, by: str = "the server") -> None:
        """Begin the closing handshake, unless it has begun. See `uwasp.WebSocket.close`.

        Args:
            code: the close code.
            reason: the close reason.
            by: who wants it, for the log.
        """
        self._protocol.encode_close(code, reason)  # what must not be sent is an error in any state
        with self._lock:
            if not self.open:
                return
            dropped = self._drop_events_locked()
            self._send_close_locked(code, reason, by)
            scheduled = self._schedule_locked()
        if scheduled:
            self._listener.wake()
        del dropped  # without the lock

    def go_away(self, position: float = 0.0) -> None:
        """Close it, unless it closes already, because this process ends (RFC 6455 §7.4.1).

        Args:
            position: when, as a part of its option `shutdown_spread`.
        """
        spread = self._options.shutdown_spread
        if position and spread is not None:
            self._listener.call_later(spread * position, self.go_away)
        else:
            self.close(CloseCode.GOING_AWAY, "", "the goodbye of its worker")

    def terminate(self, by: str = "the server") -> None:
        """Cut the connection; the listener finds it lost. See `uwasp.WebSocket.terminate`."""
        with self._lock:
            self._cut_locked(by)

    def _too_slow(self, was_slow: bool) -> None:
        """More waits for this client than a group waits for; `was_slow`: it is not the first time."""
        self._listener.count_slow_member()
        if not self._options.skip_slow_members:
            self.close(CloseCode.TRY_AGAIN_LATER, "too slow", "uWASP, as too slow for a group")
        if not was_slow:
            done = "it does not get what does" if self._options.skip_slow_members else "closed with code 1013"
            logger.warning("%s does not read as fast as its group is sent to: %s", self, done)

    # For the listener, and the consumer before `on_close`

    def answer_close(self) -> None:
        """Answer the client's close frame or fail the connection, if that is still to be done.

        By the consumer, after what came before it; by the listener, where a busy server would keep the client
        waiting.
        """
        with self._lock:
            if self.open:
                self._finish_closing_locked(self._protocol.answer())

    def _lost(self, by: str) -> None:
        """The peer's side has ended, or the connection is broken."""
        self._leave_place()  # before it is no longer counted as open: whoever sees that finds a place
        with self._lock:
            if self._protocol.unread is not None:
                self._parse_locked(b"", 0, sys.maxsize)
            self._end_locked(by)
            if self._timer is not None:
                self._timer.cancel()
            session, self.session = self.session, None
            if session is not None:
                session.end()
            self._listener.forget(self)  # type: ignore[arg-type]  # it is a Connection
            self.fd = -1
            self._socket.close()
            self._schedule_locked()
        self._leave_memberships()

    def _leave_memberships(self) -> None:
        with self._lock:
            self._has_left = True
            memberships, self.memberships = self.memberships, None
        for membership in memberships or ():
            try:
                membership.leave(self)
            except Exception:
                logger.exception("%s could not leave %r", self, membership)

    def _leave_place(self) -> None:
        give_back, self.give_place_back = self.give_place_back, None
        if give_back is not None:
            give_back()

    # The caller holds the lock

    def _send_close_locked(self, code: int, reason: str, by: str) -> None:
        if self._protocol.state is OPEN:
            self.closed_by = by
        self._finish_closing_locked(self._protocol.close(code, reason))
        if self._protocol.unread is not None:
            self._parse_locked(b"", 0)  # the client's close frame may be there

    def _finish_closing_locked(self, frame: bytes) -> None:
        """Send the close frame, ours or in answer, which is the last; then wait for the peer, not for ever."""
        if not frame:
            return
        self._withheld = b""  # nothing may follow the frame
        self._write_locked(frame)
        if self._protocol.state is State.LOST:
            return
        self._end_waiting_locked()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._listener.call_later(self._options.close_timeout, self._give_up)
        if self._paused:  # the answer is behind what was not read
            self._paused = False
            self._watch_locked()
        self._half_close_locked()

    def _give_up(self) -> None:
        self.terminate("the client, which did not end the closing handshake in time")

    def _client_has_ended_locked(self) -> None:
        """The client's close frame has come, or a fault of its; unless to answer it has cut the connection."""
        if self._protocol.state is State.LOST:
            return
        if self._protocol.state is State.CLOSED:
            self._half_close_locked()  # the answer to our close frame, or a fault instead of it
            return
        failed = self._protocol.state is State.FAILED
        self.closed_by = "a fault of the client's" if failed else "the client"
        self._timer = self._listener.call_later(CLOSE_ANSWER_DELAY, self.answer_close)
        self._schedule_locked()

    def _all_sent_locked(self) -> None:
        self._half_close_locked()

    def _half_close_locked(self) -> None:
        """Both sides are done: say so to the TCP peer, who closes. To close at once could lose what is on its way.

        RFC 6455 §7.1.1.
        """
        if self._protocol.state is State.CLOSED and self._outgoing is None and self.fd >= 0:
            self._shutdown(socket.SHUT_WR)

    def _cut_locked(self, by: str, reason: str = "") -> None:
        self._end_locked(by, reason)
        if self.fd >= 0:
            self._shutdown(socket.SHUT_RDWR)

    def _end_locked(self, by: str, reason: str = "") -> None:
        """Nothing more will be sent or received."""
        self.closed_by = self.closed_by or by
        self._protocol.lose(reason)
        self._outgoing = self._corked = None
        self._withheld = b""
        self._listener.corked.discard(self)
        self._end_waiting_locked()

    def _shutdown(self, how: int) -> None:
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(how)
