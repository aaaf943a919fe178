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
import time
from http import HTTPStatus
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from uwasp import handshake, origin
from uwasp.allowed import Allowed
from uwasp.exceptions import Refusal
from uwasp.handler import Handler, can_spawn

if TYPE_CHECKING:
    from uwasp.conversations import Conversation
    from uwasp.options import Options
    from uwasp.routing import Authorize, Route
    from uwasp.takeover import Takeover

__all__ = [
    "EXITS",
    "Refused",
    "accepting",
    "authorize",
    "begin",
    "decide",
    "end_accepting",
    "give_place_back",
    "mount",
    "peer",
    "refuse_for",
    "take_place",
    "unknown_path",
]

RETRY_AFTER = "5"  # seconds, in a 503
EXPIRED = (
    "WWW-Authenticate",
    'Bearer error="invalid_token"',
)  # RFC 9110 §15.5.2 has a 401 say something; RFC 6750 §3.1

# What the system has none left of, by its errno. EAGAIN is that of pthread_create(3).
_RESOURCES = {errno.EMFILE: "descriptors", errno.ENFILE: "descriptors", errno.EAGAIN: "threads"}

EXITS = (SystemExit, KeyboardInterrupt)  # what a server may raise, and no `Exception` is

# The reasons for which the operator has to do something, or wants to know.
_FOR_THE_OPERATOR = frozenset({"takeover", "origin", "full", "conversations", "descriptors", "threads"})

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


def authorize(environ: dict[str, Any], route: Route, instead: Authorize | None = None) -> Any:
    """Ask the server class; return what becomes `ws.user`, or an `Allowed` with that.

    Args:
        environ: of the request.
        route: where it leads.
        instead: what is asked in the place of the server class (default: that is).

    Raises:
        Refused: it refuses, or has decided nothing.
    """
    ask = instead or route.authorize
    if ask is None:
        return None
    try:
        user = ask(environ)
        if user is False:
            raise Refusal
    except Refusal as refusal:
        refuse_for(refusal)
        raise
    kind = type(user)  # not `isinstance`, which would make a lazy object look up what it stands for
    fault = ""
    if hasattr(kind, "__await__") or issubclass(kind, GeneratorType | AsyncGeneratorType):
        if issubclass(kind, CoroutineType | GeneratorType):
            user.close()  # or Python would complain later, where nobody knows why
        fault = "nothing of it was run. Return the user itself"
    elif hasattr(kind, "status_code"):  # Flask's, Django's
        fault = "a response refuses nobody. Raise a uwasp.Refusal"
    elif user is Refusal or issubclass(kind, Refusal):
        fault = "it refuses nobody so. Raise it"
    elif issubclass(kind, Allowed):
        if user.until <= time.time():
            why = "it has returned an Allowed of which the time is over"
            raise Refused("authorize", handshake.refuse(HTTPStatus.UNAUTHORIZED, "the session is over", EXPIRED), why)
        if user.again and not can_spawn(route.handler_class):
            fault = f"again=True needs a handler that has spawn, which {route.handler_class.__name__} has not"
    if fault:
        answer = handshake.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "authorize is at fault")
        raise Refused("authorize", answer, f"{route.name}.authorize returned a {kind.__name__}: {fault}")
    return user


def begin(conversation: Conversation, handler_class: type[Handler]) -> None:
    """Have a server that is a function begin as soon as its connection is open.

    Raises:
        Refused: so many run already.
        OSError: no thread is left for it (EAGAIN).
    """
    limit = getattr(handler_class, "max_conversations", Handler.max_conversations)
    if not conversation.enter(limit):
        why = f"{handler_class.__name__}.max_conversations is {limit}, and so many run in this worker"
        raise Refused("conversations", _busy("as many WebSockets are open as may be"), why)
    if getattr(handler_class, "runs", Handler.runs) == "functions":
        conversation.spawn(handler_class.spawn, getattr(handler_class, "new_waiter", Handler.new_waiter))


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


def refuse_for(error: BaseException, *resources: str) -> None:
    """Refuse a request for what was raised while its connection was made, if that is a reason; else do nothing.

    Args:
        error: what was raised.
        resources: what of these a lack is refused for: `"descriptors"`, `"threads"`.

    Raises:
        Refused: the server has raised `uwasp.Refusal`, or would have Python exit; or none of the resources is left.
    """
    if isinstance(error, EXITS):  # a thread of uWSGI's would leave the client without an answer
        answer = handshake.refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the server is at fault")
        why = f"{type(error).__name__} was raised, which ends nothing but this request"
        raise Refused("authorize", answer, why) from error
    if isinstance(error, Refusal):
        answer = handshake.refuse(error.status, error.body, *error.headers)
        raise Refused("authorize", answer, str(error.status.value)) from error
    if isinstance(error, OSError):
        reason = _RESOURCES.get(error.errno or 0)
        if reason in resources:
            raise Refused(reason, _busy(f"no {reason} are left for another WebSocket"), str(error.strerror)) from error


def unknown_path(path: str | None) -> Refused:
    """No server is at the path of the request, which is `None` if it is not UTF-8."""
    answer = handshake.refuse(HTTPStatus.NOT_FOUND, "there is no WebSocket at this path")
    return Refused("path", answer, "it is not UTF-8" if path is None else "no server of this application is there")


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


def mount(environ: dict[str, Any]) -> str:
    """Where the application of a request is among several (SCRIPT_NAME), for the log; empty for one that is alone."""
    script_name: str = environ.get("SCRIPT_NAME", "")
    return handshake.quote(script_name) if script_name else ""
