"""A handshake with a server that runs, as a browser's page would have it, and why it is refused if it is."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.http11 import Response
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin
from websockets.uri import parse_uri

__all__ = ["try_handshake"]

LONGEST = 5.0  # seconds, for the answer and for a ping's
LISTENING = 0.5  # seconds, after the ping's: what the server raises in its first event is told by a close frame
STEP = 0.02  # seconds; a pong wakes nobody who waits for messages
PARTING = 1.0  # seconds, for the close
LONGEST_BODY = 200  # characters, of what an answer is quoted

# What an answer in the place of a 101 means, and what to do. `docs/command.md` and the README have more.
MEANINGS: Mapping[int, str] = {
    200: "it was answered with a page: no WebSocket is at this path, or a proxy in front drops the header Upgrade",
    301: "it was sent elsewhere: ask there (wss:// in the place of ws://?)",
    302: "it was sent elsewhere, as to a page to log in",
    400: "it did not arrive as a handshake: a proxy in front that speaks HTTP/1.0, or drops Connection or Upgrade",
    401: "authorize lets nobody in without a login",
    403: "this page may not open a WebSocket here, or authorize does not let it in: see the log, and allowed_origins",
    404: "there is no WebSocket at this path",
    426: "a WebSocket is there, and the header Upgrade did not arrive: a proxy in front drops it",
    500: "an error in the application: see the log",
    501: "it runs outside uWSGI (start it by `uwasp dev` or `run`), or TLS ends in uWSGI's worker (--https-socket)",
    502: "the proxy in front does not reach uWSGI, or authorize raised an exception: see both logs",
    503: "it is full: max_connections, or no descriptor or thread is left; or the proxy in front finds no uWSGI",
    504: "uWSGI did not answer the proxy in front in time",
}
NO_FRAMES = (
    "the handshake was answered, and no frame after it: uWSGI's --http without --http-websockets, or a proxy in front "
    "that passes no upgrades"
)
NORMAL = 1000
# The same of a close code.
MEANINGS_OF_CLOSES: Mapping[int, str] = {
    1001: "the worker ends, as at a reload",
    1006: "the connection ended without a close frame",
    1011: "an exception in the server, as in its on_open: see the log",
    1013: "there is no room for it",
}


def try_handshake(url: str, origin: str | None) -> str | None:
    """Open a WebSocket, have a ping answered, and close it; return what is wrong, if something is."""
    try:
        parsed = parse_uri(url)
        client = connect(
            url,
            sock=socket.create_connection((parsed.host, parsed.port), LONGEST),  # so that no proxy is asked
            origin=Origin(origin) if origin else None,
            open_timeout=LONGEST,
            close_timeout=PARTING,
        )
    except InvalidStatus as error:
        return _of_status(error.response)
    except InvalidURI as error:
        return f"{error}: expected ws://host/path or wss://host/path"
    except TimeoutError:
        return f"no answer within {LONGEST:.0f} s: all of uWSGI's threads or greenlets are busy, or its backlog is full"
    except (InvalidMessage, EOFError) as error:  # the second: an older websockets
        return _of_message(error)
    except (OSError, InvalidHandshake) as error:
        return f"{type(error).__name__}: {error}"
    with client:
        return _of_frames(client)


def _of_message(error: Exception) -> str:
    """What comes in the place of an answer in HTTP."""
    if isinstance(error.__cause__ or error, (EOFError, ConnectionError)):
        return (
            "the server closed the connection without an answer: an exception in the server's __init__ or authorize, "
            "or a worker that was killed, see its log; or it does not speak HTTP (--socket, --https)"
        )
    return "what answers there does not speak HTTP: is it uWSGI's --socket, or TLS (wss://)?"


def _of_status(response: Response) -> str:
    """What an answer that is no 101 means."""
    status = response.status_code
    body = " ".join((response.body or b"").decode(errors="replace").split())
    quoted = f" ({body[:LONGEST_BODY]!r})" if body and body.isprintable() and "<" not in body else ""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    meaning = MEANINGS.get(status, "the server, or a proxy in front of it, would have it otherwise")
    return f"{status} {phrase}{quoted}: {meaning}"


def _of_frames(client: ClientConnection) -> str | None:
    """After the handshake: whether frames come through, and whether the server stays."""
    is_answered = False
    with suppress(ConnectionClosed):  # which is told below
        answered = client.ping()
        _read(client, LONGEST, answered.is_set)
        is_answered = answered.is_set()
        if is_answered:
            _read(client, LISTENING)
    if client.protocol.state is State.OPEN:
        return None if is_answered else NO_FRAMES
    client.close()  # waits until it is
    code, reason = client.protocol.close_code, client.protocol.close_reason
    if is_answered and code == NORMAL:
        return None  # what it had to say has been said
    meaning = MEANINGS_OF_CLOSES.get(code or 0, "")
    return f"it was opened, and closed at once with {code} {reason!r}{meaning and f': {meaning}'}"


def _read(client: ClientConnection, seconds: float, is_enough: Callable[[], bool] = lambda: False) -> None:
    """Read what comes for so long, or until it is enough, or the server closes the connection."""
    until = time.monotonic() + seconds
    while client.protocol.state is State.OPEN and not is_enough() and (left := until - time.monotonic()) > 0:
        with suppress(TimeoutError):
            client.recv(timeout=min(left, STEP))
