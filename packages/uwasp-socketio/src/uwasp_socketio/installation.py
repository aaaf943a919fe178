"""`install`: puts uWASP under a server of python-socketio, python-engineio or Flask-SocketIO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import engineio

from uwasp import ConfigurationError, Handler, takeover
from uwasp.handler import can_spawn, check_handler_class, find_handler
from uwasp_socketio import surroundings, versions
from uwasp_socketio.driver import Driver

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from uwasp.options import GivenOptions

__all__ = ["install"]

# Options of uWASP's that are the server's own here, by its names for them.
ITS_OWN = {
    "max_message_size": "max_http_buffer_size",
    "ping_interval": "ping_interval",
    "ping_timeout": "ping_timeout",
    "allowed_origins": "cors_allowed_origins",
}


def install(server: Any, handler_class: type[Handler] | str | None = None, **options: Unpack[GivenOptions]) -> None:
    """Have a server's WebSockets run on uWASP. Call it once, when the server is made, before the first request.

        socketio = SocketIO(app)
        uwasp_socketio.install(socketio)

    Outside uWSGI it does nothing: there, the server goes on with what it has.

    Args:
        server: a `flask_socketio.SocketIO`, after its `init_app`; a `socketio.Server`; or an `engineio.Server`.
        handler_class: a `Handler` class, or the name of one (default: `"gevent"` on uWSGI's gevent loop, or else
            `"threads"`).
        options: see `uwasp.Options`. The size of messages, pings and origins are the server's own options.

    Raises:
        HandlerNotFound, ConfigurationError, TypeError, ValueError: as from `WebSocketMiddleware`; or python-engineio
            has a version that is not known; or polling cannot work as uWSGI is set up. The message says what to change.
        RuntimeError: the server is not made yet, or this was called before.
    """
    versions.check()
    layers = layers_of(server)
    for name in options:
        if name in ITS_OWN:
            raise TypeError(f"{name} is the server's own {ITS_OWN[name]} here: give it that one when it is made")
    if not takeover.running_under_uwsgi():
        return
    its_own = layers[-1]
    if isinstance(getattr(its_own.handle_request, "__self__", None), Driver):
        raise RuntimeError("this server runs on uWASP already: call install once")
    manager = getattr(layers[-2], "manager", None) if len(layers) > 1 else None
    surroundings.check(its_own, manager)
    mode = "gevent" if takeover.loop() == "gevent" else "threading"
    driver = Driver(
        its_own,
        mode,
        find_handler_class(handler_class),
        {
            **options,
            "max_message_size": its_own.max_http_buffer_size,
            "ping_interval": None,  # Engine.IO has pings of its own
            "allowed_origins": "*",  # it has looked by then
        },
    )
    driver.take_over()
    surroundings.tell_processes_apart(manager)
    for layer in layers:
        layer.async_mode = mode


def layers_of(server: Any) -> list[Any]:
    """The server, what it stands on, and so on to the Engine.IO server.

    Raises:
        TypeError: it is none that can be served here.
        RuntimeError: it is not made yet.
    """
    layers = [server]
    if hasattr(server, "init_app") and hasattr(server, "server"):  # Flask-SocketIO's, which need not be installed
        if server.server is None:
            raise RuntimeError("this SocketIO has no application yet: call install after socketio.init_app(app)")
        layers.append(server.server)
    if hasattr(layers[-1], "eio"):
        layers.append(layers[-1].eio)
    if not isinstance(layers[-1], engineio.Server) or layers[-1].is_asyncio_based():
        raise TypeError(
            "install takes a flask_socketio.SocketIO, a socketio.Server or an engineio.Server, "
            f"not {type(server).__name__}"
        )
    return layers


def find_handler_class(handler_class: type[Handler] | str | None) -> type[Handler]:
    """The handler for the server's WebSockets.

    Raises:
        HandlerNotFound: no installed distribution offers that name.
        ConfigurationError: it is no handler class, runs what is `async def`, or starts nothing beside.
    """
    if handler_class is None:
        handler_class = "gevent" if takeover.loop() == "gevent" else "threads"
    if isinstance(handler_class, str):
        handler_class = find_handler(handler_class)
    name = check_handler_class(handler_class, "handler_class").__name__
    if getattr(handler_class, "runs", Handler.runs) != "functions":
        raise ConfigurationError(f"Socket.IO's events are plain functions, and {name} runs async def")
    if not can_spawn(handler_class):
        raise ConfigurationError(f"the pings of Engine.IO need a handler that has spawn, which {name} has not")
    return handler_class
