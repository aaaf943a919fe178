"""The one thread of a bus that talks to Redis.

It is a real one, also where gevent has patched `threading`: it goes on while the application's hub is busy, or where
none runs. There it has a hub of its own, for what it uses, the client's sockets above all, is gevent's; so that what is
a thread in it is a greenlet of that hub.

It sends what is in the outbox, tells the receiver what is heard and who is alive, and makes a new connection when the
old one is no good. Only what makes a connection, which takes a while, runs in a thread of its own.

What was sent by a connection that broke, and not answered, may have been carried or not. It is not sent again, but told
as lost. Every process publishes a heartbeat every few seconds, so that a connection which is no good is noticed too.
"""

from __future__ import annotations

import logging
import math
import os
import random
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from uwasp.native import new_lock, original, start_thread, threads_are_greenlets
from uwasp.transport import Receiver
from uwasp_redis import claims, wire
from uwasp_redis.address import Address
from uwasp_redis.alive import Alive
from uwasp_redis.channels import Channels
from uwasp_redis.claims import Claims
from uwasp_redis.link import Link, LinkLost, Refused, connect
from uwasp_redis.outbox import Change, Entry, Outbox
from uwasp_redis.resp import ProtocolError, ServerError
from uwasp_redis.session import Heard, Session

__all__ = ["Carrier"]

logger = logging.getLogger("uwasp.redis")
get_ident: Callable[[], int] = original("_thread", "get_ident")

# All in seconds. Between two heartbeats of a process, and how long after one it counts as alive. A lease outlasts what
# it takes to notice that Redis does nothing, so that nobody is taken for gone for that: a heartbeat, the next that
# Redis does not answer, and `STALLED`.
HEARTBEAT = 3.0
LEASE = 12.0
# Within how long one answers who has come, and how long after a heartbeat, so that they are no more than so many.
SOON, SELDOM = 0.2, 0.5
# Before another attempt at a connection: at first, at last, and where Redis refuses us. They are shorter than a lease,
# so that who comes back late is not taken for gone by those who came back soon.
SOONEST, LATEST, REFUSED = 0.05, 5.0, 10.0
# An attempt that takes longer counts as being out of order, though it goes on.
SLOW = 1.0
# After a connection that lasted so long, attempts begin with the soonest again.
GOOD = 5.0
# The thread looks around so often. A turn that took longer was one in which it did not hear.
TURN = 1.0


class Carrier:
    """Begins with `start`, and ends when its outbox is closed.

    Args:
        address: where Redis is.
        channels: the names of its channels.
        process: the identity of this process.
        receiver: is told what arrives.
        outbox: what is to be sent.
        claims: the names that are to be held.
        largest: the most bytes of one message.
    """

    def __init__(
        self,
        address: Address,
        channels: Channels,
        process: bytes,
        receiver: Receiver,
        outbox: Outbox,
        claims: Claims,
        largest: int,
    ) -> None:
        self._address = address
        self._channels = channels
        self._process = process
        self._receiver = receiver
        self._outbox = outbox
        self._claims = claims
        self._largest = largest
        self._ident = 0
        self._ended = new_lock()  # held as long as the thread is there
        self.malformed = 0  # what came on our channels and was none of ours

        self._now = 0.0
        self._session: Session | None = None
        self._attempt: _Attempt | None = None
        self._retry_at = 0.0
        self._failures = 0  # in a row
        self._is_out_of_order = False  # there is no session, and not for the first moments only
        self._is_deaf = False  # since last all was heard, it was out of order; the receiver is told when it is well
        self._since = 0.0  # when that began
        self._said = ""  # of the trouble there is, what stands in the log

        self._backlog: deque[Entry] = deque()  # taken out of the outbox, not sent yet
        self._wanted: set[bytes] = set()  # the channels that are to be heard
        self._waiting: list[Change] = []  # for the first session: who is told that a channel is heard
        self._alive = Alive(LEASE)
        self._hearing = 0.0  # for how long we have been, in all
        self._expire_at = 0.0  # by that time
        self._hears = False
        self._heartbeat_at = 0.0
        self._may_answer_at = 0.0
        self._close_by: float | None = None
        self._has_said_goodbye = False
        self._claim_refused = ""  # why, as it stands in the log

    def start(self) -> None:
        """Raises:
        RuntimeError: the system has no thread left.
        """
        self._ended.acquire()
        try:
            start_thread(self._run)
        except BaseException:
            self._ended.release()
            raise

    def join(self, timeout: float) -> None:
        """Wait for its end, for at most `timeout` seconds. Holds up gevent's hub for so long."""
        if self._ident == get_ident():
            return
        if self._ended.acquire(timeout=timeout):
            self._ended.release()

    def _run(self) -> None:
        self._ident = get_ident()
        self._now = time.monotonic()
        self._poller = select.poll()
        self._poller.register(self._outbox.bell, select.POLLIN)
        try:
            while self._turn():
                pass
        except Exception:
            logger.exception("the bus on %s has ended by a fault of its own", self._address.name)
        finally:
            self._end()
            if threads_are_greenlets():
                sys.modules["gevent"].get_hub().destroy(destroy_loop=True)
            self._ended.release()

    def _turn(self) -> bool:
        """Wait for something to do, and do it. Returns whether there is to be another."""
        ready = dict(self._poller.poll(self._patience() * 1000))
        if self._outbox.bell in ready:
            os.eventfd_read(self._outbox.bell)
        before, self._now = self._now, time.monotonic()
        taken = self._outbox.take()
        self._close_by = taken.close_by
        self._backlog += self._answerable(taken.entries)
        for expected in taken.unanswered:
            self._call(expected, -1)
        if self._session is None:
            self._connect()
        for channel, heard in taken.changes:
            self._change(channel, heard)
        if self._session is not None:
            try:
                self._converse(self._session, self._session.link.fd in ready, self._now - before)
            except (LinkLost, OSError, ProtocolError) as error:
                self._lose_session(self._session, error)
        return self._close_by is None or self._has_to_go_on(self._close_by)

    def _patience(self) -> float:
        """For how long nothing has to be done, in seconds, if nothing comes."""
        due = self._now + TURN
        if self._session is not None:
            due = self._now if self._session.has_more else min(due, self._heartbeat_at)
        elif self._attempt is None:
            due = min(due, self._retry_at)
        if self._close_by is not None:
            due = min(due, self._close_by)
        return max(0.0, due - time.monotonic())

    # With a session.

    def _converse(self, session: Session, is_readable: bool, elapsed: float) -> None:
        # If it seems stalled, it may be we who did not run.
        if is_readable or session.has_more or session.is_stalled(self._now):
            session.receive(self._now)
        if self._hears:
            self._hearing += min(elapsed, TURN)
            if self._hearing >= self._expire_at:
                self._expire_at = self._hearing + TURN
                for process in self._alive.expire(self._hearing):
                    self._call(self._receiver.gone, process)
        if session.is_stalled(self._now):
            raise LinkLost("it has not answered for some seconds")
        if self._close_by is not None and not self._backlog and not self._has_said_goodbye:
            for name in self._claims.let_go(self._now):
                session.ask(claims.release(self._channels.claim(name), self._process), self._released)
            session.say(wire.GOODBYE)
            self._has_said_goodbye = True
            self._heartbeat_at = math.inf
        for name in self._claims.due(self._now):
            answered = partial(self._claim_answered, name, self._now)
            session.ask(claims.take(self._channels.claim(name), self._process, LEASE), answered)
        if self._now >= self._heartbeat_at:
            session.say(wire.ALIVE)
            self._heartbeat_at = self._now + HEARTBEAT
            self._may_answer_at = self._now + SELDOM
        wanted_to_send = session.wants_to_send
        self._outbox.sent(session.send(self._backlog, self._now))
        if session.wants_to_send != wanted_to_send:
            self._poller.modify(session.link.fd, select.POLLIN | (select.POLLOUT if session.wants_to_send else 0))

    def _begin_session(self, link: Link) -> None:
        session = Session(
            link, self._channels, self._process, bool(self._address.service), self._message, self._call, self._now
        )
        self._session = session
        self._poller.register(link.fd, select.POLLIN)
        self._is_out_of_order = False
        self._heartbeat_at = self._now + HEARTBEAT
        self._may_answer_at = self._now
        self._claims.ask_anew()
        waiting, self._waiting = self._waiting, []
        for channel in self._wanted:
            session.subscribe(channel, None)
        for channel, heard in waiting:
            if channel in self._wanted:
                session.subscribe(channel, heard)
            elif heard is not None:  # it has been left meanwhile
                self._call(heard)
        session.subscribe(self._channels.own, None)
        session.subscribe(self._channels.all, None)
        session.say(wire.HELLO, self._hear)

    def _hear(self, processes: int) -> None:
        """All channels are heard, be it anew, and Redis carries what we publish; unless this is negative."""
        if processes < 0:
            return
        self._hears = True
        self._alive.renew(self._hearing)
        if self._is_deaf:
            self._is_deaf = False
            self._said = ""
            logger.warning("the bus on %s works again, after %.1f s", self._address.name, self._now - self._since)
            self._call(self._receiver.missed, None)

    def _claim_answered(self, name: str, asked_at: float, answer: object) -> None:
        if not isinstance(answer, ServerError):
            self._claims.answered(name, asked_at, answer == 1)
            self._claim_refused = ""
        elif answer != self._claim_refused:  # what was held lapses by itself
            self._claim_refused = answer
            logger.error(
                "the bus on %s lets this process claim nothing, so what is for one process alone is done by none: %s",
                self._address.name,
                answer,
            )

    def _released(self, answer: object) -> None:
        """If it was not, it lapses."""

    def _message(self, channel: bytes, payload: bytes | None) -> None:
        try:
            if payload is None:
                raise wire.Malformed("it is too large")
            kind, process, messages = wire.unpack(payload)
        except wire.Malformed as malformed:
            self._note(malformed)
            return
        if process == self._process:
            return
        if kind == wire.GOODBYE:
            if self._alive.leave(process):
                self._call(self._receiver.gone, process)
            return
        if self._alive.heard(process, self._hearing):
            self._call(self._receiver.appeared, process)
        if kind == wire.HELLO:
            # One answer for all who have come of late: a hundred that come at once are no ten thousand answers.
            soon = max(self._now, self._may_answer_at) + random.uniform(0, SOON)
            self._heartbeat_at = self._heartbeat_at if self._has_said_goodbye else min(self._heartbeat_at, soon)
        if kind == wire.LOST:
            self._call(self._receiver.missed, self._channels.group_of(channel))
        for message in messages:
            self._call(self._receiver.received, message)

    def _note(self, malformed: wire.Malformed) -> None:
        self.malformed += 1
        if self.malformed == 1:
            logger.warning(
                "the bus on %s carries what none of ours has sent, or a newer one (%s); it is counted and ignored",
                self._address.name,
                malformed,
            )

    # Without one.

    def _connect(self) -> None:
        """Begin, or see after, an attempt at a connection."""
        if self._attempt is None:
            if self._now < self._retry_at:
                return
            self._attempt = _Attempt(self._address, self._largest, self._outbox.bell)
            try:
                self._attempt.start()
            except RuntimeError as error:
                self._attempt = None
                self._fail(error)
        elif self._attempt.outcome is None:
            if not self._is_out_of_order and self._now - self._attempt.began > SLOW:
                self._be_out_of_order("it has not answered yet")
        else:
            outcome, self._attempt = self._attempt.outcome, None
            if isinstance(outcome, Link):
                self._begin_session(outcome)
            else:
                self._fail(outcome)

    def _lose_session(self, session: Session, error: Exception) -> None:
        self._session = None
        self._hears = False
        self._poller.unregister(session.link.fd)
        lost = session.end()
        self._backlog.extendleft(self._outbox.lose(lost))
        if self._now - session.began > GOOD:
            self._failures = 0
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        is_refused = isinstance(error, Refused)
        longest = REFUSED if is_refused else min(LATEST, SOONEST * 2**self._failures)
        self._retry_at = self._now + random.uniform(0.6, 1) * longest
        self._failures = min(self._failures + 1, 20)
        self._be_out_of_order(str(error) or type(error).__name__, is_refused)

    def _be_out_of_order(self, why: str, is_refused: bool = False) -> None:
        self._is_out_of_order = True
        if not self._is_deaf:
            self._is_deaf = True
            self._since = self._now
        waiting, self._waiting = self._waiting, []
        for _, heard in waiting:
            if heard is not None:
                self._call(heard)
        self._backlog = self._answerable(self._backlog)
        said = "refuses us" if is_refused else "is out of order"
        if said != self._said:
            self._said = said
            logger.error(
                "the bus on %s %s (%s); until that is over, which is tried on and on, each process has its own groups",
                self._address.name,
                said,
                why,
            )

    def _answerable(self, entries: deque[Entry]) -> deque[Entry]:
        """These entries, without the questions if it is out of order: who asked is told so."""
        if not self._is_out_of_order:
            return entries
        asking = [entry for entry in entries if entry[2] is not None]
        if asking:
            self._outbox.sent(asking)
            entries = deque(entry for entry in entries if entry[2] is None)
            for _, _, expected in asking:
                if expected is not None:
                    self._call(expected, -1)
        return entries

    # Both.

    def _change(self, channel: bytes, heard: Heard | None) -> None:
        if heard is None:
            self._wanted.discard(channel)
            if self._session is not None:
                self._session.unsubscribe(channel)
            return
        self._wanted.add(channel)
        if self._session is not None:
            self._session.subscribe(channel, heard)
        elif self._is_out_of_order:
            self._call(heard)
        else:
            self._waiting.append(Change(channel, heard))

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call what others gave us. What it raises ends nothing."""
        try:
            function(*arguments)
        except Exception:
            logger.exception("the bus on %s: %r failed", self._address.name, function)

    def _has_to_go_on(self, close_by: float) -> bool:
        """Whether there is something to do still, now that the outbox is closed, and time for it."""
        if self._now >= close_by:
            return False
        if self._session is None:
            return bool(self._backlog)
        return not (self._has_said_goodbye and self._session.is_settled)

    def _end(self) -> None:
        if self._attempt is not None:
            self._attempt.abandon()
        self._outbox.end()
        if self._session is not None:
            self._session.end()
        self._is_out_of_order = True
        self._answerable(self._backlog)
        for _, heard in self._waiting:
            if heard is not None:
                self._call(heard)
        if self._backlog:
            logger.warning("the bus on %s has ended with %d messages unsent", self._address.name, len(self._backlog))


class _Attempt:
    """Makes a connection in a thread of its own, then rings the bell.

    Attributes:
        began: when.
        outcome: the connection, or why there is none; `None` as long as that is not known.
    """

    def __init__(self, address: Address, largest: int, bell: int) -> None:
        self.began = time.monotonic()
        self.outcome: Link | Exception | None = None
        self._address = address
        self._largest = largest
        self._bell = bell
        self._lock = new_lock()
        self._is_abandoned = False

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: the system has no thread left.
        """
        threading.Thread(target=self._run, name="uwasp-redis-connect", daemon=True).start()

    def abandon(self) -> None:
        """Nobody wants it any more, nor hears the bell."""
        with self._lock:
            self._is_abandoned = True
        if isinstance(self.outcome, Link):
            self.outcome.close()

    def _run(self) -> None:
        outcome: Link | Exception
        try:
            outcome = connect(self._address, self._largest)
        except LinkLost as error:
            outcome = error
        except Exception as error:
            logger.exception("the bus on %s: making a connection failed by a fault of ours", self._address.name)
            outcome = error
        with self._lock:
            if not self._is_abandoned:
                self.outcome = outcome
                os.eventfd_write(self._bell, 1)
                return
        if isinstance(outcome, Link):
            outcome.close()
