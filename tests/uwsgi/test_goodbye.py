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

from one_thread import LOOP_OPTIONS
from parting import APPLICATION, GOING_AWAY, LONG, RELOADABLE, command, connect, is_gone, part, state, wait_for_the_end
from processes import Uwsgi, wait_until
from raw import RawClient, frame

SHUTDOWN_TIMEOUT = 1.0
SLACK = 1.5  # for a machine under load
WAITED = f"shut down after {SHUTDOWN_TIMEOUT} s, with %d connections still open"
LIFETIME = 2  # seconds

MANUAL_CHEAPER = ("--processes", "2", "--cheaper", "1", "--cheaper-initial", "2", "--cheaper-algo", "manual")
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
def lasting(handler, tmp_path_factory):
    """A uWSGI that all of `REPLACEMENTS` leave with a fresh worker."""
    folder = tmp_path_factory.mktemp("lasting")
    touched = folder / "touched"
    touched.touch()
    os.utime(touched, (1, 1))  # uWSGI sees full seconds
    options = [*LOOP_OPTIONS[handler], *RELOADABLE, "--touch-reload", str(touched), "--disable-logging"]
    options += ["--max-requests", "30", "--reload-on-rss", "150", "--min-worker-lifetime", "0"]
    env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps({"shutdown_timeout": SHUTDOWN_TIMEOUT})}
    uwsgi = Uwsgi(APPLICATION, folder, *options, env=env, die_on_term=False)
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def produce(serve):
    """Start a uWSGI with the application `production.py`."""

    def start(*options, **keywords):
        return serve("--disable-logging", *options, application=APPLICATION, **keywords)

    return start


def events(uwsgi, name):
    return re.findall(rf"^{re.escape(name)} (.*)$", uwsgi.output, re.MULTILINE)


def all_part(uwsgi, handler, name, bring_about, noticed=0.0):
    """Have a worker end under clients of every kind, and return its process.

    Two behave, one never answers, one has a server that is blocked in on_message, one a server that does not come back
    from on_close. All are told; those who can part do; the others have their time, and no more.

    Args:
        noticed: within so many seconds after `bring_about` the worker knows that it has to end.
    """
    blocks = handler != "one-thread"  # what blocks there blocks all
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
def test_a_worker_that_is_replaced(lasting, handler, end):
    name = end.replace("()", "")
    pid = all_part(lasting, handler, name, REPLACEMENTS[end])
    check_the_new_worker(lasting, f"{name}-again", pid)


@pytest.mark.parametrize("end", STOPS)
def test_a_stop(produce, handler, end):
    number, die_on_term = STOPS[end]
    uwsgi = produce(middleware={"shutdown_timeout": SHUTDOWN_TIMEOUT}, die_on_term=die_on_term)
    all_part(uwsgi, handler, "stop", lambda uwsgi: uwsgi.popen.send_signal(number))
    assert uwsgi.popen.wait(10) == 0


def test_with_die_on_term_sigquit_is_a_reload(produce, handler):
    uwsgi = produce(*RELOADABLE, middleware={"shutdown_timeout": SHUTDOWN_TIMEOUT})
    pid = all_part(uwsgi, handler, "old", lambda uwsgi: uwsgi.popen.send_signal(signal.SIGQUIT))
    check_the_new_worker(uwsgi, "new", pid)


@pytest.mark.parametrize("loop", [None, ("--enable-threads",)], ids=["as usual", "one thread"])
def test_a_worker_whose_lifetime_is_over(produce, handler, loop):
    """uWSGI's master says so by a signal that the gevent loop does not hear, and of several threads only one."""
    if loop is not None and handler == "gevent":
        pytest.skip("a variant of threads")
    uwsgi = produce(*SHORT_LIVED, loop=loop, middleware={"shutdown_timeout": SHUTDOWN_TIMEOUT})
    pid = all_part(uwsgi, handler, "old", lambda uwsgi: uwsgi.wait_for_output("lifetime reached"), noticed=2.0)
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
        wait_for_the_end(pid)


def test_a_server_that_never_yields(produce, handler):
    """It holds up the whole hub, and nobody can be told; uWSGI's own patience is what ends such a worker. Beside an
    event loop that is held up so, all are told by another thread, but their answers are not heard.
    """
    uwsgi = produce("--worker-reload-mercy", "1")
    with ExitStack() as stack:
        blocked, pid = connect(stack, uwsgi, "blocked")
        other, _ = connect(stack, uwsgi, "other")
        blocked.send(frame(1, b"block the process"))
        uwsgi.wait_for_output("blocked blocked")
        uwsgi.popen.send_signal(signal.SIGINT)
        if handler == "gevent":
            with pytest.raises((EOFError, ConnectionResetError)):
                other.recv()
            uwsgi.wait_for_output("NO MERCY")
            assert events(uwsgi, "other") == ["open"]
        elif handler == "asyncio":
            assert other.recv_close() == (1001, "")
        else:  # a thread that blocks is a thread that blocks
            assert part(other) == GOING_AWAY
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


def on_both_workers(stack, uwsgi):
    """A client of each of two workers, by the process. While one is suspended, the other takes what comes."""
    first, pid = connect(stack, uwsgi, "client-0")
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state(pid) == "T", "the worker to be suspended")
        second, other = connect(stack, uwsgi, "client-1")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert other != pid
    return {pid: [("client-0", first)], other: [("client-1", second)]}


def unharmed(workers):
    for clients in workers.values():
        for name, client in clients:
            client.send(frame(1, name.encode()))
            assert client.recv().data == name.encode()


@pytest.mark.parametrize("threads", ["as usual", "one"])
def test_cheaper_takes_a_worker_away(produce, handler, tmp_path, threads):
    if threads == "one" and handler == "gevent":
        pytest.skip("a variant of threads")
    loop = None if threads == "as usual" else ("--enable-threads",)
    uwsgi = produce(*MANUAL_CHEAPER, "--master-fifo", str(tmp_path / "fifo"), loop=loop)
    with ExitStack() as stack:
        workers = on_both_workers(stack, uwsgi)
        command(tmp_path / "fifo", "-")
        wait_until(lambda: any("closed 1001" in events(uwsgi, name) for name in names(workers)), "a goodbye", 10)
        for pid, clients in list(workers.items()):
            if "closed 1001" in events(uwsgi, clients[0][0]):
                gone = pid
        for name, client in workers.pop(gone):
            assert part(client) == GOING_AWAY
            assert events(uwsgi, name) == ["open", "closed 1001"]
        wait_for_the_end(gone)
        unharmed(workers)


def names(workers):
    return [name for clients in workers.values() for name, _ in clients]


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
    """It is for requests; a WebSocket is none any more. That of the other worker is older than the request it kills."""
    uwsgi = produce("--harakiri", "1", "--processes", "2")
    with ExitStack() as stack:
        workers = on_both_workers(stack, uwsgi)
        with pytest.raises(OSError, match=r"."):
            get(uwsgi, "/sleep")
        wait_until(lambda: any(map(is_gone, workers)), "the kill")
        del workers[next(filter(is_gone, workers))]
        unharmed(workers)
        wait_until(lambda: int(get(uwsgi)) not in workers, "the new worker")  # which hears of a stop only then


def test_the_commands_of_the_master_fifo(produce, tmp_path):
    """Those that no signal stands for: workers one after the other (`c`), all, all without grace. And then a stop."""
    uwsgi = produce("--lazy-apps", "--master-fifo", str(tmp_path / "fifo"))
    for letter in "cwWQ":
        with ExitStack() as stack:
            client, pid = connect(stack, uwsgi, letter)
            command(tmp_path / "fifo", letter)
            assert part(client) == GOING_AWAY
            wait_for_the_end(pid)
        assert events(uwsgi, letter) == ["open", "closed 1001"]
    assert uwsgi.popen.wait(10) == 0


def test_a_graceful_stop_waits_for_http_requests_first(produce, tmp_path):
    uwsgi = produce("--master-fifo", str(tmp_path / "fifo"))
    with ExitStack() as stack:
        client, _ = connect(stack, uwsgi, "client")
        busy = stack.enter_context(socket.create_connection(("127.0.0.1", uwsgi.port), timeout=10))
        busy.sendall(b"GET /hold HTTP/1.0\r\n\r\n")
        uwsgi.wait_for_output("held")
        command(tmp_path / "fifo", "q")
        uwsgi.wait_for_output("Gracefully killing worker")
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"
        client.send(frame(1, b"release"))
        assert busy.recv(12) == b"HTTP/1.0 200"
        assert part(client) == GOING_AWAY
        assert uwsgi.popen.wait(10) == 0


@pytest.mark.parametrize("end", ["SIGHUP", "SIGINT"])
def test_skip_atexit_leaves_the_goodbye_out_of_reloads_with_threads(produce, handler, end):
    """uWSGI's gevent loop does not heed it."""
    uwsgi = produce("--skip-atexit", *RELOADABLE)
    with ExitStack() as stack:
        client, _ = connect(stack, uwsgi, "client")
        uwsgi.popen.send_signal(signal.Signals[end])
        if handler != "gevent" and end == "SIGHUP":
            with pytest.raises((EOFError, ConnectionResetError)):
                client.recv()
        else:
            assert part(client) == GOING_AWAY
        if end == "SIGHUP":
            uwsgi.wait_for_workers(2)  # to be stopped while it starts is not what it hears


@pytest.mark.parametrize("work", ["sleep", "compute"])
@pytest.mark.parametrize("end", [*STOPS, "SIGTERM"])
def test_a_stop_while_http_requests_run(produce, end, work):
    """One in each of uWSGI's threads, where there are two. uWSGI calls no `uwsgi.atexit` then."""
    number, die_on_term = STOPS.get(end, (signal.SIGTERM, False))
    uwsgi = produce(*RELOADABLE, die_on_term=die_on_term)
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


@pytest.mark.parametrize("end", ["SIGHUP", "SIGINT"])
def test_two_handlers_part_at_the_same_time(produce, end):
    """Neither's clients answer, and what each may take is not added up."""
    uwsgi = produce(*RELOADABLE, middleware={"shutdown_timeout": 3})
    with ExitStack() as stack:
        one, pid = connect(stack, uwsgi, "one")
        other, _ = connect(stack, uwsgi, "other", "/other-handler")
        begin = time.monotonic()
        uwsgi.popen.send_signal(signal.Signals[end])
        assert one.recv().data == other.recv().data == GOING_AWAY
        wait_for_the_end(pid)
        assert 3 <= time.monotonic() - begin < 3 + SLACK
    assert uwsgi.output.count("shut down after 3 s, with 2 connections still open") == 1
    if end == "SIGHUP":
        uwsgi.wait_for_workers(2)  # to be stopped while it starts is not what it hears


@pytest.mark.parametrize("clients", [4, 5])
def test_a_goodbye_to_more_clients_than_the_backlog_holds_names_the_option(produce, clients):
    uwsgi = produce("--listen", "4")
    with ExitStack() as stack:
        opened = [connect(stack, uwsgi, f"client-{number}")[0] for number in range(clients)]
        uwsgi.popen.send_signal(signal.SIGINT)
        for client in opened:
            assert part(client) == GOING_AWAY
        assert uwsgi.popen.wait(10) == 0
    warning = f"{clients} clients are told to go, and many may come back at once, but uWSGI's sockets hold 4"
    assert (warning in uwsgi.output) is (clients > 4)
    assert ("raise uWSGI's --listen" in uwsgi.output) is (clients > 4)
