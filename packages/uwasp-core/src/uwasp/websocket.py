"""`WebSocket`: what a server holds of its connection, and all that it needs to know of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from uwasp.codec import JSON
from uwasp.connection import Connection
from uwasp.exceptions import ConnectionClosed
from uwasp.handshake import quote
from uwasp.identity import identity
from uwasp.native import new_lock
from uwasp.options import Options
from uwasp.paths import ROUTING_ARGS
from uwasp.presence import member_id
from uwasp.takeover import STAND_IN

__all__ = ["WebSocket", "shared"]

# What in an environ belongs to the request, which has ended when the connection is taken over.
_OF_THE_REQUEST = frozenset(
    {
        STAND_IN,
        "wsgi.input",
        "wsgi.errors",
        "wsgi.file_wrapper",
        "x-wsgiorg.fdevent.readable",
        "x-wsgiorg.fdevent.writable",
        "x-wsgiorg.fdevent.timeout",
    }
)
# What differs from client to client in any case.
_UNIQUE = frozenset({"HTTP_SEC_WEBSOCKET_KEY", "REMOTE_PORT", "HTTP_COOKIE", "HTTP_AUTHORIZATION"})
# Strings of environs, each by itself: most are the same for all clients, and idle connections need less memory if they
# have them in common. Bounded, because clients choose some of them.
_shared: dict[str, str] = {}
_layouts: dict[tuple[str, ...], _Layout] = {}  # by the names of a whole environ
_MOST_SHARED = 1024
_MOST_LAYOUTS = 64
_LONGEST_SHARED = 256  # characters
# uWSGI interns a dozen names for the environ of each request. If nobody keeps them they are forgotten with it, and the
# interpreter's table of interned strings, which has not room for all that it had, is made anew every thousand requests:
# a megabyte, in the memory of whichever thread that happens in, which keeps it.
_interned: set[str] = set()
_making = new_lock()  # a `dict` of what was kept


class _Layout(NamedTuple):
    """Which names of an environ are kept."""

    names: tuple[str, ...]  # all of those that follow
    common: tuple[str, ...]
    unique: tuple[str, ...]


class _Kept(NamedTuple):
    """An environ until somebody asks for it: a third of the memory of a `dict`."""

    names: tuple[str, ...]
    values: tuple[Any, ...]


def shared(text: str) -> str:
    """The one that is kept of several that are equal."""
    return _shared.setdefault(text, text) if len(text) <= _LONGEST_SHARED else text


def _kept(environ: dict[str, Any]) -> _Kept:
    """What is kept of an environ for as long as the connection lives."""
    if not _interned:
        _interned.update(name for name in environ if not name.startswith("HTTP_"))
    if len(_shared) > _MOST_SHARED:
        _shared.clear()
    names, common, unique = _layouts.get(tuple(environ)) or _layout_of(environ)
    values = [
        _shared.setdefault(value, value) if type(value) is str and len(value) <= _LONGEST_SHARED else value
        for value in [environ[name] for name in common]
    ]
    return _Kept(names, (*values, *[environ[name] for name in unique]))


def _layout_of(environ: dict[str, Any]) -> _Layout:
    if len(_layouts) >= _MOST_LAYOUTS:
        _layouts.clear()
    kept = [name for name in environ if name not in _OF_THE_REQUEST]
    common = tuple(shared(name) for name in kept if name not in _UNIQUE)
    unique = tuple(shared(name) for name in kept if name in _UNIQUE)
    layout = _layouts[tuple(environ)] = _Layout(common + unique, common, unique)
    return layout


class WebSocket:
    """One WebSocket connection, for its server and for everybody to whom the server gives it.

    The methods may be called from any thread or greenlet of the process, at any time after `on_open` was called.

    Attributes:
        path: the path of the request within the application, decoded from UTF-8, such as `"/echo"`.
        protocol: the subprotocol that the handshake agreed on, a `str`, or `None` (RFC 6455 §1.9).
        user: what the server class's `authorize` returned, or the user of the `Allowed` that it did; `None` if it has
            none.
        options: the options that hold for this connection, a `uwasp.Options`.
    """

    __slots__ = ("__weakref__", "_connection", "_environ", "options", "path", "protocol", "user")

    def __init__(
        self,
        environ: dict[str, Any],
        path: str,
        protocol: str | None = None,
        options: Options | None = None,
        user: Any = None,
    ) -> None:
        self._environ: _Kept | dict[str, Any] = _kept(environ)
        self.path = path
        self.protocol = protocol
        self.options = options or Options()
        self.user = user
        self._connection: Connection | None = None

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message: a `str` as text, anything bytes-like as binary (RFC 6455 §5.6).

        Returns at once, unless the client does not read: while `write_limit` bytes or more are queued, the calling
        thread or greenlet waits. If the client reads nothing for `send_timeout`, the connection is cut. See
        `buffered_amount`.

        Raises:
            ConnectionClosed: the connection is closed or closing, or was cut for that; the error has its code and
                reason.
            TypeError: the message is neither `str` nor bytes-like. The connection goes on.
            UnicodeEncodeError: a `str` with a lone surrogate, which UTF-8 cannot carry. The connection goes on.
        """
        (self._connection or self.connection).send(message)

    def send_json(self, value: Any) -> None:
        """Send a value as JSON in a text message, as short as it gets. Like `send` else.

        Raises:
            ConnectionClosed: as from `send`.
            TypeError, ValueError, RecursionError: it is nothing that JSON has: an object of a class of yours, NaN, a
                lone surrogate, what contains itself. The connection goes on.
        """
        self.send(JSON.encode(value))

    def receive(self, timeout: float | None = None) -> Any:
        """The next message, for a server that is a function: a `str` if the client sent text, `bytes` if it sent
        binary, or what the function's `codec` makes of them.

        Waits until there is one. What happens in groups does not come this way. To iterate over the `WebSocket` is to
        receive until the connection ends, however it does.

        Args:
            timeout: how long to wait at most, in seconds; 0: not at all (default: for as long as it takes).

        Raises:
            TimeoutError: no message has come. The next call may have it.
            ConnectionClosed: none will come: what the client sent before it closed has been received, or this side has
                closed the connection.
            RuntimeError: the server is an object, whose `on_message` gets the messages: it would wait for itself. Or
                another thread or greenlet receives.
            ValueError: the timeout is no number.
        """
        connection = self._connection
        if connection is None:
            raise RuntimeError(
                "nothing can be received while a server is being made: a class has its messages come to on_message; a "
                "method that is to converse has @conversation() above it"
            )
        conversation = connection.conversation
        if conversation is not None:
            return conversation.receive(timeout)
        if connection.server is None:
            raise connection.closed_error()
        name = connection.server.__class__.__name__
        raise RuntimeError(f"{name} is given its messages by on_message; receive is for a server that is a function")

    def __iter__(self) -> Iterator[Any]:
        try:
            while True:
                yield self.receive()
        except ConnectionClosed:
            return

    def ping(self, data: bytes = b"") -> None:
        """Send a ping, which the client answers by itself (RFC 6455 §5.5.2). Waits like `send`.

        Args:
            data: at most 125 bytes.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            ValueError: too much data.
        """
        self.connection.ping(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection (RFC 6455 §7.1.2). Does nothing if it is closed or closing.

        Messages that `on_message` has not been given yet are dropped. `on_close` is called, soon, by a consumer.
        The client has `close_timeout` to answer, then the connection is cut.

        Args:
            code: the close code (§7.4): 1000 to 1003, 1007 to 1014, or 3000 to 4999 for your own purposes.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ValueError: a code that must not be sent, or a longer reason.
            TypeError: the code is no `int`, or the reason no `str`.
        """
        self.connection.close(code, reason)

    def terminate(self) -> None:
        """Cut the connection at once, without a closing handshake. What is queued is lost; the close code is 1006."""
        self.connection.terminate()

    @property
    def environ(self) -> dict[str, Any]:
        """The WSGI environ of the handshake's request, less the streams of that request.

        It becomes a `dict` when it is first asked for, and is the same one from then on. Until then the connection
        needs up to 0.8 KiB less.
        """
        environ = self._environ
        if isinstance(environ, _Kept):
            with _making:
                environ = self._environ
                if isinstance(environ, _Kept):
                    environ = self._environ = dict(zip(*environ, strict=True))
        return environ

    @property
    def params(self) -> dict[str, Any]:
        """What the path has in the places that the server's path leaves open, by their names: for `/rooms/<name>`, the
        name. Empty for an exact path.

        They are in the environ, by the convention `wsgiorg.routing_args`, together with what was found there before.
        """
        named: dict[str, Any] = self.environ.get(ROUTING_ARGS, ((), {}))[1]
        return named

    @property
    def id(self) -> int:
        """The number that tells this connection from the others of the process; log lines have it."""
        return self.connection.number

    @property
    def member_id(self) -> str:
        """What tells this connection from all others in all processes: for `exclude` of `Group.send`, anywhere."""
        return member_id(identity(), self.connection.number)

    @property
    def buffered_amount(self) -> int:
        """The bytes that are queued because the client has not read what went before."""
        return self.connection.buffered_amount

    @property
    def closed(self) -> bool:
        """Whether the connection is closed or closing, so that nothing can be sent any more."""
        return not self.connection.open

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that came first, from either side (RFC 6455 §7.4).

        1005 for a close frame without a code, 1006 for a connection that was lost without a close frame, `None` while
        there has been neither.
        """
        return self.connection.close_code

    @property
    def close_reason(self) -> str:
        """The reason that came with `close_code`, empty if there was none (RFC 6455 §7.1.6)."""
        return self.connection.close_reason

    def fileno(self) -> int:
        """The descriptor of the socket, -1 once it is closed. Look at it; to read or write it breaks the connection."""
        return self.connection.fd

    @property
    def connection(self) -> Connection:
        """For handlers: the connection, which exists once it has been taken over from the WSGI server.

        Raises:
            RuntimeError: it is not open yet.
        """
        if self._connection is None:
            raise RuntimeError("the connection is not open while the server object is being made; use it from on_open")
        return self._connection

    @connection.setter
    def connection(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        if self._connection is None:
            state = "connecting"
        elif self._connection.open:
            state = "open"
        else:
            state = f"closed {self._connection.close_code}"
        return f"<{type(self).__name__} {quote(self.path)} {state}>"
