"""A storm: all clients of a server come back at the same moment, since it has been renewed.

uWSGI is reloaded, with a goodbye to each client; others are killed and started again on their port, which is the
quickest that can be done. What counts is the time from that until each client has had an echo on a new connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import LoadFailed, Storm, session
from race import progress
from servers import NotStarted, RunningServer, Server, started, uwasp
from shapes import STORM, STORM_CLIENTS, Result, Shape

__all__ = ["Spread", "measure_spread", "measure_storm"]

PROCESSES = 2
SPREAD_OPTIONS: tuple[tuple[str, ...], ...] = ((), ("--thunder-lock",))


def measure_storm(
    servers: Sequence[Server],
    folder: Path,
    core: int | None,
    rounds: int,
    found: Callable[[Shape, Server, Result | str], None],
) -> None:
    """
    Args:
        folder: for logs.
        core: the servers'.
        found: called with each result, or with the reason why there is none.
    """
    failed = set()
    for number in range(rounds):
        for server in servers:
            if STORM.name in server.lacks or server in failed:
                continue
            progress(f"round {number + 1} of {rounds}: {STORM.title}, {server.name}")
            try:
                with started([server], folder / f"storm-{number}-{servers.index(server)}", core) as running:
                    found(STORM, server, _weathered(running[server])[0])
            except (LoadFailed, NotStarted) as error:
                found(STORM, server, str(error))
                failed.add(server)
    progress("")


@dataclass(frozen=True)
class Spread:
    """How the clients of a storm were spread over two workers; one figure for each round.

    Args:
        name: of the server, and the options of uWSGI that it had.
        shares: of the clients, those of the busier worker.
        seconds: until each client had an echo again.
    """

    name: str
    shares: list[float]
    seconds: list[float]


def measure_spread(handlers: Sequence[str], speedups: Path | None, folder: Path, rounds: int) -> list[Spread]:
    """See `Spread`."""
    found = []
    for handler in handlers:
        for options in SPREAD_OPTIONS:
            server = uwasp(handler, options=("--processes", str(PROCESSES), *options), speedups=speedups)
            spread = Spread(" ".join([server.name, *(f"`{option}`" for option in options)]), [], [])
            for number in range(rounds):
                progress(f"round {number + 1} of {rounds}: a storm on {PROCESSES} processes, {spread.name}")
                with started([server], folder / f"spread-{len(found)}-{number}", None) as running:
                    result, share = _weathered(running[server])
                spread.shares.append(share)
                spread.seconds.append(result.value)
            found.append(spread)
    progress("")
    return found


def _weathered(running: RunningServer) -> tuple[Result, float]:
    """What it took, and the share of the clients that the process with most of them has."""
    storm = Storm(running.port, *running.server.echo, "--connections", str(STORM_CLIENTS))
    begun = time.monotonic()
    try:
        running.renew()
        ended, attempts, latency = storm.wait()
        connections = sorted(len(os.listdir(f"/proc/{pid}/fd")) for pid in session(running.session))
    finally:
        storm.close()
    details = (("connections tried", float(attempts)), ("median, s", latency["p50"] / 1e6))
    return Result(ended - begun, details=details), connections[-1] / STORM_CLIENTS
