"""The application of the tests of what is asyncio's own: servers in `async def`, which do what their messages say.

UWASP_LOOP=asyncio has the loop be asyncio's own where uvloop is installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import json
import logging
import os
import sys
import threading
import time
from typing import Any

from uwasp import ConnectionClosed, Refusal, WebSocketMiddleware, conversations, stats
from uwasp import Group as OrdinaryGroup
from uwasp import Server as OrdinaryServer
from uwasp_asyncio import AsyncioHandler, Group, Server, WebSocket

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")
logger = logging.getLogger("application")

BLOCK = bytes(2**16)
OF_CONNECTIONS = (WebSocket, conversations.Conversation, asyncio.Future, asyncio.TimerHandle)
whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
rooms: dict[str, WebSocket] = {}
found: dict[str, Any] = {}


class Handler(AsyncioHandler):
    if os.environ.get("UWASP_LOOP") == "asyncio":
        new_event_loop = asyncio.new_event_loop


class Obedient(Server):
    """`name argument` calls `do_name(argument)`."""

    @classmethod
    def authorize(cls, environ: dict[str, Any]) -> str:
        whose.set("the request's")
        if environ["QUERY_STRING"] == "refused":
            raise Refusal
        return str(environ["QUERY_STRING"])

    async def on_open(self) -> None:
        self.before = whose.get()
        whose.set(self.ws.user)
        rooms[self.ws.user] = self.ws

    async def on_message(self, message: str | bytes) -> None:
        word, _, argument = str(message).partition(" ")
        await getattr(self, f"do_{word}")(argument)

    async def on_close(self) -> None:
        logger.info("%s closed %s as %s", self.ws.user, self.ws.close_code, whose.get())

    async def do_say(self, what: str) -> None:
        await self.ws.send(what)

    async def do_sleep(self, seconds: str) -> None:
        await asyncio.sleep(float(seconds))
        await self.ws.send(f"slept {seconds}")

    async def do_block(self, seconds: str) -> None:
        time.sleep(float(seconds))
        await self.ws.send("blocked")

    async def do_block_later(self, seconds: str) -> None:
        await asyncio.sleep(0)
        await self.do_block(seconds)

    async def do_whose(self, _: str) -> None:
        here = whose.get()
        await asyncio.sleep(0)
        in_task = await asyncio.create_task(self.own())
        await self.ws.send(json.dumps([self.before, here, whose.get(), in_task]))

    async def own(self) -> str:
        return whose.get()

    async def do_loop(self, _: str) -> None:
        loop = asyncio.get_running_loop()
        await self.ws.send(f"{type(loop).__module__} {threading.current_thread().name}")

    async def do_tasks(self, _: str) -> None:
        await self.ws.send(str(len(asyncio.all_tasks())))

    async def do_same_task(self, _: str) -> None:
        task = asyncio.current_task()
        await asyncio.sleep(0.01)
        await self.ws.send(str(task is not None and task is asyncio.current_task()))

    async def do_timeout(self, seconds: str) -> None:
        """One that passes, at the first thing that is awaited and at a later one, and one that does not."""
        passed = []
        for _ in range(2):
            try:
                async with asyncio.timeout(float(seconds)):
                    await asyncio.sleep(60)
            except TimeoutError:
                passed.append("passed")
        async with asyncio.timeout(60):
            await asyncio.sleep(0.01)
        await self.ws.send(" ".join(passed))

    async def do_group_of_tasks(self, _: str) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.own()) for _ in range(3)]
        answer = [task.result() for task in tasks]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(60))
                group.create_task(self.fail())
        except ExceptionGroup as errors:  # noqa: F821 - from Python 3.11 on, as task groups
            answer += [type(error).__name__ for error in errors.exceptions]
        await self.ws.send(" ".join(answer))

    async def do_send_in_tasks(self, blocks: str) -> None:
        """Of which the first waits for nothing, and the others for room: the last one is cancelled meanwhile."""
        await asyncio.create_task(Group("tasks").add(self.ws))
        await asyncio.create_task(self.ws.send("hello"))
        await self.do_flood(blocks)
        waits, is_cancelled = (asyncio.create_task(self.ws.send_json(number)) for number in range(2))
        await asyncio.sleep(0.01)
        is_cancelled.cancel()
        found["waiting"] = not waits.done()
        await asyncio.gather(waits, is_cancelled, return_exceptions=True)
        await self.ws.send(f"{waits.exception()} {is_cancelled.cancelled()}")

    async def fail(self) -> None:
        raise LookupError

    async def do_wait_for(self, seconds: str) -> None:
        try:
            await asyncio.wait_for(asyncio.sleep(60), float(seconds))
        except asyncio.TimeoutError:
            await self.ws.send("passed")

    async def do_cancel_me_now(self, _: str) -> None:
        """Without anything being awaited after it."""
        asyncio.current_task().cancel()  # type: ignore[union-attr]

    async def do_cancel_me(self, _: str) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(60)

    async def do_cancel_me_later(self, _: str) -> None:
        asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)  # type: ignore[union-attr]
        await asyncio.sleep(60)

    async def do_await_what_is_cancelled(self, _: str) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    async def do_exit_generator(self, _: str) -> None:
        raise GeneratorExit

    async def do_exit_generator_later(self, _: str) -> None:
        await asyncio.sleep(0.01)
        raise GeneratorExit

    async def do_cancel_beginners(self, _: str) -> None:
        """Cancel every task that has not begun yet, until this connection is closed."""
        loop = asyncio.get_running_loop()

        def cancel() -> None:
            for task in asyncio.all_tasks(loop):
                work = task.get_coro()
                if inspect.iscoroutine(work) and inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                    task.cancel()
            if not self.ws.closed:
                loop.call_soon(cancel)

        cancel()
        await self.ws.send("cancelling")

    async def do_exit(self, _: str) -> None:
        """Out of a task of the server's own."""

        async def leave() -> None:
            sys.exit("out of a task")

        self.leaving = asyncio.create_task(leave())

    async def do_cancel_all(self, _: str) -> None:
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await self.ws.send("cancelled all")

    async def do_hang(self, _: str) -> None:
        await self.ws.send("hanging")
        await asyncio.get_running_loop().create_future()

    async def do_flood(self, blocks: str) -> None:
        """Send without waiting, and say how much is queued."""
        for number in range(int(blocks)):
            self.ws.send(number.to_bytes(8, "big") + BLOCK)
        found["queued"] = self.ws.buffered_amount

    async def do_fill(self, blocks: str) -> None:
        try:
            for number in range(int(blocks)):
                await self.ws.send(number.to_bytes(8, "big") + BLOCK)
                found["filled"] = number
        except ConnectionClosed as error:
            logger.info("%s: ConnectionClosed %s", self.ws.user, error.code)

    async def do_ping(self, blocks: str) -> None:
        await self.ws.ping(b"now")

    async def do_debug(self, seconds: str) -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = float(seconds)
        loop.set_debug(True)
        await self.ws.send("debugging")

    async def do_spawn(self, _: str) -> None:
        AsyncioHandler.spawn(AsyncioHandler.spawn, Handler.spawn, self.say_where)
        Handler.spawn(self.say_thread)

    async def say_where(self) -> None:
        await self.ws.send(f"a task in {threading.current_thread().name}")

    def say_thread(self) -> None:
        self.ws.send(f"a call in {threading.current_thread().name}".rstrip("0123456789"))

    async def do_spawn_failing(self, _: str) -> None:
        Handler.spawn(self.fail)

    async def do_spawn_forever(self, _: str) -> None:
        Handler.spawn(self.forever)

    async def forever(self) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            logger.info("the spawned one was cancelled")

    async def do_spawn_stubborn(self, _: str) -> None:
        Handler.spawn(self.stubborn)

    async def stubborn(self) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def do_members(self, name: str) -> None:
        group = Group("room", name)
        await self.ws.send(json.dumps([os.getpid(), len(await group.members()), await group.count()]))

    async def do_ordinary_members(self, name: str) -> None:
        await self.ws.send(str(len(OrdinaryGroup("room", name).members())))

    async def do_join(self, name: str) -> None:
        await Group("room", name).add(self.ws)
        await self.ws.send(str(os.getpid()))

    async def do_to_group(self, name: str) -> None:
        Group("room", name).send("to all")


async def converse(ws: WebSocket) -> None:
    """Receives in the ways that its messages say."""
    whose.set(ws.environ["QUERY_STRING"])
    async for word in ws:
        if word == "whose":
            await ws.send(whose.get())
        elif word == "timeout":
            try:
                await asyncio.wait_for(ws.receive(), 0.05)
            except asyncio.TimeoutError:
                await ws.send("passed")
            await ws.send(f"then {await ws.receive()}")
        elif word == "two":
            first = asyncio.create_task(ws.receive())
            await asyncio.sleep(0)
            try:
                await ws.receive()
            except RuntimeError as error:
                await ws.send(f"RuntimeError {error}")
            await ws.send(f"first {await first}")
        elif word == "iterate":
            try:
                iter(ws)
            except TypeError as error:
                await ws.send(f"TypeError {error}")
        elif word == "exit_generator":
            raise GeneratorExit
        elif word == "exit_generator_later":
            await asyncio.sleep(0.01)
            raise GeneratorExit
        elif word == "receive":
            await ws.receive()
        elif word == "close_by_thread":
            threading.Timer(0.01, ws.close, [4001]).start()
            await ws.receive()
        elif word == "patience":
            for _ in range(30):
                with contextlib.suppress(TimeoutError):
                    await ws.receive(timeout=1e-6)
            await ws.send("no longer")
        elif word == "hang":
            await ws.send("hanging")
            try:
                await asyncio.sleep(60)
            finally:
                logger.info("the function was cancelled")
        else:
            await ws.send(word)
    logger.info("%s is over", whose.get())


class Plain(OrdinaryServer):
    """Functions that never wait, one of which returns what can be awaited."""

    def on_open(self):
        self.ws.send("open")

    def on_message(self, message):
        return self.ws.send(message) if message != "number" else 12

    def on_close(self):
        logger.info("plain closed")


class Working(Server):
    """Takes some time for each message, in which nothing else runs on its loop."""

    async def on_message(self, message: str | bytes) -> None:
        ends = time.perf_counter() + 25e-6
        while time.perf_counter() < ends:
            pass


async def measure() -> None:
    """How late a task on the loop wakes, in seconds: the median of some."""
    late = []
    for _ in range(50):
        before = time.monotonic()
        await asyncio.sleep(0.01)
        late.append(time.monotonic() - before - 0.01)
    found["late"] = sorted(late)[len(late) // 2]


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The wrapped application: says what was found, or has something done."""
    _, what, *rest = environ["PATH_INFO"].split("/")
    if what == "push":
        for number in range(int(rest[1])):
            rooms[rest[0]].send(f"pushed {number}")
    elif what == "fill":
        for number in range(int(rest[1])):
            rooms[rest[0]].send(number.to_bytes(8, "big") + BLOCK)
            found["sent by a view"] = number
    elif what == "left":
        (loop,) = {thread_loop.loop for thread_loop in Handler._loops.values()}
        found["left"] = {
            "open": stats()["open"],
            "running": len(conversations.running()),
            "tasks": len(asyncio.all_tasks(loop)),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "objects": sum(type(one) in OF_CONNECTIONS for one in gc.get_objects()),
        }
    elif what == "collect":
        gc.disable()  # from now on, what refers to itself is left
        gc.collect()
    elif what == "measure":
        found.pop("late", None)
        Handler.spawn(measure)
    body = json.dumps(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


application = WebSocketMiddleware(
    plain,
    Handler,
    [("/obey", Obedient), ("/plain", Plain), ("/working", Working), ("/converse", converse)],
    **json.loads(os.environ.get("UWASP_OPTIONS", "{}")),
)
