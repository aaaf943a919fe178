"""Who of this process is in which group, and what the process says to others about it, and hears from them.

One `Membership` is one process's part in one bus. Members of the process are served directly, by each group's
`FanOut`; all others through the transport, in envelopes. What arrives does so in the transport's thread, is looked at
for its order, and goes the same way to the members here. Nothing waits here but `add`, and who asks for a group that
has no member in this process.

Under the lock nothing foreign runs: no user's code, no logging, nothing of a connection.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from uwasp import envelope, statistics
from uwasp.envelope import Envelope, Kind, Malformed, MemberState
from uwasp.events import Told
from uwasp.fanout import Backlog, FanOut, Farewell
from uwasp.identity import identity
from uwasp.incoming import SLICE
from uwasp.native import new_lock
from uwasp.presence import Member, Presence
from uwasp.protocol import encode_shared
from uwasp.server import Server

if TYPE_CHECKING:
    from uwasp.bus import Bus
    from uwasp.connection import Connection
    from uwasp.group import Group
    from uwasp.listener import Listener, Waiter
    from uwasp.transport import Transport
    from uwasp.websocket import WebSocket

__all__ = ["Membership"]

logger = logging.getLogger("uwasp.groups")

# How long `add` waits until this process hears the group, at most, in seconds.
HEARD_TIMEOUT = 1.0
# For how long joining and leaving is collected before other processes are told, in seconds.
GATHERED = 0.02
# For how long changes are collected before servers are told by `on_presence`, in seconds, and how much longer for each
# server that wants to know: a process spends a tenth of its time on it at most, where telling one takes 10 us.
PRESENCE_PERIOD = 0.05
PRESENCE_PERIOD_EACH = 0.0001
# How many members are told of in one envelope, and how many groups asked for, so that none gets too large.
PART = 200
# How many changes servers are told of at once, and how many members of a process that is gone are taken out: it takes
# a slice, in which nobody else has the lock.
MOST_AT_ONCE = 500
# How often others are asked whom they have in all groups, at most, in seconds: who loses an answer asks again.
ASKED_PERIOD = 2.0
# For so many groups it is remembered how much was sent to them.
MOST_SEQUENCES = 2**14
# So many processes that are gone are remembered, in case they come back.
MOST_GONE = 1024
# By so many first parts of names figures are kept; those of all others are under one.
MOST_FIGURES = 100
OTHERS = "(others)"
# How often the same trouble is logged, in seconds.
TROUBLE_PERIOD = 60.0


class _Here:
    """A group with members in this process."""

    __slots__ = (
        "_membership",
        "fanout",
        "figures",
        "group",
        "has_missed",
        "heard",
        "is_ready",
        "is_telling",
        "members",
        "parts",
        "presence",
        "snapshots",
        "waiting",
    )

    def __init__(self, membership: Membership, group: Group, fanout: FanOut, figures: Counter[str]) -> None:
        self._membership = membership
        self.group = group
        self.fanout = fanout
        self.figures = figures
        self.members: dict[Connection, WebSocket] = {}
        self.presence = Presence()
        self.parts: dict[bytes, set[int]] = {}  # of answers that come in several: whom they had so far
        self.heard: dict[bytes, tuple[int, int]] = {}  # sender -> the epoch and sequence that came last
        self.snapshots: dict[str, tuple[Connection, ...]] = {}  # those to whom something goes, by the server's method
        self.is_ready = False  # it is heard, and others have said whom they have
        self.waiting: list[Waiter] = []  # those who wait for that
        self.is_telling = False  # `on_presence` is due
        self.has_missed = False  # `on_missed` is due

    def leave(self, connection: Any) -> None:
        """Called when a connection ends."""
        self._membership.remove(self.group.name, connection)

    def those(self, method: str = "") -> tuple[tuple[Connection, ...], int]:
        """The members whose servers have a method; and the bytes that this takes which was not there yet."""
        found = self.snapshots.get(method)
        if found is not None:
            return found, 0
        found = tuple(one for one in self.members if not method or _hears(one.server, method))
        self.snapshots[method] = found
        return found, 8 * len(found)

    @property
    def listener(self) -> Listener:
        """Of one of the members."""
        return next(iter(self.members)).listener


class _Place:
    """Where this process is in what it sends to a group."""

    __slots__ = ("epoch", "figures", "sequence")

    def __init__(self, epoch: int, figures: Counter[str]) -> None:
        self.epoch = epoch
        self.sequence = 0
        self.figures = figures


class _Question:
    """Whom others have in a group. Done when as many have answered as it went to."""

    __slots__ = ("_answered", "_done", "_expected", "name", "presence")

    def __init__(self, name: str, done: Callable[[], object]) -> None:
        self.name = name
        self.presence = Presence()
        self._answered: set[bytes] = set()
        self._expected: int | None = None
        self._done = done

    def expect(self, others: int) -> None:
        self._expected = others
        self._look()

    def answered(self, process: bytes) -> None:
        self._answered.add(process)
        self._look()

    def _look(self) -> None:
        if self._expected is not None and len(self._answered) >= self._expected:
            self._done()


def _hears(server: object, method: str) -> bool:
    """Whether a server has a method that does something."""
    found = getattr(server.__class__, method, None)  # not `type`: something may stand for it
    return found is not None and found is not getattr(Server, method)


class Membership:
    """One process's part in one bus. It is the `Receiver` of its transport.

    Args:
        bus: the bus.
        transport_class: carries it.
        backlog: the bound of what waits for members here, in bytes.
        process: what it is known by on the bus: the identity of this process, or something else if that was used.
    """

    def __init__(self, bus: Bus, transport_class: type[Transport], backlog: int, process: bytes) -> None:
        self._bus = bus
        self._process = process
        self._lock = new_lock()
        self._backlog = Backlog(backlog)
        self._groups: dict[str, _Here] = {}
        # Also of a group that all have left, as long as something waits in it: who comes again is not to overtake that.
        self._fanouts: WeakValueDictionary[str, FanOut] = WeakValueDictionary()
        self._sequences: OrderedDict[str, _Place] = OrderedDict()  # that of the group used last is the last
        self._epoch = 1
        self._changed: dict[str, dict[int, MemberState | None]] = {}  # of our own members, since others were told
        # Who joins or leaves meanwhile is told afterwards: the rest of the answer would undo it.
        self._is_answering = False
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)  # of questions
        self._asked_all_at = -math.inf  # seconds of `time.monotonic()`
        self._has_to_ask = False  # all are to be asked again
        self._gone: OrderedDict[bytes, None] = OrderedDict()
        self._figures: dict[str, Counter[str]] = {}
        self._troubles: dict[str, float] = {}  # when each was logged, in seconds of `time.monotonic()`
        self._listener: Listener | None = None  # of a member that there was: it lives as long as the process
        self.transport = transport_class(bus.url, self._process, self)

    def open(self) -> None:
        """Begin."""
        self.transport.open()
        statistics.add_membership(self)

    def end(self, timeout: float) -> None:
        """Carry what was sent, for so many seconds at most, and part."""
        # uWSGI ends a worker in a signal handler, which can have interrupted whoever holds the lock.
        if self._lock.acquire(timeout=timeout):
            self._lock.release()
            self._publish_changes()
        self.transport.close(timeout)
        statistics.remove_membership(self)

    # For groups

    def add(self, name: str, ws: WebSocket, info: str, key: str | None) -> None:
        """See `uwasp.Group.add`."""
        connection = ws.connection
        state = MemberState(connection.number, key, info, time.time_ns() // 1000)
        with self._lock:
            here = self._groups.get(name)
            is_first = here is None
            if here is None:
                fanout = self._fanouts.get(name)
                if fanout is None:
                    fanout = self._fanouts[name] = FanOut(self._backlog)
                group = self._bus.group_named(name)
                here = self._groups[name] = _Here(self, group, fanout, self._figures_of(name))
            if connection not in here.members:
                here.members[connection] = ws
                here.snapshots.clear()
            self._change_locked(here, connection, state)
            if is_first:
                self.transport.subscribe(name, partial(self._heard, here))
        if not connection.enter(here):
            self.remove(name, connection)

    def is_heard(self, name: str, waiter: Waiter | None = None) -> bool:
        """Whether what anybody sends to the group comes here; if not yet, as long as this process has members in it.

        Args:
            waiter: is set when it does.
        """
        with self._lock:
            here = self._groups.get(name)
            if here is None or here.is_ready:
                return True
            if waiter is not None:
                here.waiting.append(waiter)
        return False

    def remove(self, name: str, connection: Connection) -> None:
        """See `uwasp.Group.remove`."""
        with self._lock:
            here = self._groups.get(name)
            if here is None or connection not in here.members:
                return
        connection.exit(here)  # before: whoever adds it again from now on has it enter again
        with self._lock:
            here = self._groups.get(name)
            if here is None or connection not in here.members:
                return
            del here.members[connection]
            here.snapshots.clear()
            self._change_locked(here, connection, None)
            if not here.members:
                del self._groups[name]
                self.transport.unsubscribe(name)

    def send(self, name: str, message: Any, excluded: list[tuple[bytes, int]]) -> None:
        """See `uwasp.Group.send`; those who are excluded are given as a process and a number there."""
        frame = encode_shared(message)
        kind = Kind.TEXT if isinstance(message, str) else Kind.BINARY
        payload = message.encode() if isinstance(message, str) else bytes(message)
        exclusions = envelope.exclusions([one for one in excluded if one[0] != self._process] if excluded else [])
        self._check_size(len(exclusions) + len(payload))
        numbers = self._own_numbers(excluded)
        with self._lock:
            here = self._groups.get(name)
            if here is not None:
                self._put_locked(here, frame, "", numbers)
            self._publish_locked(name, kind, exclusions, payload)
        if here is not None:
            here.fanout.run()

    def notify(self, name: str, dumped: bytes) -> None:
        """See `uwasp.Group.notify`."""
        self._check_size(len(dumped))
        with self._lock:
            here = self._groups.get(name)
            if here is not None:
                self._put_notification_locked(here, dumped)
            self._publish_locked(name, Kind.NOTIFY, dumped)
        self._run(here)

    def close(self, name: str, code: int, reason: str, key: str | None) -> None:
        """See `uwasp.Group.close`."""
        farewell = Farewell(code, reason)
        with self._lock:
            here = self._groups.get(name)
            if here is not None:
                self._put_farewell_locked(here, farewell, key)
            self._publish_locked(name, Kind.CLOSE, envelope.dump({"code": code, "reason": reason, "key": key}))
        self._run(here)

    def members(self, name: str) -> list[Member] | None:
        """Everybody who is in the group; `None` if others have to be asked."""
        with self._lock:
            here = self._groups.get(name)
            return None if here is None else here.presence.members()

    def ask(self, name: str, done: Callable[[], object]) -> Callable[[], list[Member]]:
        """Ask the others whom they have in a group. Never waits.

        Args:
            done: called when all have answered, in any thread; it must not wait.

        Returns:
            What returns those that have been named so far, and asks no longer.
        """
        question = _Question(name, done)
        number = self._ask(question)

        def answer() -> list[Member]:
            with self._lock:
                self._questions.pop(number, None)
                return question.presence.members()

        return answer

    def local(self, name: str) -> list[WebSocket]:
        """See `uwasp.Group.local`."""
        with self._lock:
            here = self._groups.get(name)
            return [] if here is None else list(here.members.values())

    # For `uwasp.statistics`

    def figures(self) -> dict[str, dict[str, int]]:
        """By the first part of the groups' names."""
        with self._lock:
            found = {first: Counter(figures) for first, figures in self._figures.items()}
            for name, here in self._groups.items():
                first = self._first_of(name)
                figures = found.setdefault(first, Counter())
                figures["groups"] += 1
                figures["members"] += len(here.members)
        return {first: dict(figures) for first, figures in found.items()}

    # For the transport: see `uwasp.transport.Receiver`

    def received(self, data: bytes) -> None:
        try:
            message = envelope.decode(data)
            if message.sender == self._process:
                return
            _REACTIONS.get(message.kind, Membership._pass_over)(self, message)
        except Malformed as error:
            with self._lock:
                self._figures_of("")["malformed"] += 1
            self._log_trouble("malformed", "something on %r is not understood, and ignored: %s", self._bus, error)

    def missed(self, channel: str | None) -> None:
        with self._lock:
            names = list(self._groups) if channel is None else [channel] if channel in self._groups else []
            for name in names:
                self._miss_locked(self._groups[name])
        if names and channel is None:
            self._ask_all()
        elif channel is not None:
            for asking in self._askings(names):
                self.transport.publish(channel, asking)
        if names:
            self._log_missed(names)

    def _ask_all(self) -> None:
        """Ask everybody whom they have in our groups; but if that was done just now, once more, in a while."""
        now = time.monotonic()
        with self._lock:
            due = self._asked_all_at + ASKED_PERIOD
            if now < due:
                if not self._has_to_ask and self._listener is not None:
                    self._has_to_ask = True
                    # Not all processes in the same moment, or the answers would be too many again.
                    self._listener.call_later(due - now + random.uniform(0, ASKED_PERIOD), self._ask_all_again)
                return
            self._asked_all_at = now
            names = list(self._groups)
        for asking in self._askings(names):
            self.transport.tell_all(asking)

    def _ask_all_again(self) -> None:
        with self._lock:
            self._has_to_ask = False
            names = list(self._groups)
            self._asked_all_at = time.monotonic() + GATHERED * len(names) / PART
        self._go_on_asking(self._askings(names))

    def _go_on_asking(self, askings: Iterator[bytes]) -> None:
        """In the listener, one after the other: what answers them all at once may be more than a bus keeps."""
        asking = next(askings, None)
        if asking is not None and self._listener is not None:
            self.transport.tell_all(asking)
            self._listener.call_later(GATHERED, partial(self._go_on_asking, askings))

    def appeared(self, process: bytes) -> None:
        with self._lock:
            if process not in self._gone:
                return
            del self._gone[process]
            names = list(self._groups)
        for asking in self._askings(names):
            self.transport.tell(process, asking)

    def gone(self, process: bytes) -> None:
        with self._lock:
            self._gone[process] = None
            if len(self._gone) > MOST_GONE:
                self._gone.popitem(last=False)
            groups = list(self._groups.values())
        for here in groups:
            while self._has_more_of(process, here):
                pass

    def _has_more_of(self, process: bytes, here: _Here) -> bool:
        """Take some members out that a process had in a group; return whether there are more."""
        with self._lock:
            here.heard.pop(process, None)
            here.parts.pop(process, None)
            has_more = here.presence.drop_some(process, MOST_AT_ONCE)
            self._tell_presence_soon_locked(here)
        return has_more

    # What others have sent

    def _message(self, message: Envelope) -> None:
        payload, excluded = envelope.without_exclusions(message.body)
        if message.kind == Kind.TEXT:
            try:
                frame = encode_shared(payload.decode())
            except UnicodeDecodeError:
                raise Malformed("a message of text is not UTF-8") from None
        else:
            frame = encode_shared(payload)
        numbers = self._own_numbers(excluded)
        with self._lock:
            here = self._follow_locked(message)
            if here is not None:
                self._put_locked(here, frame, "", numbers)
        self._run(here)

    def _notification(self, message: Envelope) -> None:
        envelope.load_given(message.body)
        with self._lock:
            here = self._follow_locked(message)
            if here is not None:
                self._put_notification_locked(here, message.body)
        self._run(here)

    def _farewell(self, message: Envelope) -> None:
        said = envelope.load(message.body)
        code, reason, key = said.get("code"), said.get("reason"), said.get("key")
        if type(code) is not int or not isinstance(reason, str) or not (key is None or isinstance(key, str)):
            raise Malformed("its code, reason or key is none")
        try:
            farewell = Farewell(code, reason)
        except ValueError as error:
            raise Malformed(str(error)) from None
        with self._lock:
            here = self._follow_locked(message)
            if here is not None:
                self._put_farewell_locked(here, farewell, key)
        self._run(here)

    def _presence(self, message: Envelope) -> None:
        said = envelope.load(message.body)
        joined = envelope.load_members(said.get("joined"))
        left = envelope.load_numbers(said.get("left"))
        with self._lock:
            here = self._follow_locked(message)
            if here is None:
                return
            for number in left:
                here.presence.drop(message.sender, number)
            for state in joined:
                here.presence.put(message.sender, state)
            self._tell_presence_soon_locked(here)

    def _pass_over(self, message: Envelope) -> None:
        """Of a kind that a later release has: it is none of ours, and nothing is missing where it was."""
        with self._lock:
            self._follow_locked(message)

    def _question(self, message: Envelope) -> None:
        said = envelope.load(message.body)
        question, names = said.get("question"), envelope.load_names(said.get("groups"))
        if type(question) is not int:
            raise Malformed("a question without its number")
        with self._lock:
            self._is_answering = True
        try:
            nobody = []
            for name in names:
                with self._lock:
                    here = self._groups.get(name)
                    members = [] if here is None else here.presence.of(self._process)
                    place = self._sequences.get(name)
                epoch, sequence = (0, 0) if place is None else (place.epoch, place.sequence)
                if members or question:
                    for answer in self._answers(name, members, epoch, sequence, question):
                        self.transport.tell(message.sender, answer)
                else:  # as for nearly all where many groups are asked for, which so many answers would be too much for
                    nobody.append((name, epoch, sequence))
            if nobody:
                dumped = envelope.dump({"groups": nobody})
                self.transport.tell(message.sender, Envelope(Kind.NOBODY, self._process, 0, 0, "", dumped).encode())
        finally:
            self._is_answering = False

    def _answers(
        self, name: str, members: list[MemberState], epoch: int, sequence: int, question: int
    ) -> Iterator[bytes]:
        """Whom this process has in a group, in parts; and where it is in what it sends there."""
        for begin in range(0, max(1, len(members)), PART):
            part = members[begin : begin + PART]
            said = {"question": question, "begin": begin, "rest": len(members) - begin - len(part), "members": part}
            yield Envelope(Kind.STATE, self._process, epoch, sequence, name, envelope.dump(said)).encode()

    def _nobody(self, message: Envelope) -> None:
        sender = message.sender
        for name, epoch, sequence in envelope.load_places(envelope.load(message.body).get("groups")):
            with self._lock:
                here = self._groups.get(name)
                if here is not None:
                    here.parts.pop(sender, None)
                    here.heard.setdefault(sender, (epoch, sequence))
                    here.presence.keep(sender, ())
                    self._tell_presence_soon_locked(here)

    def _answer(self, message: Envelope) -> None:
        said = envelope.load(message.body)
        numbers = number, begin, rest = said.get("question"), said.get("begin"), said.get("rest")
        if not all(type(one) is int for one in numbers):
            raise Malformed("an answer without its numbers")
        members = envelope.load_members(said.get("members"))
        sender = message.sender
        with self._lock:
            here = self._groups.get(message.group)
            question = self._questions.get(number)
            if question is not None and question.name != message.group:
                question = None
            if here is not None:
                if begin == 0:
                    here.parts[sender] = set()
                    here.heard.setdefault(sender, (message.epoch, message.sequence))
                here.parts.setdefault(sender, set()).update(state.number for state in members)
                for state in members:
                    here.presence.put(sender, state)
                if not rest:
                    here.presence.keep(sender, here.parts.pop(sender))
                self._tell_presence_soon_locked(here)
            if question is not None:
                for state in members:
                    question.presence.put(sender, state)
        if question is not None and not rest:
            question.answered(sender)

    # When a group gets its first member here

    def _heard(self, here: _Here) -> None:
        """Everything is heard from now on; but who was there before has to be asked for."""
        with self._lock:
            listener = here.listener if here.members else None
        if listener is None:  # they have left, and ask for nobody
            self._ready(here)
            return
        question = _Question(here.group.name, partial(self._ready, here))
        number = self._ask(question)
        listener.call_later(2 * HEARD_TIMEOUT, partial(self._give_up, number, here))

    def _give_up(self, number: int, here: _Here) -> None:
        """Nobody waits any longer for those who have not answered."""
        with self._lock:
            self._questions.pop(number, None)
        self._ready(here)

    def _ready(self, here: _Here) -> None:
        with self._lock:
            here.is_ready = True
            waiting, here.waiting = here.waiting, []
        for waiter in waiting:
            waiter.set()

    def _ask(self, question: _Question) -> int:
        number = next(self._numbers)
        with self._lock:
            self._questions[number] = question
        (asking,) = self._askings([question.name], number)
        self.transport.ask(question.name, asking, question.expect)
        return number

    def _askings(self, names: list[str], question: int = 0) -> Iterator[bytes]:
        for begin in range(0, len(names), PART):
            said = {"question": question, "groups": names[begin : begin + PART]}
            yield Envelope(Kind.ASK, self._process, 0, 0, "", envelope.dump(said)).encode()

    # Who is here

    def _change_locked(self, here: _Here, connection: Connection, state: MemberState | None) -> None:
        """One of our own has joined, or has left: tell the servers here, and other processes, soon."""
        if state is None:
            here.presence.drop(self._process, connection.number)
        else:
            here.presence.put(self._process, state)
        if not self._changed:
            self._listener = connection.listener
            self._listener.call_later(GATHERED, self._publish_changes)
        self._changed.setdefault(here.group.name, {})[connection.number] = state
        if here.members:
            self._tell_presence_soon_locked(here)

    def _publish_changes(self) -> None:
        """Tell other processes of our own. In the listener: what takes longer than a slice comes in its next turn."""
        ends = time.monotonic() + SLICE
        with self._lock:
            while self._changed and not self._is_answering and time.monotonic() < ends:
                name, changes = self._changed.popitem()
                joined = [state for state in changes.values() if state is not None]
                left = [number for number, state in changes.items() if state is None]
                for begin in range(0, max(len(joined), len(left)), PART):
                    end = begin + PART
                    said = {"joined": joined[begin:end], "left": left[begin:end]}
                    self._publish_locked(name, Kind.PRESENCE, envelope.dump(said))
            if self._changed and self._listener is not None:
                self._listener.call_later(GATHERED if self._is_answering else 0, self._publish_changes)

    def _tell_presence_soon_locked(self, here: _Here) -> None:
        if not here.presence.has_changed:
            return
        if not here.members:
            here.presence.changes()
        elif not here.is_telling:  # who wants to know is found out then: it takes time, and thousands may be joining
            here.is_telling = True
            period = PRESENCE_PERIOD + len(here.members) * PRESENCE_PERIOD_EACH
            here.listener.call_later(period, partial(self._tell_presence, here))

    def _tell_presence(self, here: _Here) -> None:
        with self._lock:
            joined, left = here.presence.changes(MOST_AT_ONCE)
            here.is_telling = here.presence.has_changed and bool(here.members)
            if here.is_telling:
                here.listener.call_later(0, partial(self._tell_presence, here))
            if joined or left:
                event = Told("on_presence", here.group, tuple(joined), tuple(left))
                self._put_locked(here, event, "on_presence")
        self._run(here)

    # What goes to members here, and to other processes

    def _put_locked(self, here: _Here, payload: bytes | Told, method: str, excluded: Collection[int] = ()) -> None:
        members, size = here.those(method)
        if excluded:
            members = tuple(one for one in members if one.number not in excluded)
            size = 8 * len(members)
        if members:
            self._put_for_locked(here, payload, members, size + len(payload))

    def _put_notification_locked(self, here: _Here, dumped: bytes) -> None:
        self._put_locked(here, Told("on_notify", here.group, size=len(dumped), dumped=dumped), "on_notify")

    def _put_farewell_locked(self, here: _Here, farewell: Farewell, key: str | None) -> None:
        members, _ = here.those()
        if key is not None:
            numbers = {state.number for state in here.presence.of(self._process) if state.key == key}
            members = tuple(one for one in members if one.number in numbers)
        if members:
            self._put_for_locked(here, farewell, members, 8 * len(members))

    def _put_for_locked(
        self, here: _Here, payload: bytes | Told | Farewell, members: tuple[Connection, ...], size: int
    ) -> None:
        here.figures["delivered"] += len(members)
        if not here.fanout.put(payload, members, size):
            self._miss_locked(here)

    def _miss_locked(self, here: _Here) -> None:
        """Something did not get to the members here: their servers are told in the listener's next turn."""
        here.figures["missed"] += 1
        if here.members and not here.has_missed:
            here.has_missed = True
            here.listener.call_later(0, partial(self._tell_missed, here))

    def _tell_missed(self, here: _Here) -> None:
        with self._lock:
            here.has_missed = False
            members, _ = here.those("on_missed")
            if members:
                here.fanout.put(Told("on_missed", here.group), members, 0)
        self._run(here)
        self._log_missed([here.group.name])

    def _run(self, here: _Here | None) -> None:
        if here is not None:
            here.fanout.run()

    def _publish_locked(self, name: str, kind: Kind, *body: bytes) -> None:
        """Have others hear it; where none can, it is counted all the same, for who comes next goes on from there."""
        place = self._sequences.get(name)
        if place is None:
            if len(self._sequences) >= MOST_SEQUENCES:
                for _ in range(MOST_SEQUENCES // 2):  # at once: a new epoch for each group would use them up
                    self._sequences.popitem(last=False)
                self._epoch += 1  # for those groups, should they come again
            place = self._sequences[name] = _Place(self._epoch, self._figures_of(name))
        else:
            self._sequences.move_to_end(name)
        place.sequence += 1
        place.figures["sent"] += 1
        if self.transport.may_be_heard(name):
            message = Envelope(kind, self._process, place.epoch, place.sequence, name, b"".join(body))
            self.transport.publish(name, message.encode())

    def _follow_locked(self, message: Envelope) -> _Here | None:
        """The group that an envelope is for, if it has members here that have not had it. What is missing is told."""
        here = self._groups.get(message.group)
        if here is None:
            return None
        now = message.epoch, message.sequence
        last = here.heard.get(message.sender)
        if last is not None:
            if now <= last:
                return None
            follows = message.sequence == (last[1] + 1 if message.epoch == last[0] else 1)
            if not follows:
                self._miss_locked(here)
                for asking in self._askings([message.group]):
                    self.transport.tell(message.sender, asking)
        here.heard[message.sender] = now
        here.figures["received"] += 1
        return here

    def _own_numbers(self, members: list[tuple[bytes, int]]) -> frozenset[int]:
        if not members:
            return frozenset()
        own = identity()  # the connections', whatever this is known by on the bus
        return frozenset(number for process, number in members if process == own)

    def _check_size(self, size: int) -> None:
        most = self.transport.max_message_size - envelope.LARGEST_HEAD
        if size > most:
            raise ValueError(f"the bus takes {most} bytes at once, not {size}")

    # Figures and words

    def _figures_of(self, name: str) -> Counter[str]:
        """Where a group is counted."""
        return self._figures.setdefault(self._first_of(name), Counter())

    def _first_of(self, name: str) -> str:
        first = name.partition("/")[0]
        return first if first in self._figures or len(self._figures) < MOST_FIGURES else OTHERS

    def _log_missed(self, names: list[str]) -> None:
        which = f"the group {names[0]!a}" if len(names) == 1 else f"{len(names)} groups"
        self._log_trouble("missed", "something for %s on %r was lost, or may have been", which, self._bus)

    def _log_trouble(self, trouble: str, message: str, *arguments: object) -> None:
        """Log it, if it has not been lately."""
        now = time.monotonic()
        if now - self._troubles.get(trouble, -math.inf) >= TROUBLE_PERIOD:
            self._troubles[trouble] = now
            logger.warning(message, *arguments)


_REACTIONS: dict[int, Callable[[Membership, Envelope], None]] = {
    Kind.TEXT: Membership._message,
    Kind.BINARY: Membership._message,
    Kind.NOTIFY: Membership._notification,
    Kind.CLOSE: Membership._farewell,
    Kind.PRESENCE: Membership._presence,
    Kind.ASK: Membership._question,
    Kind.STATE: Membership._answer,
    Kind.NOBODY: Membership._nobody,
}
