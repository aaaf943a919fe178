"""The chat's launcher: what it says, and that it ends cleanly."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from demo import EXAMPLES, is_alive
from processes import listening_socket, wait_until

RUN = EXAMPLES / "chat" / "run.py"


def run(*arguments, **keywords):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **keywords)


def test_it_says_where_the_page_is_and_nothing_else(start_demo):
    demo = start_demo()
    with urllib.request.urlopen(demo.url, timeout=20) as response:
        assert b"<title>uWASP chat</title>" in response.read()
    assert demo.output == f"open http://127.0.0.1:{demo.port}/  (Ctrl-C stops it)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_quietly_and_leaves_nothing_running(start_demo, number):
    demo = start_demo()
    said = demo.output
    started = demo.processes()
    assert len(started) >= 2  # uWSGI's master and its worker
    assert demo.stop(number) == 0
    assert not any(map(is_alive, started))
    assert demo.output == said


def test_ctrl_c_stops_it_before_it_is_ready(start_demo):
    demo = start_demo(wait=False)
    wait_until(demo.processes, "uWSGI")
    started = demo.processes()
    assert demo.stop(signal.SIGINT) == 0
    assert "Traceback" not in demo.output
    wait_until(lambda: not any(map(is_alive, started)), "uWSGI to end")


def test_a_taken_port_is_one_line(handler):
    with listening_socket() as taken:
        port = taken.getsockname()[1]
        result = run(RUN, "--handler", handler, "--port", port)
    assert result.returncode == 1
    assert result.stderr == f"port {port} on 127.0.0.1 is taken; choose another with --port\n"
    assert result.stdout == ""


def test_an_address_of_another_machine_is_one_line():
    result = run(RUN, "--host", "192.0.2.1", "--port", 0)  # RFC 5737: nobody's
    assert result.returncode == 1
    assert result.stderr.startswith("cannot listen: ")
    assert result.stderr.count("\n") == 1


def test_the_port_is_free_again_at_once(start_demo):
    first = start_demo()
    with socket.create_connection(("127.0.0.1", first.port)):
        assert first.stop() == 0
    assert start_demo(port=first.port).port == first.port


def test_it_ends_and_says_so_when_uwsgi_does(start_demo):
    demo = start_demo()
    started = demo.processes()
    os.kill(started[0], signal.SIGKILL)
    assert demo.popen.wait(timeout=20) == 1
    assert demo.output.endswith("uWSGI ended by itself, with code -9\n")
    wait_until(lambda: not any(map(is_alive, started)), "uWSGI's workers to end with their master")


def test_it_shows_what_uwsgi_said_when_the_application_does_not_load(tmp_path, handler):
    chat = shutil.copytree(RUN.parent, tmp_path / "chat")
    (chat / "chat.py").write_text("raise RuntimeError('raised in chat.py')")
    result = run(chat / "run.py", "--handler", handler, "--port", 0)
    assert result.returncode == 1
    assert "RuntimeError: raised in chat.py" in result.stderr
    assert "open http://" not in result.stdout


@pytest.mark.parametrize(
    ("handler", "missing", "hint"),
    [
        ("gevent", "uwasp_gevent", "pip install uwasp-core uwasp-gevent"),
        ("gevent", "gevent", "pip install uwasp-core uwasp-gevent"),
        ("threads", "uwasp_threads", "pip install uwasp-core uwasp-threads"),
        ("threads", "uwasp", "pip install uwasp-core uwasp-threads"),
    ],
)
def test_a_package_that_is_not_installed_is_named(handler, missing, hint):
    result = run("-c", WITHOUT.format(missing=missing), RUN, "--handler", handler, "--port", 0)
    assert result.returncode == 1
    assert result.stderr == f"the module {missing} is not installed; try: {hint}\n"


def test_a_missing_uwsgi_is_named(tmp_path):
    python = tmp_path / "python"  # without uWSGI beside it
    path = os.pathsep.join(sys.path)
    result = run("-c", AS_IF_PYTHON_WERE, python, RUN, "--port", 0, env={"PATH": str(tmp_path), "PYTHONPATH": path})
    assert result.returncode == 1
    assert result.stderr == "uWSGI is not installed; try: pip install pyuwsgi\n"


# Runs a script with a module hidden from importlib's finders.
WITHOUT = """
import importlib.util, runpy, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "{missing}" else find_spec(name, package)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Runs a script with another path for Python's executable.
AS_IF_PYTHON_WERE = """
import runpy, sys
sys.executable, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
