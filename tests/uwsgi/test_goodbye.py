"""When a worker ends, its clients are told, its servers are told, and nobody holds it up: whatever uWSGI does."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import ExitStack

import pytest

from parting import GOING_AWAY, SLACK, command, connect, is_gone, part, state, wait_for_the_end
from processes import wait_until
from raw import frame
from uwasp_pytest.behaviour.test_goodbye import *  # noqa: F403 - the tests, and their fixtures
from uwasp_pytest.behaviour.test_goodbye import SHUTDOWN_TIMEOUT, all_part, check_the_new_worker, events, get

MANUAL_CHEAPER = ("--processes", "2", "--cheaper", "1", "--cheaper-initial", "2", "--cheaper-algo", "manual")


def test_with_die_on_term_sigquit_is_a_reload(produce, waits):
    uwsgi = produce(middleware={"shutdown_timeout": SHUTDOWN_TIMEOUT})
    pid = all_part(uwsgi, waits, "old", lambda uwsgi: uwsgi.popen.send_signal(signal.SIGQUIT))
    check_the_new_worker(uwsgi, "new", pid)


@pytest.mark.usefixtures("may_wait")
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
    uwsgi = produce(
        "--skip-atexit",
    )
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


@pytest.mark.parametrize("end", ["SIGHUP", "SIGINT"])
def test_two_handlers_part_at_the_same_time(produce, end):
    """Neither's clients answer, and what each may take is not added up."""
    uwsgi = produce(middleware={"shutdown_timeout": 3})
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
