"""The event loop of one process: it watches the listener, and runs the servers' coroutines.

The callback for the listener reads what has arrived, then has consumers serve what is ready, for a *turn*: then the
loop looks at all else, the application's own tasks for instance, and calls back. A consumer whose connection has to
wait goes on by itself, in its task; the callback goes on with another one.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import inspect
import logging
import threading
import time
from asyncio.tasks import _enter_task, _leave_task  # of "Extending asyncio" in Python's documentation
from collections.abc import Callable, Coroutine
from typing import Any

from uwasp import Listener, signals
from uwasp.conversations import Conversation
from uwasp_asyncio.consumer import Consumer
from uwasp_asyncio.functions import converse

__all__ = ["Loop"]

logger = logging.getLogger("uwasp.asyncio")

# For how long consumers are run before the loop looks at what else there is, in seconds.
TURN = 0.002
# So many consumers wait for more when there is nothing to do; the others, which were needed for a time, end.
IDLE_CONSUMERS = 16
# How long tasks have to end when the worker does and they have been cancelled, in seconds.
CANCELLED_TIMEOUT = 0.5
# So many of those that hang then are named.
NAMED = 20


class _Kept(asyncio.Task[None]):
    """Begins, also where it is cancelled before that, as by somebody who cancels all tasks: what it runs has been
    counted, and sees to it at its end that it is no longer.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        if inspect.getcoroutinestate(self.get_coro()) != inspect.CORO_CREATED:  # type: ignore[arg-type]  # it is one
            return super().cancel(msg)
        self.get_loop().call_soon(super().cancel, msg)  # behind its first step
        return True


class Loop:
    """Starts a thread with an event loop that watches a listener of its own.

    Args:
        new_event_loop: makes the event loop, in that thread.

    Attributes:
        listener: the listener.
        loop: the event loop.

    Raises:
        OSError: no thread (EAGAIN), or no descriptor, is left.
    """

    listener: Listener
    loop: asyncio.AbstractEventLoop

    def __init__(self, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._new_event_loop = new_event_loop
        self._resting: list[Consumer] = []
        self._busy: set[Consumer] = set()  # whose connections wait for something
        self._spawned: set[asyncio.Task[None]] = set()
        self._is_ending = False
        self._spawned_are_over = threading.Event()  # after `end`
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._next_turn: asyncio.Handle | None = None
        self._error: BaseException | None = None
        is_made = threading.Event()
        try:
            self._thread = signals.start_thread("uwasp-loop", self._live, is_made)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"the loop's thread: {error}") from error
        is_made.wait()
        if self._error is not None:
            raise self._error

    def is_here(self) -> bool:
        """Whether it is the calling thread's."""
        return threading.current_thread() is self._thread

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Run `function(*args)`, which is `async def`, in a task. From any thread."""
        if self.is_here():
            self._start(function, args)
        else:
            self.loop.call_soon_threadsafe(self._start, function, args)

    def begin(self, conversation: Conversation) -> None:
        """Call a server that is a function. In the loop, where its connection is ready for the first time; elsewhere,
        the connection has come to nothing.
        """
        conversation.alarm = None
        if not conversation.is_over:
            contextvars.Context().run(self._keep, converse(conversation), str(conversation))

    def end(self) -> None:
        """The worker ends, and has parted from its clients: cancel what was started, and name what goes on.

        From another thread.
        """
        self.loop.call_soon_threadsafe(self._cancel_spawned)
        self._spawned_are_over.wait(CANCELLED_TIMEOUT)
        waiting = (consumer.connection for consumer in list(self._busy))
        hanging = [f"{one.server.__class__.__name__} of {one}" for one in waiting if one is not None]
        hanging += [task.get_name() for task in list(self._spawned) if not task.done()]
        for name in hanging[:NAMED]:
            logger.warning("the worker ends, and does not wait for what hangs: %s", name)

    # In the thread

    def _live(self, is_made: threading.Event) -> None:
        try:
            self._make()
        except BaseException as error:
            self._error = error
            return
        finally:
            is_made.set()
        while not self.loop.is_closed():
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                logger.exception("a task or a callback of the application's wanted to end the process")

    def _make(self) -> None:
        self.loop = self._new_event_loop()
        try:
            self.listener = Listener(new_waiter=self._new_waiter)
            self.loop.add_reader(self.listener.poller.fileno(), self._poll)
        except BaseException:
            self.loop.close()
            raise
        asyncio.set_event_loop(self.loop)

    def _new_waiter(self) -> threading.Event | None:
        return None if self.is_here() else threading.Event()

    def _poll(self) -> None:
        """Something is ready, a timer is due, or it is the next turn."""
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self.listener.poll(0)
        try:
            self._consume()
        finally:
            self._come_back()
            self._set_timer()

    def _come_back(self) -> None:
        """Have the loop call again, once it has looked at all else, if there is something to do."""
        if self.listener.ready and self._next_turn is None:
            self._next_turn = self.loop.call_soon(self._poll)

    def _set_timer(self) -> None:
        due = self.listener.next_due
        if due == self._timer_due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = None
        if due is not None:
            self._timer = self.loop.call_later(max(0.0, due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer_due = None  # the loop's clock may lag behind: what is not quite due is waited for once more
        self._poll()

    def _consume(self) -> None:
        """Serve what is ready, until the turn is over."""
        ready = self.listener.ready
        turn_ends = self.listener.now + TURN
        while ready:
            consumer = self._consumer()
            is_done = True
            task = consumer.task
            _enter_task(self.loop, task)
            try:
                while ready and is_done and not task.was_cancelled:
                    connection = ready.popleft()
                    if connection.conversation is not None:
                        connection.conversation.wake()
                        continue
                    is_done = consumer.serve(connection)
                    if time.monotonic() >= turn_ends:
                        break
            finally:
                _leave_task(self.loop, task)
            if not is_done:
                self._busy.add(consumer)
            elif consumer.is_fit:
                self._resting.append(consumer)
            if time.monotonic() >= turn_ends:
                return

    def _consumer(self) -> Consumer:
        while self._resting:
            consumer = self._resting.pop()
            if consumer.is_fit:
                return consumer
        return Consumer(self._is_free)

    def _is_free(self, consumer: Consumer) -> bool:
        """A consumer has served the connection that had to wait; return whether it is to be there for others."""
        self._busy.discard(consumer)
        self._come_back()
        if len(self._resting) >= IDLE_CONSUMERS or not consumer.is_fit:
            return False
        self._resting.append(consumer)
        return True

    def _start(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._keep(_run(function, args), getattr(function, "__qualname__", repr(function)))

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run it in a task, which the loop itself would not keep."""
        task = _Kept(work, loop=self.loop, name=name)
        self._spawned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._spawned.discard(task)
        if self._is_ending and not self._spawned:
            self._spawned_are_over.set()

    def _cancel_spawned(self) -> None:
        self._is_ending = True
        for task in self._spawned:
            task.cancel()
        if not self._spawned:
            self._spawned_are_over.set()


async def _run(function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """What is raised is logged. Were `sys.exit()` raised out of a task, it would end the loop."""
    try:
        await function(*args)
    except (Exception, SystemExit, KeyboardInterrupt):
        logger.exception("error in %r, which was spawned", function)
