"""`Bus`: what the groups of several processes have in common, as users hold it; and the default one of a process.

What carries it is a `uwasp.transport.Transport`, which the URL's scheme names. It is made, and connected, in each
process that uses it, when it is first used there: uWSGI forks after it has loaded the application.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from uwasp import goodbye, takeover
from uwasp.exceptions import ConfigurationError
from uwasp.identity import identity
from uwasp.membership import Membership
from uwasp.transport import Transport, find_transport

if TYPE_CHECKING:
    from uwasp.group import Group
    from uwasp.listener import Waiter

__all__ = ["DEFAULT_URL", "Bus", "default_bus", "default_by", "find_bus", "open_bus", "or_default", "set_default"]

logger = logging.getLogger("uwasp.groups")

DEFAULT_URL = "local:"
BACKLOG = 2**24  # bytes
FLUSH_TIMEOUT = 1.0  # seconds

_default: Bus | None = None
_named_by: Callable[[], Bus | str | None] | None = None  # see `default_by`
_found: dict[str, Bus] = {}
_opened: set[tuple[int, str]] = set()  # each process, and the URL of a bus that it has opened


def _waiter_of_the_default() -> Waiter | None:
    new_waiter = threading.Event if _default is None else _default.new_waiter
    return threading.Event() if new_waiter is _waiter_of_the_default else new_waiter()


class Bus:
    """Carries what groups say between processes. See `open_bus`; to leave a `with` block closes it.

    Args:
        url: names it: `"local:"` for all processes of one uWSGI, `"local:/run/mysite"` for all on one machine,
            `"redis://localhost:6379/0"` for all on several (uwasp-redis).
        backlog: so many bytes may wait in a process to be sent to members of its groups at most (default: 16 MiB).
            What comes beyond that is lost, and the members' servers are told by `on_missed`.
        new_waiter: makes what a caller waits with for answers; it returns `None` where the caller must not wait
            (default: as for the default bus of the process, which is as its handler does; else `threading.Event`).

    Attributes:
        url: as given.

    Raises:
        ConfigurationError: no bus of this kind is installed.
    """

    def __init__(
        self, url: str, backlog: int = BACKLOG, new_waiter: Callable[[], Waiter | None] = _waiter_of_the_default
    ) -> None:
        self.url = url
        self.new_waiter = new_waiter
        self._backlog = backlog
        self._transport_class = find_transport(url)
        self._memberships: dict[int, Membership] = {}  # by process
        self._locks: dict[int, threading.Lock] = {}  # by process: one that was forked finds none held for ever
        self._is_closed = False

    def check(self) -> None:
        """Look whether the URL can be one of a bus, as far as that is known without connecting.

        Raises:
            ConfigurationError: it cannot.
        """
        self._transport_class.check(self.url)

    def group(self, *parts: str | int | UUID) -> Group:
        """A group on this bus; see `uwasp.Group`."""
        from uwasp.group import Group

        return Group(*parts, bus=self)

    def group_named(self, name: str) -> Group:
        """For those who know the group's whole, escaped name."""
        from uwasp.group import Group

        return Group(*(part.replace("%2F", "/").replace("%25", "%") for part in name.split("/")), bus=self)

    @property
    def can_claim(self) -> bool:
        """Whether its transport can have a name held by one process alone."""
        return getattr(self._transport_class, "claim", Transport.claim) is not Transport.claim

    def claim(self, name: str) -> None:
        """For background work: see `uwasp.transport.Transport.claim`. Opens the bus.

        Raises:
            ConfigurationError, RuntimeError: it cannot be; see `membership`.
        """
        self.membership.transport.claim(name)

    def holds(self, name: str) -> bool:
        """For background work: see `uwasp.transport.Transport.holds`. Does not open the bus."""
        membership = self._memberships.get(os.getpid())
        return membership is not None and membership.transport.holds(name)

    @property
    def membership(self) -> Membership:
        """For groups: who of this process is in which; opened when it is first asked for.

        Raises:
            ConfigurationError: the URL cannot be one of a bus, or the bus is not for this process.
            RuntimeError: the bus was closed; or no thread can be started for it.
        """
        return self._memberships.get(os.getpid()) or self._open()

    def _open(self) -> Membership:
        process = os.getpid()
        is_tried = self.url.partition("?")[0] == DEFAULT_URL and takeover.begins_to_be_tried()
        with self._locks.setdefault(process, threading.Lock()):
            if self._is_closed:
                raise RuntimeError(f"the bus {self!r} is closed")
            found = self._memberships.get(process)
            if found is not None:
                return found
            self.check()
            if takeover.is_to_be_forked():
                raise ConfigurationError(
                    "a group is used, or a bus opened, while the application is loaded, in the process of which uWSGI "
                    "forks the workers: the threads of the bus could keep one from ever beginning. Do it in a worker, "
                    "as in a view, in on_open, in a function below @application.every; or take --lazy-apps"
                )
            # What it counts begins at 1: a second one in this process is another for those who have heard the first.
            is_first = (process, self.url) not in _opened
            sender = identity() if is_first else os.urandom(8)
            membership = Membership(self, self._transport_class, self._backlog, sender)
            takeover.keep_standard_descriptors()
            membership.open()
            _opened.add((process, self.url))
            self._memberships[process] = membership
        if takeover.running_under_uwsgi():
            goodbye.afterwards(self._end)
        else:  # a script may end without having closed it, and at once after it has sent something
            atexit.register(self._end)
        if is_tried:
            logger.warning(
                "groups reach the WebSockets of this process alone, where there are any: the application is tried "
                "without uWSGI, and %r is the bus of one uWSGI. To reach others from here, name a Redis or a folder, "
                'such as bus="local:/run/mysite", there and here',
                self,
            )
        return membership

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Carry what was sent, then part from the other processes.

        Args:
            timeout: how long that may take at most, in seconds.
        """
        global _default
        self._is_closed = True
        if _default is self:
            _default = None
        self._end(timeout)

    def _end(self, timeout: float = FLUSH_TIMEOUT) -> None:
        atexit.unregister(self._end)
        membership = self._memberships.pop(os.getpid(), None)
        if membership is not None:
            membership.end(timeout)

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Bus {_without_password(self.url)}>"


def open_bus(url: str = DEFAULT_URL, backlog: int = BACKLOG) -> Bus:
    """Open a bus from outside: in a script, a task queue's worker, a cron job; or in a mule or spooler of a uWSGI that
    has not loaded the application. It is the default bus of a process that has none.

        with uwasp.open_bus("redis://localhost:6379/0") as bus:
            bus.group("user", 42).send("your report is ready")

    Args:
        url: names it; see `Bus`.
        backlog: see `Bus`.

    Raises:
        ConfigurationError: the URL cannot be one of a bus.
    """
    global _default
    bus = Bus(url, backlog)
    _ = bus.membership
    if _default is None:
        _default = bus
    return bus


def find_bus(bus: Bus | str) -> Bus:
    """A bus as it is; for a URL, the one bus of it that the groups of this process use.

    Raises:
        ConfigurationError: the URL cannot be one of a bus.
        TypeError: it is neither.
    """
    if isinstance(bus, Bus):
        return bus
    if not isinstance(bus, str):
        raise TypeError(f'a bus is a uwasp.Bus or the URL of one, such as "redis://localhost:6379/0", not {bus!r}')
    url = bus
    if _default is not None and _default.url == url:
        return _default
    found = _found.get(url)
    if found is None:
        new = Bus(url)
        new.check()
        found = _found.setdefault(url, new)
    return found


def or_default(bus: Bus | None) -> Bus | None:
    """This bus, or that of the groups that name none, if the process has one."""
    return bus or _default


def default_bus() -> Bus:
    """The bus of those groups that name none.

    Raises:
        RuntimeError: there is none.
        ConfigurationError, TypeError: what `default_by` was given has named one that cannot be.
    """
    if _default is None and _named_by is not None:
        set_default(_named_by(), _waiter_of_the_default)
    if _default is None:
        raise RuntimeError(
            "this process has no bus: "
            + (
                "make the WebSocketMiddleware first, or, where the application is not loaded, call "
                'uwasp.open_bus("local:")'
                if takeover.running_under_uwsgi()
                else "import the application, which makes the WebSocketMiddleware, or call uwasp.open_bus(url) with "
                'the URL that the application has for its bus: a Redis or a folder, such as "local:/run/mysite"'
            )
        )
    return _default


def default_by(named_by: Callable[[], Bus | str | None]) -> None:
    """For the package of a framework: say which bus a process has that makes no middleware, or makes it later.

    Args:
        named_by: returns the bus, its URL, or `None` for `"local:"`. It is called when a group needs one and there is
            none.
    """
    global _named_by
    _named_by = named_by


def set_default(bus: Bus | str | None, new_waiter: Callable[[], Waiter | None]) -> Bus:
    """For the middleware: have a process use a bus.

    Args:
        bus: the bus, or its URL; `None`: the one that it has, else `"local:"`. What speaks against that is said when it
            is used, for who uses no groups needs none.
        new_waiter: see `Bus`.

    Raises:
        ConfigurationError: it uses another one; or the URL cannot be one of a bus.
        TypeError: it is neither a bus nor a URL.
    """
    global _default
    if isinstance(bus, Bus):
        bus.check()
    if _default is None:
        if bus is None:
            bus = _found.setdefault(DEFAULT_URL, Bus(DEFAULT_URL))
        _default = find_bus(bus)
    elif bus is not None and bus is not _default and bus != _default.url:
        named = _without_password(bus) if isinstance(bus, str) else bus
        raise ConfigurationError(
            f"the default bus of this process is {_default!r}, and a second WebSocketMiddleware names {named!r}: give "
            'both the same, or name another where it is used, Group("room", bus="...")'
        )
    if _default.new_waiter is _waiter_of_the_default:
        _default.new_waiter = new_waiter
    return _default


def _without_password(url: str) -> str:
    url = re.sub("(password=)[^&]*", r"\1...", url)  # an option of its transport
    return re.sub("^([^:]*:/*[^:]*):.*@", r"\1:...@", url, flags=re.DOTALL)  # also of one that is malformed
