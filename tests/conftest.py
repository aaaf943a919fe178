"""Fixtures that start real servers for one test and end them after it; and whether it is the C that is tested."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `processes`

from processes import Nginx, Process, Uwsgi, wait_until
from redis_servers import RedisSentinel, RedisServer
from uwasp import speedups


def pytest_configure() -> None:
    if os.environ.get("UWASP_SPEEDUPS") == "1" and not speedups.in_use:
        raise pytest.UsageError("UWASP_SPEEDUPS=1 asks for tests of the C, and uwasp-speedups is not in use")


def pytest_report_header() -> str:
    return f"uwasp: {'with the C of uwasp-speedups' if speedups.in_use else 'in Python, without uwasp-speedups'}"


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
    failures = []
    for process in reversed(processes):
        try:
            process.stop()
        except AssertionError as error:  # the others are to be stopped as well
            failures.append(error)
    if failures:
        raise failures[0]


@pytest.fixture
def start_uwsgi(started: Callable[..., Any]) -> Callable[..., Uwsgi]:
    """Start a uWSGI: `start_uwsgi(application, *options, **keywords of Uwsgi)`."""

    def start(application: Path, *options: str, **keywords: Any) -> Uwsgi:
        process: Uwsgi = started(lambda folder: Uwsgi(application, folder, *options, **keywords))
        return process

    return start


@pytest.fixture
def start_nginx(started: Callable[..., Any]) -> Callable[..., Nginx]:
    """Start an nginx: `start_nginx(directives of its location /, further ones of its http)`."""

    def start(location: str, http: str = "") -> Nginx:
        process: Nginx = started(lambda folder: Nginx(folder, location, http))
        return process

    return start


@pytest.fixture
def new_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Make a Redis: `new_redis(*options of its configuration)`."""
    servers: list[RedisServer] = []

    def new(*options: str, is_started: bool = True) -> RedisServer:
        folder = tmp_path / f"redis-{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options, is_started=is_started))
        return servers[-1]

    yield new
    for server in servers:
        server.stop()


@pytest.fixture
def redis(new_redis: Callable[..., RedisServer]) -> RedisServer:
    return new_redis()


@pytest.fixture
def watched(
    new_redis: Callable[..., RedisServer], tmp_path: Path
) -> Iterator[tuple[RedisServer, RedisServer, RedisSentinel]]:
    """A master, its replica, and a sentinel that watches them."""
    master = new_redis()
    replica = new_redis(f"replicaof 127.0.0.1 {master.port}", "repl-diskless-sync-delay 0")
    wait_until(lambda: "master_link_status:up" in replica.command("INFO", "replication"), "the replica to follow")
    folder = tmp_path / "sentinel"
    folder.mkdir()
    sentinel = RedisSentinel(folder, master)
    try:
        sentinel.wait_for_replica()
        yield master, replica, sentinel
    finally:
        sentinel.stop()
