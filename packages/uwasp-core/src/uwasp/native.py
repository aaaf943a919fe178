"""The originals of what gevent replaces when it patches Python: real threads, locks, epoll.

A transport's thread, and whatever it shares with others, must not be scheduled by the hub, which can be busy for long.
The core does not import gevent: only where somebody else has, is there anything to undo.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["new_lock", "original", "start_thread", "threads_are_greenlets"]


def original(module: str, name: str) -> Any:
    """What a module of the standard library has under a name when nobody has patched it.

    Raises:
        AttributeError: the platform does not have it.
    """
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module(module), name) if monkey is None else monkey.get_original(module, name)


def threads_are_greenlets() -> bool:
    """Whether gevent has patched `threading`, so that what looks like a thread is a greenlet of the hub."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def new_lock() -> Any:
    """A real lock. Whoever holds it must not switch to another greenlet, nor wait."""
    return original("_thread", "allocate_lock")()


def start_thread(function: Callable[..., object], *args: object) -> None:
    """Call `function(*args)` in a real daemon thread.

    It hears no signal, from its first moment on: uWSGI's handlers end the process, and hang in another thread than the
    main one.

    Raises:
        RuntimeError: the system has none left.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # which the thread inherits
    try:
        original("_thread", "start_new_thread")(function, args)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
