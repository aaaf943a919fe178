"""The chaos bench in its long form: `python tests/chaos/run.py --seconds 600`, or `hatch run chaos`.

Exits with 0 if every promise was kept, with 1 if one was broken.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `processes`

from bench import LOOP_OPTIONS, run_chaos
from verdict import describe, table

HANDLERS = tuple(sorted(LOOP_OPTIONS))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of load, for all handlers (default: 600)")
    parser.add_argument("--handler", choices=(*HANDLERS, "all"), default="all", help="default: all")
    parser.add_argument("--seed", default=None, help="what is drawn at random is drawn from it (default: a new one)")
    parser.add_argument("--clients", type=int, default=300, help="at a time (default: 300)")
    parser.add_argument("--faults", default="", help="plant drop, twice, no-close, leak: does the bench find them?")
    options = parser.parse_args(arguments)
    handlers = HANDLERS if options.handler == "all" else (options.handler,)
    seed = options.seed or str(random.randrange(10**6))
    folder = Path(tempfile.mkdtemp(prefix="uwasp-chaos-"))
    print(f"seed {seed}", flush=True)
    records = []
    for handler in handlers:
        (folder / handler).mkdir()
        seconds = options.seconds / len(handlers)
        records.append(run_chaos(handler, folder / handler, seconds, seed, options.clients, options.faults, say=_say))
    print(f"\n{table(records)}\n")
    broken = describe(records)
    if broken:
        print(f"{broken}\n\nseed {seed}; logs: {folder}")
        return 1
    print(f"No promise was broken (seed {seed}).")
    shutil.rmtree(folder)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
