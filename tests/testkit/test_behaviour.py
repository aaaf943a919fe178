"""The tests of behaviour, as somebody runs them against a handler of theirs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import one_thread

RUN = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--pyargs"]
BROKEN = """
from one_thread import OneThreadHandler


class Broken(OneThreadHandler):
    def handle(self, environ, protocol_name=None):
        self.server.on_message = self.ws.send  # which knows no closing
        return super().handle(environ, protocol_name)
"""


@pytest.fixture
def behaviour(tmp_path):
    """Run them elsewhere, with the handler of docs/handlers.md and a broken one installed: `behaviour(*options)`."""
    installed = one_thread.install(tmp_path)
    (installed / "broken.py").write_text(BROKEN)
    points = installed / "one_thread-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "broken = broken:Broken\n")
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])

    def run(*options):
        env = {**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""}
        return subprocess.run([*RUN, *options], cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


def test_a_third_partys_handler_is_put_through_them_by_its_name(behaviour):
    some = "comes_back and 125 or in_this_order or constructor or on_close_does_not_wait or without_a_code"
    run = behaviour("uwasp_pytest.behaviour", "--uwasp-handler", "one-thread", "-k", some, "-rA")
    assert run.returncode == 0, run.stdout
    for test in (
        "test_echo.py::test_a_message_comes_back_as_it_was_sent[one-thread-125-a]",
        "test_lifecycle.py::test_open_messages_close_come_in_this_order[one-thread]",
        "test_close.py::test_on_close_does_not_wait_for_the_client[one-thread]",
    ):
        assert f"PASSED {test}" in run.stdout


def test_what_one_thread_for_everything_cannot_do_is_skipped_where_servers_never_wait(behaviour):
    some = ["uwasp_pytest.behaviour.test_corking", "-k", "no_answer_waits or one_write or close_comes_after", "-rs"]
    run = behaviour(*some, "--uwasp-handler", "one-thread", "--uwasp-waits", "never")
    assert run.returncode == 0, run.stdout
    assert "2 passed, 4 skipped" in run.stdout
    assert "a server that waits or computes holds up everybody" in run.stdout


def test_a_broken_handler_fails_them(behaviour):
    run = behaviour(
        "uwasp_pytest.behaviour.test_lifecycle",
        "--uwasp-handler",
        "broken",
        "--uwasp-options=--enable-threads",
        "-k",
        "come_in_this_order or describes",
    )
    assert run.returncode == 1, run.stdout
    assert "2 failed" in run.stdout
    assert "log of the uWSGI" in run.stdout


def test_a_handler_is_named(behaviour):
    run = behaviour("uwasp_pytest.behaviour.test_echo")
    assert "--uwasp-handler NAME says under which handler the tests of behaviour are to run" in run.stdout + run.stderr
    assert run.returncode != 0


def test_all_handlers_of_ours_are_put_through_all_of_them():
    from pathlib import Path

    import uwasp_pytest.behaviour

    shipped = {path.name for path in Path(uwasp_pytest.behaviour.__path__[0]).glob("test_*.py")}
    ours = Path(__file__).parents[1] / "uwsgi"
    assert {name for name in shipped if f"behaviour.{name[:-3]} import *" in (ours / name).read_text()} == shipped
