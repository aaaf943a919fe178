"""Fixtures for the tests of groups on a real uWSGI with several workers, which run once for each handler."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import LOOP_OPTIONS, Uwsgi

APPLICATION = Path(__file__).parent / "application.py"
WORKERS = 3


@pytest.fixture(params=sorted(LOOP_OPTIONS), scope="module")
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a handler; a test that uses it runs for each."""
    return str(request.param)


@pytest.fixture(scope="module")
def url(handler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A uWSGI with several workers, which the tests of a module share: each has groups of its own."""
    options = ("--processes", str(WORKERS), *LOOP_OPTIONS[handler])
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *options, env={"UWASP_HANDLER": handler})
    yield uwsgi.url
    uwsgi.stop()


@pytest.fixture
def group(request: pytest.FixtureRequest) -> str:
    """A group that no other test has."""
    return f"room:{request.node.name}"


@pytest.fixture
def serve(start_uwsgi: Callable[..., Uwsgi], handler: str) -> Callable[..., Uwsgi]:
    """Start a uWSGI for one test: `serve(*options of uWSGI, middleware={...}, **keywords of Uwsgi)`."""

    def start(
        *options: str,
        workers: int = WORKERS,
        loop: tuple[str, ...] | None = None,
        middleware: Any = None,
        application: Path = APPLICATION,
        **keywords: Any,
    ) -> Uwsgi:
        env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps(middleware or {}), **keywords.pop("env", {})}
        loop = LOOP_OPTIONS[handler] if loop is None else loop
        return start_uwsgi(application, "--processes", str(workers), *loop, *options, env=env, **keywords)

    return start
