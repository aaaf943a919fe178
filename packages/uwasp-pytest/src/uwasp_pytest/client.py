"""A client over TCP with the words of `uwasp.testing.Client`. What speaks is the client of the `websockets` package."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed as TheirConnectionClosed
from websockets.exceptions import InvalidStatus
from websockets.frames import Close
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from uwasp import ConnectionClosed
from uwasp.testing import HandshakeRefused

__all__ = ["Client"]

TIMEOUT = 10.0  # seconds
LOST = 1006  # RFC 6455 §7.4.1


class Client:
    """A WebSocket to a server at a TCP port of this machine. At the end of a `with` block it is closed.

    Args:
        port: the port.
        path: where, from its slash on, with the query if there is one.
        headers: further ones of the request.
        subprotocols: those that the client offers, most preferred first.
        timeout: how long it waits for anything at most, in seconds, unless it is said otherwise.

    Attributes:
        headers: those of the answer: pairs of `str`.

    Raises:
        HandshakeRefused: the answer is no WebSocket.
        ValueError: the path does not begin with a slash.
    """

    def __init__(
        self,
        port: int,
        path: str = "/",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        timeout: float = TIMEOUT,
    ) -> None:
        if not path.startswith("/"):
            raise ValueError(f'a path begins with a slash, as in "/rooms/a", not {path!r}')
        self._path = path
        self._timeout = timeout
        self._open = ExitStack()
        try:
            opening = connect(
                f"ws://127.0.0.1:{port}{path}",
                sock=socket.create_connection(("127.0.0.1", port), timeout),  # so that no proxy is asked
                additional_headers=list(headers.items() if isinstance(headers, Mapping) else headers),
                subprotocols=[Subprotocol(one) for one in subprotocols] or None,
                open_timeout=timeout,
                close_timeout=timeout,
                max_size=None,
            )
            self._connection: ClientConnection = self._open.enter_context(opening)
        except InvalidStatus as error:
            answer = error.response
            body = (answer.body or b"").decode(errors="replace")
            status = f"{answer.status_code} {answer.reason_phrase}"
            raise HandshakeRefused(status, list(answer.headers.raw_items()), body) from None
        response = self._connection.response
        assert response is not None
        self.headers: list[tuple[str, str]] = list(response.headers.raw_items())

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the handshake agreed on, or `None`."""
        return self._connection.subprotocol

    @property
    def closed(self) -> bool:
        """Whether a close frame has come or gone, or the connection is lost."""
        return self._connection.protocol.state is not State.OPEN

    @property
    def close_code(self) -> int | None:
        """The code of the close frame that came first, from either side (RFC 6455 §7.4); 1006 if the connection is lost
        without one, `None` while there has been neither.
        """
        first = self._first_close()
        return self._connection.protocol.close_code if first is None else int(first.code)

    @property
    def close_reason(self) -> str:
        """The reason that goes with it (§7.1.6), or an empty `str`."""
        first = self._first_close()
        return "" if first is None else first.reason

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message: a `str` as text, what is bytes-like as binary.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            TypeError: the message is neither `str` nor bytes-like.
        """
        try:
            self._connection.send(message if isinstance(message, str) else bytes(memoryview(message)))
        except TheirConnectionClosed:
            raise self._closed_error() from None

    def send_json(self, value: Any) -> None:
        """Send a value as JSON, as text. Raises what `send` raises."""
        self.send(json.dumps(value))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message.

        Args:
            timeout: how long to wait for it at most, in seconds (default: that of the client).

        Raises:
            ConnectionClosed: there will be none.
            TimeoutError: none has come.
        """
        timeout = self._timeout if timeout is None else timeout
        try:
            return self._connection.recv(timeout)
        except TheirConnectionClosed:
            raise self._closed_error() from None
        except TimeoutError:
            raise TimeoutError(f"waited {timeout} s for a message at {self._path}") from None

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
        """Close the connection, and wait until the server has answered."""
        self._connection.close(code, reason)
        self._open.close()

    def terminate(self) -> None:
        """Cut the connection without a word, as a client does that loses its network."""
        with suppress(OSError):  # the server was first
            self._connection.socket.shutdown(socket.SHUT_RDWR)
        for _ in self:  # until it is seen to be cut, or it would be closed
            pass
        self._open.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _first_close(self) -> Close | None:
        protocol = self._connection.protocol
        ours, theirs = protocol.close_sent, protocol.close_rcvd
        return theirs if ours is None or protocol.close_rcvd_then_sent else ours

    def _closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code or LOST, self.close_reason)
