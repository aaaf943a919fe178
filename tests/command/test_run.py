"""`uwasp run`: the options of production, that it becomes uWSGI, and what it says before."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect, unix_connect

from commands import UWASP, port_of, uwasp
from processes import ACCEPTING, BareUwsgi, debian_uwsgi, listening_socket, uwsgi_program, wait_until
from uwasp_cli import limits

SOMAXCONN = int(Path("/proc/sys/net/core/somaxconn").read_text())


class Run(BareUwsgi):
    """`uwasp run`, on a port that the kernel chooses; its figures are in the folder of the test."""

    def __init__(self, folder, project, *arguments, bind=None, env=None):
        uwsgi_program()  # skips the test if there is none
        where = ["--bind", bind or "127.0.0.1:0"]
        name, *others = map(str, arguments)
        # A signal is lost on a worker that does not accept yet, and on a master that has just made workers.
        rest = [*([] if "--" in others else ["--"]), "--hook-accepting-once", f"print:{ACCEPTING.strip()}"]
        where += [] if env else ["--stats", f"{folder}/stats"]
        super().__init__([*UWASP, "run", name, *where, *others, *rest], folder / "log", env, cwd=project)
        given = others[others.index("--processes") + 1 :] if "--processes" in others else []
        self.wait_for_output(ACCEPTING, int(given[0]) if given else len(os.sched_getaffinity(0)))
        self.wait_for_output("Stats server enabled")  # by then the master hears signals

    @property
    def port(self):
        return port_of(self)


@pytest.fixture
def start_run(started, project):
    return lambda *arguments, **keywords: started(lambda folder: Run(folder, project, *arguments, **keywords))


def shown(*arguments, **keywords) -> dict[str, str]:
    """The options that it shows, each with its value; and each has a reason."""
    result = uwasp("run", *arguments, "--show", **keywords)
    assert result.returncode == 0, result.stderr
    program, *lines = result.stdout.splitlines()
    assert Path(program).is_file()
    options = {}
    for line in lines:
        option, reason = line.split("  # ")
        assert len(reason) > 5
        (word,) = shlex.split(option)
        name, _, value = word.removeprefix("--").partition("=")
        options[name] = value
    return options


def test_each_default_is_shown_with_a_reason(project):
    options = shown("echo:application", "--processes", "4", cwd=project)
    assert (
        options.items()
        >= {
            "master": "",
            "need-app": "",
            "die-on-term": "",
            "vacuum": "",
            "single-interpreter": "",
            "processes": "4",
            "threads": "4",
            "thunder-lock": "",
            "listen": str(min(SOMAXCONN, 65_535)),
            "buffer-size": "32768",
            "http-socket": "127.0.0.1:8000",
            "module": "echo:application",
            "pythonpath": str(project),
            "binary-path": str(Path(sys.executable).with_name("python3")),
        }.items()
    )
    assert options["stats"].endswith("/8000.stats")
    assert not options.keys() & {"harakiri", "harakiri-graceful-timeout", "gevent"}


@pytest.mark.parametrize(
    ("allowed", "max_fd"), [(3000, 3000), (2**30, 65_536), (resource.RLIM_INFINITY, 65_536)], ids=["few", "many", "any"]
)
def test_max_fd_is_what_is_allowed_and_65536_at_most(monkeypatch, allowed, max_fd):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, allowed))
    assert limits.descriptors() == max_fd


def test_max_fd_is_as_told(project):
    assert shown("echo:application", "--threads", "2", "--max-fd", "500000", cwd=project)["max-fd"] == "500000"


def test_a_backlog_that_the_kernel_does_not_allow_is_one_line(project):
    result = uwasp("run", "echo:application", "--listen", min(SOMAXCONN + 1, 65_535), cwd=project)
    if SOMAXCONN >= 65_535:
        pytest.skip("the kernel allows any")
    assert result.returncode == 1
    assert re.fullmatch(r"uwasp: --listen \d+: the kernel allows \d+; raise that, as by: sysctl .*\n", result.stderr)


def test_harakiri_is_asked_for_and_leaves_time_to_part(project):
    options = shown("echo:application", "--harakiri", "30", cwd=project)
    assert (options["harakiri"], options["harakiri-graceful-timeout"]) == ("30", "3")


def test_the_router_has_what_websockets_need(project):
    options = shown("echo:application", "--router", "--bind", ":8000", cwd=project)
    assert options.items() >= {"http": ":8000", "http-websockets": ""}.items()
    assert "http-socket" not in options


def test_it_becomes_uwsgi_and_a_sigterm_is_a_stop_with_a_goodbye(start_run):
    run = start_run("echo:application", "--processes", "2")
    command = Path(f"/proc/{run.popen.pid}/cmdline").read_bytes().split(b"\0")
    assert b"--module=echo:application" in command
    assert b"uwasp_cli" not in command
    with connect(f"ws://127.0.0.1:{run.port}/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=20) == "hello"
        run.popen.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed, match="1001"):
            client.recv(timeout=20)
    assert run.popen.wait(timeout=20) == 0


def test_a_reload_keeps_its_process_and_comes_back(start_run, project):
    run = start_run("echo:application", "--threads", "2", "--processes", "1")
    text = (project / "echo.py").read_text()
    (project / "echo.py").write_text(text.replace("the first", "the second"))
    with connect(f"ws://127.0.0.1:{run.port}/echo", proxy=None):
        run.popen.send_signal(signal.SIGHUP)
    run.wait_for_output(ACCEPTING, 2)
    with urlopen(f"http://127.0.0.1:{run.port}/", timeout=20) as response:
        assert response.read() == b"the second"


def test_the_stats_are_for_this_user_alone(start_run, tmp_path):
    run = start_run("echo:application", env={"XDG_RUNTIME_DIR": str(tmp_path)})
    folder = tmp_path / f"uwasp-stats-{os.geteuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    path = folder / "0.stats"  # by the port that it was told
    wait_until(path.exists, "the stats socket")
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(str(path))
        with stats.makefile() as file:
            assert json.load(file)["pid"] == run.popen.pid


def test_a_folder_that_others_may_enter_is_not_taken_for_the_stats(project, tmp_path):
    folder = tmp_path / f"uwasp-stats-{os.geteuid()}"
    folder.mkdir(mode=0o755)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    result = uwasp("run", "echo:application", "--threads", 2, cwd=project, env=env)
    assert result.returncode == 1
    assert result.stderr.endswith("name a path for the stats socket with --stats\n")


def test_a_folder_for_the_stats_that_cannot_be_made_is_one_line(project, tmp_path):
    env = {**os.environ, "XDG_RUNTIME_DIR": f"{tmp_path}/gone"}
    result = uwasp("run", "echo:application", "--threads", 2, cwd=project, env=env)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "cannot be made: No such file or directory; name a path for the stats socket with" in result.stderr


@pytest.mark.parametrize(("option", "prefix"), [("--stats", ""), ("--bind", "unix:")])
def test_a_path_that_is_too_long_for_a_socket_is_one_line(project, option, prefix):
    path = "/tmp/" + 103 * "x"
    result = uwasp("run", "echo:application", "--threads", 2, option, f"{prefix}{path}", cwd=project)
    assert result.returncode == 1
    assert result.stderr == f"uwasp: {path} is too long for a Unix socket; name a shorter path with {option}\n"


def test_a_unix_socket_is_in_uwsgis_own_protocol_or_as_told_behind_two_hyphens(start_run, tmp_path):
    run = start_run("echo:application", "--", "--http-socket", f"{tmp_path}/http", bind=f"unix:{tmp_path}/uwsgi.sock")
    assert f"uwsgi socket 1 bound to UNIX address {tmp_path}/uwsgi.sock" in run.output.replace("socket 0", "socket 1")
    assert (tmp_path / "uwsgi.sock").stat().st_mode & 0o777 == 0o660
    with unix_connect(f"{tmp_path}/http", uri="ws://localhost/echo") as client:
        client.send("hello")
        assert client.recv(timeout=20) == "hello"
    assert run.stop(signal.SIGTERM) == 0
    assert not list(tmp_path.glob("*.sock"))


@pytest.mark.parametrize("handler", ["threads", "gevent"])
def test_debians_uwsgi_has_its_plugins_first_and_what_it_does_not_know_is_left_out(start_run, project, handler):
    program = debian_uwsgi("python3", "gevent_python3")
    text = (project / "echo.py").read_text()
    (project / "echo.py").write_text(text.replace('"threads"', f'"{handler}"'))
    run = start_run("echo:application", "--uwsgi", str(program), "--harakiri", "30")
    assert run.output.startswith(
        "uwasp: left out --harakiri-graceful-timeout, which uWSGI 2.0.22 is the first to have: "
    )
    with connect(f"ws://127.0.0.1:{run.port}/echo", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=20) == "hello"


def test_several_may_listen_at_one_port_if_uwsgi_is_told_so(start_run):
    with socket.socket() as reserving:
        reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserving.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*reserving.getsockname())
        for _ in range(2):
            run = start_run("echo:application", "--processes", "1", "--", "--reuse-port", bind=address)
            assert run.port == reserving.getsockname()[1]


def test_a_taken_port_and_an_application_that_does_not_load_are_one_line(project):
    with listening_socket() as taken:
        address = "{}:{}".format(*taken.getsockname())
        result = uwasp("run", "echo:application", "--threads", 2, "--bind", address, cwd=project)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "is taken; choose another with --bind" in result.stderr
    (project / "echo.py").write_text("import flaskk\n")
    result = uwasp("run", "echo:application", cwd=project)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("uwasp: echo.py, line 1: there is no module flaskk")


def test_a_fault_behind_a_handler_for_gevent_is_named_and_not_the_loop(project):
    text = (project / "echo.py").read_text()
    (project / "echo.py").write_text(text.replace('"threads"', '"gevent"') + "import flaskk\n")
    result = uwasp("run", "echo:application", "--show", cwd=project)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("uwasp: echo.py, line 16: there is no module flaskk")


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1:70000", "unix:relative"])
def test_an_address_that_is_none_is_one_line(project, bind):
    result = uwasp("run", "echo:application", "--bind", bind, cwd=project)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("uwasp: --bind")


def test_an_application_that_does_not_load_later_ends_it_with_an_error(start_run, project):
    run = start_run("echo:application", "--threads", "2")
    (project / "echo.py").write_text("import flaskk\n")
    run.popen.send_signal(signal.SIGHUP)
    run.wait_for_output("no app loaded. GAME OVER")
    assert run.popen.wait(timeout=20) != 0


def test_a_named_loop_needs_no_look_at_the_application(project):
    """It would not load: what is named is enough."""
    (project / "echo.py").write_text("import flaskk\n")
    if find_spec("gevent") is not None:
        assert shown("echo:application", "--gevent", "50", cwd=project)["gevent"] == "50"
    assert shown("echo:application", "--threads", "7", cwd=project)["threads"] == "7"
