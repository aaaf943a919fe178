"""Fixtures for tests of behaviour on a real uWSGI, which run once for each handler."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import one_thread
from one_thread import LOOP_OPTIONS
from processes import Uwsgi

APPLICATION = Path(__file__).parent / "application.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The handler of docs/handlers.md is put through what is about behaviour, as far as one thread can do it."""
    left_out = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or callspec.params.get("handler") != "one-thread":
            continue
        if item.path.stem not in one_thread.BEHAVIOUR:
            left_out.append(item)
        reason = one_thread.not_for_it(item.originalname, callspec.id)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session", autouse=True)
def installed_example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The handler of docs/handlers.md, where each uWSGI finds it by its entry point."""
    folder = one_thread.install(tmp_path_factory.mktemp("one-thread"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


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
