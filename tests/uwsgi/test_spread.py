"""A worker that ends while others stay tells its clients one after the other; one that ends with them, all at once."""

from __future__ import annotations

import signal
from contextlib import ExitStack

import pytest
from websockets.frames import Opcode

from parting import GOING_AWAY, LONG, command, connect, part, wait_for_the_end
from raw import frame
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "production.py"
SPREAD = 2.0  # seconds
CLIENTS = 6  # of one worker


@pytest.fixture
def produce(serve, tmp_path):
    """Start a uWSGI that takes commands."""

    def start(*options, spread=LONG):
        given = ["--disable-logging", "--lazy-apps", "--master-fifo", str(tmp_path / "fifo"), *options]
        given += ["--worker-reload-mercy", str(3 * LONG)]
        times = {"shutdown_spread": spread, "shutdown_timeout": 2 * spread}
        return serve(*given, application=APPLICATION, middleware=times)

    return start


def connect_to_each(stack, uwsgi, workers):
    """At least `CLIENTS` for each worker, by its process."""
    clients = {}
    while len(clients) < workers or min(len(those) for those in clients.values()) < CLIENTS:
        client, pid = connect(stack, uwsgi, "client")
        clients.setdefault(pid, []).append(client)
    return clients


def echoes(client):
    """Whether it is served; if not, it has been told to go."""
    client.send(frame(Opcode.TEXT, b"still there"))
    return client.recv().opcode is Opcode.TEXT


def test_in_a_chain_reload_they_are_told_one_after_the_other_and_served_until_then(produce, tmp_path):
    uwsgi = produce("--processes", "2", spread=SPREAD)
    with ExitStack() as stack:
        clients = connect_to_each(stack, uwsgi, 2)
        command(tmp_path / "fifo", "c")
        uwsgi.wait_for_output("chain reload starting")
        workers = sorted(clients, key=lambda pid: uwsgi.output.index(f"(pid: {pid},"))
        for pid in workers:
            first, *others = clients[pid]
            assert part(first) == GOING_AWAY
            assert echoes(others[-1])
            for client in others:
                assert part(client) == GOING_AWAY
        uwsgi.wait_for_output("chain reloading complete")
    assert uwsgi.output.count("client closed 1001") == sum(len(those) for those in clients.values())
    assert "still open" not in uwsgi.output


ALL_AT_ONCE = {
    "a reload": ("--processes", "3"),
    "a reload of the only worker": ("--processes", "1"),
    "a stop": ("--processes", "3"),
}


@pytest.mark.parametrize("end", ALL_AT_ONCE)
def test_where_nobody_stays_to_serve_them_all_are_told_at_once(produce, end):
    """One worker has no clients: it ends without a word."""
    options = ALL_AT_ONCE[end]
    uwsgi = produce(*options)
    with ExitStack() as stack:
        clients = connect_to_each(stack, uwsgi, max(int(options[-1]) - 1, 1))
        uwsgi.popen.send_signal(signal.SIGINT if end == "a stop" else signal.SIGHUP)
        for client in [client for those in clients.values() for client in those]:
            assert part(client) == GOING_AWAY
        for pid in clients:
            wait_for_the_end(pid)
        if end == "a stop":
            assert uwsgi.popen.wait(10) == 0
        else:
            uwsgi.wait_for_workers(2 * int(options[-1]))


@pytest.mark.parametrize(("mercy", "is_warned_about"), [("60", True), ("61", False)])
def test_a_goodbye_for_which_uwsgi_has_no_patience_is_warned_about_once(serve, mercy, is_warned_about):
    uwsgi = serve("--worker-reload-mercy", mercy, middleware={"shutdown_timeout": 60})
    warning = "a worker that ends may take 60 s for its clients (shutdown_timeout), but uWSGI kills it after 60"
    assert uwsgi.output.count(warning) == is_warned_about
