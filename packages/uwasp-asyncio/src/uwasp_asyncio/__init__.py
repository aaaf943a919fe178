"""uWASP's handler for servers in `async def`: one event loop in each worker, in a thread of its own."""

from __future__ import annotations

from uwasp_asyncio.group import Group
from uwasp_asyncio.handler import AsyncioHandler
from uwasp_asyncio.server import Server
from uwasp_asyncio.websocket import WebSocket

__all__ = ["AsyncioHandler", "Group", "Server", "WebSocket"]

__version__ = "0.1.0"
