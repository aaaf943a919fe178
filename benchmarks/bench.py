"""The benchmarks: `python benchmarks/bench.py`, or `hatch run bench`.

Servers run on one core, the load client on another. Every round measures every server in every shape, in turn, so
that what else the machine does meets all of them alike; and what counts is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from programs import BuildFailed, LoadFailed, NoCompiler, compiled, raise_descriptor_limit
from servers import RunningServer, Server, floor, revision, started, uwasp
from shapes import DEFAULT_SHAPES, SHAPES, Result, Shape

HANDLERS = ("gevent", "threads")
SERVER_CORE = 0

Results = dict[Shape, dict[Server, list[Result | None]]]  # one for each round; None: that one failed


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        compiled("load")
        compiled("floor")
    except (NoCompiler, BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    raise_descriptor_limit()
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        print("there is one core only: server and client share it, and the figures say little", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="uwasp-bench-") as name:
        folder = Path(name)
        servers = [floor(), *(uwasp(handler) for handler in options.handlers)]
        pairs = []
        if options.against is not None:
            packages = revision(options.against, folder / "revision")
            for now in servers[1:]:
                handler = now.name.split()[-1]
                before = uwasp(handler, f"{now.name} {options.against}", packages)
                servers.append(before)
                pairs.append((now, before))
        with started(servers, folder, SERVER_CORE if cores > 1 else None) as running:
            results = _race(options.shapes, running, options.rounds, options.duration)
    for shape in options.shapes:
        print(f"\n{table(shape, results[shape], servers[0])}")
    if pairs:
        print(f"\n{comparison(results, pairs, options.against)}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    by_name = {shape.name: shape for shape in SHAPES}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument("--duration", type=float, default=1.0, help="of one measurement, in seconds (default: 1)")
    parser.add_argument("--against", metavar="GIT_REV", help="race uWASP of this revision too, and print before/after")
    parser.add_argument(
        "--handlers", type=lambda value: value.split(","), default=list(HANDLERS), metavar="gevent,threads"
    )
    parser.add_argument(
        "--shapes",
        type=lambda value: [by_name[name] for name in value.split(",")],
        default=list(DEFAULT_SHAPES),
        metavar=",".join(by_name),
        help="default: " + ",".join(shape.name for shape in DEFAULT_SHAPES),
    )
    return parser.parse_args(arguments)


def _race(shapes: Sequence[Shape], running: dict[Server, RunningServer], rounds: int, duration: float) -> Results:
    results: Results = {shape: defaultdict(list) for shape in shapes}
    servers = list(running)
    for number in range(rounds):
        for shape in shapes:
            # Each goes first in its turn.
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                _progress(f"round {number + 1} of {rounds}: {shape.title}, {server.name}")
                try:
                    results[shape][server].append(shape.measure(running[server], duration))
                except LoadFailed as error:
                    print(f"\n{server.name}, {shape.title}: {error}", file=sys.stderr)
                    results[shape][server].append(None)
    _progress("")
    return results


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


def ratios(numerators: Sequence[Result | None], denominators: Sequence[Result | None]) -> list[float]:
    """Of the values of each round in which there are both."""
    return [a.value / b.value for a, b in zip(numerators, denominators, strict=True) if a and b and b.value]


def cpu_ratios(numerators: Sequence[Result | None], denominators: Sequence[Result | None]) -> list[float]:
    """The same of what one second of processor time is good for."""
    return [b.cpu / a.cpu for a, b in zip(numerators, denominators, strict=True) if a and b and a.cpu and b.cpu]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and between which values the middle half lies; empty for no values."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(shape: Shape, results: dict[Server, list[Result | None]], base: Server) -> str:
    lines = [
        f"{shape.title}",
        f"| server | {shape.unit} | to the floor | server CPU, µs a message | to the floor by CPU | client CPU |",
        "|---|---|---|---|---|---|",
    ]
    for server, found in results.items():
        values = [result.value for result in found if result]
        cpu = [result.cpu for result in found if result and result.cpu]
        client = [result.client_cpu for result in found if result and result.client_cpu]
        cells = [
            spread(values, 0 if shape.more_is_better else 2) or "failed",
            spread(ratios(found, results[base])),
            spread(cpu),
            spread(cpu_ratios(found, results[base])),
            spread(client),
        ]
        lines.append(f"| {server.name} | {' | '.join(cells)} |")
    names = [name for result in results[base] if result for name, _ in result.details]
    if names:
        lines += ["", f"| latency, µs | {' | '.join(dict.fromkeys(names))} |", "|---|" + "---|" * len(set(names))]
        for server, found in results.items():
            cells = [
                spread([dict(result.details)[name] for result in found if result], 0) for name in dict.fromkeys(names)
            ]
            lines.append(f"| {server.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def comparison(results: Results, pairs: Sequence[tuple[Server, Server]], rev: str) -> str:
    """Now and before: above 1 is faster now."""
    lines = [
        f"now to {rev} (above 1 is faster now)",
        "| shape | server | messages/s | messages per second of server CPU |",
        "|---|---|---|---|",
    ]
    for shape, by_server in results.items():
        for now, before in pairs:
            a, b = by_server[now], by_server[before]
            lines.append(f"| {shape.title} | {now.name} | {spread(ratios(a, b), 3)} | {spread(cpu_ratios(a, b), 3)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
