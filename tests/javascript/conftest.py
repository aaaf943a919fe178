"""Fixtures for the tests of uwasp.js, which run in a browser and in Node.js, against a real uWSGI."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "packaging"))  # for `documents`

from processes import LOOP_OPTIONS, Uwsgi
from runtimes import Chromium, Node, node_with_websocket

APPLICATION = Path(__file__).parent / "application.py"


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Node.js that has a WebSocket."""
    return node_with_websocket(tmp_path_factory.mktemp("node"))


@pytest.fixture(params=["chromium", "node"], scope="module")
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium | Node]:
    folder = tmp_path_factory.mktemp(request.param)
    runtime = Chromium(folder) if request.param == "chromium" else Node(folder, request.getfixturevalue("node"))
    yield runtime
    runtime.end()


@pytest.fixture(scope="module")
def uwsgi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uwsgi]:
    """One for all tests of a module, on threads."""
    env = {"UWASP_HANDLER": "threads"}
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS["threads"], env=env)
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def runtime(process: Chromium | Node, uwsgi: Uwsgi) -> Chromium | Node:
    """Where uwasp.js is loaded, afresh, from the host of `uwsgi`."""
    process.open(uwsgi.address)
    return process


@pytest.fixture(params=["gevent", "threads"])
def serve(request: pytest.FixtureRequest, start_uwsgi: Callable[..., Uwsgi]) -> Callable[..., Uwsgi]:
    """Start a uWSGI for one test, with each handler: `serve(*options of uWSGI)`."""
    env = {"UWASP_HANDLER": request.param}
    return lambda *options: start_uwsgi(APPLICATION, *LOOP_OPTIONS[request.param], *options, env=env)
