"""What the benchmarks found, as tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling import Processes, Series, growth
from servers import Server
from shapes import PLAIN_GETS, Result, Shape
from storm import Spread

__all__ = [
    "FLOOR",
    "TARGETS",
    "Target",
    "behind",
    "comparison",
    "configurations",
    "processes_table",
    "ratios",
    "rows",
    "series_table",
    "shape_table",
    "spread_table",
    "targets",
]

Found = Sequence["Result | None"]  # of one shape and server: one for each round
Results = Mapping[Shape, Mapping[Server, Found]]
FLOOR = "floor"


@dataclass(frozen=True)
class Target:
    """What uWASP has set out to reach in a shape.

    Args:
        shape: its name.
        to: the name of the server that uWASP's value is divided by, or of a detail that is such a ratio by itself, or
            `None` for the value itself.
        bounds: of each handler.
        at_least: the bounds are lower ones.
    """

    shape: str
    to: str | None
    bounds: Mapping[str, float]
    at_least: bool = True


TARGETS = (
    Target("50", FLOOR, {"gevent": 0.88, "threads": 0.80}),
    Target("50", "picows", {"gevent": 1.0, "threads": 1.1}),
    Target("50x16", FLOOR, {"gevent": 0.60, "threads": 0.55}),
    Target("50x16", "picows", {"gevent": 4, "threads": 1.5}),
    Target("50-16k", "picows", {"gevent": 1.0, "threads": 0.8}),
    Target("50-1m", "picows", {"gevent": 1.0, "threads": 0.8}),
    Target("open", PLAIN_GETS, {"gevent": 0.75}),
    Target("open", "picows", {"gevent": 1.0, "threads": 1.0}),
    Target("50", "python-engineio", {"gevent": 4, "threads": 3.5}),
    Target("fan-out-10", FLOOR, {"gevent": 0.85, "threads": 0.85}),
    Target("fan-out", FLOOR, {"gevent": 0.85, "threads": 0.85}),
    Target("fan-out-10k", FLOOR, {"gevent": 0.85, "threads": 0.85}),
    Target("storm", "picows", {"gevent": 1.0, "threads": 1.0}, at_least=False),
    Target("idle-memory", None, {"gevent": 1.6, "threads": 1.6}, at_least=False),
    Target("idle-cpu", None, {"gevent": 2, "threads": 2}, at_least=False),
)


def ratios(numerators: Found, denominators: Found) -> list[float]:
    """Of the values of each round in which there are both."""
    return [a.value / b.value for a, b in zip(numerators, denominators, strict=False) if a and b and b.value]


def cpu_ratios(numerators: Found, denominators: Found) -> list[float]:
    """The same of what one second of processor time is good for."""
    return [b.cpu / a.cpu for a, b in zip(numerators, denominators, strict=False) if a and b and a.cpu and b.cpu]


def spread(values: Sequence[float]) -> str:
    """The median, and between which values the middle half lies; empty for no values."""
    if not values:
        return ""
    if len(values) == 1:
        return figure(values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{figure(middle)} ({figure(low)} to {figure(high)})"


def figure(value: float) -> str:
    """With three digits that say something."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def cells(*parts: str) -> str:
    return f"| {' | '.join(parts)} |"


def rows(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    return "\n".join([cells(*head), "|---" * len(head) + "|", *(cells(*row) for row in body)])


def shape_table(shape: Shape, results: Mapping[Server, Found], ours: Sequence[Server]) -> str:
    """A shape: each server, and how uWASP compares with it."""
    with_cpu = any(result and result.cpu for found in results.values() for result in found)
    names = dict.fromkeys(
        name for found in results.values() for result in found if result for name, _ in result.details
    )
    head = ["server", shape.unit, *(f"{server.name} to it" for server in ours)]
    head += ["server CPU, µs a message", "client CPU"] if with_cpu else []
    body = []
    for server, found in results.items():
        if not any(found):
            body.append([server.name, "failed", *[""] * (len(head) - 2 + len(names))])
            continue
        row = [server.name, spread([result.value for result in found if result])]
        row += ["" if own is server else spread(ratios(results.get(own, ()), found)) for own in ours]
        if with_cpu:
            row.append(spread([result.cpu for result in found if result and result.cpu]))
            row.append(spread([result.client_cpu for result in found if result and result.client_cpu]))
        details = [dict(result.details) for result in found if result]
        row += [spread([detail[name] for detail in details if name in detail]) for name in names]
        body.append(row)
    return rows([*head, *names], body)


def targets(results: Results) -> str:
    """Each target whose shape and servers were raced; empty if none was."""
    body = []
    for target in TARGETS:
        for shape, by_server in results.items():
            if shape.name == target.shape:
                named = {server.name: found for server, found in by_server.items()}
                row = _reached(target, named)
                if any(row):
                    body.append([shape.title, f"to {target.to}" if target.to else shape.unit, *row])
    if not body:
        return ""
    handlers = TARGETS[0].bounds
    head = ["shape", "", *(part for handler in handlers for part in (f"{handler}: target", "measured", ""))]
    return rows(head, body)


def _reached(target: Target, named: Mapping[str, Found]) -> list[str]:
    row = []
    for handler in TARGETS[0].bounds:
        bound = target.bounds.get(handler)
        found = named.get(f"uWASP {handler}", ())
        values = [result.value for result in found if result]
        details = [dict(result.details) for result in found if result]
        if target.to is not None:
            by_themselves = [detail[target.to] for detail in details if target.to in detail]
            values = by_themselves or ratios(found, named.get(target.to, ()))
        if values and bound is not None:
            middle = statistics.median(values)
            reached = middle >= bound if target.at_least else middle <= bound
            bounded = f"{'≥' if target.at_least else '≤'} {bound:g}"
            row += [bounded, spread(values), "reached" if reached else "**not reached**"]
        else:
            row += ["", "", ""]
    return row


def behind(results: Results, ours: Sequence[Server]) -> str:
    """Which peers are better than uWASP, and by how many times."""
    body = []
    for shape, by_server in results.items():
        row = [shape.title]
        for own in ours:
            factors = []
            for server, found in by_server.items():
                values = ratios(found, by_server.get(own, ()))
                if server.peer and values:
                    middle = statistics.median(values)
                    factors.append((middle if shape.more_is_better else 1 / middle, server.name))
            row.append(
                ", ".join(f"{name} {figure(factor)}" for factor, name in sorted(factors, reverse=True) if factor > 1)
            )
        if any(row[1:]):
            body.append(row)
    return rows(["shape", *(own.name for own in ours)], body) if body else "No peer is, in any shape."


def series_table(series: Series, results: Results) -> str:
    by_name: dict[str, dict[Shape, Found]] = {}
    for shape, by_server in results.items():
        for server, found in by_server.items():
            by_name.setdefault(server.name, {})[shape] = found
    exponents = growth(series, results)
    body = []
    for name, by_shape in by_name.items():
        row = [name]
        for shape in series.points.values():
            values = [result.value for result in by_shape.get(shape, ()) if result]
            row.append(spread(values) or ("failed" if shape in by_shape else ""))
        body.append([*row, figure(exponents[name]) if name in exponents else ""])
    return rows(["messages/s", *(shape.title for shape in series.points.values()), "growth"], body)


def processes_table(found: Sequence[Processes]) -> str:
    head = ["messages/s", "one core", "two cores", "two to one", "two workers of one uWSGI", "these to one"]
    body = [
        [each.name, *map(spread, (each.one, each.two, each.gains, each.workers, each.gains_of_workers))]
        for each in found
    ]
    return rows(head, body)


def spread_table(found: Sequence[Spread]) -> str:
    head = ["", "share of the busier worker", "at most", "s"]
    body = [[each.name, spread(each.shares), figure(max(each.shares)), spread(each.seconds)] for each in found]
    return rows(head, body)


def configurations(servers: Sequence[Server], left_out: Mapping[str, str]) -> str:
    """What was raced, and what was not, with the reason."""
    body = []
    for server in servers:
        versions = ", ".join(f"{name} {version}" for name, version in server.versions.items())
        body.append([server.name, versions, server.settings, "; ".join(sorted(set(server.lacks.values())))])
    body += [[name, "", f"left out: {reason}", ""] for name, reason in left_out.items()]
    return rows(["server", "versions", "settings", "lacks shapes, for"], body)


def comparison(results: Results, pairs: Sequence[tuple[Server, Server]], rev: str) -> str:
    """Now and before: above 1 is faster now."""
    body = []
    for shape, by_server in results.items():
        for now, before in pairs:
            a, b = by_server.get(now, ()), by_server.get(before, ())
            both = ratios(a, b) if shape.more_is_better else ratios(b, a)
            body.append([shape.title, now.name, spread(both), spread(cpu_ratios(a, b))])
    title = f"now to {rev} (above 1 is better now)"
    return f"{title}\n{rows(['shape', 'server', 'value', 'messages per second of server CPU'], body)}"
