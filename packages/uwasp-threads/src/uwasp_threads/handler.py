"""`ThreadHandler`, and where it refuses to run."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from uwasp import ConfigurationError, Handler, WebSocket, goodbye, takeover
from uwasp.server import ServerInterface
from uwasp_threads.threads import Threads, start_thread

__all__ = ["ThreadHandler"]

_numbers = itertools.count(1)
# uWSGI interns a dozen names for the environ of each request. If nobody keeps them they are forgotten with it, and the
# interpreter's table of interned strings, which has not room for all that it had, is made anew every thousand requests:
# a megabyte, in the memory of whichever thread that happens in, which keeps it.
_names_in_environ: set[str] = set()


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
            ConfigurationError: uWSGI has threads disabled, or runs requests in another way than by threads, or gevent
                has replaced threads.
        """
        if not takeover.running_under_uwsgi():
            return
        loop = takeover.loop()
        if loop == "gevent":
            raise ConfigurationError(
                f"{cls.__name__} is not for uWSGI's gevent loop: "
                'pass handler_class="gevent" (pip install uwasp-gevent), or run uWSGI with --threads, not --gevent'
            )
        if takeover.async_cores() or loop is not None:
            mode = "--async N, alone or with --ugreen or --greenlet" if loop is None else f"{loop} loop"
            raise ConfigurationError(
                f"{cls.__name__} is not for uWSGI's {mode}: threads may starve there, and a worker ends without a "
                "goodbye; take --threads N in its place"
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
        if not _names_in_environ:
            _names_in_environ.update(name for name in environ if not name.startswith("HTTP_"))
        self._own_threads.listener.add(self.ws, self.server)
        return []

    @classmethod
    def spawn(cls, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` in a daemon thread of its own, which hears the signals that consumers hear.

        Raises:
            RuntimeError: no further thread can be started.
        """
        start_thread(f"uwasp-spawned-{next(_numbers)}", function, *args)

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
                    goodbye.arrange(threads.listener, threading.Event, cls.spawn)
                    cls._threads[key] = threads
        return threads
