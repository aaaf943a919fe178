"""The application of the tests of a uWSGI instance's bus: each process opens it, and logs what it is told.

A line is `bus PID EVENT ARGUMENTS`. A request publishes its query, in whichever worker it comes to.
"""

from __future__ import annotations

import os

if os.environ.get("UWASP_PATCH"):
    from gevent import monkey

    monkey.patch_all()

import ctypes
import functools
from collections.abc import Callable, Iterable
from typing import Any

import uwsgi
from uwasp import takeover
from uwasp.transport import Transport, find_transport

URL = "local:"


def log(event: str, *arguments: object) -> None:
    os.write(2, f"bus {os.getpid()} {event} {' '.join(map(str, arguments))}\n".encode())


class Logger:
    def received(self, data: bytes) -> None:
        log("received", data.decode())

    def missed(self, channel: str | None) -> None:
        log("missed", channel)

    def appeared(self, process: bytes) -> None:
        log("appeared", int.from_bytes(process, "big"))  # its pid

    def gone(self, process: bytes) -> None:
        log("gone", int.from_bytes(process, "big"))


@functools.cache
def transport(pid: int) -> Transport:
    """That of this process."""
    opened = find_transport(URL)(URL, pid.to_bytes(8, "big"), Logger())
    opened.open()
    opened.subscribe("news", lambda: log("hears"))
    takeover.at_exit(lambda: opened.close(1.0))
    return opened


find_transport(URL)  # as the middleware does when the application is loaded


def begin() -> None:
    transport(os.getpid())


if uwsgi.worker_id():
    begin()
else:
    uwsgi.post_fork_hook = begin


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = environ["QUERY_STRING"]
    if query == "fork":
        # Past Python's hooks, as a library may: the child holds what the worker holds.
        if not ctypes.CDLL(None).fork():
            while True:
                ctypes.CDLL(None).pause()
    else:
        transport(os.getpid()).publish("news", query.encode())
    body = str(os.getpid()).encode()
    # The child of a fork holds this connection too, so its end does not say where the answer ends.
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
