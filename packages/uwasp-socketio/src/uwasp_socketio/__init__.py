"""python-socketio, python-engineio and Flask-SocketIO on uWSGI, with uWASP under them."""

from __future__ import annotations

from uwasp_socketio.installation import install

__all__ = ["install"]

__version__ = "0.1.0"
