"""`AsyncioHandler`, and where it refuses to run."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar

from uwasp import Handler, goodbye, preflight, signals
from uwasp.conversations import Conversation
from uwasp.server import ServerInterface
from uwasp_asyncio.loop import Loop
from uwasp_asyncio.websocket import WebSocket

logger = logging.getLogger("uwasp.asyncio")

try:  # before uWSGI forks: in a worker it would take its time at the first connection
    from uvloop import new_event_loop
except ImportError as error:
    from asyncio import new_event_loop  # type: ignore[assignment]

    if not isinstance(error, ModuleNotFoundError):
        logger.warning("uvloop is not used, because it cannot be loaded: %s", error)

__all__ = ["AsyncioHandler"]

_numbers = itertools.count(1)

OURS = ("uwasp", "uwasp_asyncio")
MOST_PLACES = 100  # in the application's code, of which the log says that nothing can wait there


class AsyncioHandler(Handler):
    """Handles connections on an event loop, one in each process, in a thread beside uWSGI's.

    Servers' methods are `async def`, or plain functions that never wait. A connection that is idle costs no task, and
    one that awaits holds up nobody. One that blocks holds up all others; in asyncio's debug mode the log names it.

    Attributes:
        max_conversations: the largest number of servers that are functions, each of which is a task (default: 10,000).
    """

    websocket_class = WebSocket
    runs = "coroutines"
    max_conversations = 10_000

    _loops: ClassVar[dict[tuple[type[AsyncioHandler], int], Loop]] = {}
    _loops_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, ws: WebSocket, server: ServerInterface | Conversation) -> None:
        super().__init__(ws, server)
        self._own_loop = self._of_this_process()
        if isinstance(server, Conversation):
            server.alarm = partial(self._own_loop.begin, server)

    @classmethod
    def check(cls) -> None:
        """Refuse a process in which the loop's thread would not run.

        Raises:
            ConfigurationError: uWSGI has threads disabled, or runs requests in another way than by threads, or gevent
                has replaced threads.
        """
        preflight.check_threads(cls.__name__)

    def handle(self, environ: dict[str, Any], protocol_name: str | None = None) -> Iterable[bytes]:
        """Hand the connection to the loop's thread; the uWSGI thread of the request is free again."""
        self._own_loop.listener.add(self.ws, self.server)
        return []

    @classmethod
    def spawn(cls, function: Callable[..., object], *args: Any) -> None:
        """Run `function(*args)` beside what runs. From any thread.

        What is `async def` runs in a task on the loop. It is kept as long as it runs, what it raises is logged, and it
        is cancelled when the worker ends. Any other function, as it may block, is called in a daemon thread of its own.

        Raises:
            ConfigurationError: uWSGI loads the application, and is yet to fork its workers.
            RuntimeError: no further thread can be started.
            OSError: the loop's thread cannot be started.
        """
        preflight.check_spawn(cls.__name__)
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            cls._of_this_process().start(function, *args)
        else:
            signals.start_thread(f"uwasp-spawned-{next(_numbers)}", function, *args)

    _places_told: ClassVar[set[str]] = set()

    @classmethod
    def new_waiter(cls) -> threading.Event | None:
        """A real event, for threads. On the loop there is no waiting so, and the log says it, once for each place."""
        if not any(loop.is_here() for loop in cls._loops.values()):
            return threading.Event()
        place = _place_of_the_caller()
        if place not in cls._places_told and len(cls._places_told) < MOST_PLACES:
            cls._places_told.add(place)
            logger.warning(
                "on the event loop, uwasp.Group cannot wait until other processes have answered, and has those members "
                "who are known here: await the methods of uwasp_asyncio.Group, in %s",
                place,
            )
        return None

    @classmethod
    def new_event_loop(cls) -> asyncio.AbstractEventLoop:
        """Make the event loop: uvloop's if that is installed, else asyncio's. A class derived from this may choose."""
        return new_event_loop()

    @classmethod
    def _of_this_process(cls) -> Loop:
        """It is started at a process's first connection: uWSGI forks after the application is loaded."""
        key = cls, os.getpid()
        loop = cls._loops.get(key)
        if loop is None:
            with cls._loops_lock:
                loop = cls._loops.get(key)
                if loop is None:
                    loop = Loop(cls.new_event_loop)
                    goodbye.arrange(loop.listener, threading.Event, cls.spawn)
                    goodbye.afterwards(loop.end)
                    cls._loops[key] = loop
        return loop


def _place_of_the_caller() -> str:
    """The innermost line of a stack that is none of ours."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in OURS:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
