"""Which descriptors are ready: epoll where the platform has it, else the best that the standard library offers.

epoll is used without the `selectors` module around it, because a call here happens for every wake-up. Where there is
no epoll, a class with the same four methods stands in for it, so that there is one path above.
"""

from __future__ import annotations

import select
import selectors
from typing import Protocol

__all__ = ["READABLE", "WRITABLE", "Poller", "SelectorPoller", "new_poller"]

READABLE: int = getattr(select, "EPOLLIN", 1)
WRITABLE: int = getattr(select, "EPOLLOUT", 4)


class Poller(Protocol):
    """The part of `select.epoll` that is used: level-triggered, and safe to change while another thread polls."""

    def register(self, fd: int, eventmask: int, /) -> None: ...

    def modify(self, fd: int, eventmask: int, /) -> None: ...

    def unregister(self, fd: int, /) -> None: ...

    def poll(self, timeout: float | None = None, maxevents: int = -1, /) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds (`None`: for ever) and return `(fd, events)` pairs."""

    def fileno(self) -> int: ...

    def close(self) -> None: ...


class SelectorPoller:
    """A `Poller` on the standard library's selector of the platform, kqueue for instance.

    Raises:
        OSError: at `fileno()`, where the selector has no descriptor of its own to be watched by.
    """

    def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
        self._selector = selector or selectors.DefaultSelector()

    def register(self, fd: int, eventmask: int, /) -> None:
        self._selector.register(fd, _to_selector(eventmask))

    def modify(self, fd: int, eventmask: int, /) -> None:
        registered = fd in self._selector.get_map()
        if not eventmask:  # what epoll takes for errors alone, a selector does not take
            self.unregister(fd)
        elif registered:
            self._selector.modify(fd, _to_selector(eventmask))
        else:
            self._selector.register(fd, _to_selector(eventmask))

    def unregister(self, fd: int, /) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout: float | None = None, maxevents: int = -1, /) -> list[tuple[int, int]]:
        ready = [(key.fd, _from_selector(events)) for key, events in self._selector.select(timeout)]
        return ready if maxevents < 0 else ready[:maxevents]

    def fileno(self) -> int:
        fileno = getattr(self._selector, "fileno", None)
        if fileno is None:
            raise OSError(f"{type(self._selector).__name__} has no descriptor that an event loop could watch")
        return int(fileno())

    def close(self) -> None:
        self._selector.close()


def new_poller() -> Poller:
    """The poller for this platform, made from the `select` module as it is now."""
    epoll = getattr(select, "epoll", None)
    return epoll() if epoll is not None else SelectorPoller()


def _to_selector(eventmask: int) -> int:
    return (selectors.EVENT_READ if eventmask & READABLE else 0) | (
        selectors.EVENT_WRITE if eventmask & WRITABLE else 0
    )


def _from_selector(events: int) -> int:
    return (READABLE if events & selectors.EVENT_READ else 0) | (WRITABLE if events & selectors.EVENT_WRITE else 0)
