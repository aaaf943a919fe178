"""What a function costs beside a class that does the same: `python benchmarks/conversations.py`.

The same echo, both on each handler, raced as in bench.py: processor time a message, and the memory of a connection on
which nothing happens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

from programs import Idle, memory, raise_descriptor_limit
from race import Outcome, race
from servers import ROOT, RunningServer, Server, revision, started, uwasp
from shapes import SHAPES

from bench import HANDLERS, SERVER_CORE, speedups_of

IDLE = {"gevent": 10_000, "asyncio": 10_000, "threads": 1_000}  # connections
KIB = 1024


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--duration", type=float, default=0.5, help="of one measurement, in seconds (default: 0.5)")
    parser.add_argument("--handlers", nargs="+", choices=HANDLERS, default=HANDLERS)
    parser.add_argument("--idle", action="store_true", help="the memory of idle connections, and nothing else")
    parser.add_argument("--against", metavar="GIT_REV", help="race this revision too")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="uwasp-bench-") as name:
        folder = Path(name)
        speedups = speedups_of(ROOT / "packages", {})
        pairs = [pair for handler in options.handlers for pair in _pair(handler, "", None, speedups)]
        pairs += [pair for handler in options.handlers for pair in _pair(handler, ", no C", None, None)]
        if options.against is not None:
            packages = revision(options.against, folder / "revision")
            before = speedups_of(packages, {})
            for handler in options.handlers:
                pairs += _pair(handler, f", {options.against}", packages, before)
                pairs += _pair(handler, f", {options.against}, no C", packages, None)
        if options.idle:
            for number, server in enumerate(pairs):
                _print_idle(server, folder / f"idle-{number}")
            return 0
        outcome = Outcome()
        shapes = [shape for shape in SHAPES if shape.name in ("1", "50", "50x16")]
        with started(pairs, folder, SERVER_CORE) as running:
            race(outcome, shapes, running, options.rounds, options.duration)
    for shape, by_server in outcome.results.items():
        print(f"\n{shape.title}\n\n| server | messages/s | µs a message |\n|---|---|---|")
        for server, results in by_server.items():
            rates = median(result.value for result in results if result is not None)
            times = median(result.cpu or 0 for result in results if result is not None)
            print(f"| {server.name} | {rates:,.0f} | {times:.2f} |")
    return 0


def _pair(handler: str, more: str, packages: Path | None, speedups: Path | None) -> list[Server]:
    """The class and the function."""
    many = str(2 * max(IDLE.values()))
    server = uwasp(handler, f"{handler}, class{more}", packages, speedups=speedups, UWASP_CONVERSATIONS=many)
    function = replace(server, name=f"{handler}, function{more}", echo=("--path", "/conversation"))
    return [server, function]


def _print_idle(server: Server, folder: Path) -> None:
    connections = IDLE[server.name.split(",")[0]]
    with started([server], folder, SERVER_CORE) as running, nullcontext(running[server]) as one:
        _idle(one, 20).close()  # what is made at the first connection
        before = memory(one.session)
        idle = _idle(one, connections)
        each = (memory(one.session) - before) / connections / KIB
        idle.close()
    print(f"{server.name}: {each:.1f} KiB for each of {connections:,} idle connections", flush=True)


def _idle(running: RunningServer, connections: int) -> Idle:
    return Idle(running.port, *running.server.echo, "--connections", str(connections))


if __name__ == "__main__":
    raise SystemExit(main())
