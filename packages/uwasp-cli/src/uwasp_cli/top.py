"""`uwasp top`: the figures of a running uWSGI, live, or once for scripts."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from uwasp_cli.figures import Figures, read
from uwasp_cli.problem import Problem
from uwasp_cli.production import own_folder
from uwasp_cli.prometheus import exposition
from uwasp_cli.screen import Show, Table, screen

__all__ = ["find_address", "run", "tables"]

COLUMNS = ("open", "in/s", "out/s", "KiB/s", "waiting", "unread", "new/s")
PATIENCE = 30.0  # seconds, for a uWSGI that reloads
NOT_REGISTERED = (
    "uWASP's figures are not registered among uWSGI's metrics; `uwasp run` does that, and docs/production.md says how "
    "else (enable-metrics, metric = name=uwasp.open,type=gauge)"
)
NOT_WRITTEN = (
    "What a worker and a path have is not there: uWASP writes that beside the stats socket, if that is a Unix socket "
    "of an absolute path, in a folder that uWSGI's user may write to."
)


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Show the figures until somebody has seen enough, or once.

    Raises:
        Problem: there is no stats server to ask.
    """
    address = options.address or find_address()
    figures = read(address)
    if not figures.total:
        raise Problem(f"{address}: {NOT_REGISTERED}")
    if options.json:
        print(json.dumps(figures.as_json))
    elif options.prometheus:
        print(exposition(figures), end="")
    else:
        with screen() as show:
            _show(address, figures, options.interval, show)
    return 0


def find_address() -> str:
    """The stats socket of this user's one `uwasp run`.

    Raises:
        Problem: there is none, or more than one.
    """
    folder = own_folder(make=False)
    found = []
    for path in sorted(folder.glob("*.stats")):
        try:
            read(str(path))
        except Problem:
            continue  # what one that was killed has left
        found.append(str(path))
    if not found:
        remedy = "name the socket, uwasp top ADDRESS (that of one on a Unix socket lies beside it)"
        raise Problem(f"no `uwasp run` of this user's has a stats socket in {folder}; {remedy}")
    if len(found) > 1:
        raise Problem(f"there are several: name one of them, uwasp top ADDRESS: {', '.join(found)}")
    return found[0]


def _show(address: str, before: Figures, interval: float, show: Show) -> None:
    show(_head(address, before), tables(before, before))
    while True:
        time.sleep(interval)
        try:
            figures = read(address)
        except Problem as problem:
            if time.monotonic() - before.at > PATIENCE:
                raise
            show(str(problem), [])
            continue
        show(_head(address, figures), tables(before, figures))
        before = figures


def _head(address: str, figures: Figures) -> str:
    return f"{address}: uWSGI {figures.uwsgi['version']}, {figures.backlog:,} connections wait to be accepted"


def tables(before: Figures, now: Figures) -> list[Table]:
    """The figures by worker and by path, with what came a second between two times."""
    passed = now.at - before.at
    by_worker = []
    for number, worker in now.workers.items():
        same = before.workers.get(number, {})
        earlier = same if same.get("pid") == worker["pid"] else worker
        by_worker.append((str(number), str(worker["pid"]), worker["status"], *_cells(earlier, worker, passed)))
    by_worker.append(("all", "", "", *_cells(before.total, now.total, passed)))
    ended = f"{now.total.get('closed', 0):,} have ended{_by(now.counted('closed'))}"
    refused = f"{now.total.get('refused', 0):,} were refused{_by(now.counted('refused'))}"
    note = f"{ended}; {refused}" if now.has_all_workers else f"{ended}; {refused}\n{NOT_WRITTEN}"
    shown = [Table(("worker", "pid", "status", *COLUMNS), by_worker, note)]
    if now.paths:
        earlier_paths = before.paths
        busiest_first = sorted(now.paths.items(), key=lambda item: -item[1]["open"])
        by_path = [(path, *_cells(earlier_paths.get(path, {}), of_one, passed)) for path, of_one in busiest_first]
        shown.append(Table(("path", *COLUMNS), by_path, ""))
    return shown


def _by(counted: Mapping[str, int]) -> str:
    """Of the workers that are there; those before them had others."""
    return f" ({', '.join(f'{key}: {count:,}' for key, count in counted.items())})" if counted else ""


def _cells(before: Mapping[str, Any], now: Mapping[str, Any], passed: float) -> list[str]:
    def value(name: str) -> str:
        return f"{now[name]:,}" if name in now else "-"

    def rate(*names: str, unit: int = 1) -> str:
        if not all(name in now for name in names):
            return "-"
        more = sum(now[name] - before.get(name, 0) for name in names)
        return f"{max(0, more) / passed / unit:,.0f}" if passed else "0"  # less: it has begun anew

    rates = [rate("messages_in"), rate("messages_out"), rate("bytes_in", "bytes_out", unit=1024)]
    return [value("open"), *rates, value("queued_in"), value("queued_out"), rate("opened")]
