"""After the handshake uWSGI's thread or core is free: what that is worth, and that it holds."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from raw import RawClient, frame

CONNECTIONS = 500


def test_500_connections_on_a_few_cores_all_echo_while_http_is_served(serve):
    """Ten async cores of gevent, or two threads: uWSGI's own functions would end at that number."""
    uwsgi = serve()
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(uwsgi.port)) for _ in range(CONNECTIONS)]
        for turn in range(3):
            for number, client in enumerate(clients):
                client.send(frame(1, f"{turn} {number}".encode()))
            with urlopen(f"http://{uwsgi.address}/page", timeout=10) as response:
                assert response.read() == b"GET /page"
            for number, client in enumerate(clients):
                assert client.recv().data == f"{turn} {number}".encode()


def test_an_idle_connection_costs_no_thread(serve, handler):
    uwsgi = serve()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/life?{number}")) for number in range(50)]
        clients[0].send("threads")
        names = str(clients[0].recv(10)).split()
    ours = [name for name in names if name.startswith("uwasp-")]
    if handler == "gevent":
        assert ours == []
    elif handler == "asyncio":
        assert sorted(ours) == ["uwasp-loop", "uwasp-stop"]
    else:
        assert "uwasp-listener" in ours
        assert 1 <= len([name for name in ours if name.startswith("uwasp-consumer-")]) < 10


def test_consumers_grow_with_the_servers_that_block(serve, handler):
    """Twenty servers block for a second at the same time, and all are done after much less than twenty."""
    uwsgi = serve()
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/life?{number}")) for number in range(20)]
        begin = time.monotonic()
        for client in clients:
            client.send("sleep 1")
        for client in clients:
            assert client.recv(30) == "slept 1"
        assert time.monotonic() - begin < 10


def test_no_more_servers_run_at_once_than_max_consumers(serve, handler):
    if handler == "asyncio":
        pytest.skip("a server that awaits takes nothing that others wait for")
    uwsgi = serve(env={"UWASP_CONSUMERS": "2"})
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/life?{number}")) for number in range(5)]
        begin = time.monotonic()
        for client in clients:
            client.send("sleep 0.5")
        for client in clients:
            assert client.recv(10) == "slept 0.5"
        assert time.monotonic() - begin > 1.4


def test_that_all_consumers_are_busy_is_said_and_where(serve, handler):
    """Also where the log waits, as the application's does for this."""
    if handler == "asyncio":
        pytest.skip("a server that awaits takes nothing that others wait for")
    uwsgi = serve(env={"UWASP_CONSUMERS": "2"})
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/life?{number}")) for number in range(3)]
        for client in clients[:2]:
            client.send("sleep 9")
        uwsgi.wait_for_output("message sleep 9", count=2)
        clients[2].send("sleep 0")
        assert clients[2].recv(30) == "slept 0"
    uwsgi.wait_for_output("consumers take connections again, after")
    told = uwsgi.output[uwsgi.output.index("uwasp.stall") :]
    assert re.search("2, and all have been busy for . s; connections that wait for one: 1. 2 consumers are here", told)
    assert re.search(r'application.py", line \d+, in on_message', told)
    assert told.count("max_consumers is 2") == 1


def test_a_small_message_waits_for_no_other(serve):
    """uWSGI leaves Nagle's algorithm on, with which it would wait for the client's acknowledgement."""
    uwsgi = serve()
    with connect(f"{uwsgi.url}/life?nodelay") as client:
        client.send("nodelay")
        assert client.recv(10) == "1"


def test_what_uwsgi_does_next_never_reaches_the_client(serve, handler):
    """uWSGI reads on after a request where connections are kept alive, and closes its descriptor elsewhere."""
    uwsgi = serve(kind="http-socket" if handler == "gevent" else "http11-socket")
    with connect(f"{uwsgi.url}/echo") as client:
        for number in range(200):
            with urlopen(f"http://{uwsgi.address}/{number}", timeout=10) as response:
                response.read()
            client.send(str(number))
            assert client.recv(10) == str(number)


def test_a_child_that_is_ended_by_a_signal_ends_nothing_else(serve):
    """A process that the application forks has the worker's descriptors, and what is to happen at its end."""
    uwsgi = serve()
    with connect(f"{uwsgi.url}/life?parent") as client, connect(f"{uwsgi.url}/life?bystander") as bystander:
        client.send("child")
        assert client.recv(20) == "the child's exit code is not 0: True"
        for each in (client, bystander):
            each.send("hello")
            assert each.recv(10) == "hello"


WATCHING = """
import os
from uwasp import Server, WebSocketMiddleware
from uwasp.handler import find_handler

def say(when, fd):
    print(when, os.readlink(f"/proc/self/fd/{fd}"), flush=True)

class Watching(find_handler(os.environ["UWASP_HANDLER"])):
    @classmethod
    def before_release(cls, fd):
        super().before_release(fd)
        cls.fd = fd
        say("before:", fd)

    def handle(self, environ, protocol_name=None):
        say("after:", self.fd)
        return super().handle(environ, protocol_name)

application = WebSocketMiddleware(print, Watching, [("/", Server)])
"""


def test_a_handler_is_told_uwsgis_number_while_it_is_still_the_connections(serve, tmp_path):
    application = tmp_path / "watching.py"
    application.write_text(WATCHING)
    uwsgi = serve(application=application)
    with connect(f"{uwsgi.url}/"):
        uwsgi.wait_for_output("after: /dev/null")
        assert "before: socket:" in uwsgi.output
