"""Servers that are functions: how an `async def` converses, by the steps of `uwasp.conversations.Conversation`.

It runs in a task of its own. Its consumer only tells it that there may be something to receive.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from uwasp.conversations import NOTHING, Conversation

__all__ = ["converse", "receive"]


async def converse(conversation: Conversation) -> None:
    """Call the function, and see its connection to its end."""
    error = result = None
    try:
        result = await conversation.function(conversation.ws)
    except BaseException as raised:
        error = raised
    if isinstance(error, asyncio.CancelledError | GeneratorExit) and not conversation.ws.connection.open:
        error = None  # the worker ends
    conversation.finish(error, result)
    error = None  # or its traceback, which has this frame, would be kept with all that it refers to


async def receive(conversation: Conversation, timeout: float | None) -> Any:
    """The next message, when there is one. See `uwasp_asyncio.WebSocket.receive`."""
    conversation.begin_receiving(timeout)
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    try:
        while True:
            told = loop.create_future()
            conversation.alarm = partial(_tell, told)  # before looking: it may be told at once
            message = conversation.next()
            if message is not NOTHING:
                return message
            await _wait(told, deadline, timeout)
    finally:
        conversation.alarm = None
        conversation.end_receiving()


async def _wait(told: asyncio.Future[None], deadline: float | None, timeout: float | None) -> None:
    if deadline is None:
        await told
        return
    loop = told.get_loop()
    left = deadline - loop.time()
    if left <= 0:
        raise TimeoutError(f"no message came within {timeout} s")
    timer = loop.call_later(left, _tell, told)
    try:
        await told
    finally:
        timer.cancel()


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
