"""What comes in on a connection: reading, the inbox, and the steps by which a scheduler takes events out of it.

The *listener* calls `receive` when the socket is readable. A *consumer*, one at a time, takes the connection out of
`Listener.ready` and goes through the steps: `begin`, then `take` and what it returns, again and again. While the inbox
is full nothing is read, so that TCP slows the client down. As in `uwasp.outgoing`, `_locked` in a name means that the
caller holds the lock.

An *event* is what a server is told in its turn: a message, which is a `str` or `bytes`, or one of `uwasp.events`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from uwasp.events import Told
from uwasp.options import Options
from uwasp.outgoing import Outgoing
from uwasp.protocol import OPEN, FrameProtocol

__all__ = ["Event", "Incoming"]

Event = str | bytes | Told

READ_SIZE = 2**16  # bytes
LARGE_READ_SIZE = 2**18  # bytes; of a frame of which so much is still to come
# Of compressed data, which can be a thousand times as much when it is decompressed, before any limit is looked at.
COMPRESSED_READ_SIZE = 2**12  # bytes
# For how long a consumer stays with one connection, in seconds; then it is the turn of the others that are ready.
SLICE = 0.001
NONE_MISSED: Any = frozenset()
# What `take` returns then: an empty list like any other, for whoever does not care.
SLICE_IS_OVER: list[Event] = []


class Incoming(Outgoing):
    """What has been received on a connection and has not been seen by its server.

    What one read brought beyond `max_queue` messages stays with the protocol, `unread`, until the inbox is taken.
    """

    __slots__ = (
        "_batch",
        "_busy",
        "_heard",
        "_inbox",
        "_is_crowded",
        "_missed",
        "_queued",
        "_slice_ends",
        "_telling",
        "_told",
        "bytes_in",
        "messages_in",
    )

    def __init__(self, fd: int, protocol: FrameProtocol, options: Options) -> None:
        super().__init__(fd, protocol, options)
        protocol.max_messages = options.max_queue
        self.messages_in = self.bytes_in = 0
        self._inbox: list[Event] | None = None  # what no consumer has taken yet
        self._batch: list[Event] | None = None  # what a consumer has taken, seen or not
        self._queued = 0  # bytes that were read for the messages in the inbox, and what else counts
        self._told = 0  # events in the inbox that are no messages
        self._telling = False  # what was taken last may have such among it; `consume` looks
        self._missed: set[Any] = NONE_MISSED  # groups of which it waits there that something was lost
        self._is_crowded = False  # the inbox is full, and some of it had been put back
        self._busy = False  # in the listener's `ready`, or with a consumer
        self._heard = 0.0  # when something came last, in seconds of `time.monotonic()`
        self._slice_ends = 0.0  # in seconds of `time.monotonic()`; 0 for a consumer that has just begun

    @property
    def queued_messages(self) -> int:
        """The messages, and what else, that wait for the server, of those that have been looked at."""
        inbox = self._inbox
        return 0 if inbox is None else len(inbox)

    # For any thread or greenlet

    def tell(self, event: Told) -> bool:
        """Have the server told, in its turn. Never waits. Where the connection is over, there is nobody to tell.

        Returns:
            False: `max_queue` such events wait already, and this one is lost. The server is told so, once for each
            group, when it has been told those.
        """
        with self._lock:
            if self._protocol.state is not OPEN:
                return True
            has_room = self._told < self._options.max_queue
            if has_room:
                self._missed = NONE_MISSED
            elif event.group in self._missed:
                return False
            else:
                self._missed |= {event.group}
                event = Told("on_missed", event.group)
            if self._inbox is None:
                self._inbox = [event]
            else:
                self._inbox.append(event)
            self._told += 1
            self._queued += len(event)
            scheduled = self._schedule_locked()
        if scheduled:
            self._listener.wake()
        return has_room

    # For the listener

    def receive(self, hung_up: bool = False) -> None:
        """Read once what has arrived, answer what RFC 6455 has answered at once, and put the messages in the inbox.

        While the inbox is full nothing is read; unless the connection is `hung_up`, when what is left of it is as much
        as the kernel holds.
        """
        protocol = self._protocol
        if self._inbox is not None and not hung_up and self._is_full():
            with self._lock:
                if self._is_full():  # it still is
                    self._pause_locked()
            return
        try:
            if protocol.deflate is not None:
                data = self._socket.recv(COMPRESSED_READ_SIZE)
            elif protocol.remaining > READ_SIZE:
                data = self._socket.recv(LARGE_READ_SIZE)
            else:
                data = self._socket.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._broken(error)
            return
        if not data:
            self._broken(None)
            return
        self._heard = self._listener.now
        size = len(data)
        with self._lock:
            self.bytes_in += size
            self._parse_locked(data, size, sys.maxsize if hung_up else None)

    def _read_on(self, messages: list[Event], data: bytes, size: int, begun: int = 0) -> None:
        """The rest of `receive`, for the C: `messages` were read already, `data` follows; `size` is that of both, and
        `begun` bytes of the first had been read before.
        """
        with self._lock:
            self.bytes_in += size
            self._queued += begun
            self._parse_locked(data, size, messages=messages if self._protocol.state is OPEN else None)

    def _broken(self, error: OSError | None) -> None:
        """Nothing can be read any more: the stream has ended, or an error says why."""
        self._lost("the end of the stream, from the client or a proxy" if error is None else f"the kernel ({error})")

    # For a consumer

    def take(self) -> list[Event] | None:
        """The next events for the server, in order, `max_queue` at most, and as many again that were put back.

        When the consumer has been here for longer than a slice, the connection goes to the end of `ready`: others may
        be waiting for their turn.

        Returns:
            A list, which the consumer goes through from its beginning to its end and leaves as it is; nothing follows
            in it any more once the server closes the connection. An empty one: nothing for now, and the connection is
            given back; it comes into `ready` again. `None`: that was the end, and `on_close` is due.
        """
        if self._inbox and self._batch is not None:  # it is not the first since `begin`
            now = time.monotonic()
            if not self._slice_ends:
                self._slice_ends = now + SLICE
            elif now >= self._slice_ends:
                self._batch = None
                self._listener.ready.append(self)  # type: ignore[arg-type]  # it is a Connection
                return SLICE_IS_OVER
        with self._lock:
            self._batch = events = self._inbox
            if not events and (self._paused or self._protocol.unread is not None):
                self._read_on_locked()
                self._batch = events = self._inbox
            if events:
                if self._told:
                    self._told = 0
                    self._telling = True
                if self._paused or self._protocol.unread is not None:
                    self._empty_full_inbox_locked()
                else:
                    self._inbox = None
                    self._queued = 0
                return events
            if self._protocol.state is OPEN:
                self._busy = False
                return []
        self._ended()
        return None

    def _hear_again(self) -> None:
        """The rest of `take`, for the C, when all that was left unread has been looked at: the socket may have more."""
        with self._lock:
            self._read_on_locked()

    @property
    def slice_is_over(self) -> bool:
        """Whether others should have their turn; to be asked between two events, then `put_back` what is left."""
        now = time.monotonic()
        if not self._slice_ends:
            self._slice_ends = now + SLICE
        return now >= self._slice_ends

    def put_back(self, rest: list[Event]) -> None:
        """Have those be taken again, before what has come since, that the server was not given. Go on with `take` then.

        Args:
            rest: the end of what `take` returned.
        """
        with self._lock:
            if self._batch:  # else the server has closed the connection, and sees none of them
                self._inbox = rest + self._inbox if self._inbox else rest
                self._queued += sum(map(len, rest))
                self._told += sum(isinstance(event, Told) for event in rest)
                if self._is_full():
                    self._is_crowded = True
                    self._pause_locked()

    # The caller holds the lock

    def _parse_locked(
        self, data: bytes, size: int, most: int | None = None, messages: list[Event] | None = None
    ) -> None:
        """Have the protocol read, as many messages as the inbox has room for, and do what it finds.

        Args:
            data: what has arrived.
            size: how many bytes that is, and what `messages` were read from; 0 if they have been counted before.
            most: so many messages at most, if it is not for the inbox to say.
            messages: what was read before it.
        """
        protocol = self._protocol
        before = protocol.state
        inbox = self._inbox
        if most is None and (inbox or messages):
            most = max(0, protocol.max_messages - len(inbox or ()) - len(messages or ()))
        begun = protocol.begun
        found: list[Event] = protocol.receive(data, most)  # type: ignore[assignment]  # a list that nobody else has
        if messages:
            found = messages + found
        if protocol.replies:
            self._reply_locked(protocol.replies)
            protocol.replies = b""
        if found:
            self.messages_in += len(found)
            # What was compressed can be a thousand times as large now; else it is as much as was read for it, now and
            # before.
            self._queued += begun + size if size and protocol.deflate is None else sum(map(len, found))
            if inbox:
                inbox += found
            else:
                self._inbox = found
            if not self._busy:
                self._busy = True
                self._listener.ready.append(self)  # type: ignore[arg-type]  # it is a Connection
        if protocol.state is not before:
            self._client_has_ended_locked()

    def _pause_locked(self) -> None:
        """Read no more until a consumer has taken what is in the inbox."""
        if not self._paused:
            self._paused = True
            self._watch_locked()

    def _empty_full_inbox_locked(self) -> None:
        """All of it is taken at once. Others may come instead, unless it was full with what had been put back among it:
        a server that never gets through its slices would have more and more of them.
        """
        was_crowded, self._is_crowded = self._is_crowded, False
        self._inbox = None
        self._queued = 0
        if not was_crowded:
            self._read_on_locked()

    def _read_on_locked(self) -> None:
        """The inbox is empty: there is room for what was left unread, or for more from the socket."""
        if self._protocol.unread is not None:
            self._parse_locked(b"", 0)
        if self._paused and not self._is_full():
            self._paused = False
            self._heard = self._listener.now  # it could not be heard
            self._watch_locked()

    def _is_full(self) -> bool:
        if self._protocol.state is not OPEN:
            return False
        inbox = self._inbox
        return inbox is not None and (
            len(inbox) >= self._options.max_queue or self._queued >= self._options.max_queue_size
        )

    def _schedule_locked(self) -> bool:
        """Have a consumer look at this connection; return whether that is new."""
        if self._busy:
            return False
        self._busy = True
        self._listener.ready.append(self)  # type: ignore[arg-type]  # it is a Connection
        return True

    def _drop_events_locked(self) -> tuple[list[Event] | None, list[Event]]:
        """The server sees none of what it has not seen yet. Returned is what is to be let go of without the lock."""
        inbox, self._inbox = self._inbox, None
        self._told = 0
        batch, self._batch = self._batch, None
        if batch is None:
            return inbox, []
        # Not the first: where another thread closes, the consumer has just been given it, or is about to be. An empty
        # list would tell it that the connection was given back.
        dropped = batch[1:]
        del batch[1:]
        return inbox, dropped

    # How a connection ends, in `uwasp.closing` and `uwasp.connection`

    def _ended(self) -> None:
        raise NotImplementedError

    def _lost(self, by: str) -> None:
        raise NotImplementedError

    def _client_has_ended_locked(self) -> None:
        raise NotImplementedError
