"""Fixtures for tests of frameworks on a real uWSGI, which run once for each handler."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "uwsgi"), str(TESTS / "packaging")]  # for `raw` and `documents`


@pytest.fixture(params=["gevent", "threads"], scope="module")
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a handler that runs plain functions, as views are; a test that uses it runs for each."""
    return str(request.param)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Node.js with Socket.IO's client."""
    from socketio_clients import Node

    node = Node(tmp_path_factory.mktemp("node"))
    yield node
    node.end()


@pytest.fixture(params=["python", "javascript"])
def new_client(request: pytest.FixtureRequest) -> Iterator[Callable[[], Any]]:
    """Make a client of Socket.IO's, `new_client()`: a test that uses it runs for each. It is disconnected then."""
    from socketio_clients import JavaScriptClient, PythonClient

    node = request.getfixturevalue("node") if request.param == "javascript" else None
    clients = []

    def make() -> Any:
        clients.append(PythonClient() if node is None else JavaScriptClient(node))
        return clients[-1]

    yield make
    for client in clients:
        client.disconnect()
