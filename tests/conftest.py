"""Fixtures that start real servers for one test and end them after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `processes`

from processes import Nginx, Process, Uwsgi


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[Callable[[Path], Process]], Any]]:
    """Start a process in a folder of its own; it is stopped after the test."""
    processes: list[Process] = []

    def start(make: Callable[[Path], Process]) -> Process:
        folder = tmp_path / f"process-{len(processes)}"
        folder.mkdir()
        process = make(folder)
        processes.append(process)
        return process

    yield start
    for process in reversed(processes):
        process.stop()


@pytest.fixture
def start_uwsgi(started: Callable[..., Any]) -> Callable[..., Uwsgi]:
    """Start a uWSGI: `start_uwsgi(application, *options, **keywords of Uwsgi)`."""

    def start(application: Path, *options: str, **keywords: Any) -> Uwsgi:
        process: Uwsgi = started(lambda folder: Uwsgi(application, folder, *options, **keywords))
        return process

    return start


@pytest.fixture
def start_nginx(started: Callable[..., Any]) -> Callable[[str], Nginx]:
    """Start an nginx: `start_nginx(directives of its location /)`."""

    def start(location: str) -> Nginx:
        process: Nginx = started(lambda folder: Nginx(folder, location))
        return process

    return start
