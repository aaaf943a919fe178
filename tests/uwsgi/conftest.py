"""Fixtures for tests of behaviour on a real uWSGI, which run once for each handler."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from processes import LOOP_OPTIONS, Uwsgi

APPLICATION = Path(__file__).parent / "application.py"


@pytest.fixture(params=sorted(LOOP_OPTIONS), scope="module")
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a handler; a test that uses it runs for each."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(handler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uwsgi]:
    """A uWSGI with one process, which the tests of a module share: they leave it as they found it."""
    env = {"UWASP_HANDLER": handler}
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler], env=env)
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def serve(start_uwsgi: Callable[..., Uwsgi], handler: str) -> Callable[..., Uwsgi]:
    """Start a uWSGI for one test: `serve(*options of uWSGI, middleware={...}, **keywords of Uwsgi)`.

    Without a `loop`, it gets the options that its handler needs.
    """

    def start(
        *options: str,
        loop: tuple[str, ...] | None = None,
        middleware: Any = None,
        application: Path = APPLICATION,
        **keywords: Any,
    ) -> Uwsgi:
        env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps(middleware or {}), **keywords.pop("env", {})}
        loop = LOOP_OPTIONS[handler] if loop is None else loop
        return start_uwsgi(application, *loop, *options, env=env, **keywords)

    return start
