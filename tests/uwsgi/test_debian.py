"""Debian's own uWSGI, which is older, and has each loop in a plugin: it echoes, and tells of a reload."""

from __future__ import annotations

import signal
import socket
import sys
from urllib.request import urlopen

from websockets.frames import CloseCode
from websockets.sync.client import connect

from processes import LOOP_OPTIONS, debian_uwsgi
from raw import RawClient, frame
from uwasp_pytest.behaviour import APPLICATIONS

# Its Python threads run only where that is said.
OF_HANDLER = {
    "threads": (("python3",), ("--enable-threads",)),
    "gevent": (("python3", "gevent_python3"), ("--gevent", "10")),
    "asyncio": (("python3",), ("--enable-threads",)),
}


def test_it_echoes_and_tells_of_a_reload(serve, handler):
    plugins, loop = OF_HANDLER[handler]
    uwsgi = serve("--virtualenv", sys.prefix, loop=loop, program=debian_uwsgi(*plugins), plugins=plugins)
    with RawClient(uwsgi.port) as client:
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"
        with urlopen(f"http://{uwsgi.address}/page", timeout=10) as response:
            assert response.read() == b"GET /page"
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert client.recv_close() == (CloseCode.GOING_AWAY, "")
    uwsgi.wait_for_workers(2)
    with connect(f"{uwsgi.url}/echo") as again:
        again.send("again")
        assert again.recv(10) == "again"


def test_it_tells_of_a_reload_while_a_request_runs(serve, handler):
    """With threads it may end a worker then without a word to Python."""
    plugins, loop = OF_HANDLER[handler]
    uwsgi = serve(
        "--virtualenv",
        sys.prefix,
        *LOOP_OPTIONS[handler],
        loop=loop if handler == "threads" else (),
        application=APPLICATIONS / "production.py",
        program=debian_uwsgi(*plugins),
        plugins=plugins,
    )
    with (
        RawClient(uwsgi.port, "/noting?one") as client,
        RawClient(uwsgi.port, "/noting?two") as other,
        socket.create_connection(("127.0.0.1", uwsgi.port), timeout=10) as busy,
    ):
        client.recv()
        other.recv()
        busy.sendall(b"GET /hold HTTP/1.0\r\n\r\n")
        uwsgi.wait_for_output("held")
        uwsgi.popen.send_signal(signal.SIGHUP)
        if handler == "gevent":  # which waits for the request first
            uwsgi.wait_for_output("Gracefully killing worker")
            other.send(frame(1, b"release"))
        assert client.recv_close() == (CloseCode.GOING_AWAY, "")
        uwsgi.wait_for_output("one closed 1001")
