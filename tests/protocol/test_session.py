"""Sessions that end, on a socket pair and a clock of the test's own; the listener is polled by the test."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from threading import current_thread
from typing import ClassVar

import pytest

from takeovers import ENVIRON, SocketPair
from uwasp import Allowed, Handler, Listener, Server, WebSocket, WebSocketMiddleware, session

NOW = 1_800_000_000.0
DAY = 86_400.0
CLOSED = b"\x88\x15\x0b\xb8the session is over"


class Clock:
    """The system's, as far as `authorize` and sessions see it."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    monkeypatch.setattr(session, "LOOK_PERIOD", 0.02)
    return clock


@pytest.fixture
def handler():
    """One listener; what is spawned is kept until the test runs it."""

    class Kept(Handler):
        listener = Listener()
        spawned: ClassVar[list[Callable[[], object]]] = []

        @classmethod
        def spawn(cls, function, *args):
            cls.spawned.append(lambda: function(*args))

        def handle(self, environ, protocol_name=None):
            self.listener.add(self.ws, self.server)
            return []

    return Kept


class Client:
    """A connection with a server whose `authorize` returns these, one after the other, or raises them."""

    def __init__(self, handler, *answers):
        self.asked = asked = []

        class Asked(Server):
            @classmethod
            def authorize(cls, environ):
                asked.append(current_thread().name)
                answer = answers[len(asked) - 1]
                if isinstance(answer, BaseException):
                    raise answer
                return answer

            def __init__(server, ws):
                super().__init__(ws)
                self.ws = ws

        self.listener = handler.listener
        self.pair = SocketPair()
        self.statuses = []
        middleware = WebSocketMiddleware(print, handler, [("/echo", Asked)])
        middleware.takeover = self.pair
        list(middleware(dict(ENVIRON), lambda status, headers: self.statuses.append(status[:3])))
        self.pair.client.setblocking(False)

    def received(self, seconds=0.2):
        """What comes within so many seconds, or as soon as something does."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.listener.poll(0.01)
            try:
                return self.pair.client.recv(1000)
            except BlockingIOError:
                continue
        return b""

    def timers(self):
        """How many of the listener's are to come."""
        return len([timer for _, _, timer in self.listener._timers if not timer.is_over])


def test_it_ends_when_the_system_s_clock_says_so(clock, handler):
    client = Client(handler, Allowed("Ada", NOW + 3600))
    assert client.ws.user == "Ada"
    assert client.received() == b""
    clock.now += 3599.9
    assert client.received() == b""
    clock.now += 0.2
    assert client.received(10) == CLOSED


def test_a_clock_that_is_set_back_gives_it_so_much_more(clock, handler):
    client = Client(handler, Allowed("Ada", NOW + 0.1))
    clock.now -= 3600
    assert client.received(0.3) == b""
    clock.now += 3601
    assert client.received(10) == CLOSED


def test_a_time_far_away_is_not_one_that_is_near(clock, handler):
    client = Client(handler, Allowed("Ada", NOW + 1000 * 365 * DAY))
    assert client.received() == b""
    assert client.listener.next_due - time.monotonic() < 1
    clock.now += 1000 * 365 * DAY
    assert client.received(10) == CLOSED


def test_nothing_is_left_of_it_when_the_connection_ends(clock, handler):
    plain = Client(handler, "Ada")
    without = plain.timers()
    client = Client(handler, Allowed("Ada", NOW + 3600))
    assert client.timers() == without + 1
    client.pair.client.close()
    while len(client.listener) > 1:
        client.listener.poll(1)
    assert client.timers() == without


def test_who_is_asked_again_is_asked_where_the_handler_says(clock, handler):
    client = Client(handler, Allowed("Ada", NOW + 60, again=True), Allowed("Bob", NOW + 120, again=True), "Cid")
    clock.now += 61
    assert client.received() == b""
    assert (len(client.asked), len(handler.spawned)) == (1, 1)
    handler.spawned.pop()()
    assert (len(client.asked), client.ws.user) == (2, "Bob")
    assert client.received() == b""
    clock.now += 60
    assert client.received() == b""
    handler.spawned.pop()()
    assert (len(client.asked), client.ws.user) == (3, "Cid")
    clock.now += 10 * DAY
    assert client.received() == b""
    assert not handler.spawned


def test_nobody_is_asked_for_a_connection_that_has_ended_meanwhile(clock, handler):
    client = Client(handler, Allowed("Ada", NOW + 60, again=True), "Bob")
    clock.now += 61
    assert client.received() == b""
    client.ws.close(1000)
    handler.spawned.pop()()
    assert len(client.asked) == 1
    assert client.received(10) == b"\x88\x02\x03\xe8"


def test_so_many_are_asked_at_a_time_and_the_others_after_them(clock, handler, monkeypatch):
    monkeypatch.setattr(session, "MOST_ASKING", 2)
    clients = [Client(handler, Allowed("Ada", NOW + 60, again=True), ValueError()) for _ in range(5)]
    clock.now += 61
    assert clients[0].received() == b""
    assert len(handler.spawned) == 2
    for spawned in handler.spawned:
        spawned()
    assert [len(client.asked) for client in clients] == [2] * 5
    assert [client.received(10) for client in clients] == [CLOSED] * 5
    handler.spawned.clear()
    another = Client(handler, Allowed("Ada", clock.now + 60, again=True), "Bob")
    clock.now += 61
    assert another.received() == b""
    assert len(handler.spawned) == 1
    handler.spawned.pop()()


def test_who_waits_for_a_turn_that_does_not_come_is_kept_no_longer_than_its_connection(clock, handler, monkeypatch):
    monkeypatch.setattr(session, "MOST_ASKING", 1)
    clients = [Client(handler, Allowed("Ada", NOW + 60, again=True), "Bob") for _ in range(2)]
    clock.now += 61
    assert clients[0].received() == b""
    assert len(session._waiting) == 2
    for client in clients:
        client.pair.client.close()
    while any(client.ws.connection.fd >= 0 for client in clients):
        handler.listener.poll(1)
    assert not session._waiting
    handler.spawned.pop()()
    assert [len(client.asked) for client in clients] == [1, 1]


def test_where_nobody_can_be_asked_it_is_closed(clock, handler, monkeypatch, caplog):
    def none_left(cls, function, *args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(handler, "spawn", classmethod(none_left))
    client = Client(handler, Allowed("Ada", NOW + 60, again=True), "Bob")
    clock.now += 61
    assert client.received(10) == CLOSED
    assert "Asked.authorize cannot be asked again" in caplog.text
    assert session._asking == 0


def test_one_that_does_not_answer_in_time_is_closed(clock, handler, monkeypatch):
    monkeypatch.setattr(session, "ANSWER_TIMEOUT", 0.05)
    client = Client(handler, Allowed("Ada", NOW + 60, again=True), "Bob")
    clock.now += 61
    assert client.received(10) == CLOSED
    handler.spawned.pop()()


def test_a_handler_without_spawn_can_ask_nobody_again(handler, caplog):
    handler.spawn = Handler.spawn
    client = Client(handler, Allowed("Ada", time.time() + 60, again=True))
    assert client.statuses == ["500"]
    assert "again=True needs a handler that has spawn, which Kept has not" in caplog.text
    assert Client(handler, Allowed("Ada", time.time() + 60)).statuses == ["101"]


@pytest.mark.parametrize("until", [NOW, int(NOW), datetime.fromtimestamp(NOW, timezone(timedelta(hours=5)))])
def test_a_time_is_a_unix_time_or_a_datetime_with_a_zone(until):
    assert Allowed("Ada", until).until == NOW
    assert repr(Allowed("Ada", until)) == "Allowed('Ada', until=1800000000.0, again=False)"


@pytest.mark.parametrize(
    ("until", "error", "why"),
    [
        (datetime(2030, 1, 1), ValueError, r"datetime.datetime\(2030, 1, 1, 0, 0\) has none: give it one"),
        (NOW * 1000, ValueError, "is it in milliseconds?"),
        (float("inf"), ValueError, "before the year 10000, not inf"),
        (float("nan"), ValueError, "before the year 10000, not nan"),
        (None, TypeError, "for a connection without an end return the user itself"),
        ("2030-01-01", TypeError, "not '2030-01-01'"),
        (True, TypeError, "not True"),
    ],
)
def test_what_cannot_be_a_time_is_refused(until, error, why):
    with pytest.raises(error, match=why):
        Allowed("Ada", until)


def test_again_is_true_or_false():
    with pytest.raises(TypeError, match="again is True or False, not 1"):
        Allowed("Ada", NOW, again=1)


def test_it_takes_half_a_kibibyte_and_nothing_when_it_is_over():
    number = 10_000
    listener = Listener()
    ws = WebSocket(dict(ENVIRON), "/echo")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        sessions = [session.session_of(ws, None, Allowed("Ada", time.time() + 3600)) for _ in range(number)]
        for one in sessions:
            one.begin(listener)
        each = (tracemalloc.get_traced_memory()[0] - before) / number
        for one in sessions:
            one.end()
        sessions.clear()
        listener.call_later(0, print)  # which throws those away that are cancelled
        left = (tracemalloc.get_traced_memory()[0] - before) / number
    finally:
        tracemalloc.stop()
    print(f"{each:.0f} bytes")
    assert each < 600
    assert left < 30
