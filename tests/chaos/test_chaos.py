"""The chaos bench in its short form; `hatch run chaos` is the long one. And the proof that it can fail."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

import groups
from bench import LOOP_OPTIONS, run_chaos
from verdict import broken_promises, counts, describe, table

# The load, and what has to be waited for when a machine is busy.
pytestmark = [pytest.mark.timeout(240)] if find_spec("pytest_timeout") else []

SECONDS = 7.0
SECONDS_WITH_FAULTS = 3.0
SECONDS_OF_GROUPS = 8.0
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


@pytest.mark.parametrize("bus", groups.BUSES)
@pytest.mark.parametrize("handler", sorted(LOOP_OPTIONS))
def test_no_promise_of_groups_is_broken_in_chaos(handler: str, bus: str, tmp_path: Path) -> None:
    if bus == "redis":
        pytest.importorskip("uwasp_redis")
    record = groups.Bench(handler, bus, tmp_path, SECONDS_OF_GROUPS, SEED, 60, "").go()
    broken = groups.broken_promises(record)
    print(groups.table(record))
    assert not broken, "\n".join([*broken[:5], groups.table(record)])
    assert sum(member.messages for member in record.members) > 1000
    assert record.happened.total() >= 2


def test_planted_faults_of_groups_are_found(tmp_path: Path) -> None:
    """A message that is accepted and not sent, and another that is sent twice."""
    record = groups.Bench("threads", "local", tmp_path, SECONDS_OF_GROUPS, "faults", 30, "drop,twice").go()
    broken = "\n".join(groups.broken_promises(record))
    assert "never got 7 to 7 of" in broken
    assert "got 5 of" in broken


def test_who_was_told_before_it_was_sent_was_told_of_something_else() -> None:
    sender = groups.Sender("1-1", "0", sent=[1.0, 2.0, 3.0, 4.0], accepted=[1.0, 2.0, 3.0, 4.0])
    member = groups.Member("2-1", "0", joined=0.0, left=30.0, heard={"1-1": [0, 3]}, gaps=[(4.0, "1-1", 1, 2)])
    for missed, broken in (([1.9], 1), ([1.9, 4.1], 0), ([], 1), ([2.1], 0), ([15.0], 1)):
        member.missed = missed
        record = groups.Record(60.0, {sender.id: sender}, [member])
        assert len(groups.broken_promises(record)) == broken
        assert record.told == (0 if broken else 2)
