"""Debian's own uWSGI, which is older, and has each loop in a plugin: it echoes, and tells of a reload."""

from __future__ import annotations

import signal
import sys
from urllib.request import urlopen

from websockets.frames import CloseCode
from websockets.sync.client import connect

from processes import ACCEPTING, debian_uwsgi
from raw import RawClient, frame

# Its Python threads run only where that is said.
OF_HANDLER = {
    "threads": (("python3",), ("--enable-threads",)),
    "gevent": (("python3", "gevent_python3"), ("--gevent", "10")),
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
    uwsgi.wait_for_output(ACCEPTING, 2)
    with connect(f"{uwsgi.url}/echo") as again:
        again.send("again")
        assert again.recv(10) == "again"
