"""Background work as values: what may be called, and when it is due. That it is called is tested on a real uWSGI."""

from __future__ import annotations

import functools
import threading
import time

import pytest

from uwasp import ConfigurationError, Handler, ThreadHandler, WebSocketMiddleware, bus, transport
from uwasp.background import Background, _Work


class Coroutines(ThreadHandler):
    runs = "coroutines"


class WithoutSpawn(Handler):
    def handle(self, environ, protocol_name=None):
        return []


class PlainTransport(transport.Transport):
    """A third party's, as it was before there was anything to claim."""


def tick():
    raise AssertionError("called")


async def coroutine():
    raise AssertionError("called")


def generator():
    yield


def of_one(argument):
    raise AssertionError("called")


class Object:
    def __call__(self):
        raise AssertionError("called")

    def method(self):
        raise AssertionError("called")


@pytest.mark.parametrize("function", [tick, functools.partial(of_one, 1), Object(), Object().method, lambda: None])
def test_outside_uwsgi_a_function_is_returned_as_it_is_and_nothing_starts(function):
    middleware = WebSocketMiddleware(print, "threads")
    threads = threading.active_count()
    assert middleware.every(0.01)(function) is function
    assert middleware.every(0.01, once=True)(function) is function
    time.sleep(0.05)
    assert threading.active_count() == threads


@pytest.mark.parametrize("seconds", [0, -1, 604801, float("inf"), float("nan"), "1", True, None, tick])
def test_a_number_of_seconds_that_cannot_be_one_is_refused_before_a_function_is_seen(seconds):
    """As where a function stands below `@application.every`, and nothing would call it."""
    with pytest.raises(ValueError, match=r"above 0 and at most 604,800 \(seven days\), not "):
        WebSocketMiddleware(print, "threads").every(seconds)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (coroutine, "coroutine is async def, which ThreadHandler does not run"),
        (functools.partial(coroutine), "coroutine is async def, which ThreadHandler does not run"),
        (generator, "generator is a generator, as it has a yield in it: nothing of it would be run"),
        (of_one, "of_one is called without arguments, which it does not accept"),
        (Object.method, "method is called without arguments, which it does not accept"),
        (None, "stands above a function, not None"),
    ],
)
def test_what_cannot_be_called_without_arguments_is_refused(function, why):
    with pytest.raises(TypeError, match=why):
        WebSocketMiddleware(print, "threads").every(1.0)(function)


def test_a_handler_that_runs_coroutines_has_either_kind():
    middleware = WebSocketMiddleware(print, Coroutines)
    assert middleware.every(1.0)(coroutine) is coroutine
    assert middleware.every(1.0)(tick) is tick
    with pytest.raises(TypeError, match="a generator"):
        middleware.every(1.0)(generator)


def test_a_handler_that_cannot_start_anything_beside_is_refused():
    with pytest.raises(ConfigurationError, match="WithoutSpawn has no spawn"):
        WebSocketMiddleware(print, WithoutSpawn).every(1.0)(tick)


def test_a_bus_that_does_not_say_who_is_the_one_is_refused_for_once_alone(monkeypatch):
    monkeypatch.setattr(bus, "find_transport", lambda url: PlainTransport)
    background = Background(ThreadHandler, bus.Bus("plain:"), 1.0)
    background.add(tick, 1.0, once=False)
    with pytest.raises(ConfigurationError, match=r"<Bus plain:> does not say who is the one: once=True needs"):
        background.add(tick, 1.0, once=True)


def test_once_is_true_or_false():
    with pytest.raises(ValueError, match="once is True or False, not 'no'"):
        WebSocketMiddleware(print, "threads").every(1.0, once="no")


@pytest.mark.parametrize(
    ("now", "due"), [(10.0, 12.5), (10.1, 12.5), (12.4, 12.5), (12.5, 15.0), (20.0, 22.5), (1000.1, 1002.5)]
)
def test_it_is_due_at_the_next_of_its_times_that_is_still_to_come(now, due):
    work = _Work(tick, 2.5, once=False)
    work.due = 10.0
    work.put_off(now)
    assert work.due == due


def test_it_is_never_due_at_once_however_its_times_are_rounded():
    work = _Work(tick, 0.1, once=False)
    work.due = now = 1e6
    for _ in range(10_000):
        now = work.due + 1e-9
        work.put_off(now)
        assert 0.05 < work.due - now < 0.15


@pytest.mark.parametrize("seconds", [0.0005, 1e-320])
def test_less_than_a_millisecond_is_taken_for_one(seconds):
    work = _Work(tick, seconds, once=False)
    work.due = 1e6
    work.put_off(1e6 + 0.0625)
    assert 0 < work.due - 1e6 - 0.0625 <= 0.0011


def test_workers_know_a_function_by_its_module_and_its_qualified_name():
    assert _Work(tick, 1.0, once=True).name == f"{__name__}.tick"
    assert _Work(functools.partial(of_one, 1), 1.0, once=True).name == f"{__name__}.of_one"
    assert _Work(Object().method, 1.0, once=True).name == f"{__name__}.Object.method"
    assert _Work(Object(), 1.0, once=True).name == f"{__name__}.Object"
