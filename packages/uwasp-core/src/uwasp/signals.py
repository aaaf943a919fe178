"""Which thread hears which signal, in a worker that has threads beside uWSGI's.

uWSGI's handlers are made for the main thread: the ones that end the process hang in another one, or disturb the end
that the main thread is at. This module knows nothing of connections.
"""

from __future__ import annotations

import faulthandler
import os
import re
import select
import signal
import threading
import time
from collections.abc import Callable

__all__ = [
    "StopSignals",
    "are_the_workers",
    "block_all",
    "hear_like_the_main_thread",
    "send_to_the_main_thread",
    "start_thread",
]

DELIVERY_PATIENCE = 1.0  # seconds; a main thread that blocks a signal gets it when it does no more


class StopSignals:
    """The signals that have this worker stop at once, held back from uWSGI until `hand_on`. One in a process.

    uWSGI ends the process within its signal handler, and leaves `uwsgi.atexit` out if any of its threads is in a
    request. Then nobody would be told. Python's own signal handlers do not help: they run when the main thread comes
    back to Python, and that one sleeps in uWSGI. `faulthandler` alone has one in C that can be put in from any thread,
    writes to a descriptor, and is taken out again for what was there before. What it writes, a traceback, does not
    matter here; that it writes does.

    Not for gevent, which hears of signals in its own way.

    Args:
        with_reloads: hold back SIGHUP too, the one for a graceful end, where uWSGI may forget `uwsgi.atexit` at that.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)  # uWSGI's master sends SIGINT for SIGQUIT

    def __init__(self, with_reloads: bool = False) -> None:
        self._held = (*self.SIGNALS, signal.SIGHUP) if with_reloads else self.SIGNALS
        self._bells = {}
        self._buttons = {}
        self._poll = select.poll()
        for number in self._held:
            bell, self._buttons[number] = os.pipe()
            os.set_blocking(self._buttons[number], False)
            self._bells[bell] = number
            self._poll.register(bell, select.POLLIN)
            self._hold_back(number)
        self._masks: dict[int, set[int]] = {}  # of threads that fork just now
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._leave_child_alone
        )

    def wait(self) -> None:
        """Wait until one comes."""
        self._bell = self._poll.poll()[0][0]

    def hand_on(self) -> None:
        """Let uWSGI have it, in the main thread, for which it is meant. Those that follow are held back again.

        A signal to the process goes to any thread that does not block it, where the main thread does. That one may
        still be in faulthandler's handler; and in uWSGI's, which does not return, when the same signal comes twice, as
        it does when a terminal sends it to a whole group of processes. An application's thread that gets it ends the
        process, too, and to do so it waits for the application's threads to end, itself among them.
        """
        number = self._bells[self._bell]
        faulthandler.unregister(number)
        send_to_the_main_thread(number)
        time.sleep(0.001)  # let it take the interpreter, which it needs to end the process
        deadline = time.monotonic() + DELIVERY_PATIENCE
        while number in _of_the_main_thread("SigPnd") and time.monotonic() < deadline:
            time.sleep(0.001)
        self._hold_back(number)
        os.read(self._bell, 65536)  # only now has faulthandler written all

    def release(self) -> None:
        """Let uWSGI have them all, from now on."""
        for number in self._held:
            faulthandler.unregister(number)

    def _hold_back(self, number: signal.Signals) -> None:
        faulthandler.register(number, self._buttons[number], all_threads=False, chain=False)

    def _before_fork(self) -> None:
        """A child hears nothing until it is alone."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, self._held)

    def _after_fork(self) -> None:
        mask = self._masks.pop(threading.get_ident(), None)
        if mask is not None:  # else this was made after the fork had begun
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _leave_child_alone(self) -> None:
        """A signal to a process that the application forks must not ring here; and the child must hear it, also if it
        was forked in a thread that does not.
        """
        self.release()
        self._after_fork()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)


def send_to_the_main_thread(number: int) -> None:
    """Send a signal to this process's main thread, also where another would get it. Not where gevent has patched
    `threading`, which then knows no thread's identity.
    """
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, number)


def are_the_workers() -> bool:
    """Whether uWSGI has put in its handlers for a worker, as it does when the application is loaded and all hooks ran.

    One that is put in before, as `StopSignals` does, is lost. What tells is the last of them, for SIGUSR2, which the
    master does not have. True where there is no /proc.
    """
    caught = _of_the_main_thread("SigCgt")
    return not caught or signal.SIGUSR2 in caught


def block_all() -> None:
    """Have the calling thread hear no signal, for one that runs nothing of the application."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def hear_like_the_main_thread() -> None:
    """Have the calling thread hear what one hears that the application has started in the main thread, but SIGHUP.

    Programs that are started in it inherit that. So they end by SIGTERM. What must not end the worker in this thread
    is held back by `StopSignals`. SIGHUP is not: in a worker with a single core, uWSGI's handler for it ends the
    process.
    """
    blocked = _of_the_main_thread("SigBlk") - set(StopSignals.SIGNALS)  # which it blocks for a moment when it forks
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked | {signal.SIGHUP})


def start_thread(name: str, target: Callable[..., object], *args: object) -> threading.Thread:
    """Start a daemon thread for what the application wants done. It hears signals as the application's own threads do.

    Raises:
        RuntimeError: the system has none left.
    """

    def run() -> None:
        hear_like_the_main_thread()
        target(*args)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _of_the_main_thread(which: str) -> set[int]:
    """A set of signals of the main thread: `SigBlk`, blocked, `SigPnd`, sent to it and not delivered yet, `SigCgt`,
    with a handler.

    Empty where there is no /proc.
    """
    try:
        fd = os.open(f"/proc/self/task/{os.getpid()}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        status = os.read(fd, 65536)  # all: each step can cost a turn at the interpreter, which the end may wait for
    finally:
        os.close(fd)
    found = re.search(rb"^%s:\s*(\w+)$" % which.encode(), status, re.MULTILINE)
    assert found is not None
    bits = int(found[1], 16)
    return {number for number in signal.valid_signals() if bits >> (number - 1) & 1}
