"""One taken-over connection, whole: whose it is, how it is kept alive, and how its events reach its server.

Three parties meet here. The *listener* calls `receive` and `flush` when the socket is ready, and is alone in closing
the descriptor. One *consumer* at a time goes through the steps `begin`, `take`, `fail`, `done`, or has `consume` do
so. Any thread or greenlet calls `send`, `ping` and `close`. A connection is one object; its parts are base classes,
each in a module of its own: `uwasp.outgoing`, `uwasp.incoming`, `uwasp.closing`. The rules of RFC 6455 are in
`uwasp.protocol`.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from uwasp.closing import Closing
from uwasp.conversations import Conversation
from uwasp.events import Told
from uwasp.exceptions import ConnectionClosed, Undecodable
from uwasp.incoming import SLICE, SLICE_IS_OVER, Event
from uwasp.outgoing import CORKED_TIME
from uwasp.protocol import OPEN, CloseCode, FrameProtocol, State
from uwasp.server import hint

if TYPE_CHECKING:
    from uwasp.listener import Listener
    from uwasp.options import Options
    from uwasp.server import ServerInterface

__all__ = ["Connection"]

logger = logging.getLogger("uwasp.connection")
server_logger = logging.getLogger("uwasp.server")

_numbers = itertools.count(1)

# What a server may raise without ending more than its connection: `sys.exit()` in one is not about the others.
OF_THE_SERVER = (Exception, SystemExit, KeyboardInterrupt)


class Observer(Protocol):
    """Is told what becomes of a connection's server, as a test wants to know. What is called must not wait."""

    def failed(self, error: BaseException) -> object:
        """The server has raised an error. Called in whatever runs the server, before the connection is closed."""

    def receives(self) -> object:
        """The server, which is a function, is about to receive a message."""

    def done(self) -> object:
        """The server's last event is over, or it has returned if it is a function: nothing of it runs any more."""


class Connection(Closing):
    """A connection after its handshake.

    Args:
        fd: the descriptor of the connected socket; the connection owns it from here on.
        protocol: its frames, fresh.
        options: its limits and times.
        peer: the client's address, for the log.
        place: the path that it asked for, quoted, for the log.
        route: the path that its server has, or the pattern, quoted, for the figures (default: the `place`).

    Attributes:
        open: messages can be sent: no close frame has been sent, and the connection is not lost.
        close_code: the code of the close frame that came first, from either side (RFC 6455 §7.4); 1006 if the
            connection was lost without one; `None` while there has been neither.
        close_reason: the reason that goes with it.
        context: for its handler, to keep what belongs to it; `None` at first, and after `done`.
        conversation: the `server`, if it is a `Conversation`: a function, which goes through the steps itself. Whoever
            takes the connection out of `ready` calls its `wake`, as `consume` does.
        fd: the descriptor; -1 once it is closed.
        give_place_back: called once, when the connection ends; `None` if it took no place (see `uwasp.admission`).
        memberships: what it is in, and leaves when it ends; see `enter`.
        session: says when it ends at the latest; `None` if nothing does.
        number: tells it from the other connections of this process, in the log.
        route: as given.
        observer: is told what becomes of its server; `None`: nobody wants to know.
        server: the user's object that its events are for; `None` after `done`.
        messages_in, messages_out, bytes_in, bytes_out: what has gone over it; bytes on the wire, after the handshake.
    """

    __slots__ = (
        "_event_began",
        "_is_fast",
        "_opened_at",
        "_peer",
        "_pinged",
        "_place",
        "context",
        "conversation",
        "observer",
        "route",
        "server",
    )

    def __init__(
        self, fd: int, protocol: FrameProtocol, options: Options, peer: str, place: str, route: str | None = None
    ) -> None:
        super().__init__(fd, protocol, options)
        self.number = next(_numbers)
        self.server: Any = None
        self.context: Any = None
        self.conversation: Conversation | None = None
        self.observer: Observer | None = None
        self._peer = peer
        self._place = place
        self.route = place if route is None else route
        self._opened_at: float | None = None  # when `on_open` became due, in seconds of `time.monotonic()`
        self._is_fast = False  # the server's last `on_message` was
        self._event_began = 0.0  # of several that are corked, in seconds of `time.monotonic()`; 0 before the first
        self._pinged = 0.0  # when a ping was sent that nothing has answered yet; 0 for none

    def __str__(self) -> str:
        return f"connection {self.number} of {self._peer} at {self._place}"

    def attach(self, listener: Listener, server: ServerInterface | Conversation, new_lock: Callable[[], Any]) -> None:
        """Called by the listener: what it and the consumers need."""
        self._listener = listener
        self.server = server
        if isinstance(server, Conversation):
            self.conversation = server
        self._lock = new_lock()
        self._deflate_lock = new_lock() if self._protocol.deflate is not None else None
        self._heard = time.monotonic()

    def start(self) -> None:
        """Called by the listener, once it looks for what arrives: `on_open` is due."""
        with self._lock:
            if self._protocol.state is State.FAILED and self._timer is None:  # it was failed before anything was read
                self._client_has_ended_locked()
            if self.session is not None:
                self.session.begin(self._listener)
            self._schedule_locked()

    def abandon(self) -> None:
        """Give up a connection whose handler failed. A listener that has it already closes it, and calls `on_close`."""
        if getattr(self, "_listener", None) is not None:
            self.close(CloseCode.INTERNAL_ERROR, "internal error", "a failure of its handler")
            return
        self._leave_place()
        self._protocol.lose()
        self.fd = -1
        self._socket.close()

    # For the listener

    def keep_alive(self, now: float) -> None:
        """Ping a client that has been silent for long; close the connection if that is not answered.

        Args:
            now: in seconds of `time.monotonic()`.
        """
        options = self._options
        if options.ping_interval is None or self._paused or self._protocol.state is not OPEN:
            return
        if self._pinged:
            if self._heard >= self._pinged:
                self._pinged = 0.0
            elif options.ping_timeout is not None and now - self._pinged >= options.ping_timeout:
                self.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout", "keepalive")
        elif now - self._heard >= options.ping_interval:
            with self._lock:
                if self.open:
                    self._write_locked(self._protocol.encode_ping())
                    self._pinged = now

    # For a consumer

    def begin(self, cork: bool = False) -> bool:
        """The first step of a consumer, which has taken this connection out of `ready`.

        Args:
            cork: whether `cork` may keep something back, as for `consume`.

        Returns:
            Whether the server's `on_open` is to be called now, before anything else.
        """
        self._may_cork = cork
        self._slice_ends = 0.0
        if self._opened_at is not None:
            return False
        self._opened_at = self._listener.now
        logger.info("%s is open", self)
        return True

    def cork(self) -> None:
        """Before each event of several: as long as the server is fast, what it sends is kept back, to go with what it
        sends next. `send_corked` comes after the last; and `uncork`, if the consumer is suspended in between.
        """
        now = time.monotonic()
        if self._event_began:
            self._is_fast = now - self._event_began < CORKED_TIME
        self._event_began = now
        if self._corked is not None:
            if now - self.corked_since >= CORKED_TIME:
                self.flush_corked()
        elif self._is_fast and self._may_cork:
            self._corked = bytearray()
            self.corked_since = now
            self._listener.cork(self)

    def send_corked(self) -> None:
        """After the last of several events: send what is kept back."""
        self._event_began = 0.0
        if self._corked is not None:
            self.flush_corked()

    def fail(self, error: BaseException) -> None:
        """The server raised an exception out of `on_open` or of an event: say so, and close this connection.

        That another connection is closed, to which it tried to send, is not its own end: it is logged, and it goes on.
        That a message cannot be decoded is the client's fault, and closes with 1007.
        """
        server = self.server.__class__.__name__  # not `type`: something may stand for it
        name = server if self.conversation is None else self.conversation.name
        if isinstance(error, Undecodable):
            server_logger.info("%s sent what %s cannot decode: %s", self, name, error)
            self.close(error.code, error.reason, "a fault of the client's")
            return
        if isinstance(error, ConnectionClosed) and error.id not in (None, self.number):
            server_logger.warning("%s for %s did not get on: %s; its own goes on", name, self, error, exc_info=error)
            return
        if isinstance(error, ConnectionClosed) and not self.open:
            server_logger.debug("%s tried to send on the closed %s", name, self)
        else:
            self.tell_failed(error)
            server_logger.error("error in %s, closing %s with code 1011%s", name, self, hint(error), exc_info=error)
        self.close(CloseCode.INTERNAL_ERROR, "internal error", "an error in the server")

    def done(self, error: BaseException | None = None) -> None:
        """The last step: the server's `on_close` has returned, or raised an `error`, which is logged."""
        server, self.server, self.conversation = self.server, None, None
        self.context = None
        if error is not None:
            server_logger.error("error in on_close of %s for %s", server.__class__.__name__, self, exc_info=error)
            self.tell_failed(error)
        self._listener.count_served()
        if self.observer is not None:
            self.observer.done()

    def tell_failed(self, error: BaseException) -> None:
        """The server has raised an error, on account of which the connection is to be closed, or out of `on_close`."""
        if self.observer is not None:
            self.observer.failed(error)

    def consume(self, cork: bool = False) -> bool:
        """All steps, with the server's methods called in between: for a scheduler that has them called here and now.

        Args:
            cork: what the server sends on this connection, while it handles several messages that have been waiting
                for it, is sent together where it comes fast enough. Who asks for that and can be suspended in here,
                as a greenlet can, has `uncork` called when it is.

        Returns:
            Whether its slice was over before all was done: the rest is in `ready`, behind the others.

        Raises:
            BaseException: what a server raised that is for the consumer and not about the server, such as gevent's
                `GreenletExit`. The connection is closed, and `on_close` was called.
        """
        if self.conversation is not None:
            self.conversation.wake()
            return False
        server = self.server
        foreign = None
        self._may_cork = cork
        self._slice_ends = 0.0
        if self._opened_at is None and self.begin(cork):
            try:
                server.on_open()
            except BaseException as error:
                foreign = self._failed(error)
        while events := self.take():
            if len(events) > 1 or self._telling:
                foreign = self._consume_several(events, server) or foreign
                continue
            try:
                server.on_message(events[0])
            except BaseException as error:
                foreign = self._failed(error) or foreign
        if events is None:
            foreign = self._consume_end(server) or foreign
        if foreign is not None:
            raise foreign
        return events is SLICE_IS_OVER

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Told):
            event.tell(self.server)
        else:
            self.server.on_message(event)

    def _consume_several(self, events: list[Event], server: ServerInterface) -> BaseException | None:
        """Until the slice is over. As long as the server is fast, and it may be, its answers are kept back together."""
        monotonic = time.monotonic
        before = monotonic()
        if not self._slice_ends:
            self._slice_ends = before + SLICE
        slice_ends = self._slice_ends
        foreign = None
        telling, self._telling = self._telling, False
        following = iter(events)
        try:
            for event in following:
                if self._corked is None and self._is_fast and self._may_cork:
                    self._corked = bytearray()
                    self.corked_since = before
                    self._listener.cork(self)
                if telling:
                    self._on_event(event)
                else:
                    server.on_message(event)
                now = monotonic()
                self._is_fast = now - before < CORKED_TIME
                if self._corked is not None and now - self.corked_since >= CORKED_TIME:
                    self.flush_corked()
                if now >= slice_ends:
                    break
                before = now
        except BaseException as error:
            foreign = self._failed(error)
        finally:
            if self._corked is not None:
                self.flush_corked()
        rest = list(following)
        if rest:
            self.put_back(rest)
        return foreign

    def _consume_end(self, server: ServerInterface) -> BaseException | None:
        try:
            server.on_close()
        except BaseException as error:
            self.done(error)
            return None if isinstance(error, OF_THE_SERVER) else error
        self.done()
        return None

    def _failed(self, error: BaseException) -> BaseException | None:
        """Fail, and return the exception where it is for whoever consumes."""
        self.fail(error)
        return None if isinstance(error, OF_THE_SERVER) else error

    def _ended(self) -> None:
        """Before `on_close`: what came before the client's close frame has been seen, so it is answered now."""
        self.answer_close()
        self._leave_memberships()
        logger.info(
            "%s is closed with %s %a by %s, after %.1f s with %d messages from the client and %d to it",
            self,
            self.close_code,
            self.close_reason,
            self.closed_by,
            time.monotonic() - (self._opened_at or self._heard),
            self.messages_in,
            self.messages_out,
        )
