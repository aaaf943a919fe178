"""`Server` with types for `async def`: the class that users derive from, one object of it for each connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uwasp
from uwasp.server import Message
from uwasp_asyncio.websocket import WebSocket

__all__ = ["Server"]


class Server(uwasp.Server[Message]):
    """A `uwasp.Server` whose events are `async def`.

    They come as there: one at a time and in order, `on_open` first and `on_close` last. Those of one connection run in
    one `contextvars` context of its own. While one awaits, all other connections go on. An event that never awaits may
    be a plain `def`.
    """

    ws: WebSocket

    def __init__(self, ws: WebSocket) -> None:
        super().__init__(ws)

    # For type checkers they are those of `uwasp.Server`, which either kind of method may override.
    if not TYPE_CHECKING:

        async def on_open(self) -> None:
            """The connection is open: messages can be sent."""

        async def on_message(self, message: Message) -> None:
            """A message has arrived: a `str` for text, `bytes` for binary; or what `codec` makes."""

        async def on_notify(self, group: Any, data: Any) -> None:
            """Somebody has called `group.notify(data)`. See `uwasp.Server.on_notify`."""

        async def on_presence(self, group: Any, joined: Any, left: Any) -> None:
            """Somebody has come into a group, or has gone. See `uwasp.Server.on_presence`."""

        async def on_missed(self, group: Any) -> None:
            """Something of a group was lost on its way here. See `uwasp.Server.on_missed`."""

        async def on_close(self) -> None:
            """The connection is over, whoever closed it and however; see `ws.close_code` and `ws.close_reason`."""
