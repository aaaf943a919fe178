"""The identity of this process, which tells it from all others on a bus, on this machine and on others."""

from __future__ import annotations

import os

__all__ = ["identity"]

_identities: dict[int, bytes] = {}  # by process: one that was forked has its own


def identity() -> bytes:
    """8 random bytes, the same for as long as the process lives."""
    process = os.getpid()
    return _identities.get(process) or _identities.setdefault(process, os.urandom(8))
