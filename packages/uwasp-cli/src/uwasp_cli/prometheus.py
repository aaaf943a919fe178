"""Figures in the text format of Prometheus, for a scrape or for its node exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Mapping

from uwasp_cli.figures import GAUGES, OF_A_PATH, OF_ALL, Figures

__all__ = ["exposition"]

HELP = {
    "open": "WebSockets that are open",
    "opened": "WebSockets that were opened",
    "closed": "WebSockets that have ended",
    "refused": "requests for a WebSocket that were refused",
    "messages_in": "messages from clients",
    "messages_out": "messages to clients",
    "bytes_in": "bytes of frames from clients",
    "bytes_out": "bytes of frames to clients",
    "queued_in": "messages that wait for their servers",
    "queued_out": "bytes that wait for clients to read",
    "slow_members": "messages to a group for which a client was too slow",
}
ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition(figures: Figures) -> str:
    """All figures: of all workers together, and of each by path, by close code, and by the reason of a refusal."""
    lines = []
    for name in OF_ALL:
        if name in figures.total:
            lines += _family(name, {"": figures.total[name]}, HELP[name])
    for name in OF_A_PATH:
        samples = {
            _labels(number, path=path): of_one[name]
            for number, worker in figures.workers.items()
            for path, of_one in worker.get("paths", {}).items()
        }
        lines += _family(f"path_{name}", samples, f"{HELP[name]}, of a path and a worker", is_gauge=name in GAUGES)
    lines += _family("closed_by_code", _counted(figures, "closed", "code"), HELP["closed"])
    lines += _family("refused_by_reason", _counted(figures, "refused", "reason"), HELP["refused"])
    lines += _family("backlog", {"": figures.backlog}, "connections that wait to be accepted", is_gauge=True)
    return "\n".join([*lines, ""])


def _counted(figures: Figures, name: str, label: str) -> dict[str, int]:
    return {
        _labels(number, **{label: key}): count
        for number, worker in figures.workers.items()
        for key, count in worker.get(name, {}).items()
    }


def _labels(worker: int, **others: str) -> str:
    labels = {"worker": str(worker), **others}
    return "{" + ",".join(f'{name}="{value.translate(ESCAPED)}"' for name, value in labels.items()) + "}"


def _family(name: str, samples: Mapping[str, int], what: str, is_gauge: bool = False) -> list[str]:
    if not samples:
        return []
    is_gauge = is_gauge or name in GAUGES
    full = f"uwasp_{name}" if is_gauge else f"uwasp_{name}_total"
    lines = [f"# HELP {full} {what}", f"# TYPE {full} {'gauge' if is_gauge else 'counter'}"]
    return lines + [f"{full}{labels} {value}" for labels, value in samples.items()]
