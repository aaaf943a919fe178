"""`ThreadHandler`, and where it refuses to run."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from uwasp import Handler, WebSocket, goodbye, preflight
from uwasp.conversations import Conversation
from uwasp.server import ServerInterface
from uwasp.signals import start_thread
from uwasp_threads.threads import Threads

__all__ = ["ThreadHandler"]

_numbers = itertools.count(1)


class ThreadHandler(Handler):
    """Handles connections with one listener thread and consumer threads, which all connections of a process share.

    An idle connection costs no thread. A server that blocks keeps one consumer thread; another takes its place for
    the other connections.

    Attributes:
        max_consumers: the largest number of consumer threads in a process (default: 64). So many servers can block at
            once before others wait for them. To set it, derive a class with another value and pass that.
        max_conversations: the largest number of servers that are functions, each of which is a thread (default: 256).
    """

    max_consumers: ClassVar[int] = 64

    _threads: ClassVar[dict[tuple[type[ThreadHandler], int], Threads]] = {}
    _threads_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, ws: WebSocket, server: ServerInterface | Conversation) -> None:
        super().__init__(ws, server)
        self._own_threads = self._of_this_process()

    @classmethod
    def check(cls) -> None:
        """Refuse a process in which threads would not run.

        Raises:
            ConfigurationError: uWSGI has threads disabled, or runs requests in another way than by threads, or gevent
                has replaced threads.
        """
        preflight.check_threads(cls.__name__)

    def handle(self, environ: dict[str, Any], protocol_name: str | None = None) -> Iterable[bytes]:
        """Hand the connection to the listener thread; the uWSGI thread of the request is free again."""
        self._own_threads.listener.add(self.ws, self.server)
        return []

    @classmethod
    def spawn(cls, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` in a daemon thread of its own, which hears the signals that consumers hear.

        Raises:
            ConfigurationError: uWSGI loads the application, and is yet to fork its workers.
            RuntimeError: no further thread can be started.
        """
        preflight.check_spawn(cls.__name__)
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
