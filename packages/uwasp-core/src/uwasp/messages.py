"""What the messages of a server class are: text, binary or both, and which codec makes values of them.

Its type arguments say it, `Server[str]` for instance, and its attribute `codec`. Looked at when the application is
loaded; then `Decoding` stands where the handler expects the server. This module knows no connection.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, NamedTuple, NewType, TypeVar, Union, get_args, get_origin

from uwasp.codec import Codec, decode
from uwasp.server import Server, ServerInterface

__all__ = ["Decoding", "Messages", "accepted_type", "message_type"]


class Messages(NamedTuple):
    """What a server class takes.

    Attributes:
        accepts: `str` for text alone, `bytes` for binary alone, `None` for either.
        codec: makes values of them, if any does.
    """

    accepts: type | None
    codec: Codec[Any] | None


def message_type(server_class: Any) -> Any:
    """Of which type a class, or an alias such as `Chat[str]`, says that its messages are; `None`: it says nothing."""
    origin = get_origin(server_class) or server_class
    given = get_args(server_class)
    if origin is Server:
        return given[0] if given else None
    named = dict(zip(getattr(origin, "__parameters__", ()), given, strict=False))
    for base in vars(origin).get("__orig_bases__", origin.__bases__):
        base_class = get_origin(base) or base
        if isinstance(base_class, type) and issubclass(base_class, Server):
            found = message_type(base)
            if isinstance(found, TypeVar):
                found = named.get(found)
            if found is not None:
                return found
    return None


def accepted_type(message_type: Any) -> type | None:
    """Of the types that come off the wire the one that is meant, without a codec; `None` for either.

    Raises:
        TypeError: no message is of that type.
    """
    meant = _meant(message_type)
    members = [_meant(one) for one in get_args(meant)] if _is_union(meant) else [meant]
    wrong = [one for one in members if isinstance(one, type) and one not in (str, bytes, object, Any)]
    if wrong:
        raise TypeError(f"no message is a {wrong[0].__name__}")
    return meant if meant in (str, bytes) else None


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _meant(kind: Any) -> Any:
    """The type behind what stands for it: a `NewType`, a `type` statement, `Annotated`, `dict[str, int]`."""
    if get_origin(kind) is Annotated:
        return _meant(get_args(kind)[0])
    if isinstance(kind, NewType):
        return _meant(kind.__supertype__)
    if hasattr(kind, "__value__"):  # of a `type` statement, in the Pythons that have it
        return _meant(kind.__value__)
    return kind if get_origin(kind) is None or _is_union(kind) else get_origin(kind)


class Decoding:
    """Stands for a server whose messages a codec decodes, towards whoever calls its methods.

    The server itself is untouched: its own calls of `on_message` are about values, and so is another `on_message` that
    it puts in the place of its own. Its class goes by the name that it has: `__class__` is that.

    Args:
        server: the server.
        codec: what decodes for it.
    """

    __slots__ = ("__weakref__", "_codec", "_server")

    def __init__(self, server: ServerInterface, codec: Codec[Any]) -> None:
        self._server = server
        self._codec = codec

    def on_open(self) -> object:
        return self._server.on_open()

    def on_message(self, message: str | bytes) -> object:
        """Give the value to the server, and return what it returns: of an `async def`, what is to be awaited.

        Raises:
            Undecodable: the client is at fault.
        """
        return self._server.on_message(decode(self._codec, message))

    def on_close(self) -> object:
        return self._server.on_close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    @property  # type: ignore[misc]  # an object's class can be set, as the checker knows it
    def __class__(self) -> Any:
        return type(self._server)
