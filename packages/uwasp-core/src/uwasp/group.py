"""`Group`: what users hold of a group of connections. Who is in it and how it is reached, `uwasp.membership` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from uwasp import envelope
from uwasp.bus import Bus, default_bus, find_bus, or_default
from uwasp.codec import JSON
from uwasp.membership import HEARD_TIMEOUT
from uwasp.presence import Member

if TYPE_CHECKING:
    from uwasp.connection import Connection
    from uwasp.websocket import WebSocket

__all__ = ["Group"]


class Group:
    """Connections that are sent to together, in whichever worker, and with a bus for it, on whichever machine they are.

    A handle, which costs nothing to make: the same parts are the same group, everywhere on one bus. A group has no
    owner, and is gone when its last member is. The methods may be called from any thread or greenlet, in a process
    that has no WebSocket, and from uWSGI's mules and spoolers.

    Args:
        parts: name it, as `"room", 42`: each a `str`, or an `int` or a `UUID`, which is the same as its text. No text
            in one part makes it another group's. All of them together are at most 512 bytes in UTF-8, with `/` and `%`
            as three.
        bus: what the members have in common: a `Bus`, or the URL of one (default: the process's default bus, which
            is that of its `WebSocketMiddleware`, or of the first `open_bus`).

    Attributes:
        parts: as given, each as a `str`, a tuple.
        name: all of them, escaped.

    Raises:
        TypeError, ValueError: the parts, or the bus, are not what they should be.
        ConfigurationError: the URL cannot be one of a bus.
    """

    __slots__ = ("_bus", "name", "parts")

    def __init__(self, *parts: str | int | UUID, bus: Bus | str | None = None) -> None:
        if not parts:
            raise TypeError('a group has a name, such as Group("room", 42)')
        self.parts = tuple(_text(part, "each part of a group's name") for part in parts)
        self.name = "/".join(part.replace("%", "%25").replace("/", "%2F") for part in self.parts)
        length = len(self.name.encode())  # a lone surrogate has no UTF-8, and raises
        if length > envelope.MAX_NAME:
            raise ValueError(f"the name of a group is at most {envelope.MAX_NAME} bytes, not {length}")
        self._bus = bus if bus is None else find_bus(bus)

    @property
    def bus(self) -> Bus:
        """What its members have in common.

        Raises:
            RuntimeError: none was named, and the process has no default bus.
        """
        return self._bus or default_bus()

    def add(self, ws: WebSocket, info: Any = None, key: str | int | UUID | None = None) -> None:
        """Make a connection a member. It leaves by itself when it ends, before `on_close`; and see `remove`.

        Whatever anybody sends after this has returned, it is sent. So this waits, in the handler's way and for a second
        at most, until the worker hears the group, if it has no other member there; not in a thread or greenlet that
        must not wait. To add a member again gives it another `info` or `key`. What has ended joins nothing.

        Args:
            ws: the connection, from its `on_open` on.
            info: what others see of it in `members` and `on_presence`: anything that JSON has, at most 4 KiB of it,
                and nested in at most 100 levels.
            key: names the person whose connection it is, so that two tabs are one, as a `str`, an `int` or a `UUID`
                (default: it stands for itself).

        Raises:
            TypeError: what is added is no `WebSocket`; the info is nothing that JSON has, too large or too deep; or the
                key is something else.
            RuntimeError: the connection is not open yet.
        """
        try:
            dumped = envelope.dump_given(info)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"info is what JSON has, at most {envelope.MAX_INFO} bytes of it: {error}") from None
        if len(dumped) > envelope.MAX_INFO:
            raise TypeError(f"info is at most {envelope.MAX_INFO} bytes of JSON, not {len(dumped)}")
        connection = _connection(ws)
        membership = self.bus.membership
        membership.add(self.name, ws, dumped.decode(), _checked_key(key))
        if not membership.is_heard(self.name):
            waiter = connection.listener.new_waiter()
            if waiter is not None and not membership.is_heard(self.name, waiter):
                waiter.wait(HEARD_TIMEOUT)

    def remove(self, ws: WebSocket) -> None:
        """Have a connection leave, if it is a member. It stays open.

        Raises:
            TypeError: it is no `WebSocket`.
        """
        self.bus.membership.remove(self.name, _connection(ws))

    def send(self, message: str | bytes | bytearray | memoryview, exclude: Any = None) -> None:
        """Send a message to every member: a `str` as text, anything bytes-like as binary.

        Returns at once, and raises nothing for a member's sake. Each member gets it at most once. What one process
        sends to one group arrives in that order. A member that does not read loses its connection, or this message:
        see the options `slow_member` and `skip_slow_members`. It is never compressed.

        Args:
            message: as for `WebSocket.send`.
            exclude: who is not to get it: a `WebSocket`, the `member_id` of one as a `str`, or several of them. An id
                that nobody has, or that is none, excludes nobody: it may come from a client.

        Raises:
            TypeError: the message is neither `str` nor bytes-like; or who is excluded is something else.
            UnicodeEncodeError: a `str` with a lone surrogate, which UTF-8 cannot carry.
            ValueError: the message is larger than the bus takes, 16 MiB less some hundred bytes.
        """
        self.bus.membership.send(self.name, message, _ids(exclude))

    def send_json(self, value: Any, exclude: Any = None) -> None:
        """Send a value as JSON in a text message to every member, as short as it gets. Like `send` else.

        Raises:
            TypeError, ValueError, RecursionError: it is nothing that JSON has, NaN for instance, or larger than the bus
                takes.
        """
        self.send(JSON.encode(value), exclude)

    def notify(self, data: Any) -> None:
        """Have `on_notify(group, data)` called on the server of every member, in its turn.

        Args:
            data: anything that JSON has, nested in at most 100 levels. Each server is given its own.

        Raises:
            TypeError, ValueError: it is nothing that JSON has, too deep, or larger than the bus takes.
        """
        self.bus.membership.notify(self.name, envelope.dump_given(data))

    def close(self, code: int = 1000, reason: str = "", key: str | int | UUID | None = None) -> None:
        """Close the connections of all members, or of those with a key, everywhere: to log a user out, for instance.

        Args:
            code, reason: as for `WebSocket.close`.
            key: whose connections (default: everybody's).

        Raises:
            ValueError: a code that must not be sent, or a reason that is too long.
            TypeError: the code is no `int`, the reason no `str`, or the key nothing that `add` takes.
        """
        self.bus.membership.close(self.name, code, reason, _checked_key(key))

    def members(self, timeout: float = 1.0) -> list[Member]:
        """Everybody who is in the group, in all workers; those with one key are one.

        A worker with a member of its own knows. Any other asks, and waits for the answers, in the handler's way.

        Args:
            timeout: how long to wait for them at most, in seconds. Who has not answered by then is left out.
        """
        membership = self.bus.membership
        known = membership.members(self.name)
        if known is not None and membership.is_heard(self.name):
            return known
        waiter = self.bus.new_waiter()
        if known is None:
            answer = membership.ask(self.name, _nothing if waiter is None else waiter.set)
            if waiter is not None:
                waiter.wait(timeout)
            return answer()
        # Somebody is joining, and others have not said whom they have.
        if waiter is not None and not membership.is_heard(self.name, waiter):
            waiter.wait(timeout)
        return membership.members(self.name) or known

    def count(self, timeout: float = 1.0) -> int:
        """How many `members` there are."""
        return len(self.members(timeout))

    @property
    def local(self) -> list[WebSocket]:
        """The members' connections that are in this process."""
        return self.bus.membership.local(self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Group):
            return NotImplemented
        return self.name == other.name and or_default(self._bus) is or_default(other._bus)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"Group({', '.join(map(repr, self.parts))})"


def _nothing() -> None:
    """For a caller that cannot wait."""


def _connection(ws: WebSocket) -> Connection:
    try:
        return ws.connection
    except AttributeError:
        raise TypeError(f"a member is a uwasp.WebSocket, such as a server's self.ws, not {ws!r}{_hint(ws)}") from None


def _hint(ws: Any) -> str:
    """For what a package of a framework, such as uwasp-flask, has around it."""
    return ": take its websocket" if hasattr(type(getattr(ws, "websocket", None)), "member_id") else ""


def _text(value: Any, called: str) -> str:
    """What names a group or a person, as text: the same for all that is equal, as an `Enum`'s member to its value."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{called} is a str, an int or a UUID, not {value!r}")


def _checked_key(key: Any) -> str | None:
    if key is None:
        return None
    text = _text(key, "a key")
    if len(text) > envelope.MAX_KEY:
        raise TypeError(f"a key is at most {envelope.MAX_KEY} characters, not {len(text)}")
    text.encode()  # a lone surrogate has no UTF-8, and raises
    return text


def _ids(exclude: Any) -> list[tuple[bytes, int]]:
    """Those who are excluded, each as a process and a number there."""
    if exclude is None:
        return []
    several = [exclude] if isinstance(exclude, str) or hasattr(exclude, "member_id") else exclude
    ids = []
    try:
        those = [one if isinstance(one, str) else one.member_id for one in several]
    except (TypeError, AttributeError):
        raise TypeError(
            f"who is excluded is a WebSocket, its member_id or several of them, not {exclude!r}{_hint(exclude)}"
        ) from None
    for one in those:
        process, _, number = one.partition("-")
        try:
            ids.append((bytes.fromhex(process), int(number)))
        except ValueError:
            continue  # a client may have sent it
    return [(process, number) for process, number in ids if len(process) == 8 and 0 <= number < 2**63]
