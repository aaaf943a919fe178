"""What a message costs in instructions: `python benchmarks/instructions.py --against REVISION`.

valgrind counts them, so that other work on the machine makes no difference; what the kernel does is not counted. Two
runs of benchmarks/echoing.py that differ in their rounds alone leave the cost of the rounds. Its clock is that of
benchmarks/clock.c.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from installation import NotInstalled, speedups
from programs import library
from servers import PACKAGES, ROOT, revision

# connections, messages in flight on each, bytes of a message
SHAPES = {
    "50 connections, 32 bytes": (50, 1, 32),
    "50 connections, 16 in flight": (50, 16, 32),
    "50 connections, 16 KiB": (50, 1, 16384),
    "2 connections, 1,000 in flight": (2, 1000, 32),  # one read brings more than `max_queue`
}
OF_SHORT = ("50 connections, 32 bytes", "50 connections, 16 in flight", "2 connections, 1,000 in flight")
ROUNDS = (4, 24)
# What the short form compares with. A change that makes messages dearer, and is worth it, moves the mark; so does one
# that makes them cheaper, or the next could take it back unseen.
MARK = "4d6fc6f"
MOST = 1.05  # times the instructions of the mark
COUNTED = re.compile(r"Collected : (\d+)")


def per_message(packages: Path, compiled: Path | None, shape: tuple[int, int, int]) -> float:
    """Instructions, outside the kernel."""
    few, many = (_count(packages, compiled, (*shape, rounds)) for rounds in ROUNDS)
    return (many - few) / ((ROUNDS[1] - ROUNDS[0]) * shape[0] * shape[1])


def _count(packages: Path, compiled: Path | None, arguments: tuple[int, ...]) -> int:
    folders = [str(packages / name / "src") for name in PACKAGES]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*folders, *([str(compiled)] if compiled else [])]),
        "PYTHONHASHSEED": "0",
        "UWASP_PACKAGES": folders[0],
        "UWASP_SPEEDUPS": "1" if compiled else "0",
        "LD_PRELOAD": str(library("clock")),
    }
    program = [sys.executable, str(Path(__file__).parent / "echoing.py"), *map(str, arguments)]
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
    run = subprocess.run([*valgrind, *program], env=environment, capture_output=True, text=True)
    counted = COUNTED.search(run.stderr)
    if run.returncode or counted is None:
        raise RuntimeError(f"{' '.join(program)} failed:\n{run.stderr}")
    return int(counted[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--against", metavar="REVISION", help="another state of this repository; default: HEAD")
    parser.add_argument(
        "--short", action="store_true", help=f"three shapes, by default against {MARK}; fails at more than {MOST} times"
    )
    options = parser.parse_args()
    against = options.against or (MARK if options.short else "HEAD")
    if shutil.which("valgrind") is None:
        print("valgrind counts the instructions, and is not installed (Debian: apt-get install valgrind)")
        return 1
    if options.short and not _has(against):
        print(f"not compared: the history here does not reach to {against} (git fetch --unshallow)", file=sys.stderr)
        return 0
    print(f"| instructions a message | now | {against} | ratio |\n|---|---|---|---|")
    too_many = False
    with tempfile.TemporaryDirectory(prefix="uwasp-instructions-") as folder:
        trees = (ROOT / "packages", revision(against, Path(folder)))
        for in_c in (False, True):
            try:
                compiled = [speedups(tree) if in_c else None for tree in trees]
            except NotInstalled as error:
                print(error, file=sys.stderr)
                return 1
            for name in OF_SHORT if options.short else SHAPES:
                shape = SHAPES[name]
                now, before = map(per_message, trees, compiled, [shape] * 2)
                title = f"{name}{', with the C' * in_c}"
                print(f"| {title} | {now:,.0f} | {before:,.0f} | {now / before:.3f} |", flush=True)
                too_many = too_many or now / before > MOST
    if options.short and too_many:
        print(f"a message takes more than {MOST} times the instructions of {against}: see MARK in {__file__}")
        return 1
    return 0


def _has(commit: str) -> bool:
    asked = ["git", "-C", str(ROOT), "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(asked, stderr=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
