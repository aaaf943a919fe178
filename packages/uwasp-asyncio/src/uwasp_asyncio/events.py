"""How the events of one connection reach its server, where they may be awaited: the steps of `uwasp.Connection`.

This module knows no loop and no task: it awaits, and whoever runs it decides what else goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uwasp.connection import Connection

__all__ = ["serve"]

MESSAGES = (str, bytes)  # what else is told is no message


async def serve(connection: Connection) -> None:
    """Call the server for what has arrived, until its slice is over: what a consumer does.

    Whatever the server raises is about its connection. That includes `CancelledError`, for something that it awaited
    may have been cancelled; and `GeneratorExit`, or the connection would be served no more, and never end.
    """
    server: Any = connection.server
    if connection.begin(True):
        await _attempt(connection, server.on_open)
    while events := connection.take():
        left = len(events)
        are_several = left > 1
        for event in events:
            if are_several:
                connection.cork()
            try:
                told = server.on_message(event) if isinstance(event, MESSAGES) else event.tell(server)
                if told is not None and (type(told) is CoroutineType or isawaitable(told)):
                    await told
            except BaseException as error:
                connection.fail(error)
            left -= 1
            if left and events and connection.slice_is_over:
                connection.put_back(events[-left:])
                break
        if are_several:
            connection.send_corked()
    if events is None:
        try:
            told = server.on_close()
            if isawaitable(told):
                await told
        except BaseException as error:
            connection.done(error)
        else:
            connection.done()


async def _attempt(connection: Connection, event: Callable[[], object]) -> None:
    try:
        told = event()
        if isawaitable(told):
            await told
    except BaseException as error:
        connection.fail(error)
