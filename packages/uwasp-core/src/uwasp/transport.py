"""The interface of a transport: what carries a bus's bytes between processes.

A *bus* is what the groups of several processes have in common, named by a URL. Its scheme says which transport carries
it: `local:` is here, in the core, others are distributions of their own, found by their names in the entry-point group
`uwasp.buses`. A transport knows channels, which are names, and other processes, which are identities of 8 bytes; what
the bytes mean, what a group is and who its members are, it does not know.

Its duties are few: to publish, to subscribe, to know which processes are alive, and to say when it was deaf; and, if it
can, to have a name held by one process alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import ClassVar, Protocol

from uwasp.exceptions import ConfigurationError

__all__ = ["ENTRY_POINT_GROUP", "Receiver", "Transport", "find_transport"]

ENTRY_POINT_GROUP = "uwasp.buses"

# The transports that we publish, for the error message only: scheme -> distribution.
REDIS = ("redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel")
PUBLISHED = {"local": "uwasp-core", **dict.fromkeys(REDIS, "uwasp-redis")}


class Receiver(Protocol):
    """What a transport tells. It calls these in a thread or greenlet of its own, one at a time, and never out of a call
    of its own methods. They do not wait, and what they raise is logged: it ends nothing.
    """

    def received(self, data: bytes) -> None:
        """Something was published on a channel that is subscribed to, or was told to this process."""

    def missed(self, channel: str | None) -> None:
        """Something on this channel was lost, or may have been; `None`: on any of those that are subscribed to.

        After a time of being deaf it comes when the transport hears again, not before.
        """

    def appeared(self, process: bytes) -> None:
        """A process is on the bus that was not, or that was taken for gone."""

    def gone(self, process: bytes) -> None:
        """A process is no longer on the bus: it has ended, was killed, or has not been heard for too long."""


class Transport(ABC):
    """Carries one bus, for one process. Made in the process that uses it, after any fork.

    What one process publishes and tells arrives at another in the order in which it was handed over, or not at all, and
    at most once. What it cannot carry (a bound is reached, nobody is reachable) it drops, and says so: to the processes
    that would have received it, by `Receiver.missed` over there, as soon as it can.

    A process receives nothing of what it publishes itself, or leaves it to its receiver to discard it.

    Args:
        url: names the bus, with the options of the transport.
        process: the identity of this process, 8 random bytes.
        receiver: is told what arrives.

    Attributes:
        max_message_size: the most bytes that `publish` and the like take at once.
    """

    max_message_size: ClassVar[int] = 2**24

    def __init__(self, url: str, process: bytes, receiver: Receiver) -> None:
        self.url = url
        self.process = process
        self.receiver = receiver

    @classmethod
    @abstractmethod
    def check(cls, url: str) -> None:
        """Called when the application is loaded: whether this URL can be one. Opens nothing, connects to nothing.

        Raises:
            ConfigurationError: it cannot; the message says what was expected.
        """

    @abstractmethod
    def open(self) -> None:
        """Begin. What takes time is done in a thread of the transport's own, started here; nothing waits for it.

        Until it is connected, what is published is kept, within its bound.

        Raises:
            ConfigurationError: it can be known at once that this process cannot be on the bus.
            RuntimeError: no thread can be started.
        """

    @abstractmethod
    def publish(self, channel: str, data: bytes) -> None:
        """Carry `data` to all processes that are subscribed to the channel. From any thread or greenlet; never waits.

        Called with a lock of the caller's held.
        """

    def may_be_heard(self, channel: str) -> bool:
        """Whether another process may be subscribed to a channel. If none is, nothing need be published there.

        At the same moment as `publish` would look for them. Without asking anybody, so it may be wrong in saying yes,
        and always says so where the transport does not know (default).
        """
        return True

    @abstractmethod
    def tell(self, process: bytes, data: bytes) -> None:
        """Carry `data` to one process, if it is there. Otherwise like `publish`."""

    @abstractmethod
    def tell_all(self, data: bytes) -> None:
        """Carry `data` to all processes on the bus. Otherwise like `publish`."""

    @abstractmethod
    def ask(self, channel: str, data: bytes, expected: Callable[[int], None]) -> None:
        """Publish, and say how many others it went to: `expected` is called with that, as a `Receiver` is.

        With -1 where that cannot be known, because the transport is out of order.
        """

    @abstractmethod
    def subscribe(self, channel: str, heard: Callable[[], None]) -> None:
        """Hear what is published on a channel from now on. From any thread or greenlet; never waits.

        Args:
            heard: is called, as a `Receiver` is, once all that any process publishes after that is heard here; or
                as soon as it is known that this will take longer, because the transport is out of order. Then
                `Receiver.missed` follows when it is well again.
        """

    @abstractmethod
    def unsubscribe(self, channel: str) -> None:
        """Hear it no longer. From any thread or greenlet; never waits."""

    def claim(self, name: str) -> None:
        """Be the one process of all on the bus that holds a name, as soon as no other does, from now until `close`.

        From any thread or greenlet; never waits. That of a process which is killed is free for others soon.

        It need not be offered: without it, `once=True` of `WebSocketMiddleware.every` is refused.

        Args:
            name: any text; those who mean the same give the same.
        """
        raise NotImplementedError

    def holds(self, name: str) -> bool:
        """Whether this process holds a name that it has claimed. From any thread or greenlet; never waits.

        At most one process does, but for moments that the transport cannot help, such as when it is out of order.
        """
        raise NotImplementedError

    @abstractmethod
    def close(self, timeout: float) -> None:
        """Carry what was published, for at most `timeout` seconds, then part from the others, who are told."""


def scheme_of(url: str) -> str:
    """The scheme of a bus's URL.

    Raises:
        ConfigurationError: it has none.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or not scheme:
        raise ConfigurationError(
            f'a bus is named by a URL, such as "local:" or "redis://localhost:6379/0", not by {url!r}'
        )
    return scheme.lower()


def find_transport(url: str) -> type[Transport]:
    """The transport class that an installed distribution offers for the scheme of a URL.

    Raises:
        ConfigurationError: there is none, there are several, or it cannot be imported.
    """
    scheme = scheme_of(url)
    group = entry_points(group=ENTRY_POINT_GROUP)
    # An editable installation can be seen twice on sys.path; one and the same value is no conflict.
    found = {(entry.dist.name if entry.dist else "", entry.value): entry for entry in group if entry.name == scheme}
    if not found:
        installed = ", ".join(repr(known) for known in sorted({entry.name for entry in group})) or "none"
        hint = f"; try: pip install {PUBLISHED[scheme]}" if scheme in PUBLISHED else ""
        raise ConfigurationError(f"no bus for {scheme}: is installed (installed: {installed}){hint}")
    if len(found) > 1:
        claims = " and ".join(f"{distribution} ({value})" for distribution, value in sorted(found))
        raise ConfigurationError(f"several distributions offer a bus for {scheme}: {claims}; uninstall all but one")
    (distribution, value), entry = found.popitem()
    try:
        transport: type[Transport] = entry.load()
    except Exception as error:
        raise ConfigurationError(
            f"the bus for {scheme}: of {distribution} ({value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return transport
