"""A consumer: an asyncio task in which connections are served, one after the other.

What most events do needs no waiting. So the loop runs them at once, in the name of a task that is there already, and
only what awaits something real goes on in that task: it is handed over, with what it awaits. To the code of a server
there is no difference: the current task is the same before and after, can be cancelled, and has timeouts and task
groups. The code itself runs in the context of its connection.

asyncio calls `send` and `throw`, as it does with any coroutine.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from uwasp_asyncio.events import serve

if TYPE_CHECKING:
    from uwasp.connection import Connection

__all__ = ["Consumer"]

logger = logging.getLogger("uwasp.asyncio")

_numbers = itertools.count(1)


class _Task(asyncio.Task[None]):
    """Knows whether anybody ever wanted it cancelled."""

    was_cancelled = False

    def cancel(self, msg: Any | None = None) -> bool:
        self.was_cancelled = True
        return super().cancel(msg)


class Consumer(Coroutine[Any, None, None]):
    """Serves one connection at a time, on the running loop.

    Args:
        is_free: called when a connection that had to wait has been served; returns whether to be there for others.

    Attributes:
        task: its task.
        connection: that it serves and that waits for something; else `None`.
    """

    def __init__(self, is_free: Callable[[Consumer], bool]) -> None:
        self._is_free = is_free
        self._loop = asyncio.get_running_loop()
        self.connection: Connection | None = None
        self._work: Coroutine[Any, None, None] | None = None  # that waits
        self._context: contextvars.Context
        self._awaited: Any = None  # by the work, and the task does not know yet
        self._wake: asyncio.Future[None] | None = None  # for which the task waits while there is no work
        self.task = _Task(self, loop=self._loop, name=f"uwasp-consumer-{next(_numbers)}")

    @property
    def is_fit(self) -> bool:
        """Whether it can serve another connection: a cancellation is not to meet one for which it was not meant."""
        return not self.task.was_cancelled

    def serve(self, connection: Connection) -> bool:
        """Serve a connection for a slice, where the task is the current one, without being in it.

        Returns:
            Whether that is done. Else it waits for something, and the task goes on with it.
        """
        if connection.context is None:
            connection.context = contextvars.Context()
        work = serve(connection)
        try:
            if self._loop.get_debug():
                awaited = self._run(connection, connection.context, work.send, None)
            else:
                awaited = connection.context.run(work.send, None)
        except StopIteration:
            return True
        connection.uncork()
        self.connection = connection
        self._context = connection.context
        self._work = work
        self._awaited = awaited
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        return False

    def send(self, value: None) -> Any:
        """For the task: go on, and return what is waited for next."""
        if self._work is None:
            return self._rest()
        if self._awaited is not None:
            awaited, self._awaited = self._awaited, None
            return awaited
        return self._go_on(self._work.send, None)

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        """For the task: it is cancelled, or what it was given to wait for is nothing that it can."""
        if self._work is None:
            raise error
        if self._awaited is not None:
            awaited, self._awaited = self._awaited, None
            if asyncio.isfuture(awaited) and awaited.cancel():
                return awaited
        return self._go_on(self._work.throw, error)

    def close(self) -> None:
        if self._work is not None:
            self._work.close()

    def __await__(self) -> Any:
        raise TypeError("a consumer is for its task")

    def _go_on(self, how: Callable[[Any], Any], what: Any) -> Any:
        assert self.connection is not None
        try:
            return self._run(self.connection, self._context, how, what)
        except StopIteration:
            self._work = self.connection = None
        if not self._is_free(self):
            raise StopIteration
        return self._rest()

    def _rest(self) -> Any:
        """Have the task wait until there is work for it."""
        self._wake = self._loop.create_future()
        return next(self._wake.__await__())

    def _run(self, connection: Connection, context: contextvars.Context, how: Callable[[Any], Any], what: Any) -> Any:
        """Run the work until it waits. In asyncio's debug mode, one that holds up the loop is named."""
        if not self._loop.get_debug():
            return context.run(how, what)
        name = connection.server.__class__.__name__
        begin = time.monotonic()
        try:
            return context.run(how, what)
        finally:
            took = time.monotonic() - begin
            if took >= self._loop.slow_callback_duration:
                logger.warning("%s held up the event loop for %.3f s, for %s", name, took, connection)
