"""uWASP's handler for uWSGI's gevent loop: one watcher of the hub and a few greenlets for all connections."""

from __future__ import annotations

from uwasp_gevent.handler import GeventHandler

__all__ = ["GeventHandler"]

__version__ = "0.1.0"
