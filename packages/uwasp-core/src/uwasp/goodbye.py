"""How a worker parts from its clients when it ends, for every handler.

All that a handler does is to call `arrange` for each listener that it makes. When the worker ends, each connection of
each listener gets a close frame with 1001, "going away", and its server gets `on_close`. There is one goodbye in a
process, and one time for all of it, whatever handlers there are. How they schedule is not known here: they have to go
on with it meanwhile, and give what is waited with.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from uwasp import admission, conversations, native, siblings, signals, takeover

if TYPE_CHECKING:
    from uwasp.listener import Listener, Waiter

__all__ = ["afterwards", "arrange", "beforehand"]

logger = logging.getLogger("uwasp.goodbye")

# How long the goodbye waits for handshakes that are under way, in seconds, before and after.
HANDSHAKE_PATIENCE = 0.2
# How often a worker looks whether uWSGI wants to be rid of it, in seconds; uWSGI's master looks as often.
CHEAPER_PERIOD = 1.0
MOST_NAMED = 10  # conversations that hang, in the log

_goodbyes: dict[int, _Goodbye] = {}  # by process: one that was forked has its own
_beforehand: dict[int, list[Callable[[], object]]] = {}  # by process
_afterwards: dict[int, list[Callable[[], object]]] = {}  # by process
_hearing: set[int] = set()  # processes that hear of a stop before uWSGI does
_lock = threading.Lock()


def arrange(
    listener: Listener,
    new_event: Callable[[], Waiter] = threading.Event,
    start_thread: Callable[[Callable[[], None]], object] | None = None,
) -> None:
    """Have the clients of a listener told when this worker ends, for whatever reason but SIGKILL.

    Call it once for each listener, in the process that made it. From then on the worker also ends when uWSGI wants to
    be rid of it and says so in a way that its other threads, or gevent's loop, do not hear.

    Args:
        listener: `poll` and the consumers have to go on until the process ends, while others wait.
        new_event: makes what is waited with, in the thread or greenlet in which uWSGI calls `uwsgi.atexit`:
            `threading.Event`, or what your loop has instead.
        start_thread: starts a function in a daemon thread that runs beside uWSGI's loop. It says goodbye at a stop
            (SIGINT, SIGTERM) that comes while HTTP requests run, for uWSGI does not call `uwsgi.atexit` then. Leave it
            out where uWSGI's loop hears signals by itself, as gevent's does.
    """
    with _lock:
        goodbye = _goodbyes.setdefault(os.getpid(), _Goodbye(new_event))
    goodbye.attend(listener, new_event())
    if start_thread is not None:
        _hear_stops(start_thread)
    takeover.at_exit(_end)  # once more: called first, being the last to be added
    _leave_when_due(listener)


def beforehand(action: Callable[[], object]) -> None:
    """Have `action` called when this worker ends, before it parts from any client. It may wait, not for long.

    It is called more than once, and from more than one thread or greenlet, as uWSGI calls `uwsgi.atexit`; each is to
    come back when what is to be done is done. Call this when uWSGI's signals `are_the_workers`.
    """
    _beforehand.setdefault(os.getpid(), []).append(action)
    if takeover.loop() is None:  # other loops hear signals by themselves
        _hear_stops(native.start_thread)
    takeover.at_exit(_end)


def afterwards(action: Callable[[], object]) -> None:
    """Have `action` called when this worker ends, once it has parted from all clients. It may wait, not for long."""
    with _lock:
        _afterwards.setdefault(os.getpid(), []).append(action)
    takeover.at_exit(_end)


def _end() -> None:
    """This worker ends. Called more than once, and from more than one thread or greenlet."""
    for action in list(_beforehand.get(os.getpid(), ())):
        _do(action)
    goodbye = _goodbyes.get(os.getpid())
    if goodbye is not None:
        goodbye.say()
    for action in _afterwards.pop(os.getpid(), ()):
        _do(action)


def _do(action: Callable[[], object]) -> None:
    try:
        action()
    except Exception:
        logger.exception("%r failed, which was to be done at the end", action)


def _hear_stops(start_thread: Callable[[Callable[[], None]], object]) -> None:
    """Have all that is to be done at the end done before uWSGI hears of a stop. Once in a process."""
    if not takeover.running_under_uwsgi():  # a process of somebody else's, who hears of a stop in his own way
        return
    process = os.getpid()
    with _lock:
        if process in _hearing:
            return
        _hearing.add(process)
    # Before the first client can be there: one that comes is heard a moment later.
    stops = signals.StopSignals(with_reloads=takeover.forgets_at_reloads())
    try:
        start_thread(lambda: _before_a_stop(stops))
    except RuntimeError as error:
        logger.error("clients will not be told of a stop while HTTP requests run: %s", error)
        stops.release()
        _hearing.discard(process)


def _before_a_stop(stops: signals.StopSignals) -> None:
    threading.current_thread().name = "uwasp-stop"
    signals.block_all()
    while True:
        stops.wait()
        try:
            _end()
        except Exception:
            logger.exception("the goodbye failed")
        stops.hand_on()


class _Goodbye:
    """What is said to all clients of a process, once.

    Args:
        new_event: see `arrange`.
    """

    def __init__(self, new_event: Callable[[], Waiter]) -> None:
        self._new_event = new_event
        self._lock = threading.Lock()
        self._listeners: list[tuple[Listener, Waiter]] = []  # each with what is set when nobody is left
        self._ends: float | None = None  # since it began: when patience does, in seconds of `time.monotonic()`
        self._has_given_up = False
        self._is_over = False

    def attend(self, listener: Listener, done: Waiter) -> None:
        """Say it to the clients of this listener as well."""
        with self._lock:
            self._listeners.append((listener, done))
            has_begun = self._ends is not None
        if has_begun:
            listener.shut_down(done)

    def say(self) -> None:
        """Part from all clients; come back when that is done, or has had its time. From any thread or greenlet.

        uWSGI calls it once more after a signal, and its gevent loop from two greenlets. Each waits for the end.
        """
        if self._is_over:
            return
        self._wait_for_handshakes()
        self._begin()
        done = [each.wait(self._left()) for _, each in self._listeners]
        if not all(done) and not self._has_given_up:
            self._has_given_up = True
            still_open = sum(len(listener) for listener, _ in self._listeners)
            at_work = sum(listener.serving for listener, _ in self._listeners)
            logger.warning(
                "shut down after %s s, with %d connections still open, and %d servers whose on_close has not returned",
                self._timeout(),
                still_open,
                at_work,
            )
            for hanging in conversations.running()[:MOST_NAMED]:
                logger.warning("still running: %s", hanging)
        self._wait_for_handshakes()  # one that came meanwhile is told as soon as it is over
        self._is_over = True

    def _begin(self) -> None:
        """Close all connections. The first call counts."""
        with self._lock:
            if self._ends is not None:
                return
            self._ends = time.monotonic() + self._timeout()
        self._warn_of_their_return()
        siblings.announce_end()
        for listener, done in self._listeners:
            listener.shut_down(done, siblings.stay)

    def _timeout(self) -> float:
        return max(listener.shutdown_timeout() for listener, _ in self._listeners)

    def _left(self) -> float:
        assert self._ends is not None
        return max(0.0, self._ends - time.monotonic())

    def _warn_of_their_return(self) -> None:
        clients = sum(len(listener) for listener, _ in self._listeners)
        backlog = takeover.backlog()
        if clients > backlog:
            logger.warning(
                "%d clients are told to go, and many may come back at once, but uWSGI's sockets hold %d that wait to "
                "be accepted: others could wait for a minute and more; raise uWSGI's --listen",
                clients,
                backlog,
            )

    def _wait_for_handshakes(self) -> None:
        """A client that has been answered 101 is to be told as well, though no listener has it yet."""
        deadline = time.monotonic() + HANDSHAKE_PATIENCE
        pause = self._new_event()
        while admission.accepting() and time.monotonic() < deadline:
            pause.wait(0.001)


def _leave_when_due(listener: Listener) -> None:
    """End this worker when uWSGI's cheaper mode takes it away, or when it has lived for max-worker-lifetime.

    All that uWSGI does is to wake it with SIGWINCH. The gevent loop does not hear that, and of several threads only
    one does: the worker would stay, with its connections, until uWSGI kills it (worker-reload-mercy, 60 s), which it
    does to one that is cheaped alone.
    """
    lifetime = _lifetime()
    if lifetime == math.inf and not takeover.is_set("cheaper"):
        return
    is_gevent = takeover.loop() == "gevent"

    def look() -> None:
        if takeover.is_exiting() and not is_gevent:  # a single thread did hear; SIGHUP now would cut the goodbye short
            return
        # uWSGI counts full seconds. It comes first, and says so in its log.
        if not takeover.is_cheaped() and time.time() - takeover.worker()["last_spawn"] <= lifetime + 2:
            listener.call_later(CHEAPER_PERIOD, look)
        elif is_gevent:  # SIGHUP is uWSGI's own way to end gracefully
            os.kill(os.getpid(), signal.SIGHUP)
        else:
            signals.send_to_the_main_thread(signal.SIGHUP)

    listener.call_later(CHEAPER_PERIOD, look)


def _lifetime() -> float:
    """How long this worker is to live, in seconds."""
    seconds = [int(value) for value in takeover.values("max-worker-lifetime")][-1:]
    longer = [int(value) for value in takeover.values("max-worker-lifetime-delta")][-1:]
    return sum(seconds) + (takeover.worker()["id"] - 1) * sum(longer) if sum(seconds) else math.inf
