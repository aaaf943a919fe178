"""The fixtures of the tests of behaviour.

They want four others: `handler`, its name; `handler_options`, what uWSGI is told for it; `waits`, how servers wait
under it ("threads", "gevent", "asyncio", "never"); and `start_uwsgi`, which starts one. Whoever runs the tests in
another way has others of these names. A module whose servers are not those of `application.py` has an `application` of
its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.processes import Uwsgi

__all__ = ["application", "may_wait", "serve", "server"]


@pytest.fixture(scope="module")
def application() -> Path:
    """What uWSGI loads."""
    return APPLICATIONS / "application.py"


@pytest.fixture(scope="module")
def server(
    application: Path, handler: str, handler_options: Sequence[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Uwsgi]:
    """A uWSGI with one process, which the tests of a module share: they leave it as they found it."""
    folder = tmp_path_factory.mktemp("uwsgi")
    env = {"UWASP_HANDLER": handler}
    uwsgi = Uwsgi(application, folder, *handler_options, env=env, pythonpath=[APPLICATIONS])
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def serve(
    start_uwsgi: Callable[..., Uwsgi], application: Path, handler: str, handler_options: Sequence[str]
) -> Callable[..., Uwsgi]:
    """Start a uWSGI for one test: `serve(*options of uWSGI, middleware={...}, **keywords of Uwsgi)`.

    Without a `loop`, it gets the options that its handler needs.
    """
    usual = application

    def start(
        *options: str,
        loop: Sequence[str] | None = None,
        middleware: Any = None,
        application: Path = usual,
        **keywords: Any,
    ) -> Uwsgi:
        env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps(middleware or {}), **keywords.pop("env", {})}
        loop = handler_options if loop is None else loop
        return start_uwsgi(application, *loop, *options, env=env, **keywords)

    return start


@pytest.fixture
def may_wait(waits: str) -> None:
    """For tests in which a server waits or computes, or its `send` does, while all else goes on."""
    if waits == "never":
        pytest.skip("a server that waits or computes holds up everybody, so `send` does not wait")
