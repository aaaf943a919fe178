"""Routing: to which server class a path leads, with which options, and whether it can be one.

What can be known of a server class without calling it is looked at here, when the application is loaded; of what is
made by anything else than a class, its class is looked at when there is one. Of a request this module sees the path
alone.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import fields
from difflib import get_close_matches
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin

from uwasp import preflight
from uwasp.callables import COROUTINE
from uwasp.callables import refuses as _refuses
from uwasp.callables import runs_later as _runs_later
from uwasp.codec import Codec
from uwasp.conversations import Conversation, is_function
from uwasp.handler import Handler
from uwasp.handshake import quote
from uwasp.messages import Decoding, Messages, accepted_type, message_type
from uwasp.options import Options
from uwasp.paths import ROUTING_ARGS, Pattern
from uwasp.server import Server

if TYPE_CHECKING:
    from uwasp.server import ServerInterface
    from uwasp.websocket import WebSocket

__all__ = ["Match", "Route", "Routes", "ServerClass", "find_route", "find_routes", "path_of"]

logger = logging.getLogger("uwasp.routing")

# Makes a server of the `websocket_class` of its handler, or is a function that converses.
ServerClass = Callable[[Any], "ServerInterface | Awaitable[None] | None"]
Authorize = Callable[[dict[str, Any]], Any]

EVENTS = {"on_open": (), "on_message": ("message",), "on_close": ()}  # and what they are called with
OPTIONAL_EVENTS = {"on_notify": ("group", "data"), "on_presence": ("group", "joined", "left"), "on_missed": ("group",)}
KNOWN = (*(field.name for field in fields(Options)), *EVENTS, *OPTIONAL_EVENTS, "protocols", "authorize")
# What other libraries call these, as `warn_about_misspelt` compares names: in Python, in browsers, in autobahn.
ELSEWHERE = {
    "onconnect": "on_open",
    "ondata": "on_message",
    "onreceive": "on_message",
    "ondisconnect": "on_close",
    "onerror": "on_close",
}
SIMILAR = 0.83  # from which ratio of `difflib` on a name is taken for another one misspelt

_BRACES = re.compile(r"\{(\w+)[^{}/]*\}")
_COLON = re.compile(r"/:\w+")  # a parameter, as other frameworks have it
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2


class Route(NamedTuple):
    """Where the requests of one path go, or of all paths that match a pattern.

    Attributes:
        path: the path, or the pattern, as the user gave it.
        quoted: the same for the log and the figures.
        server_class: as the user gave it: makes the server of a connection; or is a function, which is one.
        name: what messages call it.
        authorize: decides who may come in; `None` for everybody.
        protocols: the subprotocols, most preferred first.
        options: those that hold for it.
        handler_class: whose events its servers have.
        made: what the messages are of each class of servers that was looked at, when the route was found or, where
            `server_class` is no class, since.
        converses: whether `server_class` is a function.
    """

    path: str
    quoted: str
    server_class: ServerClass
    name: str
    authorize: Authorize | None
    protocols: Sequence[str]
    options: Options
    handler_class: type
    made: dict[type, Messages]
    converses: bool

    def make_server(self, ws: WebSocket) -> ServerInterface | Conversation:
        """A server for a connection.

        Raises:
            TypeError: what was made is no server, or has an `authorize` that was not asked.
        """
        if self.converses:
            return Conversation(self.server_class, ws, self.name, self.made[Conversation].codec)
        server: ServerInterface = self.server_class(ws)  # type: ignore[assignment]  # a class, or what makes servers
        made = type(server)
        if made not in self.made:
            _check_events(made, self.handler_class)
            authorize = _find_authorize(made)
            if authorize is not None and _function(authorize) is not _function(self.authorize):
                raise TypeError(
                    f"{self.name} made a {made.__name__}, whose authorize is not asked: it runs before anything is "
                    f"made. Route the class itself, or give {self.name} an attribute authorize"
                )
            self.made[made] = _find_messages(made, made, _described(self.server_class))
        codec = self.made[made].codec
        return server if codec is None else Decoding(server, codec)

    @property
    def making(self) -> str:
        """What messages call what `make_server` calls."""
        return f"{self.name}.__init__" if isinstance(_described(self.server_class), type) else self.name

    def accepts(self, server: ServerInterface | Conversation) -> type | None:
        """Of which type all messages for a server of this route have to be, if that is said."""
        messages = self.made.get(type(server))
        return None if messages is None else messages.accepts


class Match(NamedTuple):
    """Where the path of a request leads.

    Attributes:
        route: its route.
        path: the path.
        place: what the log calls it: the path, after the pattern if there is one. What came from a client is quoted.
        params: what it has in the places that the pattern leaves open; empty for an exact path.
    """

    route: Route
    path: str
    place: str
    params: dict[str, Any]

    def tell(self, environ: dict[str, Any]) -> None:
        """Add the parameters to the environ, by the convention `wsgiorg.routing_args`, and to what is there already."""
        if self.params:
            positional, named = environ.get(ROUTING_ARGS, ((), {}))
            environ[ROUTING_ARGS] = (positional, {**named, **self.params})


class Routes:
    """Finds the route of a path: an exact one, or else the first whose pattern the path matches.

    Args:
        routes: in the order of their patterns.
    """

    def __init__(self, routes: Iterable[tuple[Pattern | None, Route]]) -> None:
        self._exact: dict[str, Match] = {}
        self._patterns: list[tuple[Pattern, Route]] = []
        for pattern, route in routes:
            if pattern is None:
                self._exact[route.path] = Match(route, route.path, route.quoted, {})
            else:
                self._patterns.append((pattern, route))

    def find(self, path: str | None) -> Match | None:
        """Where a path leads; `None`: nowhere, as no path does that is not UTF-8."""
        return None if path is None else self._exact.get(path) or self._find_pattern(path)

    def _find_pattern(self, path: str) -> Match | None:
        for pattern, route in self._patterns:
            params = pattern.match(path)
            if params is not None:
                # With a double quote before it, the single quotes in it are escaped: what a client sent does not end.
                quoted = quote('"' + path)[1:]
                return Match(route, path, f"{route.quoted} '{quoted}'", params)
        return None


def path_of(environ: dict[str, Any]) -> str | None:
    """The path of a request within the application (PATH_INFO), decoded from UTF-8; `None` if it is none.

    The WSGI server has resolved the percent-encoding, once. Nobody may do it again.
    """
    path: str = environ.get("PATH_INFO", "")
    if path.isascii():
        return path
    try:
        return path.encode("latin-1").decode()
    except UnicodeError:
        return None


def find_routes(servers: Iterable[tuple[str, ServerClass]], options: Options, handler_class: type) -> Routes:
    """The routes of the pairs that a user gave.

    Args:
        servers: pairs of a path, or a pattern, and a server class.
        options: those that hold for all servers; a class overrides them.
        handler_class: says which events it runs.

    Raises:
        TypeError, ValueError: a pair is not what it should be, or two have one path, or patterns of one form.
    """
    routes: dict[str, tuple[Pattern | None, Route]] = {}  # by the path, or the pattern's form
    for pair in servers:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f'servers holds pairs of a path and a server, as in [("/chat", Chat)], not {pair!r}')
        path, server_class = pair
        _check_path(path)
        pattern = Pattern(path) if "<" in path or ">" in path else None
        form = path if pattern is None else pattern.form
        if form in routes:
            other = routes[form][1].path
            also = "" if other == path else f": {other}, which comes first, matches the same"
            raise ValueError(f"two servers for the path {path}{also}")
        routes[form] = pattern, find_route(path, server_class, options, handler_class)
    all_described = [_described(route.server_class) for _, route in routes.values()]
    for described in {id(one): one for one in all_described}.values():
        warn_about_misspelt(described)
    for _, route in routes.values():
        if found := _COLON.search(route.path):
            logger.warning(
                "%s of the path %r is no parameter, which is <name> or <converter:name>", found[0], route.path
            )
    return Routes(routes.values())


def _check_path(path: Any) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"a server's path is a str that begins with a slash, not {path!r}")
    if "?" in path or "#" in path:
        raise ValueError(
            f"a server's path ends before any ? or #, which {path!r} has: it is compared with a request's path alone "
            '(a server finds the query in ws.environ["QUERY_STRING"])'
        )
    braces = _BRACES.search(path)
    if braces:
        raise ValueError(
            f"the path {path!r} has {braces[0]} in it, which would stand for itself: a parameter is <{braces[1]}>, or "
            f"<int:{braces[1]}> with a converter"
        )


def find_route(path: str, server_class: ServerClass, options: Options, handler_class: type) -> Route:
    """The route of a path, or of requests whose path somebody else has looked at.

    Args:
        path: what it is called.
        server_class, options, handler_class: as for `find_routes`.

    Raises:
        TypeError: the server class cannot be one.
    """
    if not callable(server_class):
        raise TypeError(f"the server for {path} is a class or a function, not {server_class!r}")
    described = _described(server_class)
    name = _name(described)
    made: dict[type, Messages] = {}
    converses = is_function(described)
    if converses:
        _check_conversation(described, name, handler_class)
        made[Conversation] = Messages(None, _find_codec(described))
    elif isinstance(described, type):
        _check_events(described, handler_class)
        if inspect.isabstract(described):
            raise TypeError(f"{name} is abstract: nothing can be made of it")
        made[described] = _find_messages(described, _called(server_class))
    elif _runs_later(described):
        raise TypeError(
            f"{name} makes no server when it is called: it is {_runs_later(described)}. A method that is to converse "
            "has @conversation() above it"
        )
    reason = _refuses(server_class, "ws")
    if reason:
        raise TypeError(
            f"{name} is called with the WebSocket alone, which it does not accept ({reason}); "
            "what else it needs, functools.partial can give it"
        )
    _find_codec(described)
    authorize, protocols = _find_authorize(described), _find_protocols(described)
    own = options.overridden_by(described)
    preflight.warn_of_mercy(own.shutdown_timeout)
    return Route(path, quote(path), server_class, name, authorize, protocols, own, handler_class, made, converses)


def _described(server_class: Any) -> Any:
    """Whose attributes count: a class, also where a `functools.partial` of it, or `Chat[str]`, makes the servers."""
    called = _called(server_class)
    return get_origin(called) or called


def _called(server_class: Any) -> Any:
    """What makes the servers, without the arguments that `functools.partial` gives it."""
    while isinstance(server_class, functools.partial):
        if vars(server_class):
            names = ", ".join(vars(server_class))
            raise TypeError(f"{server_class!r} has attributes of its own ({names}): set them on what it calls")
        server_class = server_class.func
    return server_class


def _check_conversation(function: Any, name: str, handler_class: type) -> None:
    """Whether a handler can run a function that converses.

    Raises:
        TypeError: it cannot.
    """
    made = _returned(function)
    if isinstance(made, type) and all(hasattr(made, event) for event in EVENTS):
        raise TypeError(
            f"{name} is a function that returns a {made.__name__}: a function is called with the open WebSocket, and "
            f"converses. To have servers made, give the class {made.__name__} itself, or functools.partial of it"
        )
    later = _runs_later(function)
    runs_coroutines = getattr(handler_class, "runs", Handler.runs) == "coroutines"
    if later == COROUTINE and not runs_coroutines:
        raise TypeError(
            f"{name} is {COROUTINE}, which {handler_class.__name__} does not run: make it a plain function (def), or "
            'take handler_class="asyncio" (pip install uwasp-asyncio)'
        )
    if later not in (COROUTINE, ""):
        raise TypeError(f"{name} is {later}: nothing of it would be run")
    if not later and runs_coroutines:
        raise TypeError(f"{name} is a plain function, and {handler_class.__name__} runs only async def")
    spawn = getattr(handler_class, "spawn", None)
    if not later and _function(spawn) in (None, _function(Handler.spawn)):
        raise TypeError(
            f"{name} is a function, which needs a thread or greenlet of its own, and {handler_class.__name__} does not "
            "say how to start one (Handler.spawn): give a server class, or take another handler"
        )


def _returned(function: Any) -> Any:
    """What a function says that it returns; `None` if it says nothing, or nothing that can be understood now."""
    try:
        return inspect.get_annotations(_function(function), eval_str=True).get("return")
    except Exception:  # a name that is not there while modules are imported, for instance
        return None


def _check_events(server_class: type, handler_class: type) -> None:
    """Whether a handler can call its methods.

    Raises:
        TypeError: it cannot.
    """
    name = server_class.__name__
    missing = [event for event in EVENTS if not hasattr(server_class, event)]
    if missing:
        raise TypeError(f"{name} has no {', '.join(missing)}; inherit from uwasp.Server")
    runs_coroutines = getattr(handler_class, "runs", "functions") == "coroutines"
    for event, arguments in {**EVENTS, **OPTIONAL_EVENTS}.items():
        method = _in_class(server_class, event)
        if method is vars(Server)[event] or not hasattr(server_class, event):
            continue
        later = _runs_later(method)
        if later == COROUTINE and not runs_coroutines:
            raise TypeError(
                f"{name}.{event} is {COROUTINE}, which {handler_class.__name__} does not run: make it a plain "
                'function (def), or take handler_class="asyncio" (pip install uwasp-asyncio)'
            )
        if later not in (COROUTINE, ""):
            raise TypeError(f"{name}.{event} is {later}: nothing of it would be run")
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


def _find_messages(server_class: type, typed: Any, maker: Any = None) -> Messages:
    """What the messages of a server class are.

    Args:
        server_class: the class.
        typed: the same, or the alias of it that says of which type they are.
        maker: what makes its servers, if it is something else, and may have a codec for them.

    Raises:
        TypeError: they cannot be that.
    """
    codec = _find_codec(server_class)
    if codec is None:
        codec = _find_codec(maker)
    if codec is not None:
        return Messages(None, codec)
    kind = message_type(typed)
    try:
        return Messages(accepted_type(kind), None)
    except TypeError as error:
        raise TypeError(
            f"{server_class.__name__}: {error} as it comes. Give the class a codec, such as codec = uwasp.JSON, or "
            "derive it from Server[str], Server[bytes] or Server"
        ) from None


def _find_codec(described: Any) -> Codec[Any] | None:
    """What makes values of messages.

    Raises:
        TypeError: it could not.
    """
    codec: Codec[Any] | None = getattr(described, "codec", None)
    if codec is None:
        return None
    name = f"{_name(described)}.codec"
    if isinstance(codec, type):
        raise TypeError(f"{name} is the class {codec.__name__}, and not an object of it: codec = {codec.__name__}(...)")
    for method, argument in (("decode", "message"), ("encode", "value")):
        found = getattr(codec, method, None)
        if not callable(found):
            raise TypeError(
                f"{name} has no {method}({argument}), which each codec has: write codec = uwasp.JSON, or give an "
                f"object with decode(message) and encode(value) (see uwasp.Codec), and not {codec!r}"
            )
        if later := _runs_later(found):
            raise TypeError(f"{name}.{method} is {later}: a codec does not wait, under any handler")
        if reason := _refuses(found, argument):
            raise TypeError(f"{name}.{method} is called with the {argument} alone, which it does not accept ({reason})")
    return codec


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


def warn_about_misspelt(described: Any) -> None:
    """Say which attributes look as if an option, or a method that is called, were meant."""
    classes = described.__mro__ if isinstance(described, type) else (described, *type(described).__mro__)
    users = [one for one in classes if one not in (object, Server, FunctionType)]
    names = {name for one in users for name in getattr(one, "__dict__", ())}
    known = {_plain(name): name for name in KNOWN if name not in names}
    for name in sorted(names - set(KNOWN)):
        if name.startswith("_"):
            continue
        plain = _plain(ELSEWHERE.get(_plain(name), name))
        for meant in get_close_matches(plain, known, n=1, cutoff=SIMILAR):
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


def _refuses_as_method(server_class: type, name: str, *arguments: Any) -> str:
    """The same for a method, called on an object."""
    method = _in_class(server_class, name)
    if isinstance(method, FunctionType | functools.partialmethod):
        return _refuses(getattr(server_class, name), "self", *arguments)
    return _refuses(getattr(server_class, name), *arguments) if callable(method) else ""
