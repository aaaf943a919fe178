"""How throughput scales: with connections, with the size of messages, and with processes."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from programs import load
from race import Outcome, progress, race
from servers import RunningServer, Server, started, uwasp
from shapes import KIB, Result, Shape, echo

__all__ = [
    "BY_CONNECTIONS",
    "BY_SIZE",
    "LARGEST_MESSAGE",
    "Processes",
    "Series",
    "growth",
    "race_processes",
    "race_series",
]

MIB = KIB * KIB
LARGEST_MESSAGE = 16 * MIB
SIZE_CONNECTIONS = 4
PROCESSES = 2
PROCESSES_LOAD = ("--connections", "25", "--in-flight", "16")  # costs the load client little for each message


@dataclass(frozen=True)
class Series:
    """Shapes that differ in one number.

    Args:
        title: for the tables.
        points: the shapes by that number.
        least_duration: seconds that a measurement takes at least.
        one_message_each: the number is how many messages there are, not what one is like.
    """

    title: str
    points: Mapping[int, Shape]
    least_duration: float = 0
    one_message_each: bool = False


BY_CONNECTIONS = Series(
    "by connections, 32 B",
    {
        count: echo(f"connections-{count}", f"{count:,}", count, warm_up=1 if count > 1000 else 0.2)
        for count in (1, 10, 100, 1000, 10_000)
    },
    one_message_each=True,
)
BY_SIZE = Series(
    f"by the size of messages, on {SIZE_CONNECTIONS} connections",
    {
        size: echo(f"size-{size}", title, SIZE_CONNECTIONS, size)
        for size, title in (
            (16, "16 B"),
            (256, "256 B"),
            (4 * KIB, "4 KiB"),
            (64 * KIB, "64 KiB"),
            (MIB, "1 MiB"),
            (LARGEST_MESSAGE, "16 MiB"),
        )
    },
    least_duration=1,
)


def race_series(series: Series, servers: Sequence[Server], folder: Path, core: int | None, duration: float) -> Outcome:
    """One round."""
    outcome = Outcome()
    with started(servers, folder, core, lambda server, error: None) as running:
        race(outcome, list(series.points.values()), running, 1, max(duration, series.least_duration))
    return outcome


def growth(series: Series, results: Mapping[Shape, Mapping[Server, Sequence[Result | None]]]) -> dict[str, float]:
    """How the server's processor time grows along a series: by the name of the server the largest exponent between two
    neighbours. 1 is linear, 2 quadratic.
    """
    costs: dict[str, list[tuple[int, float]]] = {}
    for point, shape in series.points.items():
        messages = point if series.one_message_each else 1
        for server, found in results.get(shape, {}).items():
            cpu = [result.cpu for result in found if result and result.cpu]
            if cpu:
                costs.setdefault(server.name, []).append((point, messages * statistics.median(cpu)))
    return {
        name: max(
            math.log(cost / cost_before) / math.log(point / before)
            for (before, cost_before), (point, cost) in pairwise(found)
        )
        for name, found in costs.items()
        if len(found) > 1
    }


@dataclass(frozen=True)
class Processes:
    """What a second process on a second core gains; messages a second, one for each round.

    Args:
        name: of the server.
        one: of one process and its load client, together on one core.
        two: of two such pairs, each on a core of its own.
        workers: of two workers of one uWSGI, with the connections of both clients spread over both.
    """

    name: str
    one: list[float]
    two: list[float]
    workers: list[float]

    @property
    def gains(self) -> list[float]:
        return [two / one for one, two in zip(self.one, self.two, strict=True)]

    @property
    def gains_of_workers(self) -> list[float]:
        return [workers / one for one, workers in zip(self.one, self.workers, strict=True)]


def race_processes(
    handlers: Sequence[str], speedups: Path | None, folder: Path, rounds: int, duration: float
) -> list[Processes]:
    """See `Processes`."""
    cores = sorted(os.sched_getaffinity(0))[:PROCESSES]
    found = []
    for handler in handlers:
        ours = uwasp(handler, speedups=speedups)
        several = uwasp(handler, options=("--processes", str(PROCESSES), "--cpu-affinity", "1"), speedups=speedups)
        processes = Processes(ours.name, [], [], [])
        with ExitStack() as stack:
            pairs = []
            for core in cores:
                running = stack.enter_context(started([ours], folder / f"{handler}-on-{core}", core))
                pairs.append((running[ours], core))
            workers = stack.enter_context(started([several], folder / f"{handler}-workers", None))[several]
            for number in range(rounds):
                progress(f"round {number + 1} of {rounds}: {PROCESSES} processes, {handler}")
                processes.one.append(_together(pairs[:1], duration))
                processes.two.append(_together(pairs, duration))
                processes.workers.append(_together([(workers, core) for core in cores], duration))
        progress("")
        found.append(processes)
    return found


def _together(pairs: Sequence[tuple[RunningServer, int]], duration: float) -> float:
    """The messages a second of load clients that run at the same time, each against a server and on a core."""
    options = ("--duration", str(duration), *PROCESSES_LOAD)
    with ThreadPoolExecutor() as clients:
        running = [clients.submit(load, each.port, each.session, *options, core=core) for each, core in pairs]
        return sum(future.result().rate for future in running)
