"""Draws what report.py hands over on standard input into the folder that is its argument, as SVG and as PNG.

It runs in an environment of its own, which has matplotlib, and imports nothing of ours. The same figures give the same
files: no dates, no paths, no random names.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, StrMethodFormatter

OURS = {"uWASP gevent": "#c2410c", "uWASP threads": "#1d4ed8"}
IN_PYTHON = {f"{name}, no C": color for name, color in OURS.items()}
FLOOR = "#000000"
OTHERS = ("#6b7280", "#0f766e", "#7c3aed", "#a16207", "#be185d", "#4d7c0f", "#0369a1", "#b91c1c", "#57534e", "#15803d")
MARKERS = "osD^v<>ph*"
PNG_RESOLUTION = 110  # dots an inch
METADATA = {"svg": {"Date": None}, "png": {"Software": None}}


def style(name: str, others: list[str]) -> dict[str, object]:
    if name in OURS:
        return {"color": OURS[name], "marker": "o", "linewidth": 2.5, "zorder": 3}
    if name == "floor":
        return {"color": FLOOR, "marker": ".", "linewidth": 1.5, "linestyle": "--"}
    if name in IN_PYTHON:
        return {"color": IN_PYTHON[name], "marker": "o", "linewidth": 1.5, "linestyle": ":", "markersize": 4}
    number = others.index(name)
    return {
        "color": OTHERS[number % len(OTHERS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linewidth": 1,
        "markersize": 4,
    }


def dots(panels: list[dict]) -> plt.Figure:
    """A panel for each shape: the median of each server, and the middle half of its rounds, on a logarithmic axis."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    height = max(len(panel["points"]) for panel in panels) * 0.23 + 0.9
    width = 5.2 if columns > 1 else 8
    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        names = [name for name, *_ in panel["points"]]
        for place, (name, *series) in enumerate(panel["points"]):
            for number, (low, middle, high) in enumerate(series):
                color = (OURS | IN_PYTHON).get(name, FLOOR if name == "floor" else OTHERS[0])
                axis.plot([low, high], [place, place], color=color, linewidth=1.5)
                axis.plot(middle, place, "os^"[number], color=color, markersize=5)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_xscale("log")
        values = [value for _, *series in panel["points"] for low, _, high in series for value in (low, high)]
        axis.set_xlim(min(values) / 1.3, max(values) * 1.3)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(values) / min(values) < 30 else (1,)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(panel["title"], fontsize=10)
        axis.set_xlabel(panel["unit"])
        axis.grid(axis="x", which="both", color="#e5e7eb", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure


def lines(x: str, y: str, ticks: list[list], found: dict[str, list[list[float]]]) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(9, 5))
    others = [name for name in found if name not in OURS | IN_PYTHON and name != "floor"]
    for name, points in found.items():
        axis.plot(*zip(*points, strict=True), label=name, **style(name, others))
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([place for place, _ in ticks], [title for _, title in ticks])
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(which="major", color="#e5e7eb", linewidth=0.6)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return figure


def main(folder: Path) -> None:
    plt.rcParams.update({"svg.hashsalt": "uWASP", "svg.fonttype": "none", "font.size": 9})
    for drawing in json.load(sys.stdin):
        kind, name = drawing.pop("kind"), drawing.pop("name")
        figure = {"dots": dots, "lines": lines}[kind](**drawing)
        figure.tight_layout()
        for ending, metadata in METADATA.items():
            figure.savefig(folder / f"{name}.{ending}", metadata=metadata, dpi=PNG_RESOLUTION, facecolor="white")
        plt.close(figure)


main(Path(sys.argv[1]))
