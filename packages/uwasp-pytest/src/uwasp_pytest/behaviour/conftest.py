"""How the tests of behaviour run where the command line names the handler."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.fixtures import application, may_wait, serve, server
from uwasp_pytest.processes import Uwsgi

__all__ = ["application", "handler", "handler_options", "may_wait", "serve", "server", "start_uwsgi", "waits"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = metafunc.config.getoption("uwasp_handler")
    if not names:
        raise pytest.UsageError("--uwasp-handler NAME says under which handler the tests of behaviour are to run")
    if "handler" in metafunc.fixturenames:
        metafunc.parametrize("handler", names, indirect=True, scope="module")


@pytest.fixture(scope="module")
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a handler that is installed; a test that uses it runs for each that was named."""
    return str(request.param)


@pytest.fixture(scope="module")
def handler_options(request: pytest.FixtureRequest) -> Sequence[str]:
    """What uWSGI is told so that the handler can run."""
    return shlex.split(request.config.getoption("uwasp_options"))


@pytest.fixture(scope="session", autouse=True)
def waits(request: pytest.FixtureRequest) -> Iterator[str]:
    """How servers wait under it: in the way that was named, which those of the applications are told."""
    named = str(request.config.getoption("uwasp_waits"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(os.environ, "UWASP_WAITS", named)
        yield named


@pytest.fixture
def start_uwsgi(tmp_path: Path) -> Iterator[Callable[..., Uwsgi]]:
    """Start a uWSGI: `start_uwsgi(application, *options, **keywords of Uwsgi)`."""
    started: list[Uwsgi] = []

    def start(application: Path, *options: str, **keywords: Any) -> Uwsgi:
        folder = tmp_path / f"uwsgi-{len(started)}"
        folder.mkdir()
        started.append(Uwsgi(application, folder, *options, pythonpath=[APPLICATIONS], **keywords))
        return started[-1]

    yield start
    for uwsgi in reversed(started):
        uwsgi.stop()
