"""`WebSocket`: what a server on the loop holds of its connection. What is sent is sent at once; room is waited for."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import uwasp
from uwasp.outgoing import Patience
from uwasp_asyncio.acted import Acted
from uwasp_asyncio.functions import receive
from uwasp_asyncio.waiter import Waiter

if TYPE_CHECKING:
    from uwasp.connection import Connection

__all__ = ["WebSocket"]


class _Sent(Acted):
    """There is room: nothing to wait for. One is enough for all."""

    __slots__ = ()

    def __await__(self) -> Any:
        return iter(())

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, error: Any, value: Any = None, traceback: Any = None) -> Any:
        raise error


_SENT = _Sent()


class _Room(Acted):
    """Waits until less than `write_limit` is queued."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def wait(self) -> None:
        waiter = Waiter()
        patience = Patience(waiter)
        while (seconds := self._connection.look_for_room(patience)) is not None:
            await waiter.wait(None if seconds == math.inf else seconds)


class WebSocket(uwasp.WebSocket):
    """A `uwasp.WebSocket` for coroutines. Its methods may be called from any thread."""

    __slots__ = ()

    def send(self, message: str | bytes | bytearray | memoryview) -> Acted:  # type: ignore[override]
        """Send a message: a `str` as text, anything bytes-like as binary (RFC 6455 §5.6).

        Acts at once: the message is sent, or queued where the client has not read what went before. On the loop it
        never waits; in another thread it waits first, as everywhere, while `write_limit` bytes or more are queued.

        Returns:
            What waits, if it is awaited or made a task, until less than `write_limit` is queued. Who sends much awaits
            it, or what a client does not read is queued without bound. If the client reads nothing for `send_timeout`
            meanwhile, the connection is cut, and `ConnectionClosed` is raised.

        Raises:
            ConnectionClosed: the connection is closed or closing; the error has its code and reason.
            TypeError: the message is neither `str` nor bytes-like. The connection goes on.
            UnicodeEncodeError: a `str` with a lone surrogate, which UTF-8 cannot carry. The connection goes on.
        """
        connection = self._connection or self.connection
        connection.send(message)
        return _SENT if connection.has_room else _Room(connection)

    def send_json(self, value: Any) -> Acted:  # type: ignore[override]
        """Send a value as JSON in a text message, as short as it gets. Like `send` else.

        Raises:
            ConnectionClosed: as from `send`.
            TypeError, ValueError, RecursionError: it is nothing that JSON has. The connection goes on.
        """
        return self.send(uwasp.JSON.encode(value))

    async def receive(self, timeout: float | None = None) -> Any:
        """The next message, for a server that is a function: a `str` if the client sent text, `bytes` if it sent
        binary, or what the function's `codec` makes of them.

        What happens in groups does not come this way. `async for` over the `WebSocket` receives until the connection
        ends, however it does.

        Args:
            timeout: how long to wait at most, in seconds; 0: not at all (default: for as long as it takes).

        Raises:
            TimeoutError: no message has come. The next call may have it.
            ConnectionClosed: none will come: what the client sent before it closed has been received, or this side has
                closed the connection.
            RuntimeError: the server is an object, whose `on_message` gets the messages. Or another task receives.
            ValueError: the timeout is no number.
        """
        conversation = self.connection.conversation
        if conversation is None:
            return super().receive()  # which says why not
        return await receive(conversation, timeout)

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while True:
                yield await self.receive()
        except uwasp.ConnectionClosed:
            return

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("receiving waits: async for message in ws")

    def ping(self, data: bytes = b"") -> Acted:  # type: ignore[override]
        """Send a ping at once, which the client answers by itself (RFC 6455 §5.5.2).

        Args:
            data: at most 125 bytes.

        Returns:
            As for `send`.

        Raises:
            ConnectionClosed: the connection is closed or closing.
            ValueError: too much data.
        """
        connection = self.connection
        connection.ping(data)
        return _SENT if connection.has_room else _Room(connection)
