"""Fixtures for tests with real clients: each runs for each handler of ours and for each client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from foreign import CLIENTS, Client
from processes import LOOP_OPTIONS, Uwsgi
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "application.py"
OPTIONS = {"max_message_size": 2**24, "compression": "deflate"}


@pytest.fixture(params=sorted(LOOP_OPTIONS), scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uwsgi]:
    """A uWSGI for all tests with one handler; it allows messages of 16 MiB, and compresses."""
    handler = str(request.param)
    env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps(OPTIONS)}
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler], env=env)
    yield uwsgi
    uwsgi.stop()


@pytest.fixture(scope="session")
def client_called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Client]]:
    """The client of a name, started when it is first asked for."""
    started: dict[str, Client] = {}
    with ExitStack() as at_end:

        def find(name: str) -> Client:
            if name not in started:
                started[name] = CLIENTS[name](tmp_path_factory.mktemp(name))
                at_end.callback(started[name].end)
            return started[name]

        yield find


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, client_called: Callable[[str], Client]) -> Client:
    return client_called(request.param)


@pytest.fixture
def connect(server: Uwsgi, client: Client) -> Iterator[Callable[..., None]]:
    """Connect the client: `connect(path, **keywords of its connect)`. After the test it is disconnected."""
    connected = False

    def make(path: str, **keywords: Any) -> None:
        nonlocal connected
        client.connect(f"{server.url}{path}", **keywords)
        connected = True

    yield make
    if connected:
        client.abandon()
