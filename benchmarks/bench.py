"""The benchmarks: `python benchmarks/bench.py`, or `hatch run bench`.

Servers run on one core, the load client on another. uWASP is raced beside a floor in C, and beside its peers, which are
installed when they are first raced.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from document import Report, write
from idle import measure_idle
from installation import NotInstalled, speedups
from peers import PEERS, Peer, installed
from programs import BuildFailed, NoCompiler, compiled, raise_descriptor_limit
from race import Outcome, progress, race
from report import comparison, configurations, shape_table, targets
from scaling import BY_CONNECTIONS, BY_SIZE, LARGEST_MESSAGE, race_processes, race_series
from servers import ROOT, NotStarted, Server, floor, revision, started, uwasp
from shapes import DEFAULT_SHAPES, IDLE_CPU, IDLE_MEMORY, SHAPES, STORM
from storm import measure_spread, measure_storm

HANDLERS = ("gevent", "threads", "asyncio")
SERVER_CORE = 0


def main(arguments: Sequence[str] | None = None) -> int:
    begun = time.monotonic()
    options = _parse(arguments)
    try:
        compiled("load")
        compiled("floor")
    except (NoCompiler, BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    raise_descriptor_limit()
    core: int | None = SERVER_CORE
    if len(os.sched_getaffinity(0)) < 2:
        print("there is one core only: server and client share it, and the figures say little", file=sys.stderr)
        core = None
    with tempfile.TemporaryDirectory(prefix="uwasp-bench-") as name:
        folder = Path(name)
        left_out: dict[str, str] = {}
        compiled_here = speedups_of(ROOT / "packages", left_out)
        ours = [uwasp(handler, speedups=compiled_here) for handler in options.handlers]
        in_python = [] if compiled_here is None else [uwasp(name, f"uWASP {name}, no C") for name in options.handlers]
        pairs = []
        if options.against is not None:
            packages = revision(options.against, folder / "revision")
            for now, handler in zip(ours, options.handlers, strict=True):
                before = speedups_of(packages, left_out)
                pairs.append((now, uwasp(handler, f"{now.name} {options.against}", packages, speedups=before)))
        others = [before for _, before in pairs] or in_python
        servers = [floor(), *ours, *others, *_installed(options.peers, left_out)]
        outcome = _raced(options, servers, left_out, folder, core)
        print(f"\n{configurations([server for server in servers if server.name not in left_out], left_out)}")
        for shape, results in outcome.results.items():
            print(f"\n{shape.title}\n{shape_table(shape, results, ours)}")
        if pairs:
            print(f"\n{comparison(outcome.results, pairs, options.against)}")
        elif met := targets(outcome.results):
            print(f"\n{met}")
        if options.report:
            peers = [peer for peer in options.peers if peer.name not in left_out]
            large = {"UWASP_MAX_MESSAGE_SIZE": str(LARGEST_MESSAGE)}
            larger = [floor(), *(uwasp(name, speedups=compiled_here, **large) for name in options.handlers)]
            larger += [installed(peer, LARGEST_MESSAGE) for peer in peers]
            report = Report(
                [server for server in servers if server.name not in left_out],
                ours,
                left_out,
                outcome,
                race_series(BY_CONNECTIONS, servers, folder / "connections", core, options.duration),
                race_series(BY_SIZE, larger, folder / "sizes", core, options.duration),
                race_processes(options.handlers, compiled_here, folder / "processes", options.rounds, options.duration),
                measure_spread(options.handlers, compiled_here, folder / "spread", options.rounds),
                f"{options.rounds} rounds, {options.duration:g} s for each measurement; "
                f"{(time.monotonic() - begun) / 60:.0f} minutes in all",
            )
            for title in ("connections", "sizes", "processes", "spread"):
                print(f"\n{title}\n{report.tables[title]}")
            write(report)
    return 0


def _raced(
    options: argparse.Namespace, servers: Sequence[Server], left_out: dict[str, str], folder: Path, core: int | None
) -> Outcome:
    outcome = Outcome()
    shapes = [shape for shape in options.shapes if shape not in (IDLE_MEMORY, IDLE_CPU, STORM)]
    if shapes:

        def failed(server: Server, error: NotStarted) -> None:
            print(error, file=sys.stderr)
            left_out[server.name] = "it did not start"

        with started(servers, folder, core, failed) as running:
            race(outcome, shapes, running, options.rounds, options.duration)
    present = [server for server in servers if server.name not in left_out]
    if IDLE_MEMORY in options.shapes or IDLE_CPU in options.shapes:
        seconds = options.idle_seconds if IDLE_CPU in options.shapes else 0
        measure_idle(present, folder, core, seconds, outcome.add)
    if STORM in options.shapes:
        measure_storm(present, folder, core, options.rounds, outcome.add)
    return outcome


def speedups_of(packages: Path, left_out: dict[str, str]) -> Path | None:
    """uwasp-speedups as it is in that folder, if it can be compiled here."""
    progress("compiling uwasp-speedups")
    try:
        return speedups(packages)
    except NotInstalled as error:
        left_out["uwasp-speedups"] = str(error)
        return None


def _installed(peers: Sequence[Peer], left_out: dict[str, str]) -> list[Server]:
    servers = []
    for peer in peers:
        progress(f"installing {peer.name}")
        try:
            servers.append(installed(peer))
        except NotInstalled as error:
            left_out[peer.name] = str(error)
    progress("")
    return servers


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    by_name = {shape.name: shape for shape in SHAPES}
    peers = {peer.name: peer for peer in PEERS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--duration", type=float, default=0.5, help="of one measurement, in seconds (default: 0.5)")
    parser.add_argument(
        "--idle-seconds", type=float, default=60, help="for which idle connections are kept (default: 60)"
    )
    parser.add_argument("--against", metavar="GIT_REV", help="race uWASP of this revision too, and print before/after")
    parser.add_argument(
        "--handlers", type=lambda value: value.split(","), default=list(HANDLERS), metavar=",".join(HANDLERS)
    )
    parser.add_argument(
        "--peers",
        type=lambda value: [] if value == "none" else [peers[name] for name in value.split(",")],
        metavar="none|" + ",".join(peers),
        help="default: all, or none with --against",
    )
    parser.add_argument(
        "--shapes",
        type=lambda value: list(SHAPES) if value == "all" else [by_name[name] for name in value.split(",")],
        default=list(DEFAULT_SHAPES),
        metavar="all|" + ",".join(by_name),
        help="default: " + ",".join(shape.name for shape in DEFAULT_SHAPES),
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="race all shapes, and how they scale; write docs/performance.md and its plots; 20 minutes",
    )
    options = parser.parse_args(arguments)
    if options.report:
        options.shapes = list(SHAPES)
    if options.peers is None:
        options.peers = [] if options.against is not None else list(PEERS)
    return options


if __name__ == "__main__":
    sys.exit(main())
