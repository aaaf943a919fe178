"""What uWASP promises, held against what a run of the chaos bench recorded. It knows no process and no socket."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uwasp_gevent.greenlets import IDLE_CONSUMERS

__all__ = ["BORNE", "Broken", "Disturbance", "Measure", "Record", "broken_promises", "counts", "describe", "table"]

# How long after a disturbance a client may still notice, in seconds: a busy machine has the process of clients wait.
NOTICED_AFTER = 2.0
# Beside `shutdown_timeout`, for uWSGI itself to notice the signal and end the worker on a busy machine, in seconds.
SHUTDOWN_SLACK = 4.0
# What a worker that lived through it may have more than before.
BORNE = {
    "open": 0,
    "servers": 0,
    "descriptors": 0,
    "threads": 0,
    "greenlets": 0,  # beside the consumers that wait for more, which are not to be more than IDLE_CONSUMERS
    "memory": 12.0,  # MiB
}
SHOWN = 5  # examples of each broken promise

# What servers of the bench raise.
OF_NO_HARM = ("AtRandom",)
COMPLAINT = re.compile(
    r"uwasp\.(listener|threads|gevent|connection|middleware|metrics|preflight) (WARNING|ERROR).*"
    r"|.*(segmentation fault|SIGSEGV|Fatal Python error|HARAKIRI|NO MERCY).*"
    r"|^[\w.]*(Error|Exception|Interrupt|Exit)\b.*",
    re.IGNORECASE,
)
DOES_NOT_READ = "does not read"


@dataclass(frozen=True)
class Disturbance:
    """A reload, or a worker killed hard.

    Attributes:
        kind: "reload" or "kill".
        began, ended: in seconds of `time.monotonic()`; it ends when new workers accept.
        pids: the workers that were ended.
        gone_after: for a reload, how long it took until all of them were gone, in seconds.
    """

    kind: str
    began: float
    ended: float
    pids: tuple[int, ...]
    gone_after: float = 0.0


@dataclass(frozen=True)
class Measure:
    """What one worker has, with no client."""

    worker: int
    pid: int
    open: int
    servers: int
    threads: int
    greenlets: int
    idle_consumers: int
    descriptors: int
    memory: float  # MiB


@dataclass
class Record:
    """All that a run left behind.

    Attributes:
        outcomes: of the clients that behave: the fields of `clients.Outcome`.
        ill: how often the others did what.
        events: of each worker, by its pid, in order: (event, id of the server object, detail).
        before, after: measures of the workers that lived through the last stage.
        log: uWSGI's.
    """

    handler: str
    seed: str
    seconds: float
    shutdown_timeout: float
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    ill: Counter[str] = field(default_factory=Counter)
    events: dict[int, list[tuple[str, str, str]]] = field(default_factory=dict)
    disturbances: list[Disturbance] = field(default_factory=list)
    before: list[Measure] = field(default_factory=list)
    after: list[Measure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def killed(self) -> set[int]:
        return {pid for one in self.disturbances if one.kind == "kill" for pid in one.pids}


@dataclass(frozen=True)
class Broken:
    promise: str
    example: str


def broken_promises(record: Record) -> list[Broken]:
    return [
        *_of_clients(record),
        *_of_servers(record),
        *_of_reloads(record),
        *_of_survivors(record),
        *_of_log(record),
        *(Broken("the bench itself comes to its end", failure) for failure in record.failures),
    ]


def _of_clients(record: Record) -> Iterator[Broken]:
    for outcome in record.outcomes:
        shown = " ".join(f"{name}={value!r}" for name, value in outcome.items() if value not in ("", 0, False))
        if outcome["wrong"]:
            yield Broken("messages are echoed exactly once and in order", shown)
        if outcome["lingers"]:
            yield Broken("the TCP connection ends after the closing handshake", shown)
        promise = _broken_by_the_end_of(outcome, record)
        if promise:
            yield Broken(promise, shown)


def _broken_by_the_end_of(outcome: Mapping[str, Any], record: Record) -> str:
    """The promise that the end of a connection breaks, if any."""
    end, code, plan, asked = outcome["end"], outcome["code"], outcome["plan"], outcome["asked"]
    if end == "hangs":
        return "a client that behaves gets its echoes or a close code, in time"
    if end == "refused":
        return "a client that behaves is let in"
    if end == "no handshake":
        return "" if _disturbed(outcome, record, "reload", "kill") else "a client that behaves is let in"
    if end in ("eof", "reset"):
        if (plan == "terminate" and asked) or _worker_was_ended(outcome, record, "kill"):
            return ""
        return "a connection ends with a close code, unless its worker was killed hard"
    if code == 1001:
        return "" if _worker_was_ended(outcome, record, "reload") else "1001 comes on reload only"
    # What a client asked for just before its end may have been dropped by a close that the server was asked for.
    expected = {"raise": 1011, "raise-in-open": 1011, "close": 4001}.get(plan, 1000)
    if not asked or code != expected:
        return "a connection is closed with the code that is due"
    if plan != "hasty" and outcome["echoed"] < outcome["sent"] - (plan in ("raise", "close")):
        return "every message that came before the close is echoed"
    return ""


def _disturbed(outcome: Mapping[str, Any], record: Record, *kinds: str) -> bool:
    """Whether a reload or a kill lies in or shortly before the connection's life."""
    return any(
        one.kind in kinds and one.began <= outcome["ended"] and outcome["began"] <= one.ended + NOTICED_AFTER
        for one in record.disturbances
    )


def _worker_was_ended(outcome: Mapping[str, Any], record: Record, kind: str) -> bool:
    """A client that was lost before it heard who serves it is believed, if a worker was ended just then."""
    if outcome["id"]:
        return any(one.kind == kind and _pid(outcome["id"]) in one.pids for one in record.disturbances)
    return _disturbed(outcome, record, kind)


def _pid(server: str) -> int:
    return int(server.partition("-")[0])


def _of_servers(record: Record) -> Iterator[Broken]:
    codes: dict[str, str] = {}
    for pid, events in record.events.items():
        opened = Counter(server for event, server, _ in events if event == "open")
        closed = Counter(server for event, server, _ in events if event == "close")
        codes |= {server: detail for event, server, detail in events if event == "close"}
        for event, server, detail in events:
            if event == "overlap":
                yield Broken("the events of a server come one at a time", f"{server}: {detail}")
            elif event == "disorder":
                yield Broken("a server gets every message once and in order", f"{server}: {detail}")
        for server, times in (opened | closed).items():
            if times > 1:
                yield Broken("no event comes twice", f"{server}: on_open or on_close {times} times")
        if pid not in record.killed:
            for server in opened - closed:
                yield Broken("every on_open has its on_close", f"{server} was opened and never closed")
        for server in closed - opened:
            yield Broken("every on_close had its on_open", f"{server} was closed and never opened")
    for outcome in record.outcomes:
        code = codes.get(outcome["id"])
        if outcome["end"] == "code" and code is not None and int(code) != outcome["code"]:
            yield Broken("client and server see the same close code", f"{outcome['id']}: {outcome['code']}, {code}")


def _of_reloads(record: Record) -> Iterator[Broken]:
    most = record.shutdown_timeout + SHUTDOWN_SLACK
    for one in record.disturbances:
        if one.gone_after > most:
            text = f"workers {one.pids} were gone after {one.gone_after:.1f} s, not {record.shutdown_timeout}"
            yield Broken("a worker is gone soon after a reload", text)


def _of_survivors(record: Record) -> Iterator[Broken]:
    after = {measure.worker: measure for measure in record.after}
    if not record.before and not record.failures:
        yield Broken("a worker lives through the last stage", "none was measured")
    for was in record.before:
        now = after.get(was.worker)
        if now is None or now.pid != was.pid:
            yield Broken("a worker that is not killed lives on", f"worker {was.worker} of {was.pid}")
            continue
        if now.idle_consumers > IDLE_CONSUMERS:
            text = f"worker {was.worker} ({was.pid}): {now.idle_consumers} wait"
            yield Broken(f"at most {IDLE_CONSUMERS} consumers wait for more", text)
        for name, more in BORNE.items():
            first, last = getattr(was, name), getattr(now, name)
            if last > first + more:
                text = f"worker {was.worker} ({was.pid}): {first} before, {last} after, {more} more would be borne"
                yield Broken(f"{name} of a worker: back at the start", text)


def _of_log(record: Record) -> Iterator[Broken]:
    for line in record.log.splitlines():
        if COMPLAINT.search(line) and DOES_NOT_READ not in line and not any(word in line for word in OF_NO_HARM):
            yield Broken("the log has no complaint", line)


def counts(record: Record) -> dict[str, Any]:
    """The figures of a run, in the order of the table."""
    outcomes = record.outcomes
    ends = Counter(f"{one['code']}" if one["end"] == "code" else one["end"] for one in outcomes)
    events = Counter(event for events in record.events.values() for event, _, _ in events)
    excused = Counter(
        event for pid in record.killed for event, _, _ in record.events.get(pid, ()) if event in ("open", "close")
    )
    kinds = Counter(one.kind for one in record.disturbances)
    gone = [one.gone_after for one in record.disturbances if one.kind == "reload"]
    return {
        "seconds": round(record.seconds),
        "reloads": kinds["reload"],
        "longest reload until the old workers are gone, s": round(max(gone, default=0.0), 1),
        "workers killed": kinds["kill"],
        "connections of clients that behave": len(outcomes),
        "messages sent": sum(one["sent"] for one in outcomes),
        "messages echoed, once and in order": sum(one["echoed"] for one in outcomes),
        "ends": ", ".join(f"{name}: {count}" for name, count in sorted(ends.items())),
        "ill connections": ", ".join(f"{name}: {count}" for name, count in sorted(record.ill.items())),
        "on_open": events["open"],
        "on_close": events["close"],
        "excused, of killed workers": excused["open"] - excused["close"],
        **{
            f"{name.replace('_', ' ')}, before and after": ", ".join(
                f"{getattr(was, name)} > {getattr(now, name)}"
                for was, now in zip(record.before, record.after, strict=False)
            )
            for name in ("descriptors", "threads", "greenlets", "idle_consumers", "servers", "memory")
        },
        "broken promises": len(broken_promises(record)),
    }


def table(records: Sequence[Record]) -> str:
    """Markdown, a column for each run."""
    columns = [counts(record) for record in records]
    lines = [f"| | {' | '.join(record.handler for record in records)} |", "|---|" + "---|" * len(records)]
    lines += [f"| {name} | {' | '.join(str(column[name]) for column in columns)} |" for name in columns[0]]
    return "\n".join(lines)


def describe(records: Iterable[Record]) -> str:
    """The broken promises of all runs, with a few examples of each; empty if there are none."""
    lines: list[str] = []
    for record in records:
        by_promise: dict[str, list[str]] = {}
        for broken in broken_promises(record):
            by_promise.setdefault(broken.promise, []).append(broken.example)
        for promise, examples in by_promise.items():
            lines.append(f"BROKEN on {record.handler}, seed {record.seed}: {promise} ({len(examples)} times)")
            lines += [f"    {example}" for example in examples[:SHOWN]]
    return "\n".join(lines)
