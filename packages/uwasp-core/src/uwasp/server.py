"""The interface of a server: the class that users write, one object of it for each connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from uwasp.websocket import WebSocket

__all__ = ["Server", "ServerInterface"]


class ServerInterface(Protocol):
    """What a handler calls. A class that has these methods is a server, whether or not it inherits from `Server`."""

    def on_open(self) -> None: ...

    def on_message(self, message: str | bytes) -> None: ...

    def on_close(self) -> None: ...


class Server:
    """Serves one connection; override what you need, every event does nothing unless overridden.

    The events of one connection come one at a time and in order: `on_open` first, then a call of `on_message` for each
    message, then `on_close`, exactly once. Different connections run in parallel.

    An exception out of `on_open` or `on_message` is logged and closes this connection with code 1011.

    Attributes:
        protocols: the subprotocols that the server speaks, most preferred first (default: none). The first that the
            client offers too is accepted and is then `ws.protocol` (RFC 6455 §1.9).
        max_message_size, ping_interval, ...: any option of `uwasp.Options`, to override it for this class.
        ws: the connection, a `WebSocket`. It may be kept and used from other threads and greenlets.
    """

    protocols: Sequence[str] = ()

    @classmethod
    def authorize(cls, environ: dict[str, Any]) -> Any:
        """Decide who may come in, before the handshake is answered; what it returns is `ws.user` later.

        `False` refuses with 403. Anything else lets in, and so does `None`, which is what a function that ends without
        `return` gives, and what `session.get("user")` gives for somebody who is not logged in: raise a `Refusal` there.

        It is a plain function under every handler. Runs where a view of the wrapped application would run, in uWSGI's
        thread or greenlet of the request: sessions and databases work as there.

        Args:
            environ: the WSGI environ of the request.

        Raises:
            Refusal: to refuse, with a status, headers and a body.
        """
        return None

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    def on_open(self) -> None:
        """The connection is open: messages can be sent."""

    def on_message(self, message: str | bytes) -> None:
        """A message has arrived: a `str` if the client sent text, `bytes` if it sent binary."""

    def on_close(self) -> None:
        """The connection is over, whoever closed it and however; see `ws.close_code` and `ws.close_reason`."""
