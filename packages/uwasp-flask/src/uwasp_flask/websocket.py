"""`WebSocket` and `ConnectionClosed`: what a function is called with, in the words of flask-sock.

They stand for what the core has under these names, and know neither Flask nor a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import uwasp

__all__ = ["ConnectionClosed", "WebSocket"]


class ConnectionClosed(uwasp.UwaspError):
    """The connection is closed: nothing more can be sent, and nothing more will come.

    Args:
        reason: the close code, an ``int`` (RFC 6455 §7.4): that of the close frame that came first, from either side;
            1006 where the connection was lost without one.
        message: the text that came with it, a ``str``, often empty.
    """

    def __init__(self, reason: int, message: str = "") -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"the connection is closed: {self.reason} {self.message}".rstrip()


class WebSocket:
    """One open connection, for the function of its route. The methods may be called from any thread or greenlet.

    Attributes:
        websocket: the same connection in the core's words, a `uwasp.WebSocket`: for `send_json`, `ping` and all else
            that is not here. A `uwasp.Group` takes either.
    """

    __slots__ = ("websocket",)

    def __init__(self, websocket: uwasp.WebSocket) -> None:
        self.websocket = websocket

    def send(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send a message: a `str` as text, anything bytes-like as binary.

        Waits while the client does not read; see `uwasp.WebSocket.send`.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            TypeError: the data is neither `str` nor bytes-like. The connection goes on.
        """
        try:
            self.websocket.send(data)
        except uwasp.ConnectionClosed as error:
            raise ConnectionClosed(error.code, error.reason) from None

    def receive(self, timeout: float | None = None) -> Any:
        """The next message: a `str` if the client sent text, `bytes` if it sent binary.

        Args:
            timeout: how long to wait at most, in seconds; 0: not at all (default: for as long as it takes).

        Returns:
            The message; `None` if none has come in that time. The next call may have it.

        Raises:
            ConnectionClosed: none will come: what the client sent before it closed has been received, or this side has
                closed the connection.
        """
        try:
            return self.websocket.receive(timeout)
        except TimeoutError:
            return None
        except uwasp.ConnectionClosed as error:
            raise ConnectionClosed(error.code, error.reason) from None

    def __iter__(self) -> Iterator[Any]:
        """Receive until the connection ends, however it does."""
        return iter(self.websocket)

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the connection (RFC 6455 §7.1.2).

        Args:
            reason: the close code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 for your own purposes (default: 1000).
            message: at most 123 bytes in UTF-8 (default: none).

        Raises:
            ConnectionClosed: it is closed, or closing, already.
            ValueError: a code that must not be sent, or a longer message.
        """
        if self.websocket.closed:
            raise ConnectionClosed(self.websocket.close_code or 1006, self.websocket.close_reason)
        self.websocket.close(reason or 1000, message or "")

    @property
    def connected(self) -> bool:
        """Whether something can be sent still."""
        return not self.websocket.closed

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the handshake agreed on, if any."""
        return self.websocket.protocol

    @property
    def close_reason(self) -> int | None:
        """The code of the close frame that came first, from either side; `None` while there has been neither."""
        return self.websocket.close_code

    @property
    def close_message(self) -> str:
        """The text that came with `close_reason`, empty if there was none."""
        return self.websocket.close_reason

    @property
    def member_id(self) -> str:
        """What tells this connection from all others in all processes: for `exclude` of `uwasp.Group.send`."""
        return self.websocket.member_id

    @property
    def environ(self) -> dict[str, Any]:
        """The WSGI environ of the handshake's request, less its streams."""
        return self.websocket.environ

    def __repr__(self) -> str:
        return repr(self.websocket)
