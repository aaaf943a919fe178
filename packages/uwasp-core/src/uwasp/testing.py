"""The test kit: a client of an application in the same process, without uWSGI.

    with uwasp.testing.connect(application, "/echo") as ws:
        ws.send("hello")
        assert ws.receive() == "hello"

All between the two is what it is in production: the handshake, the frames on a socket, the handler, its listener and
its consumers, the server. The listener watches the client's end too, and the client waits with what the listener says:
so it waits in the handler's way, and a hub that both share goes on. The frames of the client's side are those of the
`websockets` package.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from uwasp import takeover
from uwasp.callables import COROUTINE, runs_later
from uwasp.connection import Connection
from uwasp.events import Told
from uwasp.exceptions import ConnectionClosed, UwaspError
from uwasp.listener import Listener
from uwasp.native import new_lock
from uwasp.poller import READABLE, WRITABLE
from uwasp.stand_in import SocketPair, WSGIApplication
from uwasp.whereabouts import described, stack_of

__all__ = ["Client", "HandshakeRefused", "ServerFailed", "alone", "connect"]

End = Callable[[Any, "BaseException | None"], None]

HOST = "localhost"
TIMEOUT = 5.0  # seconds
LOST = 1006  # RFC 6455 §7.4.1
ASK: Any = object()  # for `user`: what the server's `authorize` says
READ_AT_ONCE = 65536  # bytes


class HandshakeRefused(UwaspError):
    """The application has answered with something else than a WebSocket.

    Attributes:
        status: the HTTP status, an `int`, such as 403.
        headers: pairs of `str`.
        body: the text of the answer.
    """

    def __init__(self, status: str, headers: list[tuple[str, str]], body: str) -> None:
        super().__init__(status, headers, body)
        self.status = int(status.split()[0])
        self.headers = headers
        self.body = body

    def __str__(self) -> str:
        return f"no WebSocket, but {self.args[0]}: {self.body.strip()[:200]}"


class ServerFailed(UwaspError):
    """The server has raised an exception, which is the `__cause__` of this one: its traceback comes first."""


def connect(
    application: WSGIApplication,
    path: str = "/",
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    user: Any = ASK,
    subprotocols: Sequence[str] = (),
    timeout: float = TIMEOUT,
    wait: bool = True,
) -> Client:
    """Open a WebSocket to an application in this process, without uWSGI.

    Args:
        application: any WSGI application: a `WebSocketMiddleware`, what wraps one, or one that calls `accept`.
        path: where, with the query if there is one: `"/rooms/a?token=b"`.
        headers: further ones of the request, such as `{"Cookie": "..."}` or `{"Origin": "..."}`.
        user: stands for what the server's `authorize` returns, which is not asked then (default: it is).
        subprotocols: those that the client offers, most preferred first.
        timeout: how long the client waits for anything at most, in seconds, unless it is said otherwise.
        wait: return when the server's `on_open` has returned; or, if it is a function, when it receives or has sent
            something for the first time. `False`: return when the handshake is answered (default: wait).

    Returns:
        The client. At the end of its `with` block it is closed.

    Raises:
        HandshakeRefused: the application has answered something else: a refusal, or a page.
        TimeoutError: `on_open` has not returned.
        RuntimeError: the application has answered nothing.
        BaseException: what the application has raised: a server class in its `__init__`, for instance.
        ValueError: the path does not begin with a slash.
        TypeError: an argument is not what it should be.
    """
    if not callable(application):
        raise TypeError(f"application is a WSGI application, a callable, not {application!r}")
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f'a path begins with a slash, as in "/rooms/a", not {path!r}')
    if isinstance(subprotocols, str):
        raise TypeError(f'subprotocols are several, such as ["{subprotocols}"], not {subprotocols!r}')
    if not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a number of seconds, not {timeout!r}")
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise TypeError(f'headers are a dict, or pairs, of str, such as {{"Cookie": "a=b"}}, not {pair!r}')
    takeover.be_an_instance()
    client = Client(None if user is ASK else lambda environ: user, subprotocols, path, timeout)
    client._open(application, pairs, wait)
    return client


def alone() -> None:
    """Have groups of the default bus, `"local:"`, work within this process, without uWSGI, as `connect` does: for the
    test of a page, or of a function, that sends to a group where nobody may be connected.
    """
    takeover.be_an_instance()


class Client:
    """A client's side of one WebSocket. `connect` makes it; use it in one thread.

    Attributes:
        headers: those of the answer to its handshake: pairs of `str`, the cookies among them.
    """

    def __init__(
        self,
        authorize: Callable[[dict[str, Any]], Any] | None,
        subprotocols: Sequence[str],
        path: str,
        timeout: float,
    ) -> None:
        self.headers: list[tuple[str, str]] = []
        self._path = path
        self._timeout = timeout
        offered = [Subprotocol(one) for one in subprotocols] or None
        self._protocol = ClientProtocol(parse_uri(f"ws://{HOST}{path}"), subprotocols=offered, max_size=None)
        self._server = _ServersSide(self._ring)
        self._pair = SocketPair(self._server, authorize)
        self._listener: Listener
        self._lock = new_lock()  # for all that follows: the listener may be polled in another thread
        self._unsent = b""
        self._parts: list[bytes] = []  # of a message in fragments
        self._messages: deque[str | bytes] = deque()
        self._is_watched = False
        self._waiter: Any = None

    def _open(self, application: WSGIApplication, headers: Iterable[tuple[str, str]], wait: bool) -> None:
        request = self._protocol.connect()
        for name, value in headers:
            _add_header(request, name, value)
        self._protocol.send_request(request)
        self._protocol.data_to_send()  # the application is given it as an environ
        pair = self._pair
        try:
            pair.ask(application, request)
            if not pair.is_taken_over or pair.connection is None:
                raise HandshakeRefused(pair.status, pair.headers, pair.body.decode(errors="replace"))
            self.headers = pair.headers
            self._listener = _listener_of(pair)
            self._is_watched = True
            self._listener.watch(pair.client.fileno(), self._ready)
            self._wait(lambda: self._protocol.state is not State.CONNECTING or self._has_ended(), "the 101", None)
            if self._protocol.handshake_exc is not None:
                raise self._protocol.handshake_exc
            if wait:
                self._settle(pair.connection)
        except BaseException:
            self._let_go()
            raise

    def _settle(self, connection: Connection) -> None:
        """Wait for what the server does first."""
        is_function = connection.conversation is not None
        if not is_function:
            connection.tell(_AfterOpening(self._server.receives))
        server = self._server
        self._wait(
            lambda: server.is_settled or server.errors or self._has_closed() or (is_function and self._messages),
            "on_open to return, or a function to receive (wait=False does not)",
            None,
        )

    # For tests

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the handshake agreed on, or `None`."""
        return self._protocol.subprotocol

    @property
    def closed(self) -> bool:
        """Whether a close frame has come or gone, or the connection is lost."""
        return self._protocol.state is not State.OPEN or self._has_ended()

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that came first, from either side (RFC 6455 §7.4); 1006 if the connection is lost
        without one, `None` while there has been neither.
        """
        first = self._first_close()
        if first is not None:
            return int(first.code)
        return LOST if self._has_ended() else None

    @property
    def close_reason(self) -> str:
        """The reason that goes with it (§7.1.6), or an empty `str`."""
        first = self._first_close()
        return "" if first is None else first.reason

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message: a `str` as text, what is bytes-like as binary. Never waits: what the server does not read
        yet is kept.

        Raises:
            ServerFailed: the server has raised an exception.
            ConnectionClosed: the connection is closed or closing.
            TypeError: the message is neither `str` nor bytes-like.
        """
        self._raise_failure()
        with self._lock:
            if not self.closed:
                if isinstance(message, str):
                    self._protocol.send_text(message.encode())
                else:
                    self._protocol.send_binary(bytes(memoryview(message)))  # of an int, bytes would make zeros
                self._flush_locked()
                return
        raise self._closed_error()

    def send_json(self, value: Any) -> None:
        """Send a value as JSON, as text. Raises what `send` raises."""
        self.send(json.dumps(value))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message.

        Args:
            timeout: how long to wait for it at most, in seconds (default: that of `connect`).

        Raises:
            ServerFailed: the server has raised an exception, and there is no message from before.
            ConnectionClosed: there will be none.
            TimeoutError: none has come.
        """
        self._wait(lambda: self._messages or self._has_closed(), "a message", timeout)  # closed, if the server fails
        if self._messages:
            return self._messages.popleft()
        self._raise_failure()
        raise self._closed_error()

    def receive_json(self, timeout: float | None = None) -> Any:
        """The next message, which is JSON, as a value. Raises what `receive` raises, and `ValueError` for no JSON."""
        return json.loads(self.receive(timeout))

    def __iter__(self) -> Iterator[str | bytes]:
        """All messages until the connection is closed."""
        try:
            while True:
                yield self.receive()
        except ConnectionClosed:
            return

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait until the server has been told: its `on_close`, or the function, has returned.

        Raises:
            ServerFailed: the server has raised an exception.
            TimeoutError: it is not over.
        """
        if self._server.errors:
            self._holds_in_time(self._has_closed, self._timeout)  # the server closes it, on account of that
        with self._lock:
            if not self.closed:
                self._protocol.send_close(code, reason)
                self._flush_locked()
        self._end(lambda: self._server.is_done and self._has_closed())

    def terminate(self) -> None:
        """Cut the connection without a word, as a client does that loses its network, and wait as `close` does.

        Raises what `close` raises.
        """
        self._stop_watching()
        self._pair.close()
        with self._lock:
            self._receive_end_locked()
        self._end(lambda: self._server.is_done)

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call something of the application's beside its servers, in the handler's way, and return what it returns: a
        function that `every` has been put above, for instance, for no clock calls it here. It may be `async def` where
        the handler runs that.

        Raises:
            BaseException: what it raises.
            TimeoutError: it has not returned.
        """
        outcome: list[tuple[Any, BaseException | None]] = []

        def end(result: Any, error: BaseException | None) -> None:
            outcome.append((result, error))
            self._ring()

        handler = self._pair.handler
        assert handler is not None
        handler.spawn(_await if runs_later(function) == COROUTINE else _call, function, args, end)
        self._wait(lambda: outcome, f"{function!r} to return", None, runs=end)
        result, error = outcome[0]
        if error is not None:
            raise error
        return result

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if raised is None:
            self.close()
            return
        try:
            self.close()
        except (ServerFailed, TimeoutError) as error:  # what the block has raised goes first
            if isinstance(error, ServerFailed) and raised.__cause__ is None:
                raised.__cause__ = error.__cause__

    # In whatever polls the listener

    def _ready(self) -> None:
        with self._lock:
            if not self._is_watched:
                return
            try:
                data = self._pair.client.recv(READ_AT_ONCE)
            except BlockingIOError:
                data = None  # it may be written to again
            except ConnectionError:
                data = b""
            if data:
                self._protocol.receive_data(data)
            elif data is not None:
                self._receive_end_locked()
                self._stop_watching_locked()  # or it would be ready for ever
            for event in self._protocol.events_received():
                if isinstance(event, Frame):
                    self._receive(event)
            self._flush_locked()
        self._ring()

    def _receive_end_locked(self) -> None:
        if self._protocol.state is not State.CLOSED:
            self._protocol.receive_eof()

    def _receive(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return  # a ping, which is answered; a pong; a close frame
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._parts.append(bytes(frame.data))
        if frame.fin:
            data, self._parts = b"".join(self._parts), []
            self._messages.append(data.decode() if self._is_text else data)

    # In either

    def _flush_locked(self) -> None:
        """Send what can be sent; the rest when the server has read."""
        self._unsent += b"".join(self._protocol.data_to_send())
        had_room = True
        while self._unsent and had_room:
            try:
                self._unsent = self._unsent[self._pair.client.send(self._unsent) :]
            except BlockingIOError:
                had_room = False
            except OSError:  # the server is gone: what is to be read says so
                self._unsent = b""
        if self._is_watched:
            events = READABLE | WRITABLE if self._unsent else READABLE
            self._listener.poller.modify(self._pair.client.fileno(), events)

    def _ring(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            waiter.set()

    def _has_ended(self) -> bool:
        return self._protocol.eof_sent or self._protocol.state is State.CLOSED

    def _first_close(self) -> Close | None:
        ours, theirs = self._protocol.close_sent, self._protocol.close_rcvd
        return theirs if ours is None or self._protocol.close_rcvd_then_sent else ours

    def _has_closed(self) -> bool:
        return self._protocol.close_rcvd is not None or self._has_ended()

    # In the test's thread

    def _wait(self, condition: Callable[[], object], what: str, timeout: float | None, runs: object = None) -> None:
        """
        Args:
            runs: what has to run for that (default: the server).

        Raises:
            TimeoutError: the condition does not hold in time. It says where in its code that is that runs.
            RuntimeError: it must not be waited for here.
        """
        timeout = self._timeout if timeout is None else timeout
        if not self._holds_in_time(condition, timeout):
            where = _where_is("it" if runs else "its server", runs or getattr(self._pair.connection, "server", None))
            raise TimeoutError(f"waited {timeout} s for {what} at {self._path}{where}")

    def _holds_in_time(self, condition: Callable[[], object], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        self._waiter = waiter = self._listener.new_waiter()
        if waiter is None:
            raise RuntimeError("a test client waits, which whoever polls the handler's listener must not")
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            waiter.wait(left)
            waiter.clear()
        return True

    def _end(self, condition: Callable[[], object]) -> None:
        try:
            self._wait(condition, "the server to end (its on_close, or the function)", None)
        finally:
            self._let_go()
        self._raise_failure()

    def _let_go(self) -> None:
        self._stop_watching()
        self._pair.close()

    def _stop_watching(self) -> None:
        with self._lock:
            self._stop_watching_locked()

    def _stop_watching_locked(self) -> None:
        was_watched, self._is_watched = self._is_watched, False
        if was_watched:
            self._listener.unwatch(self._pair.client.fileno())

    def _raise_failure(self) -> None:
        if self._server.errors:
            self._holds_in_time(self._has_closed, self._timeout)  # the server closes it, on account of that
            error = self._server.errors.pop(0)
            raise ServerFailed(f"the server at {self._path} has raised {type(error).__name__}: {error}") from error

    def _closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code or LOST, self.close_reason)


class _ServersSide:
    """What becomes of the server, as a `uwasp.connection.Observer`. Called in whatever runs it.

    Args:
        ring: is called when there is news.

    Attributes:
        is_settled: `on_open` has returned, or the function receives.
        errors: what it has raised, less what the test has been told.
        is_done: nothing of it runs any more.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        self._ring = ring
        self.is_settled = False
        self.errors: list[BaseException] = []
        self.is_done = False

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)
        self._ring()

    def receives(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            self._ring()

    def done(self) -> None:
        self.is_done = True
        self._ring()


class _AfterOpening(Told):
    """Is told to a server when its `on_open` has returned, without its noticing."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__("on_open", "uwasp.testing")
        self._action = action

    def tell(self, server: Any) -> None:
        self._action()


def _where_is(name: str, subject: object) -> str:
    """For a message, as far as that can be told."""
    stack = () if subject is None else stack_of(subject)
    return f"; {name} is here:\n{described(stack)}" if stack else ""


def _add_header(request: Request, name: str, value: str) -> None:
    if name.lower() == "host":
        del request.headers[name]
    request.headers[name] = value


def _listener_of(pair: SocketPair) -> Listener:
    """The listener that has the connection."""
    try:
        return cast("Listener", pair.connection.listener)  # type: ignore[union-attr]
    except AttributeError:
        raise TypeError(
            f"{type(pair.handler).__name__} has given the connection to no uwasp.Listener, which a test client waits by"
        ) from None


def _call(function: Callable[..., Any], args: tuple[Any, ...], end: End) -> None:
    try:
        result = function(*args)
    except BaseException as error:
        end(None, error)
    else:
        end(result, None)


async def _await(function: Callable[..., Any], args: tuple[Any, ...], end: End) -> None:
    try:
        result = await function(*args)
    except BaseException as error:
        end(None, error)
    else:
        end(result, None)
