"""When a worker ends, its clients are told, its servers are told, and nobody holds it up."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.frames import Opcode

from processes import wait_until
from raw import RawClient, frame

pytestmark = pytest.mark.long

APPLICATION = Path(__file__).parent / "production.py"
GOING_AWAY = b"\x03\xe9"
SHUTDOWN_TIMEOUT = 2.0  # the default
UWSGI_TIME = 1.0  # it looks after its workers once a second
SLACK = 1.5  # for a machine under load

# uWSGI starts itself anew to reload. That of pyuwsgi is within a Python, which it has to be told.
RELOADABLE = ("--binary-path", sys.executable)
MANUAL_CHEAPER = ("--processes", "2", "--cheaper", "1", "--cheaper-initial", "2", "--cheaper-algo", "manual")


def get(uwsgi, path="/pid"):
    with urlopen(f"http://{uwsgi.address}{path}", timeout=10) as response:
        return response.read().decode()


def use_up_the_requests(uwsgi):
    """Handshakes are requests, too."""
    pid = get(uwsgi)
    while "The work of process" not in uwsgi.output:
        assert get(uwsgi) == pid


# How a worker may come to its end: what uWSGI needs for it, whether another takes its place, and what brings it about.
ENDS = {
    "SIGHUP": (RELOADABLE, True, lambda uwsgi: uwsgi.popen.send_signal(signal.SIGHUP)),
    "touch-reload": (
        (*RELOADABLE, "--touch-reload", "{folder}/touched"),
        True,
        lambda uwsgi: (uwsgi.log.parent.parent / "touched").touch(),
    ),
    "uwsgi.reload()": (RELOADABLE, True, lambda uwsgi: get(uwsgi, "/reload")),
    "SIGTERM": (RELOADABLE, True, lambda uwsgi: uwsgi.popen.send_signal(signal.SIGTERM)),
    "SIGTERM with --die-on-term": ((), False, lambda uwsgi: uwsgi.popen.send_signal(signal.SIGTERM)),
    "SIGINT": ((), False, lambda uwsgi: uwsgi.popen.send_signal(signal.SIGINT)),
    "SIGQUIT": ((), False, lambda uwsgi: uwsgi.popen.send_signal(signal.SIGQUIT)),
    "max-requests": (("--max-requests", "10", "--min-worker-lifetime", "0"), True, use_up_the_requests),
    "reload-on-rss": (
        ("--reload-on-rss", "150", "--min-worker-lifetime", "0"),
        True,
        lambda uwsgi: get(uwsgi, "/grow"),
    ),
}


@pytest.fixture
def produce(serve):
    """Start a uWSGI with the application `production.py`."""

    def start(*options, **keywords):
        return serve("--disable-logging", *options, application=APPLICATION, **keywords)

    return start


@pytest.fixture
def start_for(produce, tmp_path):
    """Start a uWSGI for one of `ENDS`."""

    def start(end):
        (tmp_path / "touched").touch()
        os.utime(tmp_path / "touched", (1, 1))  # uWSGI sees full seconds
        options = [option.format(folder=tmp_path) for option in ENDS[end][0]]
        return produce(*options, die_on_term=end.endswith("--die-on-term"))

    return start


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def connect(stack, uwsgi, name, path="/noting"):
    """A client, and the process that it is connected to."""
    client = stack.enter_context(RawClient(uwsgi.port, f"{path}?{name}"))
    pid = int(client.recv().data)
    client.send(frame(Opcode.TEXT, b"wait for uWSGI"))
    assert client.recv().data == b"idle"
    return client, pid


def part(client):
    """Read the close frame, answer it, and read the end: as well-behaved clients do."""
    closing = client.recv()
    assert closing.opcode is Opcode.CLOSE
    client.send(frame(Opcode.CLOSE, closing.data))
    client.recv_end()
    client.socket.close()
    return closing.data


def events(uwsgi, name):
    return re.findall(rf"^{re.escape(name)} (.*)$", uwsgi.output, re.MULTILINE)


@pytest.mark.parametrize("end", ENDS)
def test_clients_and_servers_are_told(start_for, end):
    uwsgi = start_for(end)
    _, comes_back, bring_about = ENDS[end]
    with ExitStack() as stack:
        clients = [connect(stack, uwsgi, f"client-{number}") for number in range(3)]
        pid = clients[0][1]
        begin = time.monotonic()
        bring_about(uwsgi)
        assert [part(client) for client, _ in clients] == [GOING_AWAY] * 3
        wait_until(lambda: is_gone(pid), "the worker's end", 10)
        assert time.monotonic() - begin < SHUTDOWN_TIMEOUT + UWSGI_TIME + SLACK
    for number in range(3):
        assert events(uwsgi, f"client-{number}") == ["open", "closed 1001"]
    assert uwsgi.output.count("the application's own atexit") == 1
    if comes_back:
        with ExitStack() as stack:
            client, new_pid = connect(stack, uwsgi, "again")
            assert new_pid != pid
            client.send(frame(1, b"hello"))
            assert client.recv().data == b"hello"


@pytest.mark.parametrize("end", ["SIGHUP", "SIGINT", "max-requests"])
@pytest.mark.parametrize("path", ["/noting", "/slow-to-close"])
def test_nobody_holds_a_worker_up(start_for, end, path):
    """A client that never answers, a server that is blocked in on_message, and one that does not come back."""
    uwsgi = start_for(end)
    with ExitStack() as stack:
        silent, pid = connect(stack, uwsgi, "silent", path)
        blocked, _ = connect(stack, uwsgi, "blocked", path)
        blocked.send(frame(1, b"block"))
        uwsgi.wait_for_output("blocked blocked")
        begin = time.monotonic()
        ENDS[end][2](uwsgi)
        assert silent.recv().data == blocked.recv().data == GOING_AWAY
        wait_until(lambda: is_gone(pid), "the worker's end", 10)
        assert time.monotonic() - begin < SHUTDOWN_TIMEOUT + UWSGI_TIME + SLACK
    if ENDS[end][1]:
        assert int(get(uwsgi)) != pid  # the new one; to be stopped while it starts is not what it hears
    assert events(uwsgi, "silent") == ["open", "closed 1001"]
    assert events(uwsgi, "blocked") == ["open", "blocked"]


def test_1000_connections_get_1000_codes_and_1000_on_close(produce):
    uwsgi = produce("--listen", "1000")
    with ExitStack() as stack:
        clients = [connect(stack, uwsgi, f"client-{number}")[0] for number in range(1000)]
        uwsgi.popen.send_signal(signal.SIGINT)
        codes = Counter(bytes(part(client)) for client in clients)
        uwsgi.popen.wait(10)
    assert codes == {GOING_AWAY: 1000}
    noted = Counter(re.findall(r"^(client-\d+) closed 1001$", uwsgi.output, re.MULTILINE))
    assert len(noted) == 1000
    assert set(noted.values()) == {1}
    assert uwsgi.output.count(" closed ") == 1000


def test_on_close_that_is_running_is_waited_for(produce):
    """The connection is gone already; its server is not done."""
    uwsgi = produce(middleware={"shutdown_timeout": 1})
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, "client", "/slow-to-close")
        client.send(frame(Opcode.CLOSE))
        client.recv()
        client.socket.close()
        uwsgi.wait_for_output("client closed 1005")
        uwsgi.popen.send_signal(signal.SIGINT)
        uwsgi.wait_for_output("shut down after 1 s")
        wait_until(lambda: is_gone(pid), "the worker's end", 10)


def test_a_shorter_shutdown_timeout(produce):
    uwsgi = produce(middleware={"shutdown_timeout": 0.2})
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, "silent")
        begin = time.monotonic()
        uwsgi.popen.send_signal(signal.SIGINT)
        assert client.recv().data == GOING_AWAY
        wait_until(lambda: is_gone(pid), "the worker's end", 10)
        assert time.monotonic() - begin < 0.2 + UWSGI_TIME + 0.5


def on_both_workers(stack, uwsgi):
    """Clients of two workers, by the process that each is connected to."""
    clients = {}
    for number in range(200):
        client, pid = connect(stack, uwsgi, f"client-{number}")
        clients.setdefault(pid, []).append((f"client-{number}", client))
        if len(clients) == 2:
            return clients
    raise AssertionError("one worker took all connections")


def test_cheaper_takes_a_worker_away(produce, tmp_path):
    uwsgi = produce(*MANUAL_CHEAPER, "--master-fifo", str(tmp_path / "fifo"))
    with ExitStack() as stack:
        workers = on_both_workers(stack, uwsgi)
        begin = time.monotonic()
        (tmp_path / "fifo").write_text("-")
        wait_until(lambda: any(map(is_gone, workers)), "a worker's end", 10)
        assert time.monotonic() - begin < SHUTDOWN_TIMEOUT + 2 * UWSGI_TIME + SLACK
        gone = next(filter(is_gone, workers))
        for name, client in workers.pop(gone):
            assert client.recv().data == GOING_AWAY
            assert events(uwsgi, name) == ["open", "closed 1001"]
        unharmed(workers)


def unharmed(workers):
    for clients in workers.values():
        for name, client in clients:
            client.send(frame(1, name.encode()))
            assert client.recv().data == name.encode()


def test_a_worker_that_is_killed_harms_no_other_workers_connections(produce):
    uwsgi = produce("--processes", "2")
    with ExitStack() as stack:
        workers = on_both_workers(stack, uwsgi)
        killed = min(workers)
        os.kill(killed, signal.SIGKILL)
        for _, client in workers.pop(killed):
            with pytest.raises((EOFError, ConnectionResetError)):
                client.recv()
        unharmed(workers)
        wait_until(lambda: int(get(uwsgi)) not in {killed, *workers}, "the new worker")
        unharmed(workers)


def test_harakiri_kills_no_websocket(produce):
    """It is for requests; a WebSocket is none any more. That harakiri works is shown first."""
    uwsgi = produce("--harakiri", "1", "--processes", "1")
    with pytest.raises(OSError, match=r"."):
        get(uwsgi, "/sleep")
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, "client")
        time.sleep(3)
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"
        assert int(get(uwsgi)) == pid


@pytest.mark.parametrize("work", ["sleep", "compute"])
@pytest.mark.parametrize("end", ["SIGTERM", "SIGTERM with --die-on-term", "SIGINT", "SIGQUIT"])
def test_a_stop_while_http_requests_run(start_for, end, work):
    """One in each of uWSGI's threads, where there are two. uWSGI calls no `uwsgi.atexit` then."""
    uwsgi = start_for(end)
    with ExitStack() as stack:
        client, pid = connect(stack, uwsgi, "client")
        for number in range(1, 2 if work == "compute" else 3):
            busy = stack.enter_context(socket.create_connection(("127.0.0.1", uwsgi.port)))
            busy.sendall(f"GET /{work} HTTP/1.0\r\n\r\n".encode())
            wait_until(lambda number=number: uwsgi.output.count("at work") == number, "the request's start")
        begin = time.monotonic()
        ENDS[end][2](uwsgi)
        assert part(client) == GOING_AWAY
        wait_until(lambda: is_gone(pid), "the worker's end", 10)
        assert time.monotonic() - begin < SHUTDOWN_TIMEOUT + UWSGI_TIME + SLACK
    assert events(uwsgi, "client") == ["open", "closed 1001"]
