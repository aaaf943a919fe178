"""The benchmarks: `python benchmarks/bench.py`, or `hatch run bench`.

Servers run on one core, the load client on another. uWASP is raced beside a floor in C, and beside its peers, which are
installed when they are first raced.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from idle import measure_idle
from installation import NotInstalled
from peers import PEERS, Peer, installed
from programs import BuildFailed, NoCompiler, compiled, raise_descriptor_limit
from race import Outcome, progress, race
from report import comparison, configurations, table, targets
from servers import NotStarted, Server, floor, revision, started, uwasp
from shapes import DEFAULT_SHAPES, IDLE_CPU, IDLE_MEMORY, SHAPES

HANDLERS = ("gevent", "threads")
SERVER_CORE = 0


def main(arguments: Sequence[str] | None = None) -> int:
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
        ours = [uwasp(handler) for handler in options.handlers]
        pairs = []
        if options.against is not None:
            packages = revision(options.against, folder / "revision")
            for now, handler in zip(ours, options.handlers, strict=True):
                pairs.append((now, uwasp(handler, f"{now.name} {options.against}", packages)))
        left_out: dict[str, str] = {}
        servers = [floor(), *ours, *(before for _, before in pairs), *_installed(options.peers, left_out)]
        outcome = Outcome()
        raced = [shape for shape in options.shapes if shape not in (IDLE_MEMORY, IDLE_CPU)]
        if raced:

            def failed(server: Server, error: NotStarted) -> None:
                print(error, file=sys.stderr)
                left_out[server.name] = "it did not start"

            with started(servers, folder, core, failed) as running:
                race(outcome, raced, running, options.rounds, options.duration)
        servers = [server for server in servers if server.name not in left_out]
        if len(raced) < len(options.shapes):
            seconds = options.idle_seconds if IDLE_CPU in options.shapes else 0
            measure_idle(servers, folder, core, seconds, outcome.add)
    print(f"\n{configurations(servers, left_out)}")
    for shape, results in outcome.results.items():
        print(f"\n{shape.title}\n{table(shape, results, ours)}")
    if pairs:
        print(f"\n{comparison(outcome.results, pairs, options.against)}")
    elif met := targets(outcome.results):
        print(f"\n{met}")
    return 0


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
    parser.add_argument("--duration", type=float, default=0.6, help="of one measurement, in seconds (default: 0.6)")
    parser.add_argument(
        "--idle-seconds", type=float, default=60, help="for which idle connections are kept (default: 60)"
    )
    parser.add_argument("--against", metavar="GIT_REV", help="race uWASP of this revision too, and print before/after")
    parser.add_argument(
        "--handlers", type=lambda value: value.split(","), default=list(HANDLERS), metavar="gevent,threads"
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
    options = parser.parse_args(arguments)
    if options.peers is None:
        options.peers = [] if options.against is not None else list(PEERS)
    return options


if __name__ == "__main__":
    sys.exit(main())
