"""Whether the other workers of this uWSGI are there for the clients of one that ends.

uWSGI does not tell a worker whether it ends alone, as in a chain reload, or with all others. So each that ends says so
by a name that its kernel keeps for as long as it lives: a socket in the abstract namespace, of which Linux alone has
one. Nobody reads or writes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from uwasp import takeover

__all__ = ["announce_end", "stay"]

_announced: dict[int, socket.socket] = {}  # by process


def announce_end() -> None:
    """Let the other workers know that this one ends."""
    slot = takeover.slot()
    if slot is None or sys.platform != "linux" or os.getpid() in _announced:
        return
    name = _announced[os.getpid()] = _socket()
    with contextlib.suppress(OSError):  # a process that the worker before us forked lives on, and has it
        name.bind(_name(slot))


def stay() -> bool:
    """Whether there are other workers, and none of them ends."""
    if sys.platform != "linux":
        return False
    others = takeover.other_slots()
    return bool(others) and not any(_ends(slot) for slot in others)


def _ends(slot: str) -> bool:
    with _socket() as asking:
        return asking.connect_ex(_name(slot)) == 0


def _socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def _name(slot: str) -> str:
    return f"\0uwasp-end-{slot}"
