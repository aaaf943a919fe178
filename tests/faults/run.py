"""Plant each fault of `planted.py` in a copy of this repository, and see that its tests notice.

`hatch run faults` plants them all; `--short` the few that CI plants; words after it those whose names contain one. It
fails where a fault goes unnoticed, where a test of its fails without it too, and where the code or the promise has
moved.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from fault import Fault, Tree, complaints
from planted import FAULTS


def main() -> int:
    parser = argparse.ArgumentParser(description="Plant faults, and see that the tests notice.")
    parser.add_argument("words", nargs="*", help="only faults with one of these in their names")
    parser.add_argument("--short", action="store_true", help="only those that CI plants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (default: cores)")
    arguments = parser.parse_args()
    faults = [fault for fault in FAULTS if fault.short or not arguments.short]
    if arguments.words:
        faults = [fault for fault in faults if any(word in fault.name for word in arguments.words)]
    if not faults:
        print("there is no such fault")
        return 1
    begin = time.monotonic()
    moved = {fault.name: found for fault in faults if (found := list(complaints(fault)))}
    print("".join(f"WRONG    {complaint}\n" for found in moved.values() for complaint in found), end="")
    wrong = len(moved)
    with tempfile.TemporaryDirectory(prefix="uwasp-faults-") as folder:
        for with_c in (False, True):
            some = [fault for fault in faults if fault.in_c is with_c and fault.name not in moved]
            if some:
                wrong += plant(some, Copies(Path(folder), with_c, min(arguments.jobs, len(some))))
    print(f"{len(faults)} faults, {len(faults) - wrong} noticed, in {time.monotonic() - begin:.0f} s")
    return 1 if wrong else 0


class Copies:
    """Trees that are used in turns, by a thread each."""

    def __init__(self, folder: Path, with_c: bool, count: int) -> None:
        self.count = count
        self._free: SimpleQueue[Tree] = SimpleQueue()
        for number in range(count):
            tree = Tree(folder / f"{'c' if with_c else 'python'}-{number}", with_c)
            tree.check()
            self._free.put(tree)

    def test(self, tests: list[str], fault: Fault | None = None) -> dict[str, str]:
        """As `Tree.test`, with a fault planted for that time."""
        tree = self._free.get()
        try:
            if fault is None:
                return tree.test(tests)
            with tree.with_planted(fault):
                return tree.test(tests)
        finally:
            self._free.put(tree)


def plant(faults: list[Fault], copies: Copies) -> int:
    """Plant each, and print how that went; return with how many something is wrong."""
    healthy = copies.test(sorted({test for fault in faults for test in fault.tests}))

    def try_one(fault: Fault) -> tuple[str, bool]:
        begin = time.monotonic()
        ill = copies.test(list(fault.tests), fault)
        wrong = []
        for test in fault.tests:
            if any(outcome != "passed" for outcome in of(test, healthy)) or not of(test, healthy):
                wrong.append(f"    without it, {test} does not pass: {of(test, healthy)}")
            if not any(outcome.startswith("failed") for outcome in of(test, ill)):
                wrong.append(f"    it goes unnoticed by {test}: {of(test, ill)}")
        how = next((outcome for outcome in ill.values() if outcome.startswith("failed")), "")
        mark = "WRONG  " if wrong else "noticed"
        line = f"{mark} {time.monotonic() - begin:4.0f} s  {fault.name}: {how:.120}"
        return "\n".join([line, *wrong]), bool(wrong)

    count = 0
    with ThreadPoolExecutor(copies.count) as pool:
        for line, is_wrong in pool.map(try_one, faults):
            print(line, flush=True)
            count += is_wrong
    return count


def of(test: str, outcomes: dict[str, str]) -> list[str]:
    """The outcomes of a test's cases."""
    return [outcome for case, outcome in outcomes.items() if case == test or case.startswith(f"{test}[")]


if __name__ == "__main__":
    sys.exit(main())
