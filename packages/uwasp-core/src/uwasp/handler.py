"""The interface of a handler, and how one is found by its name.

A handler schedules: it decides in which thread or greenlet what arrives on a connection is read and the server's
methods are called. It does so on the pieces of `uwasp.listener`. The core knows no handler but through this module.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from uwasp.exceptions import ConfigurationError, HandlerNotFound
from uwasp.options import OF_THE_HANDLER
from uwasp.websocket import WebSocket

if TYPE_CHECKING:
    from uwasp.conversations import Conversation
    from uwasp.listener import Waiter
    from uwasp.server import ServerInterface

__all__ = ["ENTRY_POINT_GROUP", "Handler", "find_handler"]

ENTRY_POINT_GROUP = "uwasp.handlers"

# The handlers that we publish, for the error message only: name in the group -> distribution.
PUBLISHED = {"threads": "uwasp-threads", "gevent": "uwasp-gevent", "asyncio": "uwasp-asyncio"}

RUNS = ("functions", "coroutines")


class Handler(ABC):
    """Schedules one connection for its server.

    Args:
        ws: the connection. It is not open before `handle` is called.
        server: the user's server object for it; a `uwasp.conversations.Conversation`, if the server is a function.

    Attributes:
        websocket_class: what the middleware makes for each connection and gives to its server (default: `WebSocket`).
        runs: which events it can run: `"functions"` (the default) alone; or `"coroutines"` too, where methods of
            servers, `on_open` to `on_close`, may be `async def`: what they return is awaited, if it can be. Servers
            that it cannot run are refused when the application is loaded. `authorize` is a plain function under each.
        max_conversations: so many servers that are functions may run in a process at a time (default: 256); further
            ones get 503.
    """

    websocket_class: ClassVar[type[WebSocket]] = WebSocket
    runs: ClassVar[str] = "functions"
    max_conversations: ClassVar[int] = 256

    def __init__(self, ws: WebSocket, server: ServerInterface | Conversation) -> None:
        self.ws = ws
        self.server = server

    @classmethod  # noqa: B027 - a handler need not refuse anything
    def check(cls) -> None:
        """Called when the application is loaded; a handler that cannot run in this process refuses here.

        Raises:
            ConfigurationError: the message names the option to set.
        """

    @classmethod
    def spawn(cls, function: Callable[..., object], *args: Any) -> None:
        """Start `function(*args)` beside what runs, in the handler's own way: in a thread, in a greenlet.

        Raises:
            NotImplementedError: this handler does not say how.
        """
        raise NotImplementedError(f"{cls.__name__} has no spawn: it does not say how to start something beside")

    @classmethod
    def new_waiter(cls) -> Waiter | None:
        """What the calling thread or greenlet waits with for something that another thread tells.

        Returns:
            `threading.Event`, or what your loop has instead; `None` where the caller must not wait.
        """
        return threading.Event()

    @classmethod  # noqa: B027 - a handler need not do anything
    def before_release(cls, fd: int) -> None:
        """Called when a connection is taken over, just before uWSGI's number for it is pointed at /dev/null.

        Runs in uWSGI's own thread or greenlet of the request, once the handshake has been answered. It is for a
        handler whose event loop knows that number. It must not wait; what it raises ends the connection.

        Args:
            fd: uWSGI's number, which is the connection's for the last time.
        """

    @abstractmethod
    def handle(self, environ: dict[str, Any], protocol_name: str | None = None) -> Iterable[bytes]:
        """Handle the connection, which has been taken over from the WSGI server and is open.

        Runs in the WSGI server's own thread or greenlet, which is free for the next request once this returns.

        Args:
            environ: the WSGI environ of the request.
            protocol_name: the subprotocol that the handshake agreed on, if any (RFC 6455 §1.9).

        Returns:
            What the WSGI server gets as the response's body: empty, as the connection is no longer its own.
        """


def find_handler(name: str) -> type[Handler]:
    """The handler class that an installed distribution offers under `name` in the entry-point group `uwasp.handlers`.

    Raises:
        HandlerNotFound: no distribution offers the name, or several do.
        ConfigurationError: what the entry point names cannot be imported, or is no handler.
    """
    group = entry_points(group=ENTRY_POINT_GROUP)
    # An editable installation can be seen twice on sys.path; one and the same value is no conflict.
    found = {(_distribution(entry), entry.value): entry for entry in group if entry.name == name}
    if not found:
        installed = ", ".join(repr(known) for known in sorted({entry.name for entry in group})) or "none"
        hint = f"; try: pip install {PUBLISHED[name]}" if name in PUBLISHED else ""
        raise HandlerNotFound(f"no handler named {name!r} is installed (installed: {installed}){hint}")
    if len(found) > 1:
        claims = " and ".join(f"{distribution} ({value})" for distribution, value in sorted(found))
        raise HandlerNotFound(
            f"more than one distribution offers a handler named {name!r}: {claims}; "
            "uninstall all but one, or pass the class itself as handler_class"
        )
    ((distribution, value),) = found
    try:
        handler_class = found[distribution, value].load()
    except Exception as error:
        raise ConfigurationError(
            f"the handler {name!r} of {distribution} ({value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return check_handler_class(handler_class, f"the handler {name!r} of {distribution} ({value})")


def check_handler_class(handler_class: Any, called: str) -> type[Handler]:
    """Return `handler_class` if it is a class with a method `handle`, and what it says of itself can be.

    Raises:
        ConfigurationError: it is something else; `called` is what the message calls it.
    """
    if not isinstance(handler_class, type) or not callable(getattr(handler_class, "handle", None)):
        raise ConfigurationError(f"{called} is not a class with a method handle: {handler_class!r}")
    runs = getattr(handler_class, "runs", Handler.runs)
    if runs not in RUNS:
        raise ConfigurationError(f'{called}: runs is "functions" or "coroutines", not {runs!r}')
    websocket_class = getattr(handler_class, "websocket_class", WebSocket)
    if not (isinstance(websocket_class, type) and issubclass(websocket_class, WebSocket)):
        raise ConfigurationError(f"{called}: websocket_class derives from WebSocket; {websocket_class!r} does not")
    for name, least in OF_THE_HANDLER.items():
        limit = getattr(handler_class, name, least)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < least:
            raise ConfigurationError(f"{called}: {name} is a whole number of at least {least}, not {limit!r}")
    return handler_class


def can_spawn(handler_class: Any) -> bool:
    """Whether a handler says how to start something beside."""
    spawn = getattr(handler_class, "spawn", Handler.spawn)
    return getattr(spawn, "__func__", spawn) is not vars(Handler)["spawn"].__func__


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed distribution"
