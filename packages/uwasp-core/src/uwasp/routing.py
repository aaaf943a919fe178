"""Routing: which server class a path has, with which options, and whether it can be one.

What can be known of a server class without calling it is looked at here, when the application is loaded; of what is
made by anything else than a class, its class is looked at when there is one. Of a request this module sees the path
alone.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from uwasp.options import Options
from uwasp.server import Server

if TYPE_CHECKING:
    from uwasp.server import ServerInterface
    from uwasp.websocket import WebSocket

__all__ = ["Route", "ServerClass", "find_routes", "path_of"]

logger = logging.getLogger("uwasp.routing")

ServerClass = Callable[["WebSocket"], "ServerInterface"]
Authorize = Callable[[dict[str, Any]], Any]

EVENTS = {"on_open": (), "on_message": ("message",), "on_close": ()}  # and what they are called with
KNOWN = (*(field.name for field in fields(Options)), *EVENTS, "protocols", "authorize")
COROUTINE = "async def"
SIMILAR = 0.83  # from which ratio of `difflib` on a name is taken for another one misspelt

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2


class Route(NamedTuple):
    """Where the requests of one path go.

    Attributes:
        path: the path.
        server_class: as the user gave it: makes the server of a connection.
        name: what messages call it.
        authorize: decides who may come in; `None` for everybody.
        protocols: the subprotocols, most preferred first.
        options: those that hold for it.
        handler_class: whose events its servers have.
        made: the classes of servers that were looked at since, where `server_class` is no class.
    """

    path: str
    server_class: ServerClass
    name: str
    authorize: Authorize | None
    protocols: Sequence[str]
    options: Options
    handler_class: type
    made: set[type]

    def make_server(self, ws: WebSocket) -> ServerInterface:
        """A server for a connection.

        Raises:
            TypeError: what was made is no server, or has an `authorize` that was not asked.
        """
        server = self.server_class(ws)
        made = type(server)
        if made not in self.made:
            _check_events(made, self.handler_class)
            authorize = _find_authorize(made)
            if authorize is not None and _function(authorize) is not _function(self.authorize):
                raise TypeError(
                    f"{self.name} made a {made.__name__}, whose authorize is not asked: it runs before anything is "
                    f"made. Route the class itself, or give {self.name} an attribute authorize"
                )
            self.made.add(made)
        return server


def path_of(environ: dict[str, Any]) -> str:
    """The path of a request within the application (PATH_INFO), decoded from UTF-8."""
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def find_routes(servers: Iterable[tuple[str, ServerClass]], options: Options, handler_class: type) -> dict[str, Route]:
    """The routes by their paths.

    Args:
        servers: pairs of a path and a server class.
        options: those that hold for all servers; a class overrides them.
        handler_class: says which events it runs.

    Raises:
        TypeError, ValueError: a pair is not what it should be, or two have one path.
    """
    routes: dict[str, Route] = {}
    for pair in servers:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"servers holds pairs (path, server class), not {pair!r}")
        path, server_class = pair
        _check_path(path)
        if path in routes:
            raise ValueError(f"two servers for the path {path}")
        if not callable(server_class):
            raise TypeError(f"the server for {path} is a class, not {server_class!r}")
        routes[path] = _find_route(path, server_class, options, handler_class)
    all_described = [_described(route.server_class) for route in routes.values()]
    for described in {id(one): one for one in all_described}.values():
        _warn_about_misspelt(described)
    return routes


def _check_path(path: Any) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"a server's path is a str that begins with a slash, not {path!r}")
    if "?" in path or "#" in path:
        raise ValueError(
            f"a server's path ends before any ? or #, which {path!r} has: it is compared with a request's path alone "
            '(a server finds the query in ws.environ["QUERY_STRING"])'
        )


def _find_route(path: str, server_class: ServerClass, options: Options, handler_class: type) -> Route:
    described = _described(server_class)
    name = _name(described)
    made: set[type] = set()
    if isinstance(described, type):
        _check_events(described, handler_class)
        if inspect.isabstract(described):
            raise TypeError(f"{name} is abstract: nothing can be made of it")
        made.add(described)
    elif _runs_later(described):
        raise TypeError(f"{name} makes no server when it is called: it is {_runs_later(described)}")
    reason = _refuses(server_class, "ws")
    if reason:
        raise TypeError(
            f"{name} is called with the WebSocket alone, which it does not accept ({reason}); "
            "what else it needs, functools.partial can give it"
        )
    authorize, protocols = _find_authorize(described), _find_protocols(described)
    own = options.overridden_by(described)
    return Route(path, server_class, name, authorize, protocols, own, handler_class, made)


def _described(server_class: Any) -> Any:
    """Whose attributes count: a class, also where a `functools.partial` of it makes the servers."""
    while isinstance(server_class, functools.partial):
        if vars(server_class):
            names = ", ".join(vars(server_class))
            raise TypeError(f"{server_class!r} has attributes of its own ({names}): set them on what it calls")
        server_class = server_class.func
    return server_class


def _check_events(server_class: type, handler_class: type) -> None:
    """Whether a handler can call the three methods.

    Raises:
        TypeError: it cannot.
    """
    name = server_class.__name__
    missing = [event for event in EVENTS if not hasattr(server_class, event)]
    if missing:
        raise TypeError(f"{name} has no {', '.join(missing)}; inherit from uwasp.Server")
    runs_coroutines = getattr(handler_class, "runs", "functions") == "coroutines"
    for event, arguments in EVENTS.items():
        method = _in_class(server_class, event)
        if method is vars(Server)[event]:
            continue
        later = _runs_later(method)
        if later == COROUTINE and not runs_coroutines:
            raise TypeError(
                f"{name}.{event} is {COROUTINE}, which {handler_class.__name__} does not run: make it a plain "
                "function (def), or choose a handler that runs coroutines"
            )
        if later not in (COROUTINE, ""):
            raise TypeError(f"{name}.{event} is {later}: nothing of it would be run")
        if not later and runs_coroutines and callable(method):
            raise TypeError(f"{name}.{event} is a plain function, and {handler_class.__name__} runs only async def")
        if method is None or (not callable(method) and not hasattr(type(method), "__get__")):
            raise TypeError(f"{name}.{event} is a method, not {method!r}")
        reason = _refuses_as_method(server_class, event, *arguments)
        if reason:
            expected = ", ".join(("self", *arguments))
            raise TypeError(f"{name}.{event} is called as {event}({expected}), which it does not accept ({reason})")


def _find_authorize(described: Any) -> Authorize | None:
    """What decides who may come in.

    Raises:
        TypeError: it could not.
    """
    name = f"{_name(described)}.authorize"
    own = _in_class(described, "authorize") if isinstance(described, type) else None
    if own is vars(Server)["authorize"] or not hasattr(described, "authorize"):
        return None
    authorize: Authorize = getattr(described, "authorize")  # noqa: B009 - of any class
    if later := _runs_later(authorize):
        raise TypeError(
            f"{name} is {later}: nothing of it would be run, and everybody let in. "
            "It is a plain function (def) under every handler"
        )
    if callable(own) and hasattr(type(own), "__get__") and not isinstance(own, staticmethod | functools.partial):
        raise TypeError(
            f"{name} is called before there is an object: put @classmethod above it, def authorize(cls, environ)"
        )
    if not callable(authorize):
        raise TypeError(f"{name} is a classmethod, not {authorize!r}")
    reason = _refuses(authorize, "environ")
    if reason:
        raise TypeError(f"{name} is called with the environ alone, which it does not accept ({reason})")
    return authorize


def _find_protocols(described: Any) -> Sequence[str]:
    protocols: Any = getattr(described, "protocols", ())
    if isinstance(protocols, str | bytes) or not isinstance(protocols, Sequence):
        raise TypeError(f'{_name(described)}.protocols is a sequence, such as ("chat",), not {protocols!r}')
    for protocol in protocols:
        if not isinstance(protocol, str) or not _TOKEN.fullmatch(protocol):
            raise TypeError(
                f"{_name(described)}.protocols has {protocol!r} in it, which no client can ask for: a subprotocol is "
                "letters, digits and marks such as . and -, without spaces or commas (RFC 6455 section 4.1)"
            )
    return protocols


def _warn_about_misspelt(described: Any) -> None:
    """Say which attributes look as if an option, or a method that is called, were meant."""
    classes = described.__mro__ if isinstance(described, type) else (described, *type(described).__mro__)
    users = [one for one in classes if one not in (object, Server, FunctionType)]
    names = {name for one in users for name in getattr(one, "__dict__", ())}
    known = {_plain(name): name for name in KNOWN if name not in names}
    for name in sorted(names - set(KNOWN)):
        if name.startswith("_"):
            continue
        for meant in get_close_matches(_plain(name), known, n=1, cutoff=SIMILAR):
            logger.warning("%s.%s means nothing to uWASP: is it to be %s?", _name(described), name, known[meant])


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _name(described: Any) -> str:
    return getattr(described, "__name__", None) or type(described).__name__


def _function(method: Any) -> Any:
    return getattr(method, "__func__", method)


def _in_class(server_class: type, name: str) -> Any:
    """What stands under a name in the class, or one that it inherits from, unbound; `None` if there is nothing."""
    return next((vars(one)[name] for one in server_class.__mro__ if name in vars(one)), None)


def _runs_later(function: Any) -> str:
    """Why to call something is not to run it, in words; empty if it is, or if that cannot be seen.

    Looks into methods, partials and objects that can be called. What a decorator has made is taken for what it is.
    """
    for _ in range(10):  # an object's `__call__` can be another such object, and so on
        if isinstance(function, functools.partial | functools.partialmethod | functools.singledispatchmethod):
            function = function.func
        elif isinstance(function, classmethod | staticmethod) or inspect.ismethod(function):
            function = function.__func__
        elif callable(function) and not isinstance(function, FunctionType | type):
            function = type(function).__call__
        else:
            break
    if inspect.iscoroutinefunction(function):
        return COROUTINE
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "a generator, as it has a yield in it"
    return ""


def _refuses(function: Any, *arguments: Any) -> str:
    """Why something cannot be called with these arguments; empty if it can, or if that cannot be seen.

    What says itself what its signature is (`__signature__`) may be called in another way.
    """
    if hasattr(function, "__signature__"):
        return ""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return ""
    try:
        signature.bind(*arguments)
    except TypeError as error:
        return str(error)
    return ""


def _refuses_as_method(server_class: type, name: str, *arguments: Any) -> str:
    """The same for a method, called on an object."""
    method = _in_class(server_class, name)
    if isinstance(method, FunctionType | functools.partialmethod):
        return _refuses(getattr(server_class, name), "self", *arguments)
    return _refuses(getattr(server_class, name), *arguments) if callable(method) else ""
