"""`uwasp top`: the figures of a running uWSGI, live and for scripts."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from contextlib import ExitStack, suppress

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from commands import UWASP, port_of, uwasp
from processes import ACCEPTING, BareUwsgi, debian_uwsgi, listening_socket, uwsgi_program, wait_until
from uwasp_cli import screen as screens
from uwasp_cli.figures import OF_A_PATH, Figures
from uwasp_cli.prometheus import exposition
from uwasp_cli.top import tables


@pytest.fixture
def start_run(project, tmp_path, started):
    """Start `uwasp run` with two workers, and its stats socket."""

    def start():
        stats = tmp_path / "stats"
        rest = ["--", "--hook-accepting-once", f"print:{ACCEPTING.strip()}"]
        options = ["--bind", "127.0.0.1:0", "--processes", "2", "--stats", str(stats)]
        command = [*UWASP, "run", "echo:application", *options, *rest]
        run = started(lambda folder: BareUwsgi(command, folder / "log", cwd=project))
        run.wait_for_output(ACCEPTING, 2)
        run.wait_for_output("Stats server enabled")
        run.stats = stats
        run.url = f"ws://127.0.0.1:{port_of(run)}"
        return run

    return start


@pytest.fixture
def running(start_run):
    return start_run()


def sampled(run):
    result = uwasp("top", run.stats, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def echo(client, count=1):
    for _ in range(count):
        client.send("hello")
        assert client.recv(timeout=20) == "hello"


def test_json_has_the_figures_of_all_and_of_each_worker_and_path(running):
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{running.url}/echo", proxy=None)) for _ in range(6)]
        for client in clients:
            echo(client, 2)
        with pytest.raises(InvalidStatus):
            connect(f"{running.url}/nowhere", proxy=None).__enter__()
        wait_until(lambda: sampled(running)["total"]["messages_in"] == 12, "the figures to be told", 20)
        found = sampled(running)
        total, workers = found["total"], found["workers"]
        assert (total["open"], total["opened"], total["messages_out"], total["refused"]) == (6, 6, 12, 1)
        assert [worker["worker"] for worker in workers] == [1, 2]
        traffic = ("open", "opened", "messages_in", "messages_out", "bytes_in", "bytes_out", "queued_in", "queued_out")
        for name in traffic:
            assert sum(worker[name] for worker in workers) == total[name], name
        assert found["paths"] == {"/echo": {name: total[name] for name in traffic}}
        assert sum(worker["refused"].get("path", 0) for worker in workers) == 1
    wait_until(lambda: sampled(running)["total"]["open"] == 0, "all to be closed", 20)
    found = sampled(running)
    assert all(worker["open"] == 0 for worker in found["workers"])
    assert found["total"]["closed"] == sum(worker["closed"].get("1000", 0) for worker in found["workers"]) == 6
    running.stop()
    assert sorted(path.name for path in running.stats.parent.glob("stats*")) == []


def test_a_worker_that_had_no_websocket_tells_why_it_refused(running):
    """When all are refused, by their origin for instance, is when one looks."""
    for _ in range(8):
        with pytest.raises(InvalidStatus):
            connect(f"{running.url}/echo", proxy=None, origin="http://elsewhere").__enter__()
    refused = [worker["refused"].get("origin", 0) for worker in sampled(running)["workers"]]
    assert sum(refused) == 8


def test_a_worker_that_was_killed_has_nothing_open_in_its_place(running):
    with connect(f"{running.url}/echo", proxy=None) as client:
        echo(client)
        wait_until(lambda: sampled(running)["total"]["open"] == 1, "the figures to be told", 20)
        (mine,) = (worker for worker in sampled(running)["workers"] if worker["open"])
        os.kill(mine["pid"], signal.SIGKILL)
        wait_until(lambda: sampled(running)["total"]["open"] == 0, "the new worker to take it back", 20)
    (new,) = (worker for worker in sampled(running)["workers"] if worker["worker"] == mine["worker"])
    assert new["pid"] != mine["pid"]
    assert new["open"] == 0


def test_a_worker_that_may_not_write_beside_the_socket_says_so_once(start_run, tmp_path):
    (tmp_path / "stats.1.json.new").mkdir()
    run = start_run()
    run.wait_for_output("`uwasp top` will not see this worker's own figures: [Errno 21] Is a directory: ")
    with connect(f"{run.url}/echo", proxy=None) as client:
        for count in range(1, 4):  # as many seconds, in each of which it would write them down
            echo(client)
            wait_until(lambda count=count: sampled(run)["total"]["messages_in"] == count, "the figures to be told", 20)
        found = sampled(run)
        assert "open" not in found["workers"][0]
        assert found["workers"][1].keys() > {"open", "paths"}
        shown = first_table(run)
    assert "What a worker and a path have is not there" in shown
    assert re.search(r"^1 +\d+ +\w+ +- +- +- +- +- +- +-$", shown, re.MULTILINE)
    assert run.output.count("will not see this worker's own figures") == 1


def test_a_file_of_somebody_else_is_not_taken_for_a_workers(running):
    with connect(f"{running.url}/echo", proxy=None) as client:
        echo(client)
        wait_until(lambda: sampled(running)["total"]["open"] == 1, "the figures to be told", 20)
        for number, worker in enumerate(sampled(running)["workers"], 1):
            path = running.stats.with_name(f"stats.{number}.json")
            figures = json.loads(path.read_text())
            assert figures["pid"] == worker["pid"]
            path.write_text(json.dumps({**figures, "pid": 1}))
        assert all("open" not in worker for worker in sampled(running)["workers"])


def first_table(run):
    with subprocess.Popen([*UWASP, "top", str(run.stats)], stdout=subprocess.PIPE, text=True) as top:
        lines = [top.stdout.readline()]
        while lines[-1].strip():
            lines.append(top.stdout.readline())
        top.terminate()
    return "".join(lines)


def scraped(text):
    """By Prometheus' own parser: the families by their names, and the samples by theirs and their labels."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {}
    for family in families.values():
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return families, samples


def test_prometheus_gets_families_with_types_of_all_and_by_worker_and_path(running):
    with connect(f"{running.url}/echo", proxy=None) as client:
        echo(client, 3)
        with pytest.raises(InvalidStatus):
            connect(f"{running.url}/nowhere", proxy=None).__enter__()
        wait_until(lambda: "/echo" in sampled(running)["paths"], "the path to be told", 20)
        families, samples = scraped(uwasp("top", running.stats, "--prometheus").stdout)
    assert all(family.documentation for family in families.values())
    gauges = {name for name, family in families.items() if family.type == "gauge"}
    of_connections = {"uwasp_open", "uwasp_queued_in", "uwasp_queued_out"}
    of_paths = {name.replace("uwasp_", "uwasp_path_") for name in of_connections}
    assert gauges == {*of_connections, *of_paths, "uwasp_backlog"}
    assert {family.type for name, family in families.items() if name not in gauges} == {"counter"}
    assert samples["uwasp_messages_in_total", ()] == 3
    assert samples["uwasp_open", ()] == samples["uwasp_opened_total", ()] == 1
    ((_, labels),) = (key for key in samples if key[0] == "uwasp_path_open")
    assert dict(labels) == {"path": "/echo", "worker": dict(labels)["worker"]}
    assert dict(labels)["worker"] in ("1", "2")
    assert samples["uwasp_path_messages_in_total", labels] == 3
    ((_, of_refusal),) = (key for key in samples if key[0] == "uwasp_refused_by_reason_total")
    assert dict(of_refusal)["reason"] == "path"


def test_a_path_in_a_label_is_escaped_as_prometheus_asks_for():
    path = '/a"b\\c\nd'
    workers = {1: {"paths": {path: dict.fromkeys(OF_A_PATH, 1)}}}
    text = exposition(Figures(0.0, {}, workers, 0, {"version": "2.0.31", "pid": 1}))
    assert scraped(text)[1]["uwasp_path_open", (("path", path), ("worker", "1"))] == 1


def test_it_shows_a_table_each_interval_also_after_a_reload_and_no_rate_is_negative(running):
    command = [*UWASP, "top", str(running.stats), "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as top:
        lines = []
        reading = threading.Thread(target=lambda: lines.extend(top.stdout))
        reading.start()
        with connect(f"{running.url}/echo", proxy=None) as client:
            echo(client, 50)
            wait_until(lambda: any(re.match(r"all +1 +[1-9]", line) for line in lines), "a rate", 20)
            running.popen.send_signal(signal.SIGHUP)
            running.wait_for_output(ACCEPTING, 4)
        wait_until(lambda: any(re.match(r"all +0 ", line) for line in lines[-8:]), "the reload to be seen", 20)
        top.send_signal(signal.SIGINT)
        assert top.wait(20) == 130
        reading.join()
        assert top.stderr.read() == ""
    assert not [line for line in lines if re.search(r" -\d", line)]
    columns = r" +open +in/s +out/s +KiB/s +waiting +unread +new/s"
    assert any(re.match(f"worker +pid +status{columns}", line) for line in lines)
    assert any(re.match(f"path{columns}", line) for line in lines)
    assert any(re.match(r"/echo +1 +[1-9]", line) for line in lines)


def figures(paths):
    """Of one worker, with so many open at each path."""
    of_paths = {path: {**dict.fromkeys(OF_A_PATH, 0), "open": count} for path, count in paths.items()}
    worker = {"pid": 1, "status": "idle", "requests": 0, "paths": of_paths}
    return Figures(at=1.0, total={"open": sum(paths.values())}, workers={1: worker}, backlog=0, uwsgi={"version": "2"})


def test_where_a_terminal_has_no_room_for_all_paths_those_with_the_most_open_are_there(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(screens, "has_rich", False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    many = figures({**{f"/{number:02}": 0 for number in range(50)}, "/zoo": 7, "/yard": 3})
    with screens.screen() as show:
        show("the head", tables(many, many))
    shown = capsys.readouterr().out.removeprefix(screens.CLEAR)
    assert len(shown.splitlines()) < 24
    lines = [line.split() for line in shown.splitlines()]
    assert [line[0] for line in lines if line and line[0].startswith("/")][:3] == ["/zoo", "/yard", "/00"]
    of_paths = [line for line in lines if line and line[0].startswith("/")]
    assert f"{52 - len(of_paths)} more, for which there is no room" in shown
    assert 10 < len(of_paths) < 20
    few = figures({"/zoo": 7})
    assert screens._fitting("the head", tables(few, few)) == tables(few, few)


@pytest.mark.parametrize("has_rich", [True, False])
def test_in_a_terminal_each_table_takes_the_place_of_the_one_before(running, tmp_path, has_rich):
    """With `rich` on a screen of its own, from which the terminal comes back."""
    if has_rich:
        pytest.importorskip("rich")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "rich.py").write_text("raise ImportError")
    env = {**os.environ, "TERM": "xterm", "PYTHONPATH": "" if has_rich else str(tmp_path / "without")}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen([*UWASP, "top", str(running.stats), "--interval", "0.1"], stdout=theirs, env=env) as top:
        os.close(theirs)
        shown = b""
        while shown.count(b"\x1b[H") < 3:
            shown += os.read(ours, 4096)
        top.send_signal(signal.SIGINT)
        with suppress(OSError):  # the end, of a terminal
            while part := os.read(ours, 4096):
                shown += part
        assert top.wait(20) == 130
    os.close(ours)
    assert (b"\x1b[?1049h" in shown, b"\x1b[?1049l" in shown) == (has_rich, has_rich)
    for name in ("worker", "pid", "status", "open", "in/s", "out/s", "KiB/s", "waiting", "unread", "new/s"):
        assert name.encode() in shown, name
    assert (b"\x1b[H\x1b[J" in shown) != has_rich


@pytest.mark.parametrize("loop", [["--threads", "20"], ["--gevent", "100"]], ids=["threads", "gevent"])
@pytest.mark.parametrize("program", ["pyuwsgi", "debian"])
def test_there_are_no_metrics_for_each_thread_or_greenlet(project, tmp_path, started, loop, program):
    text = (project / "echo.py").read_text()
    (project / "echo.py").write_text(text.replace('"threads"', f'"{loop[0].removeprefix("--")}"'))
    uwsgi = debian_uwsgi("python3", "gevent_python3") if program == "debian" else uwsgi_program()
    where = ["--bind", "127.0.0.1:0", "--stats", f"{tmp_path}/stats", "--uwsgi", str(uwsgi), "--processes", "2"]
    command = [*UWASP, "run", "echo:application", *where, *loop]
    run = started(lambda folder: BareUwsgi(command, folder / "log", cwd=project))
    run.wait_for_output("Stats server enabled")
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(f"{tmp_path}/stats")
        with stats.makefile() as file:
            names = set(json.load(file)["metrics"])
    assert "uwasp.open" in names
    assert len(names) <= 70  # ours are 11, and uWSGI's some 20 for each worker
    assert not [name for name in names if ".core." in name]


def test_who_has_seen_enough_leaves_no_complaint(running):
    command = f"{UWASP[0]} -m uwasp_cli top {running.stats} --interval 0.1 | head -1"
    result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert str(running.stats) in result.stdout
    assert result.stderr == ""


def test_it_finds_the_one_that_this_user_runs(project, tmp_path, started, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    result = uwasp("top", "--json")
    folder = tmp_path / f"uwasp-stats-{os.geteuid()}"
    remedy = "name the socket, uwasp top ADDRESS (that of one on a Unix socket lies beside it)"
    said = f"uwasp: no `uwasp run` of this user's has a stats socket in {folder}; {remedy}\n"
    assert (result.returncode, result.stderr) == (1, said)
    assert not folder.exists()
    run_one(project, started, tmp_path)
    assert json.loads(uwasp("top", "--json").stdout)["total"]["open"] == 0
    run_one(project, started, tmp_path)
    result = uwasp("top", "--json")
    assert result.returncode == 1
    assert "there are several: name one of them, uwasp top ADDRESS: " in result.stderr


def run_one(project, started, above):
    """`uwasp run`, with its stats socket where it is by default."""
    with listening_socket() as free:
        port = free.getsockname()[1]
    bind = ["--bind", f"127.0.0.1:{port}"]
    command = [*UWASP, "run", "echo:application", *bind, "--threads", "2", "--processes", "1"]
    run = started(lambda folder: BareUwsgi(command, folder / "log", cwd=project))
    run.wait_for_output("Stats server enabled")
    assert (above / f"uwasp-stats-{os.geteuid()}" / f"{port}.stats").exists()


def silent(tmp_path):
    path = tmp_path / "silent"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    return path, listening


def test_what_is_no_stats_server_is_one_line(tmp_path):
    path, listening = silent(tmp_path)
    with listening:
        refused = uwasp("top", path)
        listening.listen()
        answering = threading.Thread(target=answer, args=(listening, b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        answering.start()
        other = uwasp("top", path)
        answering.join()
    missing = uwasp("top", tmp_path / "nothing")
    said = {
        refused: f"uwasp: {path}: nobody listens there; has that uWSGI ended?\n",
        other: f"uwasp: {path}: what answers there is not uWSGI's stats server (--stats)\n",
        missing: f"uwasp: {tmp_path}/nothing: there is no such socket; is that uWSGI running, with --stats?\n",
    }
    for result, line in said.items():
        assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


def answer(listening, data):
    client, _ = listening.accept()
    with client:
        client.sendall(data)


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_uwsgi_without_our_metrics_says_what_is_missing(project, started, serve_plain, kind):
    address = serve_plain(http=kind == "http")
    result = uwasp("top", address)
    assert result.returncode == 1
    assert "uWASP's figures are not registered among uWSGI's metrics; `uwasp run` does that" in result.stderr


@pytest.fixture
def serve_plain(project, started):
    """Start a uWSGI with the stats server alone: where it is."""

    def start(http):
        with listening_socket() as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        rest = ["--stats", address, *(["--stats-http"] if http else [])]
        command = [*UWASP, "run", "echo:application", "--bind", "127.0.0.1:0", "--stats", "", "--threads", "2"]
        run = started(lambda folder: BareUwsgi([*command, "--", *rest], folder / "log", cwd=project))
        run.wait_for_output("Stats server enabled")
        return f"http://{address}" if http else address

    return start


def test_an_interval_that_cannot_be_is_one_line():
    result = uwasp("top", "--interval", "0")
    assert result.returncode == 2
    assert "seconds from 0.1 to 3600, not 0" in result.stderr
