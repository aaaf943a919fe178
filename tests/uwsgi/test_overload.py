"""More than the worker can take: it refuses what is new, and serves what it has. uWSGI itself can be held up."""

from __future__ import annotations

import socket

import pytest

from raw import RawClient, request
from test_deployments import PROXY
from uwasp_pytest.behaviour.test_overload import *  # noqa: F403 - the tests, and their fixtures
from uwasp_pytest.behaviour.test_overload import check_echo


def test_a_handshake_that_comes_byte_by_byte_holds_a_thread_of_uwsgi_itself(serve, waits):
    """uWSGI reads a request in the thread or core that serves it. What is open does not need one."""
    uwsgi = serve(loop=("--gevent", "2") if waits == "gevent" else ("--threads", "2"))
    with RawClient(uwsgi.port) as inside:
        check_echo(inside)
        slow = [socket.create_connection(("127.0.0.1", uwsgi.port)) for _ in range(2)]
        for one in slow:
            one.sendall(request()[:-5])
        late = socket.create_connection(("127.0.0.1", uwsgi.port), timeout=0.5)
        late.sendall(request())
        with pytest.raises(TimeoutError):
            late.recv(1)
        check_echo(inside)
        for one in slow:
            one.close()
        late.settimeout(10)
        assert late.recv(12) == b"HTTP/1.1 101"
        late.close()


@pytest.mark.parametrize("before", ["nginx", "http"])
def test_behind_a_router_it_holds_none(serve, start_nginx, before):
    """Which passes a request on when it has the whole of its head."""
    if before == "http":
        port = serve("--http-websockets", kind="http").port
    else:
        port = start_nginx(PROXY.format(target=serve().address)).port
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    for one in slow:
        one.sendall(request()[:-5])
    with RawClient(port) as client:
        check_echo(client)
    for one in slow:
        one.close()
