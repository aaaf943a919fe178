"""Routing: which server class a path has, and with which options.

What can be known of a server class without calling it is looked at here, when the application is loaded. Of a request
this module sees the path alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from uwasp.options import Options
    from uwasp.server import ServerInterface
    from uwasp.websocket import WebSocket

__all__ = ["Route", "ServerClass", "find_routes", "path_of"]

ServerClass = Callable[["WebSocket"], "ServerInterface"]


class Route(NamedTuple):
    """Where the requests of one path go."""

    path: str
    server_class: ServerClass
    options: Options


def path_of(environ: dict[str, Any]) -> str:
    """The path of a request within the application (PATH_INFO), decoded from UTF-8."""
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def find_routes(servers: Iterable[tuple[str, ServerClass]], options: Options) -> dict[str, Route]:
    """The routes by their paths.

    Args:
        servers: pairs of a path and a server class.
        options: those that hold for all servers; a class overrides them.

    Raises:
        TypeError, ValueError: a pair is not what it should be, or two have one path.
    """
    routes: dict[str, Route] = {}
    for pair in servers:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"servers holds pairs (path, server class), not {pair!r}")
        path, server_class = pair
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError(f"a server's path is a str that begins with a slash, not {path!r}")
        if path in routes:
            raise ValueError(f"two servers for the path {path}")
        _check_server_class(path, server_class)
        routes[path] = Route(path, server_class, options.overridden_by(server_class))
    return routes


def _check_server_class(path: str, server_class: Any) -> None:
    if not callable(server_class):
        raise TypeError(f"the server for {path} is a class, not {server_class!r}")
    missing = [name for name in ("on_open", "on_message", "on_close") if not hasattr(server_class, name)]
    if isinstance(server_class, type) and missing:
        raise TypeError(f"{server_class.__name__} has no {', '.join(missing)}; inherit from uwasp.Server")
