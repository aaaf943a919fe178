"""What a method returns that has acted at once, and after which one may wait.

It is awaited; or given to a task, as coroutines are; or left, and nothing is said of that, as Python says it of a
coroutine. This module knows no connection and no group.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Acted"]


class Acted(Coroutine[Any, Any, None]):
    """Waits, where it is awaited or in a task. A class derived from it says for what."""

    __slots__ = ("_work",)

    _work: Coroutine[Any, Any, None]  # once it has begun in a task

    async def wait(self) -> None:
        """Wait."""

    def __await__(self) -> Generator[Any, Any, None]:
        return self.wait().__await__()

    def send(self, value: Any) -> Any:
        """For a task."""
        return self._begun().send(value)

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        """For a task."""
        return self._begun().throw(error)

    def close(self) -> None:
        """For a task that does not go on."""
        if hasattr(self, "_work"):
            self._work.close()

    def _begun(self) -> Coroutine[Any, Any, None]:
        if not hasattr(self, "_work"):
            self._work = self.wait()
        return self._work
