"""When it is said that all consumers are busy: `uwasp.stall` by itself, on time that the tests have pass."""

from __future__ import annotations

import inspect
import logging
from collections import deque

import pytest

from uwasp import stall


class Consumers:
    """A listener, and a stall of it, with the time that has passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ready: deque[str] = deque()
        self.taken = 0
        self.now = 100.0
        self.looks: list[tuple[float, object]] = []
        self.elsewhere: list[object] = []
        monkeypatch.setattr(stall.time, "monotonic", lambda: self.now)
        self.stall = stall.Stall(
            self,
            lambda: self.taken,
            "max_consumers is 2",
            lambda: [inspect.currentframe()] * 2,
            self.elsewhere.append,
        )

    def call_later(self, delay, action):
        self.looks.append((self.now + delay, action))

    def pass_time(self, seconds, late=0.0):
        """Have it looked when that is due, or later, and say what is to be said elsewhere."""
        end = self.now + seconds
        while self.looks and self.looks[0][0] <= end:
            due, action = self.looks.pop(0)
            self.now = due + late
            action()
            assert len(self.looks) <= 1
        self.now = max(end, self.now)
        while self.elsewhere:
            self.elsewhere.pop(0)()

    def take(self):
        self.taken += 1
        self.ready.popleft()


@pytest.fixture
def consumers(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    return Consumers(monkeypatch)


def test_five_seconds_are_told_once_with_where_most_are_and_their_end(consumers, caplog):
    consumers.ready.extend("ab")
    consumers.stall.suspect()
    consumers.pass_time(4.9)
    assert not caplog.messages
    consumers.pass_time(20)
    (said,) = caplog.messages
    assert said.startswith("max_consumers is 2, and all have been busy for 5 s; connections that wait for one: 2. 2 ")
    assert "test_stall.py" in said
    consumers.take()
    consumers.pass_time(2)
    assert caplog.messages[1:] == ["consumers take connections again, after 25 s"]
    consumers.take()
    consumers.pass_time(2)
    assert not consumers.looks


def test_a_process_that_could_not_look_has_seen_nothing(consumers, caplog):
    """It was stopped, or something else had the interpreter: then no consumer could take a connection either."""
    consumers.ready.append("a")
    consumers.stall.suspect()
    consumers.pass_time(1, late=60)
    assert consumers.now > 160
    consumers.take()
    consumers.pass_time(2)
    assert not caplog.messages


def test_consumers_that_take_one_now_and_then_are_no_stall(consumers, caplog):
    consumers.ready.extend("abcdefgh")
    consumers.stall.suspect()
    for _ in range(6):
        consumers.pass_time(4.5)
        consumers.take()
    assert not caplog.messages


def test_of_many_in_a_row_one_a_minute_is_told(consumers, caplog):
    consumers.ready.extend("a" * 1000)
    consumers.stall.suspect()
    for _ in range(100):  # each message takes six seconds and more
        consumers.pass_time(7)
        consumers.take()
    assert 10 <= len([said for said in caplog.messages if "all have been busy" in said]) <= 12
    assert len(caplog.messages) <= 24


def test_what_fails_in_it_does_not_end_it(consumers, caplog, monkeypatch):
    consumers.ready.append("a")
    with monkeypatch.context() as patched:
        patched.setattr(stall, "_stack", None)
        consumers.stall.suspect()
        with pytest.raises(TypeError):
            consumers.pass_time(6)
    consumers.now += stall.QUIET
    consumers.looks[:] = [(consumers.now, action) for _, action in consumers.looks]
    consumers.take()
    consumers.pass_time(1)
    consumers.ready.append("b")
    consumers.stall.suspect()
    consumers.pass_time(6)
    assert "all have been busy" in caplog.messages[-1]
