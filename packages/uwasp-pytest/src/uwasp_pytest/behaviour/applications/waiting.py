"""How servers of the tests wait: they are written in `async def`, and run with every handler.

Under one that runs functions they are functions: what such an event, or a function that converses, waits for, it waits
for there and then.
UWASP_HANDLER names the handler. UWASP_WAITS says in whose way servers wait under one that is none of ours: "threads",
"gevent" or "asyncio". This is for the applications, inside uWSGI.
"""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

__all__ = ["HANDLER", "WAITS", "Event", "event", "messages", "nap", "sleep", "waited"]

HANDLER = os.environ["UWASP_HANDLER"]
WAITS = os.environ.get("UWASP_WAITS", HANDLER)

if WAITS == "gevent":
    from gevent import sleep as nap
    from gevent.event import Event
else:
    from threading import Event
    from time import sleep as nap


if WAITS == "asyncio":
    import asyncio

    def event(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def waited(result: Any) -> Any:
        """What comes of it: of something that can be awaited, or of an event that a thread sets."""
        if isinstance(result, Event):
            return await asyncio.to_thread(result.wait)
        return await result if hasattr(result, "__await__") else result

else:

    def event(function: Callable[..., Any]) -> Callable[..., Any]:
        """A plain function that runs the `async def` to its end."""

        @functools.wraps(function)
        def run(*arguments: Any, **keywords: Any) -> Any:
            try:
                function(*arguments, **keywords).send(None)
            except StopIteration as end:
                return end.value
            raise AssertionError("an event has waited for something that it cannot wait for")

        return run

    async def sleep(seconds: float) -> None:
        nap(seconds)

    async def waited(result: Any) -> Any:
        if isinstance(result, Event):
            return result.wait()
        return await result if hasattr(result, "__await__") else result


async def messages(ws: Any) -> AsyncIterator[str | bytes]:
    """What a function receives until the connection ends."""
    if WAITS == "asyncio":
        async for message in ws:
            yield message
    else:
        for message in ws:
            yield message
