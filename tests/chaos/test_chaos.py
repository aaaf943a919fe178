"""The chaos bench in its short form; `hatch run chaos` is the long one. And the proof that it can fail."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import LOOP_OPTIONS, run_chaos
from verdict import broken_promises, counts, describe, table

# The load, and what has to be waited for when a machine is busy.
pytestmark = [pytest.mark.timeout(240)] if find_spec("pytest_timeout") else []

SECONDS = 7.0
SECONDS_WITH_FAULTS = 3.0
SEED = "short"  # what clients and disturbances do is drawn from it; what comes of that is chance all the same


@pytest.mark.parametrize("handler", sorted(LOOP_OPTIONS))
def test_no_promise_is_broken_in_chaos(handler: str, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    record = run_chaos(handler, tmp_path, SECONDS, SEED, say=print)
    print(table([record]))
    assert not broken_promises(record), f"{describe([record])}\n{table([record])}"
    counted = counts(record)
    assert counted["messages echoed, once and in order"] > 100
    assert counted["reloads"] >= 1
    assert counted["workers killed"] >= 1


def test_planted_faults_are_found(tmp_path: Path) -> None:
    """A message dropped, another sent twice, an on_close skipped, and what a connection had kept."""
    record = run_chaos("threads", tmp_path, SECONDS_WITH_FAULTS, "faults", 60, "drop,twice,no-close,leak", patience=0.5)
    found = {broken.promise for broken in broken_promises(record)}
    assert {
        "messages are echoed exactly once and in order",
        "every on_open has its on_close",
        "descriptors of a worker: back at the start",
        "servers of a worker: back at the start",
    } <= found
