"""Fixtures for the tests of the command: projects as people have them, in folders of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from commands import UWASP, Command
from processes import Process, not_installed

ECHO = """
from uwasp import Server, WebSocketMiddleware


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the first"]


application = WebSocketMiddleware(app, "threads", [("/echo", Echo)])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an echo in `site/echo.py`."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "echo.py").write_text(ECHO)
    return folder


@pytest.fixture
def django_project(project: Path) -> Path:
    """As `django-admin startproject` makes it, beside the echo."""
    if find_spec("django") is None:
        not_installed("django")
    django = [sys.executable, "-m", "django", "startproject", "mysite", str(project)]
    made = Process(django, project / "log")
    assert made.popen.wait(timeout=60) == 0, made.output
    return project


@pytest.fixture
def start_dev(started: Callable[..., Any], project: Path) -> Callable[..., Command]:
    """Start `uwasp dev` in the project, on a free port: `start_dev(*arguments, **keywords of Command)`."""

    def start(*arguments: str, port: int = 0, **keywords: Any) -> Command:
        command = [*UWASP, "dev", *arguments[:1], "--port", str(port), *arguments[1:]]
        process: Command = started(lambda folder: Command(command, folder, cwd=project, **keywords))
        return process

    return start
