"""The figures of `uwasp.stats()`, uWSGI's metrics, and the log tell what happened."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import pytest
from websockets.sync.client import connect

from inquiry import ask, figures
from parting import wait_for_the_end
from processes import listening_socket, wait_until
from raw import RawClient
from uwasp import Listener, statistics
from uwasp import metrics as uwasp_metrics
from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.test_stats import *  # noqa: F403 - the tests, and their fixtures
from uwasp_pytest.behaviour.test_stats import OF_STATS, status


def told_by(stats_port):
    """What uWSGI's stats server tells."""
    with socket.create_connection(("127.0.0.1", stats_port), timeout=10) as client:
        return json.loads(b"".join(iter(lambda: client.recv(65536), b"")))


def registered(*names):
    """The options of uWSGI that register metrics, and a function that asks for their values."""
    with listening_socket() as stats_socket:
        stats_port = stats_socket.getsockname()[1]

    def metrics():
        found = told_by(stats_port)["metrics"]
        return {name: found[f"uwasp.{name}"]["value"] for name in names}

    gauges = ("open", "queued_in", "queued_out")
    options = [f"--metric=name=uwasp.{name},type={'gauge' if name in gauges else 'counter'}" for name in names]
    return ["--enable-metrics", *options, "--stats", f"127.0.0.1:{stats_port}"], metrics


def test_the_same_figures_are_in_uwsgis_metrics_where_they_are_registered(serve):
    names = [*OF_STATS, "closed", "closed.4000", "closed.1001", "refused", "refused.path"]
    options, metrics = registered(*names)
    uwsgi = serve(
        *options,
    )

    assert status(uwsgi.port, "/nowhere") == 404
    assert metrics() == {**dict.fromkeys(names, 0), "refused": 1, "refused.path": 1}
    with connect(f"{uwsgi.url}/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(10) == "hello"
        wait_until(lambda: metrics()["messages_out"] == 1, "the metrics", timeout=5)
        assert metrics()["open"] == 1
        client.close(4000)
    wait_until(lambda: metrics()["closed"] == 1, "the close to be counted", timeout=5)
    found = {name: value for name, value in metrics().items() if not name.startswith("bytes")}
    expected = {"opened": 1, "closed": 1, "closed.4000": 1, "messages_in": 1, "messages_out": 1}
    assert found == {name: {**expected, "refused": 1, "refused.path": 1}.get(name, 0) for name in found}
    with connect(f"{uwsgi.url}/echo", proxy=None) as client:
        wait_until(lambda: metrics()["open"] == 1, "the metrics", timeout=5)
        pid = figures(uwsgi.port)["pid"]
        os.kill(pid, signal.SIGHUP)  # that worker alone: the metrics live on
        took_back = {"open": 0, "closed.1001": 1}.items()
        wait_until(lambda: took_back <= metrics().items(), "the worker to take back what it had open")
        wait_until(lambda: figures(uwsgi.port)["pid"] != pid, "the new worker")  # which hears of a stop only then


@pytest.mark.parametrize("when_loaded", ["before the fork", "--lazy-apps"])
def test_the_worker_after_one_that_was_killed_takes_back_what_that_had_open(serve, tmp_path, when_loaded):
    """Of both its listeners: each of two handler classes has its own."""
    options, metrics = registered("open", "opened")
    if when_loaded == "--lazy-apps":
        options.append("--lazy-apps")
    second = ("--single-interpreter", "--manage-script-name", "--mount", f"/second={APPLICATIONS / 'production.py'}")
    accounts = tmp_path / "accounts"
    accounts.mkdir()
    uwsgi = serve(*options, *second, env={"TMPDIR": str(accounts)})
    with RawClient(uwsgi.port) as first, RawClient(uwsgi.port, "/second/noting?killed") as client:
        pid = int(client.recv().data)
        wait_until(lambda: metrics()["open"] == 2, "both to be counted")
        os.kill(pid, signal.SIGKILL)
        first.recv_end()
        wait_until(lambda: metrics()["open"] == 0, "the next worker to take back what the other had open")
    wait_until(lambda: figures(uwsgi.port)["pid"] != pid, "the new worker to serve")
    with RawClient(uwsgi.port):
        wait_until(lambda: metrics() == {"open": 1, "opened": 3}, "one more to be counted")
        (account,) = accounts.iterdir()
        assert account.stat().st_mode & 0o777 == 0o600
        uwsgi.stop()
    assert list(accounts.iterdir()) == []


@pytest.mark.parametrize("when_loaded", ["before the fork", "--lazy-apps"])
def test_a_worker_that_never_had_a_websocket_leaves_no_account(serve, tmp_path, when_loaded):
    options, _ = registered("open")
    stats_port = int(options[-1].rpartition(":")[2])
    if when_loaded == "--lazy-apps":
        options.append("--lazy-apps")
    uwsgi = serve(*options, env={"TMPDIR": str(tmp_path)})
    assert figures(uwsgi.port)["opened"] == 0  # a worker that serves hears of a stop
    wait_until(
        lambda: not any(core["in_request"] for core in told_by(stats_port)["workers"][0]["cores"]),
        "that request to be over for uWSGI as well",
    )
    assert len(list(tmp_path.glob("uwasp-gauges-*"))) == 1
    uwsgi.stop()
    assert list(tmp_path.glob("uwasp-gauges-*")) == []


def test_what_a_uwsgi_leaves_that_was_killed_as_a_whole_is_removed_by_the_next(serve, tmp_path):
    options, metrics = registered("open")

    def start(*options):
        uwsgi = serve(*options, env={"TMPDIR": str(tmp_path)})
        with RawClient(uwsgi.port):
            return uwsgi, f"uwasp-gauges-{os.geteuid()}-{uwsgi.popen.pid}"

    alive, its_name = start(*options)
    killed, _ = start(*registered("open")[0])
    worker = figures(killed.port)["pid"]
    os.kill(worker, signal.SIGSTOP)  # or it might see that its master is gone, and end by itself
    os.kill(killed.popen.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    killed.popen.wait(10)
    wait_for_the_end(worker)
    assert len(list(tmp_path.glob("uwasp-gauges-*"))) == 2
    _, name = start(*registered("open")[0])
    assert {path.name.rsplit("-", 2)[0] for path in tmp_path.glob("uwasp-gauges-*")} == {its_name, name}
    with RawClient(alive.port):
        wait_until(lambda: metrics() == {"open": 1}, "the one that lives on to count")


def test_only_what_no_worker_will_take_back_is_taken_for_abandoned(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ours, other = os.getpid(), os.getppid()

    def file(slot):
        path = tmp_path / f"uwasp-gauges-{os.geteuid()}-{slot}"
        path.touch()
        return path

    of_a_master_that_is_gone, of_one_before_us = file(f"{gone.pid}-2-3"), file(f"{ours}-1-3")
    of_another_master, of_another_worker = file(f"{other}-2-3"), file(f"{ours}-2-4")
    in_another_container = file(f"{gone.pid}-2-4")
    with in_another_container.open() as locked:
        fcntl.flock(locked, fcntl.LOCK_SH)
        account = uwasp_metrics._Account(f"{ours}-2-3")
    own = tmp_path / f"uwasp-gauges-{os.geteuid()}-{ours}-2-3"
    assert not of_a_master_that_is_gone.exists()
    assert not of_one_before_us.exists()
    assert set(tmp_path.iterdir()) == {of_another_master, of_another_worker, in_another_container, own}
    with own.open() as file_of_account, pytest.raises(BlockingIOError):
        fcntl.flock(file_of_account, fcntl.LOCK_EX | fcntl.LOCK_NB)
    account.close()


def test_a_listener_may_count_while_the_figures_are_asked_for(monkeypatch):
    """That of another thread, whose counts by close code grow meanwhile."""
    monkeypatch.setattr(statistics, "_listeners", [])
    listeners = [Listener(), Listener()]
    is_over = False

    def count():
        for code in itertools.cycle(range(1000, 5000)):
            if is_over:
                return
            for listener in listeners:
                listener.totals.closed[code] += 1
                if code == 4999:
                    listener.totals.closed.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(500):
            assert sum(statistics.stats()["closed"].values()) >= 0
    finally:
        is_over = True
        thread.join()
        sys.setswitchinterval(interval)


def test_a_link_that_waits_in_the_folder_is_not_followed(tmp_path, monkeypatch, caplog):
    """Everybody may write there, and the name can be guessed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    precious = tmp_path / "precious"
    precious.write_text("somebody's")
    (tmp_path / f"uwasp-gauges-{os.geteuid()}-1-2-3").symlink_to(precious)
    account = uwasp_metrics._Account("1-2-3")
    account.add("open", 1)
    assert precious.read_text() == "somebody's"
    assert "a worker that is killed will leave its gauges wrong" in caplog.text


def test_without_metrics_nothing_is_registered_and_nothing_is_missing(serve):
    uwsgi = serve()
    with connect(f"{uwsgi.url}/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(10) == "hello"
    assert ask(uwsgi.port, "metric/uwasp.open") in (0, None)


def test_a_refusal_is_as_loud_as_it_concerns_the_operator(serve):
    uwsgi = serve(middleware={"max_connections": 1})
    with RawClient(uwsgi.port):
        assert status(uwsgi.port, "/nowhere") == 404
        assert status(uwsgi.port, "/echo", "Origin: http://elsewhere") == 403
        assert status(uwsgi.port, "/echo") == 503
    uwsgi.wait_for_output("uwasp.middleware INFO WebSocket refused to 127.0.0.1 at /nowhere: path")
    uwsgi.wait_for_output("uwasp.middleware WARNING WebSocket refused to 127.0.0.1 at /echo: origin")
    uwsgi.wait_for_output("uwasp.middleware WARNING WebSocket refused to 127.0.0.1 at /echo: full")


def test_behind_a_trusted_proxy_the_identity_is_the_address_that_the_proxy_saw(serve):
    uwsgi = serve(middleware={"trust_proxy": True})
    with RawClient(uwsgi.port, "/echo", "X-Forwarded-For: 6.6.6.6, 192.0.2.7"):
        uwsgi.wait_for_output("connection 1 of 192.0.2.7 at /echo is open")
    uwsgi = serve()
    with RawClient(uwsgi.port, "/echo", "X-Forwarded-For: 192.0.2.7"):
        uwsgi.wait_for_output("connection 1 of 127.0.0.1 at /echo is open")
    assert re.search(r"192\.0\.2\.7", uwsgi.output) is None
