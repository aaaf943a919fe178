"""uWASP in Django: WebSockets with its URLs, its middleware, its users and its database connections, on uWSGI."""

from __future__ import annotations

from uwasp_django.application import WebSocketApplication
from uwasp_django.views import websocket

__all__ = ["WebSocketApplication", "websocket"]

__version__ = "0.1.0"
