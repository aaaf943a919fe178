"""What is to be known of epoll below gevent: the listener's own, and the one by which the hub's loop itself waits.

This module knows no connection, no greenlet and nothing of uWSGI.
"""

from __future__ import annotations

import os
import select
from functools import cache
from typing import Any

from gevent.monkey import get_original, is_module_patched

from uwasp.poller import Poller, SelectorPoller

__all__ = ["new_poller", "unregister"]


def new_poller() -> Poller:
    """The platform's poller, also where gevent's monkey-patching has removed epoll from `select`."""
    epoll = _unpatched_epoll()
    return epoll() if epoll is not None else SelectorPoller()


def unregister(loop: Any, fd: int) -> None:
    """Take a descriptor, which nothing waits for any more, out of the epoll of gevent's loop, if it has one.

    libev leaves it there when a watcher stops, and trusts the kernel to forget it when it is closed. The kernel does
    not, as long as the connection has a duplicate: libev gets its events, under a number that is closed or something
    else, and registers all that it watches anew, every time. libuv asks for it to be taken out, by that number.
    """
    epoll = _unpatched_epoll()
    if epoll is None:
        return
    try:
        # Looked for each time, for libev has another after a fork, or after registering all anew. Of a number of its
        # own, since the object closes what it was made from.
        with epoll.fromfd(os.dup(loop.fileno())) as own:
            own.unregister(fd)
    except (AttributeError, TypeError, OSError):
        return  # nothing has waited for it; or the loop waits by something else, which forgets it


@cache
def _unpatched_epoll() -> Any:
    """The class `select.epoll`, where the platform has it."""
    if hasattr(select, "epoll") or is_module_patched("select"):
        return get_original("select", "epoll")
    return None
