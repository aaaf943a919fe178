"""The chat's launchers: what they say, and that they end cleanly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request

from commands import is_alive
from demo import EXAMPLES
from processes import wait_until

REPOSITORY = EXAMPLES.parent
INSTANCES = EXAMPLES / "chat" / "instances.py"


def run(*arguments, **keywords):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **keywords)


def test_the_demo_is_the_chat_under_the_command(start_demo):
    (demo,) = re.findall(r'^demo = "exec (.*) {args}"$', (REPOSITORY / "hatch.toml").read_text(), re.MULTILINE)
    assert demo == "uwasp dev examples/chat/chat.py --processes 2"
    demo = start_demo()
    with urllib.request.urlopen(demo.url, timeout=20) as response:
        assert b"<title>uWASP chat</title>" in response.read()
    wait_until(lambda: len(demo.processes()) == 3, "both workers")
    assert demo.output.startswith(f"open http://127.0.0.1:{demo.port}/  (Ctrl-C stops it)\n")


def test_two_instances_say_where_the_page_is_and_end_quietly_with_all_that_they_started(start_instances):
    demo = start_instances("--processes", "1")
    with urllib.request.urlopen(f"{demo.url}rooms/blue", timeout=20) as response:
        assert b"<title>uWASP chat</title>" in response.read()
    said = demo.output
    assert said == f"open http://127.0.0.1:{demo.port}/  (Ctrl-C stops it)\n"
    started = demo.processes()
    assert len(started) >= 8  # for each instance its `uwasp dev`, uWSGI's master and worker; nginx and its worker
    assert demo.stop(signal.SIGINT) == 0
    assert demo.left == []
    assert demo.output == said


def test_ctrl_c_stops_two_instances_before_they_are_ready(start_instances):
    demo = start_instances(wait=False)
    wait_until(lambda: len(demo.processes()) >= 2, "both instances")
    assert demo.stop(signal.SIGINT) == 0
    assert "Traceback" not in demo.output
    assert demo.left == []


def test_when_one_of_two_instances_ends_all_do(start_instances):
    demo = start_instances()
    started = demo.processes()
    os.kill(started[0], signal.SIGTERM)
    assert demo.popen.wait(timeout=20) == 1
    assert demo.output.endswith("instance A ended by itself\n")
    assert not any(map(is_alive, started))


def test_instances_that_do_not_load_end_all_and_show_why(redis, handler):
    result = run(INSTANCES, "--handler", handler, "--port", 0, "--redis", "redis:/nowhere/at/all")
    assert result.returncode == 1
    assert "uwasp: the URL of a bus on redis: has a host" in result.stderr
    assert "open http://" not in result.stdout


def test_a_missing_nginx_is_named(handler):
    result = run("-c", WITHOUT_NGINX, INSTANCES, "--handler", handler, "--port", 0)
    assert result.returncode == 1
    assert result.stderr == "nginx is not installed; in Debian, the package nginx-light has it\n"


# Runs a script as where nginx is not to be found.
WITHOUT_NGINX = """
import runpy, shutil, sys
from pathlib import Path
shutil.which = lambda *arguments, **keywords: None
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
