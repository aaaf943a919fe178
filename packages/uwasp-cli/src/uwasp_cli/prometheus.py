"""Figures in the text format of Prometheus, for a scrape or for its node exporter's textfile collector."""

from __future__ import annotations

from uwasp_cli.figures import GAUGES, OF_A_WORKER, OF_ALL, Figures

__all__ = ["exposition"]

HELP = {
    "open": "WebSockets that are open",
    "opened": "WebSockets that were opened",
    "closed": "WebSockets that have ended",
    "refused": "requests for a WebSocket that were refused",
    "messages_in": "messages from clients",
    "messages_out": "messages to clients",
    "queued_in": "messages that wait for their servers",
    "queued_out": "bytes that wait for clients to read",
}


def exposition(figures: Figures) -> str:
    """All figures, each worker's where they are registered, else those of all together."""
    lines = []
    for name in OF_ALL:
        by_worker = {number: of_one[name] for number, of_one in figures.workers.items() if name in of_one}
        samples = {f'{{worker="{number}"}}': value for number, value in by_worker.items()}
        if name not in OF_A_WORKER or not samples:
            samples = {"": figures.total[name]} if name in figures.total else {}
        lines += _family(name, samples, HELP[name])
    closed = {
        f'{{code="{name.removeprefix("closed.")}"}}': value
        for name, value in figures.total.items()
        if name.startswith("closed.")
    }
    lines += _family("closed_by_code", closed, "WebSockets that have ended, by their close code")
    lines += _family("backlog", {"": figures.backlog}, "connections that wait to be accepted", is_gauge=True)
    return "\n".join([*lines, ""])


def _family(name: str, samples: dict[str, int], what: str, is_gauge: bool = False) -> list[str]:
    if not samples:
        return []
    is_gauge = is_gauge or name in GAUGES
    full = f"uwasp_{name}" if is_gauge else f"uwasp_{name}_total"
    lines = [f"# HELP {full} {what}", f"# TYPE {full} {'gauge' if is_gauge else 'counter'}"]
    return lines + [f"{full}{labels} {value}" for labels, value in samples.items()]
