"""uWASP: WebSockets for any WSGI application on uWSGI."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from uwasp.allowed import Allowed
from uwasp.bus import Bus, open_bus
from uwasp.codec import JSON, Codec
from uwasp.compression import Deflate
from uwasp.conversations import conversation
from uwasp.exceptions import ConfigurationError, ConnectionClosed, HandlerNotFound, Refusal, UwaspError
from uwasp.group import Group
from uwasp.handler import Handler
from uwasp.listener import Listener
from uwasp.middleware import WebSocketMiddleware
from uwasp.options import Options
from uwasp.presence import Member
from uwasp.server import Server
from uwasp.speedups import accelerate
from uwasp.statistics import stats
from uwasp.websocket import WebSocket

if TYPE_CHECKING:
    from uwasp_asyncio import AsyncioHandler as AsyncioHandler
    from uwasp_gevent import GeventHandler as GeventHandler
    from uwasp_threads import ThreadHandler as ThreadHandler

__all__ = [
    "JSON",
    "Allowed",
    "Bus",
    "Codec",
    "ConfigurationError",
    "ConnectionClosed",
    "Deflate",
    "Group",
    "Handler",
    "HandlerNotFound",
    "Listener",
    "Member",
    "Options",
    "Refusal",
    "Server",
    "UwaspError",
    "WebSocket",
    "WebSocketMiddleware",
    "conversation",
    "open_bus",
    "stats",
]

__version__ = "0.1.0"

accelerate(__version__)

# Handlers of distributions of their own, imported on first use: name -> (module, distribution).
_ELSEWHERE = {
    "AsyncioHandler": ("uwasp_asyncio", "uwasp-asyncio"),
    "GeventHandler": ("uwasp_gevent", "uwasp-gevent"),
    "ThreadHandler": ("uwasp_threads", "uwasp-threads"),
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, distribution = _ELSEWHERE[name]
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # it is installed, and something that it needs is not
        raise ImportError(f"{name} is in a package of its own: pip install {distribution}", name=module) from None
