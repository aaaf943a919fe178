"""Fixtures for the tests of what carries a bus: each runs once for each kind of bus that is installed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from processes_on_bus import Kind, Peers
from redis_servers import RedisServer


@contextmanager
def local(folder: Path) -> Iterator[Kind]:
    yield Kind("local", f"local:{folder}/bus", gone_within=2.0, env={})


@contextmanager
def redis_bus(folder: Path) -> Iterator[Kind]:
    server = RedisServer(folder)
    try:
        yield Kind("redis", server.url, gone_within=15.0, env={})
    finally:
        server.stop()


# Another kind of bus adds itself here: a context manager that is given a folder, and skips where it is not installed.
KINDS: dict[str, Callable[[Path], AbstractContextManager[Kind]]] = {"local": local, "redis": redis_bus}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kind]:
    """The kind of bus; a test that uses it runs for each."""
    with KINDS[request.param](tmp_path_factory.mktemp("bus")) as kind:
        yield kind


@pytest.fixture
def peers(kind: Kind, tmp_path: Path) -> Iterator[Peers]:
    """Starts processes on the bus: `a, b = peers.open(2)`."""
    peers = Peers(kind, tmp_path)
    yield peers
    peers.end()


@pytest.fixture
def peers_on(tmp_path: Path) -> Iterator[Callable[[str], Peers]]:
    """Start processes on a bus of any URL: `a, b = peers_on(url).open(2)`."""
    made: list[Peers] = []

    def on(url: str) -> Peers:
        folder = tmp_path / f"peers-{len(made)}"
        folder.mkdir()
        made.append(Peers(Kind("any", url, gone_within=15.0, env={}), folder))
        return made[-1]

    yield on
    for peers in made:
        peers.end()
