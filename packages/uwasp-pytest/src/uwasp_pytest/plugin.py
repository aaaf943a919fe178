"""The plug-in: the fixture `uwasp_server`, and the logs of servers in the report of a test that fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from uwasp_pytest import processes, server
from uwasp_pytest.processes import Process, Uwsgi

__all__ = ["uwasp_server"]

pytest.register_assert_rewrite("uwasp_pytest.behaviour")

MOST_SHOWN = 100_000  # characters of a log, the last ones

_said = pytest.StashKey[dict[Process, int]]()  # how much each had said when the test began, in characters


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("uwasp", "uWASP: the tests of behaviour, pytest --pyargs uwasp_pytest.behaviour")
    group.addoption("--uwasp-handler", action="append", metavar="NAME", help="run them under this handler; repeatable")
    group.addoption(
        "--uwasp-options",
        default="--threads 2",
        metavar="OPTIONS",
        help="what uWSGI is told for it (default: %(default)s)",
    )
    group.addoption(
        "--uwasp-waits",
        default="threads",
        choices=["threads", "gevent", "asyncio", "never"],
        help="how servers wait under it; never, if that holds up all others (default: %(default)s)",
    )


@pytest.fixture
def uwasp_server(tmp_path: Path) -> Iterator[Callable[..., Uwsgi]]:
    """Start a real uWSGI for one test: `uwasp_server("app:application", processes=2)`.

    It takes what `uwasp_pytest.serve` takes, but the folder. It is stopped after the test, and one that does not stop
    fails the test.
    """
    started: list[Uwsgi] = []

    def start(application: str | Path, *arguments: str, **options: Any) -> Uwsgi:
        folder = tmp_path / f"uwsgi-{len(started)}"
        folder.mkdir()
        started.append(server.start(application, folder, *arguments, **options))
        return started[-1]

    yield start
    failures = []
    for uwsgi in reversed(started):
        try:
            uwsgi.stop()
        except AssertionError as error:  # the others are to be stopped as well
            failures.append(error)
    if failures:
        raise failures[0]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_said] = {process: len(process.output) for process in processes.running()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what the servers have said meanwhile that it, or a fixture around it, has started."""
    report = yield
    if report.failed:
        said = item.stash.get(_said, {})
        for process in processes.running():
            output = process.output[said.get(process, 0) :]
            report.sections.append((f"log of {process}", output[-MOST_SHOWN:]))
    return report
