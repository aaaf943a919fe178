"""Several applications in one uWSGI, each with a middleware of its own: they work side by side."""

from __future__ import annotations

import signal
import socket

from websockets.frames import CloseCode
from websockets.sync.client import connect

from raw import RawClient, frame
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "application.py"
PLAIN = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return [b"plain"]
"""


def echoes(client, text):
    client.send(frame(1, text.encode()))
    assert client.recv().data == text.encode()


def test_two_in_one_interpreter_share_a_worker_and_its_reload(serve):
    mount = ("--manage-script-name", "--mount", f"/second={APPLICATION}")
    uwsgi = serve("--single-interpreter", *mount)
    with RawClient(uwsgi.port) as first, RawClient(uwsgi.port, "/second/echo") as second:
        echoes(first, "one")
        echoes(second, "two")
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert first.recv_close() == second.recv_close() == (CloseCode.GOING_AWAY, "")
    uwsgi.wait_for_workers(2)
    with connect(f"{uwsgi.url}/second/echo") as client:
        client.send("again")
        assert client.recv(10) == "again"


def test_in_one_interpreter_both_are_told_of_a_stop_during_a_request(serve):
    """With threads, uWSGI ends then without a word to Python."""
    production = APPLICATION.with_name("production.py")
    mount = ("--manage-script-name", "--mount", f"/second={production}")
    uwsgi = serve("--single-interpreter", *mount, application=production, middleware={"shutdown_timeout": 5})
    with (
        RawClient(uwsgi.port, "/noting?one") as first,
        RawClient(uwsgi.port, "/second/noting?two") as second,
        socket.create_connection(("127.0.0.1", uwsgi.port), timeout=10) as busy,
    ):
        assert first.recv().data == second.recv().data  # the same process
        busy.sendall(b"GET /sleep HTTP/1.0\r\n\r\n")
        uwsgi.wait_for_output("at work")
        uwsgi.popen.send_signal(signal.SIGINT)
        assert first.recv_close() == second.recv_close() == (CloseCode.GOING_AWAY, "")
    uwsgi.wait_for_output("one closed 1001")
    uwsgi.wait_for_output("two closed 1001")


def test_beside_one_in_another_interpreter_that_has_no_websockets(serve, tmp_path):
    plain = tmp_path / "plain.py"
    plain.write_text(PLAIN)
    uwsgi = serve("--mount", f"/plain={plain}")
    with RawClient(uwsgi.port) as client:
        echoes(client, "one")
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert client.recv_close() == (CloseCode.GOING_AWAY, "")
    uwsgi.wait_for_workers(2)
