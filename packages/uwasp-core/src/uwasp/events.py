"""What a server is told that is no message: what happened in a group that it is in.

It waits in the inbox of a connection with the messages, and is told in its turn. This module must never know how it
gets there, nor who schedules.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Told"]


class Told:
    """A call of one of a server's methods about a group: `on_notify`, `on_presence` or `on_missed`.

    Args:
        method: its name. A server need not have it.
        group: what it is about, the method's first argument; what is equal is the same group.
        arguments: the others.
        size: for how many bytes it counts while it waits (default: none); `len` of it.
        dumped: the JSON of one more argument, of which each server that is told is given a copy of its own.
    """

    __slots__ = ("_dumped", "_size", "arguments", "group", "method")

    def __init__(self, method: str, group: Any, *arguments: Any, size: int = 0, dumped: bytes | None = None) -> None:
        self.method = method
        self.group = group
        self.arguments = arguments
        self._size = size
        self._dumped = dumped

    def __len__(self) -> int:
        return self._size

    def __bool__(self) -> bool:
        return True  # whatever its size

    def tell(self, server: Any) -> Any:
        """Call the method, if the server has it, and return what it does: of an `async def`, what is to be awaited."""
        method = getattr(server, self.method, None)
        if method is None:
            return None
        if self._dumped is not None:
            return method(self.group, *self.arguments, json.loads(self._dumped))
        return method(self.group, *self.arguments)

    def __repr__(self) -> str:
        return f"<{self.method} of {self.group!r}>"
