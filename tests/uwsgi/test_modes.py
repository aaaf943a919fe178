"""The ways in which uWSGI itself is run: those of docs/modes.md that have no test elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect, unix_connect

from processes import LOOP_OPTIONS, BareUwsgi, uwsgi_program, wait_until
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "application.py"
UWSGI = str(uwsgi_program())
# The protocol of sd_listen_fds(3): the first socket is descriptor 3, and the process is told that it is meant.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def run(started, handler):
    """Start a uWSGI by its bare options."""

    def start(*options, command=(UWSGI,), **keywords):
        env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": "{}"}
        return started(lambda folder: BareUwsgi([*command, *options], folder / "uwsgi.log", env, **keywords))

    return start


@pytest.fixture
def options(handler):
    """What a uWSGI has that serves the application, as lines of an ini file."""
    loop = LOOP_OPTIONS[handler]
    return [
        *(f"{name.removeprefix('--')} = {value}" for name, value in zip(loop[::2], loop[1::2], strict=True)),
        "need-app = true",
        "master = true",
        "die-on-term = true",
        f"wsgi-file = {APPLICATION}",
        f"pythonpath = {APPLICATIONS}",  # for `waiting`
        f"binary-path = {Path(UWSGI).with_name('python3')}",
    ]


def written(path, lines):
    path.write_text("\n".join(["[uwsgi]", *lines, ""]))
    return str(path)


def echoes(client):
    client.send("hello")
    return client.recv(10) == "hello"


def is_told_to_go(client):
    with pytest.raises(ConnectionClosed) as raised:
        client.recv(20)
    return raised.value.rcvd.code == 1001


def test_a_vassal_of_the_emperor_is_reloaded_when_its_file_is_touched(run, options, tmp_path):
    vassals, path = tmp_path / "vassals", tmp_path / "vassal.sock"
    vassals.mkdir()
    written(vassals / "chat.ini", [*options, f"http-socket = {path}"])
    emperor = run("--emperor", str(vassals), "--emperor-wrapper", UWSGI, "--emperor-freq", "1", "--die-on-term")
    emperor.wait_for_output("spawned uWSGI worker 1")
    with unix_connect(str(path), "ws://localhost/echo", open_timeout=20) as client:
        assert echoes(client)
        os.utime(vassals / "chat.ini", (1, time.time() + 2))  # the emperor sees full seconds
        assert is_told_to_go(client)
    emperor.wait_for_output("spawned uWSGI worker 1", 2)
    with unix_connect(str(path), "ws://localhost/echo", open_timeout=20) as client:
        assert echoes(client)


def test_zerglings_serve_the_socket_of_their_server_and_part_with_a_goodbye(run, options, tmp_path):
    pool, path = tmp_path / "pool.sock", tmp_path / "app.sock"
    run("--master", "--die-on-term", "--zerg-pool", f"{pool}:{path}")
    wait_until(pool.exists, "the pool")
    zergling = run("--ini", written(tmp_path / "zergling.ini", [*options, f"zerg = {pool}", "protocol = http"]))
    zergling.wait_for_output("spawned uWSGI worker 1")
    with unix_connect(str(path), "ws://localhost/echo", open_timeout=20) as client:
        assert echoes(client)
        another = run("--ini", written(tmp_path / "another.ini", [*options, f"zerg = {pool}", "protocol = http"]))
        another.wait_for_output("spawned uWSGI worker 1")
        zergling.popen.send_signal(signal.SIGINT)
        assert is_told_to_go(client)
    assert zergling.popen.wait(20) == 0
    with unix_connect(str(path), "ws://localhost/echo", open_timeout=20) as client:
        assert echoes(client)


def test_two_instances_share_a_port_by_reuse_port(run, options, tmp_path):
    with socket.socket() as reserving:
        reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserving.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*reserving.getsockname())
        ini = written(tmp_path / "reuse.ini", [*options, "reuse-port = true", f"http-socket = {address}"])
        for instance in (run("--ini", ini), run("--ini", ini)):
            instance.wait_for_output("spawned uWSGI worker 1")
        for _ in range(8):
            with connect(f"ws://{address}/echo", open_timeout=20) as client:
                assert echoes(client)


def test_a_socket_that_systemd_has_opened_survives_the_reload(run, options, tmp_path):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        address = "{}:{}".format(*listening.getsockname())
        ini = written(tmp_path / "activated.ini", [*options, "http-socket = fd://3"])
        fd = listening.fileno()
        uwsgi = run("--ini", ini, command=(sys.executable, "-c", AS_SYSTEMD, str(fd), UWSGI), pass_fds=[fd])
    uwsgi.wait_for_output("spawned uWSGI worker 1")
    with connect(f"ws://{address}/echo", open_timeout=20) as client:
        assert echoes(client)
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert is_told_to_go(client)
    uwsgi.wait_for_output("spawned uWSGI worker 1", 2)
    with connect(f"ws://{address}/echo", open_timeout=20) as client:
        assert echoes(client)


def test_a_module_that_is_saved_reloads_by_py_autoreload_with_a_goodbye(serve, tmp_path):
    (tmp_path / "touched_module.py").write_text("x = 1\n")
    wrapper = tmp_path / "wrapper.py"
    future = "from __future__ import annotations\n"
    wrapper.write_text(APPLICATION.read_text().replace(future, f"{future}import touched_module\n"))
    uwsgi = serve("--py-autoreload", "1", "--pythonpath", str(tmp_path), application=wrapper)
    with connect(f"{uwsgi.url}/echo") as client:
        assert echoes(client)
        for second in range(20):  # it has to have seen the file as it was
            os.utime(tmp_path / "touched_module.py", (second, time.time() + second))
            with suppress(TimeoutError, ConnectionClosed):
                client.recv(1)
            if client.close_code is not None:
                break
        assert client.close_code == 1001
    uwsgi.wait_for_workers(2)
    with connect(f"{uwsgi.url}/echo", open_timeout=20) as client:
        assert echoes(client)


def test_offload_threads_send_files_beside_the_echoes(serve, tmp_path):
    (tmp_path / "page.txt").write_text("x" * 100_000)
    uwsgi = serve("--offload-threads", "2", "--static-map", f"/files={tmp_path}")
    with connect(f"{uwsgi.url}/echo") as client:
        assert echoes(client)
        with urlopen(f"http://{uwsgi.address}/files/page.txt", timeout=10) as response:
            assert len(response.read()) == 100_000
        assert echoes(client)


@pytest.mark.parametrize("option", ["--thunder-lock", "--lazy-apps", "--strict"])
def test_with(serve, option):
    uwsgi = serve(option, "--processes", "2")
    with connect(f"{uwsgi.url}/echo") as client:
        assert echoes(client)
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert is_told_to_go(client)
    uwsgi.wait_for_workers(4)
    with connect(f"{uwsgi.url}/echo", open_timeout=20) as client:
        assert echoes(client)
