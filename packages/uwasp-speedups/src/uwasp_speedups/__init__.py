"""The hot paths of uwasp-core in C. Install it, and uwasp-core finds it; there is nothing to call."""

from __future__ import annotations

from uwasp_speedups._speedups import accelerate, send_to_all, take_messages

__all__ = ["accelerate", "send_to_all", "take_messages"]

__version__ = "0.1.0"
