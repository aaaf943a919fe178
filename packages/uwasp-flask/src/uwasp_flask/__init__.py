"""uWASP in Flask: `@sock.route`, as in flask-sock, on uWSGI."""

from __future__ import annotations

from uwasp_flask.sock import Sock
from uwasp_flask.websocket import ConnectionClosed, WebSocket

__all__ = ["ConnectionClosed", "Sock", "WebSocket"]

__version__ = "0.1.0"
