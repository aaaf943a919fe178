"""How throughput scales: with connections, with the size of messages, and with processes."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from programs import cpu_of_processes, load
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


class Together(NamedTuple):
    """What some load clients found at the same time.

    Args:
        rate: messages a second of all.
        cpu: the processor time of server and clients together for each, in seconds.
    """

    rate: float
    cpu: float


@dataclass(frozen=True)
class Processes:
    """What a second process on a second core gains.

    Args:
        name: of the server.
        one, two: what one process did, and two; one for each round.
        shares: of the processor time of two, what the busier of them has used.
    """

    name: str
    one: list[Together]
    two: list[Together]
    shares: list[float]

    @property
    def gains(self) -> list[float]:
        """Two to one in messages a second; too little where the load clients need the same cores."""
        return [two.rate / one.rate for one, two in zip(self.one, self.two, strict=True)]

    @property
    def gains_by_cpu(self) -> list[float]:
        """Two to one in messages a second, if there is a core for each: from what a message costs."""
        return [PROCESSES * one.cpu / two.cpu for one, two in zip(self.one, self.two, strict=True)]


def race_processes(
    handlers: Sequence[str], speedups: Path | None, folder: Path, rounds: int, duration: float
) -> list[Processes]:
    """One process on one core with its load client on another, as in the race; and two processes on both cores, with
    a load client on each: where there are no more cores, these take their part of what the two processes would have.
    """
    cores = sorted(os.sched_getaffinity(0))[:PROCESSES]
    found = []
    for handler in handlers:
        one = uwasp(handler, speedups=speedups)
        two = uwasp(handler, options=("--processes", str(PROCESSES)), speedups=speedups)
        processes = Processes(one.name, [], [], [])
        with (
            started([one], folder / f"{handler}-1", cores[0]) as alone,
            started([two], folder / f"{handler}-{PROCESSES}", None) as both,
        ):
            for number in range(rounds):
                progress(f"round {number + 1} of {rounds}: {PROCESSES} processes, {handler}")
                processes.one.append(_together(alone[one], cores[-1:], duration))
                before = cpu_of_processes(both[two].session)
                processes.two.append(_together(both[two], cores, duration))
                after = cpu_of_processes(both[two].session)
                used = [seconds - before.get(pid, 0) for pid, seconds in after.items()]
                processes.shares.append(max(used) / sum(used))
        progress("")
        found.append(processes)
    return found


def _together(server: RunningServer, cores: Sequence[int], duration: float) -> Together:
    options = ("--duration", str(duration), *PROCESSES_LOAD)
    with ThreadPoolExecutor() as clients:
        running = [clients.submit(load, server.port, server.session, *options, core=core) for core in cores]
        found = [future.result() for future in running]
    rate = sum(each.rate for each in found)
    # Each has counted the time of the whole server.
    of_server = statistics.fmean(each.cpu * each.rate for each in found)
    return Together(rate, (of_server + sum(each.client_cpu for each in found)) / rate)
