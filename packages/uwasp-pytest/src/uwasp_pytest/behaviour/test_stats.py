"""What the figures and the log tell of connections."""

from __future__ import annotations

import socket

import pytest
from websockets.sync.client import connect

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.inquiry import figures
from uwasp_pytest.behaviour.raw import RawClient, frame, request
from uwasp_pytest.processes import wait_until

OF_STATS = (
    *("open", "opened", "messages_in", "messages_out", "bytes_in", "bytes_out", "queued_in", "queued_out"),
    "slow_members",
)


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "limits.py"


def status(port, path, *headers):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(request(path, *headers))
        return int(client.recv(12)[-3:])


def counted(port):
    found = figures(port)
    return {name: found[name] for name in (*OF_STATS, "closed", "refused")}


def test_the_figures_are_those_of_what_was_exchanged(serve):
    uwsgi = serve(middleware={"max_connections": 1})
    nothing = dict.fromkeys(OF_STATS, 0)
    assert counted(uwsgi.port) == {**nothing, "closed": {}, "refused": {}}
    with RawClient(uwsgi.port) as client:
        client.send(frame(1, b"hello") + frame(2, b"x" * 300) + frame(9, b"ping"))
        assert {bytes(client.recv().data) for _ in range(3)} == {b"hello", b"x" * 300, b"ping"}
        traffic = {"messages_in": 2, "messages_out": 2, "bytes_in": 11 + 308 + 10, "bytes_out": 7 + 304 + 6}
        wait_until(lambda: counted(uwsgi.port)["messages_out"] == 2, "the figures")
        assert counted(uwsgi.port) == {**nothing, **traffic, "open": 1, "opened": 1, "closed": {}, "refused": {}}
        assert status(uwsgi.port, "/echo") == 503
        client.send(frame(8, b"\x0f\xa0bye"))
        assert client.recv_close() == (4000, "")
    wait_until(lambda: figures(uwsgi.port)["open"] == 0, "the connection to be gone")
    assert status(uwsgi.port, "/nowhere") == 404
    assert status(uwsgi.port, "/echo", "Origin: http://elsewhere") == 403
    assert status(uwsgi.port, "/echo", "Content-Length: 1") == 400
    assert status(uwsgi.port, "/guarded") == 403
    with RawClient(uwsgi.port):
        pass
    wait_until(lambda: figures(uwsgi.port)["closed"] == {"4000": 1, "1006": 1}, "the second to be gone")
    assert counted(uwsgi.port) == {
        **nothing,
        "messages_in": 2,
        "messages_out": 2,
        "bytes_in": 11 + 308 + 10 + 11,
        "bytes_out": 7 + 304 + 6 + 4,
        "opened": 2,
        "closed": {"4000": 1, "1006": 1},
        "refused": {"full": 1, "path": 1, "origin": 1, "handshake": 1, "authorize": 1},
    }


def test_log_lines_carry_the_identity_of_their_connection(serve):
    uwsgi = serve()
    with connect(f"{uwsgi.url}/guarded?user=Ada", proxy=None) as client:
        name, number = client.recv(10).split()
        assert name == "Ada"
        client.send("bye")
        wait_until(lambda: client.close_code is not None, "the close")
    identity = f"uwasp.connection INFO connection {number} of 127.0.0.1 at /guarded"
    uwsgi.wait_for_output(f"{identity} is open")
    uwsgi.wait_for_output(f"{identity} is closed with 4000 'bye'")
