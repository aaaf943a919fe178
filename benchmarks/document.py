"""docs/performance.md: its tables between their markers, and its plots. The prose around them is written by hand."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from statistics import quantiles
from typing import Any

from installation import python_environment
from race import Outcome
from report import behind, configurations, processes_table, rows, series_table, shape_table, spread_table, targets
from scaling import BY_CONNECTIONS, BY_SIZE, Processes, Series
from servers import ROOT, Server
from shapes import Result
from storm import Spread

__all__ = ["Report", "write"]

DOCUMENT = ROOT / "docs" / "performance.md"
PLOTS = Path(__file__).parent / "plots.py"
PLOTTED = ("50", "50x16", "50-16k", "1000", "open", "fan-out")
QUANTILES = ("p99, µs", "p99.9, µs")


class MarkerMissing(Exception):
    """The document has no place for a table."""


class Report:
    """All that one run has found, and the tables of it.

    Args:
        servers: that were raced; of these `ours` are uWASP's.
        left_out: the peers that could not be raced, and why.
        conditions: how the run was made, in words.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        ours: Sequence[Server],
        left_out: Mapping[str, str],
        outcome: Outcome,
        by_connections: Outcome,
        by_size: Outcome,
        processes: Sequence[Processes],
        spreads: Sequence[Spread],
        conditions: str,
    ) -> None:
        self.results = outcome.results
        self.by_connections, self.by_size = by_connections.results, by_size.results
        self.tables = {
            "conditions": _machine(conditions),
            "targets": targets(self.results),
            "behind": behind(self.results, ours),
            "servers": configurations(servers, left_out),
            "shapes": "\n\n".join(
                f"### {shape.title[:1].upper()}{shape.title[1:]}\n\n{shape_table(shape, found, ours)}"
                for shape, found in self.results.items()
            ),
            "connections": series_table(BY_CONNECTIONS, self.by_connections),
            "sizes": series_table(BY_SIZE, self.by_size),
            "processes": processes_table(processes),
            "spread": spread_table(spreads),
        }


def write(report: Report) -> None:
    """
    Raises:
        MarkerMissing
        NotInstalled: matplotlib, for the plots.
    """
    text = DOCUMENT.read_text()
    for name, table in report.tables.items():
        place = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = place.subn(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)
        if count != 1:
            raise MarkerMissing(f"{DOCUMENT.name} has {count} places for the table {name!r}, not one")
    DOCUMENT.write_text(text)
    programs, _ = python_environment("plots", ["matplotlib"])
    subprocess.run(
        [str(programs / "python"), str(PLOTS), str(DOCUMENT.parent)],
        input=json.dumps(_drawings(report)),
        text=True,
        check=True,
    )


def _machine(conditions: str) -> str:
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    release = re.match(r"\d+\.\d+", platform.release())
    body = [
        ["date", date.today().isoformat()],
        ["processor", f"{models[0] if models else platform.machine()}, {len(models)} cores"],
        ["system", f"Linux {release[0] if release else platform.release()}"],
        ["Python", f"{platform.python_implementation()} {platform.python_version()}"],
        ["run", conditions],
    ]
    return rows(["", ""], body)


def _drawings(report: Report) -> list[dict[str, object]]:
    shapes = {shape.name: shape for shape in report.results}
    throughput = []
    for name in PLOTTED:
        if name in shapes:
            shape = shapes[name]
            points = [
                [server.name, _middle([result.value for result in found if result])]
                for server, found in report.results[shape].items()
                if any(found)
            ]
            throughput.append({"title": shape.title, "unit": f"{shape.unit}, median and middle half", "points": points})
    drawings: list[dict[str, object]] = [{"kind": "dots", "name": "performance-throughput", "panels": throughput}]
    if "latency" in shapes:
        shape = shapes["latency"]
        points = [
            [server.name, _middle([result.value for result in found if result]), *_details(found)]
            for server, found in report.results[shape].items()
            if any(found)
        ]
        panel = {"title": shape.title, "unit": "µs: p50 (circle), p99 (square), p99.9 (triangle)", "points": points}
        drawings.append({"kind": "dots", "name": "performance-latency", "panels": [panel]})
    drawings.append(_lines("performance-connections", "connections", BY_CONNECTIONS, report.by_connections, 0))
    drawings.append(_lines("performance-sizes", "size of a message", BY_SIZE, report.by_size, 2**20))
    return drawings


def _details(found: Sequence[Result | None]) -> list[list[float]]:
    return [_middle([dict(result.details)[name] for result in found if result]) for name in QUANTILES]


def _middle(values: Sequence[float]) -> list[float]:
    """Between which values the middle half lies, with the median between these."""
    return [values[0]] * 3 if len(values) == 1 else quantiles(values, n=4, method="inclusive")


def _lines(name: str, x: str, series: Series, results: Any, unit: int) -> dict[str, object]:
    """Messages a second; or, with a `unit` of bytes, so many times that a second of what messages hold."""
    found: dict[str, list[list[float]]] = {}
    for point, shape in series.points.items():
        for server, measured in results.get(shape, {}).items():
            values = [result.value for result in measured if result]
            if values:
                rate = _middle(values)[1]
                found.setdefault(server.name, []).append([point, rate * point / unit if unit else rate])
    ticks = [[point, shape.title] for point, shape in series.points.items()]
    return {
        "kind": "lines",
        "name": name,
        "x": x,
        "y": "MiB/s each way" if unit else "messages/s",
        "ticks": ticks,
        "found": found,
    }
