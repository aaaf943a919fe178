"""`uwasp top`: the figures of a running uWSGI, live, or once for scripts."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from uwasp_cli.figures import Figures, read
from uwasp_cli.problem import Problem
from uwasp_cli.production import own_folder
from uwasp_cli.prometheus import exposition

__all__ = ["find_address", "run", "table"]

CLEAR = "\x1b[H\x1b[J"  # of a terminal: to its beginning, and nothing from there on
COLUMNS = ("open", "in/s", "out/s", "waiting", "opened/s", "refused")
PATIENCE = 30.0  # seconds, for a uWSGI that reloads
NOT_REGISTERED = (
    "uWASP's figures are not registered among uWSGI's metrics; `uwasp run` does that, and docs/production.md says how "
    "else (enable-metrics, metric = name=uwasp.open,type=gauge)"
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
        _show(address, figures, options.interval)
    return 0


def find_address() -> str:
    """The stats socket of this user's one `uwasp run`.

    Raises:
        Problem: there is none, or more than one.
    """
    found = []
    for path in sorted(own_folder().glob("*.stats")):
        try:
            read(str(path))
        except Problem:
            continue  # what one that was killed has left
        found.append(str(path))
    if not found:
        raise Problem("no `uwasp run` of this user's is there; name the stats socket: uwasp top ADDRESS")
    if len(found) > 1:
        raise Problem(f"there are several: name one of them, uwasp top ADDRESS: {', '.join(found)}")
    return found[0]


def _show(address: str, before: Figures, interval: float) -> None:
    clear = CLEAR if sys.stdout.isatty() else ""
    print(f"{clear}{table(address, before, before)}", flush=True)
    while True:
        time.sleep(interval)
        try:
            figures = read(address)
        except Problem as problem:
            if time.monotonic() - before.at > PATIENCE:
                raise
            print(f"{clear}{problem}", flush=True)
            continue
        print(f"{clear}{table(address, before, figures)}", flush=True)
        before = figures


def table(address: str, before: Figures, now: Figures) -> str:
    """The figures, with what came a second between two times."""
    passed = now.at - before.at
    total = now.total
    head = (
        f"{address}: {total.get('closed', 0):,} WebSockets have ended, {total.get('queued_out', 0):,} bytes wait for "
        f"clients to read, {now.backlog:,} connections to be accepted"
    )
    lines = [head, _row("worker", "pid", "status", *COLUMNS)]
    for number, worker in now.workers.items():
        same = before.workers.get(number, {})
        earlier = same if same.get("pid") == worker["pid"] else {}
        lines.append(_row(str(number), str(worker["pid"]), worker["status"], *_cells(earlier, worker, passed)))
    lines.append(_row("all", "", "", *_cells(before.total, total, passed)))
    return "\n".join([*lines, ""])


def _row(*cells: str) -> str:
    return "".join(f"{cell:>10}" for cell in cells)


def _cells(before: Mapping[str, Any], now: Mapping[str, Any], passed: float) -> list[str]:
    def value(name: str) -> str:
        return f"{now[name]:,}" if name in now else "-"

    def rate(name: str) -> str:
        if name not in now:
            return "-"
        more = now[name] - before.get(name, now[name])
        return f"{max(0, more) / passed:,.0f}" if passed else "0"  # less: it has begun anew

    of_messages = [rate("messages_in"), rate("messages_out"), value("queued_in")]
    return [value("open"), *of_messages, rate("opened"), value("refused")]
