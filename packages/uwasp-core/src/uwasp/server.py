"""The interface of a server: the class that users write, one object of it for each connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from uwasp.codec import Codec
    from uwasp.websocket import WebSocket

    # The default is for type checkers, which have `typing_extensions` with them: this package does not need it to run.
    Message = TypeVar("Message", default=str | bytes)
else:
    from typing import TypeVar

    Message = TypeVar("Message")

__all__ = ["Server", "ServerInterface", "hint"]


class ServerInterface(Protocol):
    """What a handler calls. A class that has these methods is a server, whether or not it inherits from `Server`.

    `on_notify`, `on_presence` and `on_missed` are called if it has them; see `Server`. What they return is nothing, or,
    for a handler that runs coroutines, what is to be awaited.
    """

    def on_open(self) -> object: ...

    def on_message(self, message: Any, /) -> object: ...

    def on_close(self) -> object: ...


class Server(Generic[Message]):
    """Serves one connection; override what you need, every event does nothing unless overridden.

    The events of one connection come one at a time and in order: `on_open` first, then a call of `on_message` for each
    message, then `on_close`, exactly once. What happens in groups that it is in comes between the messages, in calls
    of `on_notify`, `on_presence` and `on_missed`. Different connections run in parallel.

    An exception out of any of them but `on_close` is logged and closes this connection with code 1011. Where the
    handler runs coroutines they may be `async def`; what they return means nothing else.

    A message is text, a `str`, or binary, `bytes`. The class for `Server[str]` is given text alone: a binary message
    closes its connection with 1003 (RFC 6455 §7.4.1); `Server[bytes]` likewise. With a `codec`, messages are what that
    makes of them, and `Server[Move]` says what it is.

    Attributes:
        codec: makes values of messages, a `uwasp.Codec`, such as `uwasp.JSON` (default: none). What it cannot decode
            closes the connection with 1007.
        protocols: the subprotocols that the server speaks, most preferred first (default: none). The first that the
            client offers too is accepted and is then `ws.protocol` (RFC 6455 §1.9).
        max_message_size, ping_interval, ...: any option of `uwasp.Options`, to override it for this class.
        ws: the connection, a `WebSocket`. It may be kept and used from other threads and greenlets.
    """

    codec: Codec[Message] | None = None
    protocols: Sequence[str] = ()

    @classmethod
    def authorize(cls, environ: dict[str, Any]) -> Any:
        """Decide who may come in, before the handshake is answered; what it returns is `ws.user` later.

        An `Allowed` says until when that holds; then the connection is closed, or this is asked again.

        `False` refuses with 403. Anything else lets in, and so does `None`, which is what a function that ends without
        `return` gives, and what `session.get("user")` gives for somebody who is not logged in: raise a `Refusal` there.

        It is a plain function under every handler. Runs where a view of the wrapped application would run, in uWSGI's
        thread or greenlet of the request: sessions and databases work as there.

        Args:
            environ: the WSGI environ of the request. What its path has in the places that the server's path leaves
                open is the second of the pair `environ["wsgiorg.routing_args"]`, and `ws.params` later.

        Raises:
            Refusal: to refuse, with a status, headers and a body.
        """
        return None

    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    def on_open(self) -> Any:
        """The connection is open: messages can be sent."""

    def on_message(self, message: Message) -> Any:
        """A message has arrived: a `str` if the client sent text, `bytes` if it sent binary; or what `codec` makes.

        What this returns is no answer, and goes nowhere: `self.ws.send` answers.
        """

    def on_notify(self, group: Any, data: Any) -> Any:
        """Somebody has called `group.notify(data)`, for the servers of all members.

        Args:
            group: the group, a `Group`.
            data: what was passed there, as JSON brings it here.
        """

    def on_presence(self, group: Any, joined: Any, left: Any) -> Any:
        """Somebody has come into a group that this connection is in, or has gone. Many at once are one call.

        Whoever begins with `group.members()`, puts `joined` in by `key`, and takes `left` out, has what `members` has.
        Among them may be who is known already: this connection itself, and whom `members` has had before.

        Args:
            group: the group, a `Group`.
            joined: those who have come, or whose `info` has changed, each a `Member`.
            left: those who have gone, each a `Member` with the `info` that it had, and no `connections`.
        """

    def on_missed(self, group: Any) -> Any:
        """Something of a group was lost on its way here: messages, notifications, who came and who went.

        What was lost is not known. Whoever has to know where things stand looks it up now. It comes once for what was
        lost together, and when all that was lost had been sent before.
        """

    def on_close(self) -> Any:
        """The connection is over, whoever closed it and however; see `ws.close_code` and `ws.close_reason`."""


def hint(error: BaseException) -> str:
    """What goes after the line which says that a server has failed, where the error does not say what is wrong."""
    if isinstance(error, AttributeError) and error.name == "ws" and isinstance(error.obj, Server):
        return f" ({type(error.obj).__name__}.__init__ has not called super().__init__(ws), which sets self.ws)"
    return ""
