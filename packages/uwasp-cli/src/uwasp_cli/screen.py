"""The tables of `uwasp top` on a terminal, or one after the other where the output is none.

With `rich` (the extra `uwasp-cli[top]`) they have the terminal for themselves and fit its width; without, each is
written over the one before. Of the last table a terminal gets the rows that it has room for.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

try:
    import rich.console
    import rich.live
    import rich.table
    import rich.text
except ImportError:
    has_rich = False
else:
    has_rich = True

__all__ = ["Show", "Table", "screen"]

CLEAR = "\x1b[H\x1b[J"  # of a terminal: to its beginning, and nothing from there on
GAP = 2  # blanks between columns


class Table(NamedTuple):
    """Columns by their names, which are right-justified but for the first; the cells of the rows; and a word below."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


Show = Callable[[str, Sequence[Table]], None]


@contextmanager
def screen() -> Iterator[Show]:
    """What shows a headline and tables, in the place of those before if the output is a terminal."""
    if not sys.stdout.isatty():
        yield _print
    elif has_rich:
        with rich.live.Live(screen=True, auto_refresh=False) as live:
            yield lambda head, tables: live.update(_group(head, _fitting(head, tables)), refresh=True)
    else:
        yield lambda head, tables: _print(f"{CLEAR}{head}", _fitting(head, tables))


def _fitting(head: str, tables: Sequence[Table]) -> Sequence[Table]:
    """The tables, the last of which has no more rows than the terminal has lines for, after the first."""
    width, height = shutil.get_terminal_size()

    def lines(text: str) -> int:
        return sum(max(1, math.ceil(len(line) / width)) for line in text.split("\n"))

    taken = lines(head) + sum(1 + len(table.rows) + lines(table.note) + 1 for table in tables)
    excess = taken - (height - 1)  # on the last line is the cursor
    if len(tables) < 2 or excess <= 0:
        return tables
    *others, last = tables
    shown = max(0, len(last.rows) - excess)
    left = len(last.rows) - shown
    return [*others, last._replace(rows=last.rows[:shown], note=f"{left} more, for which there is no room")]


def _print(head: str, tables: Sequence[Table]) -> None:
    lines = [head]
    for table in tables:
        rows = [table.columns, *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for first, *others in rows:
            cells = [f"{cell:>{width + GAP}}" for cell, width in zip(others, widths[1:], strict=True)]
            lines.append("".join([f"{first:<{widths[0]}}", *cells]))
        lines += [table.note, ""]
    print("\n".join(lines), flush=True)


def _group(head: str, tables: Sequence[Table]) -> rich.console.Group:
    shown: list[rich.console.RenderableType] = [rich.text.Text(head, style="bold")]
    for table in tables:
        drawn = rich.table.Table(box=None, pad_edge=False, header_style="bold cyan")
        for number, column in enumerate(table.columns):
            drawn.add_column(column, justify="right" if number else "left", no_wrap=True, overflow="ellipsis")
        for row in table.rows:
            drawn.add_row(*map(rich.text.Text, row))
        shown += [drawn, rich.text.Text(f"{table.note}\n", style="dim")]
    return rich.console.Group(*shown)
