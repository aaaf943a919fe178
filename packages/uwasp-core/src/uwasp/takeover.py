"""How a connection is taken over from uWSGI, and all else that concerns uWSGI: this module alone imports `uwsgi`.

uWSGI answers the handshake and then believes the request to have ended. The TCP connection lives on in a duplicate of
uWSGI's descriptor, while uWSGI's own number is pointed at /dev/null: whatever uWSGI still does with it (close it, read
the next request of a keep-alive connection from it) cannot reach the client. Its thread or async core is free.
"""

from __future__ import annotations

import errno
import faulthandler
import math
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from uwasp.exceptions import ConfigurationError

try:
    import uwsgi

    _ = uwsgi.opt
except (ImportError, AttributeError):  # outside uWSGI (or a folder of that name): all but taking over works
    uwsgi = None

__all__ = [
    "StopSignals",
    "add_to_metric",
    "at_exit",
    "duplicate",
    "has_metric",
    "is_set",
    "leave_when_due",
    "loop",
    "refusal",
    "release",
    "running_under_uwsgi",
    "threads_enabled",
    "values",
]


MOST_RESERVED = 64  # descriptors; see `duplicate`
CHEAPER_PERIOD = 1.0  # seconds; uWSGI's master looks as often
DELIVERY_PATIENCE = 1.0  # seconds; a main thread that blocks a signal gets it when it does no more

_exiting = False  # uWSGI has called what `at_exit` was given


def running_under_uwsgi() -> bool:
    """Whether this process is uWSGI's, with its Python module `uwsgi`."""
    return uwsgi is not None


def values(option: str) -> list[str]:
    """The values that a uWSGI option was given, an empty string for one without a value; none if it was not given."""
    if uwsgi is None:
        return []
    value = uwsgi.opt.get(option, uwsgi.opt.get(option.encode()))
    if value is None:
        return []
    several = value if isinstance(value, list) else [value]
    return ["" if one is True else one.decode() if isinstance(one, bytes) else str(one) for one in several]


def is_set(option: str) -> bool:
    """Whether a uWSGI option was given, and not with one of the values that uWSGI takes for a no."""
    return any(value.lower() not in ("false", "off", "no", "0") for value in values(option))


def threads_enabled() -> bool:
    """Whether Python threads run while uWSGI waits for requests.

    From uWSGI 2.0.27 on they do; before, with `--enable-threads`, which `--threads` implies.
    """
    return uwsgi is not None and bool(uwsgi.has_threads)


def loop() -> str | None:
    """The name of uWSGI's loop engine, such as `"gevent"`; `None` for its ordinary loop."""
    name = getattr(uwsgi, "loop", None)
    return name.decode() if isinstance(name, bytes) else name


def refusal() -> str | None:
    """Why the connection of the current request cannot be taken over; `None` if it can be."""
    if uwsgi is None:
        return "this application does not run under uWSGI, whose connections uWASP takes over"
    ports = _tls_ports()
    if ports and _local_port(uwsgi.connection_fd()) in ports:
        return (
            "--https-socket ends TLS inside the worker, where the connection cannot be taken over; "
            "use uWSGI's --https with --http-websockets, or a proxy, for TLS"
        )
    return None


def duplicate() -> int:
    """A descriptor of our own for the connection of the current request. Works only in the request's own context.

    The last descriptors of the process are left to all else: to uWSGI, which accepts no connection without one and
    could not even refuse, and to the application.

    Raises:
        OSError: none is left for this (EMFILE).
    """
    _dev_null()  # opened while there is still time to refuse
    own = os.dup(uwsgi.connection_fd())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    reserved = min(MOST_RESERVED, limit // 8)
    if limit != resource.RLIM_INFINITY and own >= limit - reserved:  # a new one is the lowest that is free
        os.close(own)
        raise OSError(errno.EMFILE, f"nearly all of the process's {limit} descriptors are in use")
    return own


def release(start_response: Callable[..., Any], status: str, headers: Sequence[tuple[str, str]]) -> None:
    """Answer the current request through uWSGI, at once, and take uWSGI's descriptor off the connection.

    Raises:
        ConfigurationError: `start_response` comes from a middleware that leaves out the `write` of PEP 3333.
        OSError: the client is gone.
    """
    write = start_response(status, list(headers))
    if write is None:
        raise ConfigurationError(
            "start_response returned None, not the write callable of PEP 3333: "
            "put WebSocketMiddleware outside the middleware that replaces start_response"
        )
    write(b"")  # sends the head
    os.dup2(_dev_null(), uwsgi.connection_fd(), inheritable=False)


def has_metric(name: str) -> bool:
    """Whether uWSGI's metrics subsystem is on and the operator has registered this metric (--metric)."""
    return uwsgi is not None and hasattr(uwsgi, "metric_inc") and bool(uwsgi.metric_inc(name, 0))


def add_to_metric(name: str, difference: int) -> None:
    """Add to a metric, which all workers share; does nothing if the operator has not registered it."""
    if difference > 0:
        uwsgi.metric_inc(name, difference)
    elif difference < 0:
        uwsgi.metric_dec(name, -difference)


def at_exit(action: Callable[[], None]) -> None:
    """Have uWSGI call `action` when this worker ends, for whatever reason but SIGKILL, before its own `uwsgi.atexit`.

    uWSGI holds one such callable, so one that the application has set is kept, and called after ours. One that it sets
    after its first WebSocket takes our place.

    uWSGI's gevent loop may call it from two greenlets, after max-requests for instance. The action has to bear that;
    the application's own is called once.
    """
    before = getattr(uwsgi, "atexit", None)
    worker = os.getpid()

    def chained() -> None:
        global _exiting
        nonlocal before
        try:
            if os.getpid() == worker:  # not in a child, which has uWSGI's signal handlers and our connections too
                _exiting = True
                action()
        finally:
            own, before = before, None
            if own is not None:
                own()

    uwsgi.atexit = chained


class StopSignals:
    """The signals that have this worker stop at once, held back from uWSGI until `hand_on`. One in a process.

    uWSGI ends the process within its signal handler, and leaves `uwsgi.atexit` out if any of its threads is in a
    request. Then nobody would be told. Python's own signal handlers do not help: they run when the main thread comes
    back to Python, and that one sleeps in uWSGI. `faulthandler` alone has one in C that can be put in from any thread,
    writes to a descriptor, and is taken out again for what was there before. What it writes, a traceback, does not
    matter here; that it writes does.

    Not for gevent, which hears of signals in its own way.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)  # uWSGI's master sends SIGINT for SIGQUIT

    def __init__(self) -> None:
        self._bells = {}
        self._buttons = {}
        self._poll = select.poll()
        for number in self.SIGNALS:
            bell, self._buttons[number] = os.pipe()
            os.set_blocking(self._buttons[number], False)
            self._bells[bell] = number
            self._poll.register(bell, select.POLLIN)
            self._hold_back(number)
        os.register_at_fork(after_in_child=self._leave_child_alone)

    def wait(self) -> None:
        """Wait until one comes."""
        bell = self._poll.poll()[0][0]
        os.read(bell, 65536)
        self._came = self._bells[bell]

    def hand_on(self) -> None:
        """Let uWSGI have it, in the main thread, for which it is meant. Those that follow are held back again.

        A signal to the process goes to any thread that does not block it, where the main thread does. That one may
        still be in faulthandler's handler; and in uWSGI's, which does not return, when the same signal comes twice, as
        it does when a terminal sends it to a whole group of processes. An application's thread that gets it ends the
        process, too, and to do so it waits for the application's threads to end, itself among them.
        """
        faulthandler.unregister(self._came)
        signal_main_thread(self._came)
        deadline = time.monotonic() + DELIVERY_PATIENCE
        while _waits_in_main_thread(self._came) and time.monotonic() < deadline:
            time.sleep(0.001)
        self._hold_back(self._came)

    def _hold_back(self, number: signal.Signals) -> None:
        faulthandler.register(number, self._buttons[number], all_threads=False, chain=False)

    def _leave_child_alone(self) -> None:
        """A signal to a process that the application forks must not ring here; and the child must hear it, also if it
        was forked in a thread that does not.
        """
        for number in self.SIGNALS:
            faulthandler.unregister(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)


def signal_main_thread(number: int) -> None:
    """Send a signal to this process's main thread, in which uWSGI's handlers are at home."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, number)


def _waits_in_main_thread(number: int) -> bool:
    """Whether a signal that was sent to the main thread has not been delivered yet, as far as can be known."""
    try:
        status = Path(f"/proc/self/task/{os.getpid()}/status").read_text()
    except OSError:
        return False
    pending = next(line for line in status.splitlines() if line.startswith("SigPnd:"))
    return bool(int(pending.split()[1], 16) >> (number - 1) & 1)


def leave_when_due(call_later: Callable[[float, Callable[[], None]], object]) -> None:
    """End this worker when uWSGI's cheaper mode takes it away, or when it has lived for max-worker-lifetime.

    All that uWSGI does is to wake it with SIGWINCH. The gevent loop does not hear that, and of several threads only
    one does: the worker would stay, with its connections, until uWSGI kills it (worker-reload-mercy, 60 s), which it
    does to one that is cheaped alone.

    Args:
        call_later: calls a function after so many seconds, as `Listener.call_later` does.
    """
    lifetime = _lifetime()
    if lifetime == math.inf and not is_set("cheaper"):
        return

    def look() -> None:
        if _exiting and loop() != "gevent":  # a single thread did hear; SIGHUP now would cut the goodbye short
            return
        worker = uwsgi.workers()[uwsgi.worker_id() - 1]
        # uWSGI counts full seconds. It comes first, and says so in its log.
        if worker["status"] == b"cheap" or time.time() - worker["last_spawn"] > lifetime + 2:
            signal_main_thread(signal.SIGHUP)  # uWSGI's own way to end gracefully
        else:
            call_later(CHEAPER_PERIOD, look)

    call_later(CHEAPER_PERIOD, look)


def _lifetime() -> float:
    """How long this worker is to live, in seconds."""
    seconds = [int(value) for value in values("max-worker-lifetime")][-1:]
    longer = [int(value) for value in values("max-worker-lifetime-delta")][-1:]
    return sum(seconds) + (uwsgi.worker_id() - 1) * sum(longer) if sum(seconds) else math.inf


@cache
def _dev_null() -> int:
    return os.open(os.devnull, os.O_RDWR)


@cache
def _tls_ports() -> frozenset[int]:
    """The ports on which this worker itself ends TLS."""
    addresses = [value.split(",")[0] for option in ("https-socket", "ssl-socket") for value in values(option)]
    return frozenset(int(port) for port in (address.rpartition(":")[2] for address in addresses) if port.isdigit())


def _local_port(fd: int) -> int | None:
    own = os.dup(fd)
    with socket.socket(fileno=own) as connected:
        name = connected.getsockname()
    return name[1] if isinstance(name, tuple) else None
