"""What stands where uWSGI is not: one request for a WebSocket, and the socket pair that it comes by.

It makes the environ, has the application answer, writes what goes out with a 101, and lets one end of the pair be taken
over as uWSGI's descriptor is. Who is at the other end, and what becomes of the connection, this module does not know.
"""

from __future__ import annotations

import _socket
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from uwasp import takeover

if TYPE_CHECKING:
    from websockets.http11 import Request

    from uwasp.connection import Connection, Observer
    from uwasp.handler import Handler

__all__ = ["SocketPair"]

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

JOINED_BY = {"cookie": "; "}  # of a header's several values; all others by a comma (RFC 9110 §5.3)


class SocketPair:
    """A request that is on its way through an application, as a `uwasp.takeover.StandIn`.

    Args:
        observer: is told what becomes of the server.
        authorize: is asked in the place of the server's own; `None`: that is.

    Attributes:
        client: the client's end, which does not block.
        connection: the connection; `None` before it opens.
        handler: that of the connection; `None` before it opens.
        is_taken_over: it was answered 101, and its connection is the handler's.
        status, headers, body: what the application has answered.
    """

    def __init__(self, observer: Observer, authorize: Callable[[dict[str, Any]], Any] | None) -> None:
        self.authorize = authorize
        self._observer = observer
        self._own, self.client = _socket.socketpair()  # the originals, whatever gevent has patched
        self.client.setblocking(False)
        self.connection: Connection | None = None
        self.handler: Handler | None = None
        self.is_taken_over = False
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self._has_sent_head = False

    def ask(self, application: WSGIApplication, request: Request) -> None:
        """Have an application answer a request. What it raises is raised here.

        Raises:
            RuntimeError: it has returned, and answered nothing.
        """
        try:
            body = application({**environ_of(request), takeover.STAND_IN: self}, self._start_response)
            try:
                self.body += b"".join(body)
            finally:
                if hasattr(body, "close"):
                    body.close()
        finally:
            self._own.close()  # if it was not taken over
        if not self.status:
            raise RuntimeError(f"the application has not called start_response for {request.path}")

    # For whoever takes it over

    def has_request(self) -> bool:
        return not self.is_taken_over

    def refusal(self) -> str | None:
        return None

    def opens(self, connection: Connection, handler: Handler) -> None:
        connection.observer = self._observer
        self.connection, self.handler = connection, handler

    def duplicate(self) -> int:
        return os.dup(self._own.fileno())

    def release(
        self,
        start_response: Callable[..., Any],
        status: str,
        headers: Sequence[tuple[str, str]],
        before: Callable[[int], object],
    ) -> bool:
        takeover.answer(start_response, status, headers)
        before(self._own.fileno())
        self._own.close()
        self.is_taken_over = True
        return False

    # PEP 3333

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self.status, self.headers = status, list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        if not self.status.startswith("101"):
            self.body += data
            return
        if not self._has_sent_head:
            self._has_sent_head = True
            lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in self.headers), "", ""]
            data = "\r\n".join(lines).encode("latin-1") + data
        self._own.sendall(data)

    def close(self) -> None:
        """Close the client's end."""
        with contextlib.suppress(OSError):
            self.client.shutdown(_socket.SHUT_RDWR)
        self.client.close()


def environ_of(request: Request) -> dict[str, Any]:
    """The WSGI environ of a request, as uWSGI makes it."""
    path, _, query = request.path.partition("?")
    host, _, port = request.headers["Host"].partition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": request.path,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "CONTENT_LENGTH": "",
        "CONTENT_TYPE": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name in request.headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = JOINED_BY.get(name.lower(), ", ").join(request.headers.get_all(name))
    return environ
