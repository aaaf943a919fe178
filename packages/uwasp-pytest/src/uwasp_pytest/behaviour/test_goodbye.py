"""When a worker ends, its clients are told, its servers are told, and nobody holds it up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack
from urllib.request import urlopen

import pytest
from websockets.frames import Opcode

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.parting import GOING_AWAY, LONG, SLACK, connect, part, wait_for_the_end
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import Uwsgi

SHUTDOWN_TIMEOUT = 1.0
WAITED = f"shut down after {SHUTDOWN_TIMEOUT} s, with %d connections still open"
LIFETIME = 2  # seconds

SHORT_LIVED = ("--min-worker-lifetime", "0", "--max-worker-lifetime", str(LIFETIME))


def get(uwsgi, path="/"):
    with urlopen(f"http://{uwsgi.address}{path}", timeout=10) as response:
        return response.read().decode()


def use_up_the_requests(uwsgi):
    """Handshakes are requests, too. An answer comes before uWSGI counts, so one request too many may be sent."""
    done = uwsgi.output.count("The work of process")
    while uwsgi.output.count("The work of process") == done:
        with socket.create_connection(("127.0.0.1", uwsgi.port), timeout=0.2) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            try:
                client.recv(1)
            except TimeoutError:
                continue


# The ways in which a worker comes to its end and another takes its place.
REPLACEMENTS = {
    "SIGHUP": lambda uwsgi: uwsgi.popen.send_signal(signal.SIGHUP),
    "touch-reload": lambda uwsgi: uwsgi.log.with_name("touched").touch(),
    "uwsgi.reload()": lambda uwsgi: get(uwsgi, "/reload"),
    "SIGTERM": lambda uwsgi: uwsgi.popen.send_signal(signal.SIGTERM),
    "max-requests": use_up_the_requests,
    "reload-on-rss": lambda uwsgi: get(uwsgi, "/grow"),
}
# The ways to stop all of uWSGI.
STOPS = {
    "SIGINT": (signal.SIGINT, False),
    "SIGQUIT": (signal.SIGQUIT, False),
    "SIGTERM with --die-on-term": (signal.SIGTERM, True),
}


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "production.py"


@pytest.fixture(scope="module")
def lasting(application, handler, handler_options, tmp_path_factory):
    """A uWSGI that all of `REPLACEMENTS` leave with a fresh worker."""
    folder = tmp_path_factory.mktemp("lasting")
    touched = folder / "touched"
    touched.touch()
    os.utime(touched, (1, 1))  # uWSGI sees full seconds
    options = [*handler_options, "--touch-reload", str(touched), "--disable-logging"]
    options += ["--max-requests", "30", "--reload-on-rss", "150", "--min-worker-lifetime", "0"]
    env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps({"shutdown_timeout": SHUTDOWN_TIMEOUT})}
    uwsgi = Uwsgi(application, folder, *options, env=env, pythonpath=[APPLICATIONS], die_on_term=False)
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def produce(serve):
    """Start a uWSGI that says nothing of requests."""

    def start(*options, **keywords):
        return serve("--disable-logging", *options, **keywords)

    return start


def events(uwsgi, name):
    return re.findall(rf"^{re.escape(name)} (.*)$", uwsgi.output, re.MULTILINE)


def all_part(uwsgi, waits, name, bring_about, noticed=0.0):
    """Have a worker end under clients of every kind, and return its process.

    Two behave, one never answers, one has a server that is blocked in on_message, one a server that does not come back
    from on_close; these two not where they would hold up all. All are told; those who can part do; the others have
    their time, and no more.

    Args:
        noticed: within so many seconds after `bring_about` the worker knows that it has to end.
    """
    blocks = waits != "never"
    own_goodbyes = uwsgi.output.count("the application's own atexit")
    with ExitStack() as stack:
        clients = [connect(stack, uwsgi, f"{name}-{number}") for number in range(2)]
        pid = clients[0][1]
        silent, _ = connect(stack, uwsgi, f"{name}-silent")
        others = [silent]
        if blocks:
            slow, _ = connect(stack, uwsgi, f"{name}-slow", "/slow-to-close")
            blocked, _ = connect(stack, uwsgi, f"{name}-blocked")
            blocked.send(frame(1, b"block"))
            uwsgi.wait_for_output(f"{name}-blocked blocked")
            others += [slow, blocked]
        said = WAITED % len(others)
        waited = uwsgi.output.count(said)
        bring_about(uwsgi)
        begin = time.monotonic()
        assert [part(client) for client, _ in clients] == [GOING_AWAY] * 2
        assert [client.recv().data for client in others] == [GOING_AWAY] * len(others)
        wait_for_the_end(pid)
        assert time.monotonic() - begin < noticed + SHUTDOWN_TIMEOUT + SLACK
        assert uwsgi.output.count(said) > waited
    for client in ("0", "1", "silent", *(["slow"] if blocks else [])):
        assert events(uwsgi, f"{name}-{client}") == ["open", "closed 1001"]
    assert events(uwsgi, f"{name}-blocked") == (["open", "blocked"] if blocks else [])
    assert uwsgi.output.count("the application's own atexit") == own_goodbyes + 1
    return pid


def check_the_new_worker(uwsgi, name, old):
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, name)
        assert pid != old
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"


@pytest.mark.parametrize("end", REPLACEMENTS)
def test_a_worker_that_is_replaced(lasting, waits, end):
    name = end.replace("()", "")
    pid = all_part(lasting, waits, name, REPLACEMENTS[end])
    check_the_new_worker(lasting, f"{name}-again", pid)


@pytest.mark.parametrize("end", STOPS)
def test_a_stop(produce, waits, end):
    number, die_on_term = STOPS[end]
    uwsgi = produce(middleware={"shutdown_timeout": SHUTDOWN_TIMEOUT}, die_on_term=die_on_term)
    all_part(uwsgi, waits, "stop", lambda uwsgi: uwsgi.popen.send_signal(number))
    assert uwsgi.popen.wait(10) == 0


@pytest.mark.parametrize("loop", [None, ("--enable-threads",)], ids=["as usual", "one thread"])
def test_a_worker_whose_lifetime_is_over(produce, waits, loop):
    """uWSGI's master says so by a signal that the gevent loop does not hear, and of several threads only one."""
    if loop is not None and waits == "gevent":
        pytest.skip("a variant of threads")
    uwsgi = produce(*SHORT_LIVED, loop=loop, middleware={"shutdown_timeout": SHUTDOWN_TIMEOUT})
    pid = all_part(uwsgi, waits, "old", lambda uwsgi: uwsgi.wait_for_output("lifetime reached"), noticed=2.0)
    check_the_new_worker(uwsgi, "new", pid)


def test_1000_connections_get_1000_codes_and_1000_on_close(produce):
    """And it takes no longer than they take."""
    uwsgi = produce("--listen", "1000", middleware={"shutdown_timeout": LONG})
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(uwsgi.port, f"/noting?client-{number}")) for number in range(999)]
        for client in clients:
            client.recv()
        clients.append(connect(stack, uwsgi, f"client-{len(clients)}")[0])  # waits until uWSGI is done with the others
        uwsgi.popen.send_signal(signal.SIGINT)
        codes = Counter(bytes(part(client)) for client in clients)
        uwsgi.popen.wait(10)
    assert codes == {GOING_AWAY: 1000}
    noted = Counter(re.findall(r"^(client-\d+) closed 1001$", uwsgi.output, re.MULTILINE))
    assert len(noted) == 1000
    assert set(noted.values()) == {1}


def test_on_close_that_is_running_is_waited_for(produce):
    """The connection is gone already; its server is not done."""
    uwsgi = produce(middleware={"shutdown_timeout": 0.3})
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, "client", "/slow-to-close")
        client.send(frame(Opcode.CLOSE))
        client.recv()
        client.socket.close()
        uwsgi.wait_for_output("client closed 1005")
        uwsgi.popen.send_signal(signal.SIGINT)
        uwsgi.wait_for_output("shut down after 0.3 s")
        uwsgi.wait_for_output("still open, and 1 servers whose on_close has not returned")
        wait_for_the_end(pid)


def test_a_server_that_yields_late(produce):
    uwsgi = produce()
    with ExitStack() as stack:
        clients = [connect(stack, uwsgi, name)[0] for name in ("paused", "other")]
        clients[0].send(frame(1, b"pause the process"))
        uwsgi.wait_for_output("paused paused")
        uwsgi.popen.send_signal(signal.SIGINT)
        assert [part(client) for client in clients] == [GOING_AWAY] * 2
        assert uwsgi.popen.wait(10) == 0
    assert [events(uwsgi, name)[-1] for name in ("paused", "other")] == ["closed 1001"] * 2


@pytest.mark.parametrize("work", ["sleep", "compute"])
@pytest.mark.parametrize("end", [*STOPS, "SIGTERM"])
def test_a_stop_while_http_requests_run(produce, end, work):
    """One in each of uWSGI's threads, where there are two. uWSGI calls no `uwsgi.atexit` then."""
    number, die_on_term = STOPS.get(end, (signal.SIGTERM, False))
    uwsgi = produce(die_on_term=die_on_term)
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, "client")
        for count in range(1, 2 if work == "compute" else 3):
            busy = stack.enter_context(socket.create_connection(("127.0.0.1", uwsgi.port)))
            busy.sendall(f"GET /{work} HTTP/1.0\r\n\r\n".encode())
            uwsgi.wait_for_output("at work", count)
        begin = time.monotonic()
        uwsgi.popen.send_signal(number)
        assert part(client) == GOING_AWAY
        wait_for_the_end(pid)
        assert time.monotonic() - begin < SLACK
    assert events(uwsgi, "client") == ["open", "closed 1001"]
    if end == "SIGTERM":
        uwsgi.wait_for_workers(2)  # to be stopped while it starts is not what it hears


def test_a_handler_that_fails_leaves_nothing_behind(produce):
    """Its listener has the connection already; so that is closed like one whose server fails."""
    uwsgi = produce(middleware={"shutdown_timeout": LONG})
    with ExitStack() as stack:
        client = stack.enter_context(RawClient(uwsgi.port, "/failing-handler?failing"))
        while (received := client.recv()).opcode is Opcode.TEXT:
            continue  # on_open may have been faster
        assert received.data == b"\x03\xf3internal error"
        client.send(frame(Opcode.CLOSE, received.data))
        client.recv_end()
        client.socket.close()
        uwsgi.wait_for_output("RuntimeError: raised in handle")
        uwsgi.wait_for_output("failing closed 1011 internal error")
        other, _ = connect(stack, uwsgi, "other")
        uwsgi.popen.send_signal(signal.SIGINT)
        assert part(other) == GOING_AWAY
        assert uwsgi.popen.wait(10) == 0  # it knows that nobody is left
