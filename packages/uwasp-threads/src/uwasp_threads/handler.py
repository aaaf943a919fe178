"""`ThreadHandler`, and where it refuses to run."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, ClassVar

from uwasp import ConfigurationError, Handler, WebSocket, statistics, takeover
from uwasp.server import ServerInterface
from uwasp_threads.threads import Threads, start_thread

__all__ = ["ThreadHandler"]

# How long a stop waits for handshakes that are under way in uWSGI's threads, in seconds.
HANDSHAKE_PATIENCE = 0.2


class ThreadHandler(Handler):
    """Handles connections with one listener thread and consumer threads, which all connections of a process share.

    An idle connection costs no thread. A server that blocks keeps one consumer thread; another takes its place for
    the other connections.

    Attributes:
        max_consumers: the largest number of consumer threads in a process (default: 64). So many servers can block at
            once before others wait for them. To set it, derive a class with another value and pass that.
    """

    max_consumers: ClassVar[int] = 64

    _threads: ClassVar[dict[tuple[type[ThreadHandler], int], Threads]] = {}
    _threads_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, ws: WebSocket, server: ServerInterface) -> None:
        super().__init__(ws, server)
        self._own_threads = self._of_this_process()

    @classmethod
    def check(cls) -> None:
        """Refuse a process in which threads would not run.

        Raises:
            ConfigurationError: uWSGI has threads disabled, or runs its gevent loop, or gevent has replaced threads.
        """
        if not takeover.running_under_uwsgi():
            return
        if takeover.loop() == "gevent":
            raise ConfigurationError(
                f"{cls.__name__} is not for uWSGI's gevent loop: "
                'pass handler_class="gevent" (pip install uwasp-gevent), or run uWSGI with --threads, not --gevent'
            )
        if not takeover.threads_enabled():
            raise ConfigurationError(
                f"{cls.__name__} needs Python threads, which uWSGI has disabled: "
                "add --enable-threads (enable-threads = true in an ini file), or --threads N"
            )
        monkey = sys.modules.get("gevent.monkey")
        if monkey is not None and monkey.is_module_patched("threading"):
            raise ConfigurationError(
                f"{cls.__name__} needs real threads, which gevent.monkey has patched away: "
                'run uWSGI with --gevent and handler_class="gevent", or leave threads unpatched'
            )

    def handle(self, environ: dict[str, Any], protocol_name: str | None = None) -> Iterable[bytes]:
        """Hand the connection to the listener thread; the uWSGI thread of the request is free again."""
        self._own_threads.listener.add(self.ws, self.server)
        return []

    @classmethod
    def _of_this_process(cls) -> Threads:
        """The threads are started at a process's first connection: uWSGI forks after the application is loaded."""
        key = cls, os.getpid()
        threads = cls._threads.get(key)
        if threads is None:
            with cls._threads_lock:
                threads = cls._threads.get(key)
                if threads is None:
                    threads = Threads(cls.max_consumers)
                    if not cls._all_of_this_process():
                        signals = takeover.StopSignals()
                        start_thread("uwasp-stop", lambda: cls._shut_down_before(signals))
                    cls._threads[key] = threads
                    takeover.at_exit(cls._shut_down)  # called first, being the last to be added
                    takeover.leave_when_due(threads.listener.call_later)
        return threads

    @classmethod
    def _all_of_this_process(cls) -> list[Threads]:
        """Those of derived classes too."""
        return [threads for (_, pid), threads in list(cls._threads.items()) if pid == os.getpid()]

    @classmethod
    def _shut_down_before(cls, signals: takeover.StopSignals) -> None:
        """Wait for a signal to stop, and part from everybody before uWSGI has it."""
        while True:
            signals.wait()
            try:
                cls._shut_down()
            finally:
                signals.hand_on()

    @classmethod
    def _shut_down(cls) -> None:
        """Part from all clients. uWSGI calls it once more after a signal, and then it has no more time to give."""
        threads = cls._all_of_this_process()
        _wait_for_handshakes()
        for own in threads:
            own.part()
        for own in threads:
            own.wait_for_the_end()
        _wait_for_handshakes()  # one that came meanwhile is told as soon as it is over


def _wait_for_handshakes() -> None:
    """A client that has been answered 101 is to be told as well, though no listener has it yet."""
    deadline = time.monotonic() + HANDSHAKE_PATIENCE
    while statistics.accepting() and time.monotonic() < deadline:
        time.sleep(0.001)
