"""The race: every round measures every server in every shape, in turn, so that what else the machine does meets all of
them alike; and what counts is the median of the ratios within a round.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from programs import LoadFailed
from servers import NotStarted, RunningServer, Server
from shapes import Result, Shape

__all__ = ["Outcome", "progress", "race"]


@dataclass
class Outcome:
    """What was found.

    Args:
        results: of each shape and server; one for each round, `None` where that one failed.
        failures: the last reason why one failed.
    """

    results: dict[Shape, dict[Server, list[Result | None]]] = field(default_factory=dict)
    failures: dict[tuple[Shape, Server], str] = field(default_factory=dict)

    def add(self, shape: Shape, server: Server, result: Result | str) -> None:
        """
        Args:
            result: or the reason why there is none.
        """
        if isinstance(result, str):
            print(f"\n{server.name}, {shape.title}: {result}", file=sys.stderr)
            self.failures[shape, server] = result
        self.results.setdefault(shape, {}).setdefault(server, []).append(result if isinstance(result, Result) else None)


def race(
    outcome: Outcome, shapes: Sequence[Shape], running: dict[Server, RunningServer], rounds: int, duration: float
) -> None:
    servers = list(running)
    for shape in shapes:
        outcome.results[shape] = {server: [] for server in servers if shape.name not in server.lacks}
    for number in range(rounds):
        for shape in shapes:
            # Each goes first in its turn.
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                # A peer that has failed in a shape would only fail again, and take its time over it.
                if shape.name in server.lacks or (server.peer and (shape, server) in outcome.failures):
                    continue
                progress(f"round {number + 1} of {rounds}: {shape.title}, {server.name}")
                outcome.add(shape, server, _measured(shape, running[server], duration))
    progress("")


def _measured(shape: Shape, server: RunningServer, duration: float) -> Result | str:
    try:
        return shape.measure(server, duration)
    except LoadFailed as error:
        try:
            server.restart()
        except NotStarted as again:
            return f"{error}; and then did not start: {again}"
        return str(error)


def progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)
