"""Admission: who gets a WebSocket, decided before the handshake is answered.

A request is asked, in this order: whether its connection can be taken over at all, whether it is a handshake of
RFC 6455, whether a page of its origin may make it, whether there is room, and whether the server class's `authorize`
lets it in. Then it takes a place, and a descriptor. What speaks against it is raised as `Refused`; to tell the client
and the log is the middleware's.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from uwasp import handshake, origin
from uwasp.exceptions import Refusal

if TYPE_CHECKING:
    from uwasp.options import Options
    from uwasp.routing import Route
    from uwasp.takeover import Takeover

__all__ = [
    "Refused",
    "accepting",
    "authorize",
    "decide",
    "end_accepting",
    "give_place_back",
    "needing_descriptors",
    "peer",
    "server_may_refuse",
    "take_place",
    "unknown_path",
]

RETRY_AFTER = "5"  # seconds, in a 503

# The reasons for which the operator has to do something, or wants to know.
_FOR_THE_OPERATOR = frozenset({"takeover", "origin", "full", "descriptors"})

_places_lock = threading.Lock()
_places = 0  # taken: by requests that are being accepted, and by connections until they end
_accepting = 0  # requests that are being accepted


class Refused(Exception):
    """A request gets no WebSocket.

    Attributes:
        reason: the word that it is counted under.
        answer: what the client gets.
        why: for the log; may be empty.
    """

    def __init__(self, reason: str, answer: handshake.Answer, why: str = "") -> None:
        self.reason = reason
        self.answer = answer
        self.why = why

    @property
    def level(self) -> int:
        """How it is logged."""
        if self.answer.status.startswith("500"):
            return logging.ERROR
        return logging.WARNING if self.reason in _FOR_THE_OPERATOR else logging.INFO


def decide(environ: dict[str, Any], route: Route, takeover: Takeover) -> handshake.Answer:
    """The answer that accepts a request, if nothing but its server speaks against it.

    Raises:
        Refused: something does.
    """
    options = route.options
    reason = takeover.refusal()
    if reason is not None:
        raise Refused("takeover", handshake.refuse(HTTPStatus.NOT_IMPLEMENTED, reason), reason)
    answer = handshake.answer(environ, route.protocols, options.deflate)
    if not answer.accepts:
        raise Refused("handshake", answer, answer.body.decode().strip())
    trusted = options.allowed_origins, options.trust_proxy
    if not origin.is_allowed(environ, *trusted):
        page = handshake.quote(environ["HTTP_ORIGIN"])
        host = handshake.quote(origin.asked_host(environ, options.trust_proxy))
        rule = "it is not that of the host that was asked" if options.allowed_origins is None else "it is not listed"
        answer = handshake.refuse(
            HTTPStatus.FORBIDDEN, f"this origin may not open a WebSocket here: {rule} (allowed_origins, trust_proxy)"
        )
        raise Refused("origin", answer, f"{page} at host {host}: {origin.remedy(environ, *trusted)}")
    limit = options.max_connections
    if limit is not None and _places >= limit:  # before the server is asked, which can take long
        raise _full(limit)
    return answer


def authorize(environ: dict[str, Any], route: Route) -> Any:
    """Ask the server class; return what becomes `ws.user`.

    Raises:
        Refused: it refuses, or has decided nothing.
    """
    if route.authorize is None:
        return None
    with server_may_refuse():
        user = route.authorize(environ)
        if user is False:
            raise Refusal
    kind = type(user)  # not `isinstance`, which would make a lazy object look up what it stands for
    fault = ""
    if hasattr(kind, "__await__") or issubclass(kind, GeneratorType | AsyncGeneratorType):
        if issubclass(kind, CoroutineType | GeneratorType):
            user.close()  # or Python would complain later, where nobody knows why
        fault = "nothing of it was run. It returns the user itself"
    elif hasattr(kind, "status_code"):  # Flask's, Django's
        fault = "a response refuses nobody. Raise a uwasp.Refusal"
    if fault:
        answer = handshake.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "authorize is at fault")
        raise Refused("authorize", answer, f"{route.name}.authorize returned a {kind.__name__}: {fault}")
    return user


def take_place(limit: int | None) -> None:
    """Begin to accept a request: take one of the places that the process has for connections.

    It is taken until `give_place_back`, which is called when the connection ends, or comes to nothing: one count from
    here to there, so that nobody is counted twice, or not at all, on the way to a listener.

    Raises:
        Refused: none is left.
    """
    global _accepting, _places
    with _places_lock:
        if limit is None or _places < limit:
            _places += 1
            _accepting += 1
            return
    raise _full(limit)


def end_accepting() -> None:
    """The request is over: its connection is with a listener, or came to nothing."""
    global _accepting
    with _places_lock:
        _accepting -= 1


def give_place_back() -> None:
    """The connection has ended, or came to nothing."""
    global _places
    with _places_lock:
        _places -= 1


def accepting() -> int:
    """How many requests this process is accepting as WebSockets just now."""
    return _accepting


@contextmanager
def server_may_refuse() -> Iterator[None]:
    """Around what runs the server's own code.

    Raises:
        Refused: the server raised `uwasp.Refusal`.
    """
    try:
        yield
    except Refusal as refusal:
        answer = handshake.refuse(refusal.status, refusal.body, *refusal.headers)
        raise Refused("authorize", answer, str(refusal.status.value)) from refusal


@contextmanager
def needing_descriptors() -> Iterator[None]:
    """Around what opens descriptors for a connection.

    Raises:
        Refused: none is left.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        busy = _busy("no descriptor is left for another WebSocket")
        raise Refused("descriptors", busy, str(error.strerror)) from error


def unknown_path() -> Refused:
    """No server is at the path of the request."""
    return Refused("path", handshake.refuse(HTTPStatus.NOT_FOUND, "there is no WebSocket at this path"))


def _full(limit: int) -> Refused:
    why = f"max_connections is {limit}, and {_places} are open or being opened, on all paths of this worker"
    return Refused("full", _busy("as many WebSockets are open as may be"), why)


def _busy(reason: str) -> handshake.Answer:
    return handshake.refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason, ("Retry-After", RETRY_AFTER))


def peer(environ: dict[str, Any], options: Options | None) -> str:
    """The client's address, for the log.

    Of several in X-Forwarded-For it is the last, which the proxy itself has added. The client may have sent the others.
    """
    address: str = environ.get("REMOTE_ADDR", "")
    if options is not None and options.trust_proxy:
        address = environ.get("HTTP_X_FORWARDED_FOR", address).split(",")[-1].strip()
    return handshake.quote(address) or "a Unix socket"
