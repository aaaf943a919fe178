"""Races that are rare, brought about: what another thread does just then is done by the lock that it waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["LockWithARace"]


class LockWithARace:
    """A lock; `then` is done as soon as it is released, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.then: Callable[[], object] | None = None

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        then, self.then = self.then, None
        if then is not None:
            then()
