"""Fixtures for tests of behaviour on a real uWSGI, which run once for each handler."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

import one_thread
from one_thread import LOOP_OPTIONS
from uwasp_pytest.behaviour.fixtures import application, may_wait, serve, server

__all__ = ["application", "handler", "handler_options", "installed_example", "may_wait", "serve", "server", "waits"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The handler of docs/handlers.md is put through what is about behaviour, and nothing else."""
    left_out = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or callspec.params.get("handler") != "one-thread":
            continue
        if item.path.stem not in one_thread.BEHAVIOUR:
            left_out.append(item)
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
def handler_options(handler: str) -> Sequence[str]:
    """What uWSGI is told so that the handler can run."""
    return LOOP_OPTIONS[handler]


@pytest.fixture(scope="module")
def waits(handler: str) -> str:
    """How servers wait under the handler."""
    return "never" if handler == "one-thread" else handler
