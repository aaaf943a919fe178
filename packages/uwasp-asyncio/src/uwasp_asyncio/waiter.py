"""What a coroutine waits with for something that another thread tells.

This module knows no connection and no group.
"""

from __future__ import annotations

import asyncio

__all__ = ["Waiter"]


class Waiter:
    """A `uwasp.listener.Waiter` whose `wait` is awaited. Make it in the loop that waits; `set` is for any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told = self._loop.create_future()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self._told.done():
            self._told.set_result(None)

    def clear(self) -> None:
        if self._told.done():
            self._told = self._loop.create_future()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for `set`, up to `timeout` seconds; return whether it was called."""
        done, _ = await asyncio.wait((self._told,), timeout=timeout)
        return bool(done)
