"""uWASP's handler for uWSGI with threads: one listener thread and a few consumer threads for all connections."""

from __future__ import annotations

from uwasp_threads.handler import ThreadHandler

__all__ = ["ThreadHandler"]

__version__ = "0.1.0"
