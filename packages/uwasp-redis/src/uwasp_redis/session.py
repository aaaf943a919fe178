"""What we and Redis say to each other by one connection. When that breaks, this is over, and another begins anew.

Redis answers each PUBLISH, and confirms each channel, in order. So we know what has not been answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from uwasp_redis import wire
from uwasp_redis.channels import Channels
from uwasp_redis.link import Link, LinkLost, refusal
from uwasp_redis.outbox import Entry
from uwasp_redis.resp import ProtocolError, Push, ServerError, command, publish

__all__ = ["STALLED", "Session"]

# In seconds: Redis owes us an answer, and has done nothing for so long.
STALLED = 4.0
# Bytes that are made into commands at once; that wait for Redis' answers; of messages in one PUBLISH.
BATCH = 2**20
UNANSWERED = 2**22
TOGETHER = 2**16
# Channels in one SUBSCRIBE, and how often what is there is received before others have their turn.
AT_ONCE = 1000
RECEIVES = 8

Expected = Callable[[int], None]
Heard = Callable[[], None]
Answered = Callable[[object], None]


class _Asked(NamedTuple):
    """Stands where who asks how many stands: an answer, also an error, is for this alone."""

    answered: Answered


class Session:
    """Begins with `link`, which is new.

    Args:
        is_checked: ask now and then whether this is the master still, as there are sentinels who choose it.
        message: is called with channel and payload; a payload that is too large is `None`.
        call: calls what others gave us, with arguments, and survives what it raises.
        now: the time.
    """

    def __init__(
        self,
        link: Link,
        channels: Channels,
        process: bytes,
        is_checked: bool,
        message: Callable[[bytes, bytes | None], None],
        call: Callable[..., None],
        now: float,
    ) -> None:
        self.link = link
        self.began = now
        self._channels = channels
        self._process = process
        self._is_checked = is_checked
        self._message = message
        self._call = call
        self._last_sign = now  # of Redis, that it does something with this connection
        self._is_answered = True  # Redis owes us nothing
        self._is_full = False  # the socket took less than there was
        self._sending = memoryview(b"")
        self._commands: list[bytes] = []  # which go before what is to be published
        self._changes: list[tuple[bytes, bytes]] = []  # SUBSCRIBE or UNSUBSCRIBE, and the channel
        self._subscribed: set[bytes] = set()  # when all of these have been sent
        # Who is told when Redis confirms a change, in the order of the changes.
        self._unconfirmed: deque[tuple[bytes, Heard | None]] = deque()
        # In the order of the commands: the channel, if it matters when this was lost; who asked how many it went to, or
        # else what it was asked; whether one of them is us; and its bytes.
        self._unanswered: deque[tuple[bytes | None, list[Expected] | _Asked | None, bool, int]] = deque()
        self._unanswered_size = 0

    @property
    def has_more(self) -> bool:
        """Whether there is something to be received that a poller does not see."""
        return self.link.has_more

    @property
    def wants_to_send(self) -> bool:
        """Whether the socket took less than there is."""
        return self._is_full

    @property
    def is_settled(self) -> bool:
        """Whether all has been sent, and answered."""
        return not (self._sending or self._commands or self._changes or self._unanswered or self._unconfirmed)

    def subscribe(self, channel: bytes, heard: Heard | None) -> None:
        """Hear a channel. One that is heard already is confirmed once more."""
        self._subscribed.add(channel)
        self._changes.append((b"SUBSCRIBE", channel))
        self._unconfirmed.append((channel, heard))

    def unsubscribe(self, channel: bytes) -> None:
        if channel in self._subscribed:
            self._subscribed.discard(channel)
            self._changes.append((b"UNSUBSCRIBE", channel))
            self._unconfirmed.append((channel, None))

    def say(self, kind: bytes, answered: Expected | None = None) -> None:
        """Tell all processes hello, that we are alive, or goodbye. Nothing is lost with it.

        Args:
            answered: is called as who asks is, once Redis has carried this, and confirmed all channels before.
        """
        self._commands.append(publish(self._channels.all, wire.pack(kind, self._process)))
        self._unanswered.append((None, None if answered is None else [answered], False, 0))
        if self._is_checked:
            self._commands.append(command(b"ROLE"))
            self._unanswered.append((None, None, False, 0))

    def ask(self, question: bytes, answered: Answered) -> None:
        """Ask Redis something by a command.

        Args:
            answered: is called with the answer, also if that is an error. If the connection breaks before, it is not.
        """
        self._commands.append(question)
        self._unanswered.append((None, _Asked(answered), False, 0))

    def send(self, backlog: deque[Entry], now: float) -> list[Entry]:
        """Send what can be, of what is said here and of the backlog. Returns what was taken out of that.

        Raises:
            LinkLost, OSError: it cannot.
        """
        taken: list[Entry] = []
        while True:
            if not self._sending:
                self._sending = memoryview(self._make(backlog, taken, now))
                if not self._sending:
                    return taken
            sent = self.link.send(self._sending)
            self._sending = self._sending[sent:]
            if sent and self._is_full:
                self._last_sign = now
            self._is_full = bool(self._sending)
            if self._is_full:
                return taken

    def _make(self, backlog: deque[Entry], taken: list[Entry], now: float) -> bytes:
        """The next commands. Notes which answers they will have, and what was taken out of the backlog."""
        parts = [*self._make_changes(), *self._commands]
        self._commands.clear()
        size = 0
        while backlog and size < BATCH and self._unanswered_size < UNANSWERED:
            part = self._make_publish(backlog, taken)
            size += len(part)
            parts.append(part)
        if parts and self._is_answered:
            self._is_answered = False
            self._last_sign = now
        return b"".join(parts)

    def _make_changes(self) -> Iterable[bytes]:
        for verb, changes in groupby(self._changes, itemgetter(0)):
            channels = [channel for _, channel in changes]
            for first in range(0, len(channels), AT_ONCE):
                yield command(verb, *channels[first : first + AT_ONCE])
        self._changes.clear()

    def _make_publish(self, backlog: deque[Entry], taken: list[Entry]) -> bytes:
        """One PUBLISH, of as many messages as are for the same channel and follow each other."""
        entry = backlog.popleft()
        taken.append(entry)
        channel, data, expected = entry
        asking = [expected] if expected is not None else None
        if data is None:
            payload = wire.pack(wire.LOST, self._process)
        else:
            messages, size = [data], len(data)
            while backlog and backlog[0][0] == channel:
                entry = backlog[0]
                _, data, expected = entry
                if data is None or size + len(data) > TOGETHER:
                    break
                backlog.popleft()
                taken.append(entry)
                messages.append(data)
                size += len(data)
                if expected is not None:
                    asking = [*(asking or ()), expected]
            payload = wire.pack(wire.MESSAGES, self._process, messages)
        made = publish(channel, payload)
        self._unanswered.append((channel, asking, channel in self._subscribed, len(made)))
        self._unanswered_size += len(made)
        return made

    def receive(self, now: float) -> None:
        """Receive what has come, and tell what it means.

        Raises:
            LinkLost: also if Redis does not do what it was asked for.
            OSError, ProtocolError: the connection is no good.
        """
        for _ in range(RECEIVES):
            for value in self.link.receive():
                self._last_sign = now
                if type(value) is Push:
                    self._pushed(value)
                else:
                    self._answered(value)
            if not self.link.has_more:
                break
        self._is_answered = not (self._unanswered or self._unconfirmed)

    def _pushed(self, push: Push) -> None:
        if push[0] == b"message" and len(push) == 3:
            self._message(push[1], push[2])
        elif push[0] in (b"subscribe", b"unsubscribe"):
            channel, heard = self._unconfirmed.popleft() if self._unconfirmed else (None, None)
            if channel != push[1]:
                raise ProtocolError("it confirmed another channel than was asked for")
            if heard is not None:
                self._call(heard)

    def _answered(self, value: object) -> None:
        asked = self._unanswered[0][1] if self._unanswered else None
        if isinstance(value, ServerError) and not isinstance(asked, _Asked):
            raise refusal(value)
        if not self._unanswered:
            raise ProtocolError("it answered what was not asked")
        _, asking, is_us, size = self._unanswered.popleft()
        self._unanswered_size -= size
        if isinstance(asking, _Asked):
            self._call(asking.answered, value)
        elif isinstance(value, list):
            if value[:1] != [b"master"]:
                raise LinkLost("it is the master no longer")
        elif asking is not None:
            for expected in asking:
                self._call(expected, int(value) - is_us if isinstance(value, int) else -1)

    def is_stalled(self, now: float) -> bool:
        """Whether Redis has done nothing for too long, though it owes us an answer."""
        return not self._is_answered and now - self._last_sign > STALLED

    def end(self) -> list[bytes]:
        """It is over. Who waits is told; returns the channels for which something may be lost."""
        self.link.close()
        for _, heard in self._unconfirmed:
            if heard is not None:
                self._call(heard)
        for _, asking, _, _ in self._unanswered:
            for expected in asking if isinstance(asking, list) else ():
                self._call(expected, -1)
        return list(dict.fromkeys(channel for channel, _, _, _ in self._unanswered if channel is not None))
