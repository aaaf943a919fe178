"""What sending to the members of one worker takes, beside a loop in C that writes the same bytes to the same sockets.

Both run in the same worker, in turn, and what counts is the processor time of its process: so hardly anything but the
sending is in it, and what else the machine does meets both alike. The members look now and then what has come, and do
not wait for it: to wake who waits is work of the sender's, and there is the more of it the slower it is.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from members import LOST_AFTER, Connection, Dialect, Lost, message
from programs import cpu_seconds, library
from race import progress
from servers import RunningServer, started, uwasp

__all__ = ["writing_table"]

# To how many members, and how many messages for each measurement: so that none has to wait for a socket.
TO = {10: 100, 1_000: 10, 10_000: 1}
LOOK = 0.005  # how often the members look, in seconds
WRITING = Dialect("/writing", has_groups=False)


def writing_table(folder: Path, handlers: Sequence[str], speedups: Path | None, rounds: int) -> str:
    """A row for each handler: the medians of the rounds."""
    writes = str(library("writes"))
    counts = [f"{count:,}" for count in TO]
    lines = [
        "in one worker, that sends by itself: CPU µs for each member, and that of a loop in C which writes the same",
        f"| | {' | '.join(f'{count} | C loop | C loop to it' for count in counts)} |",
        "|---|" + "---|---|---|" * len(TO),
    ]
    servers = [
        uwasp(handler, f"uWASP {handler}{without}", None, (), speedups if not without else None, UWASP_WRITES=writes)
        for handler in handlers
        for without in (("", " without the C") if speedups is not None else (" without the C",))
    ]
    with started(servers, folder, None) as running:
        for server, one in running.items():
            try:
                lines.append(f"| {server.name} | {_measured(one, rounds)} |")
            except (OSError, Lost) as error:
                print(f"\nwriting, {server.name}: {error}", file=sys.stderr)
    progress("")
    return "\n".join(lines)


def _measured(running: RunningServer, rounds: int) -> str:
    members: list[Connection] = []
    found = []
    try:
        for count, times in TO.items():
            progress(f"{running.server.name}: writing to {count:,}")
            while len(members) < count:
                members.append(Connection(running.port, running.session, WRITING))
                members[-1].socket.setblocking(False)
            both: dict[str, list[float]] = {"send": [], "write": []}
            for _ in range(rounds + 1):
                for how, costs in both.items():
                    costs.append(_cost(members, running.session, how, times))
            ratios = [write / send for send, write in zip(*both.values(), strict=True)]
            columns = (costs[1:] for costs in (*both.values(), ratios))  # the first was to warm up
            found += [f"{statistics.median(column):.2f}" for column in columns]
    finally:
        for member in members:
            member.close()
    return " | ".join(found)


def _cost(members: Sequence[Connection], session: int, how: str, times: int) -> float:
    """Microseconds of the worker for each member and message, from when it is told until all have come.

    Raises:
        Lost
    """
    missing = times * len(members) * WRITING.length(message())
    used, gives_up = cpu_seconds(session), time.monotonic() + LOST_AFTER * 5
    members[0].socket.sendall(WRITING.frame(f"{how} {times}"))
    while missing > 0:
        if time.monotonic() > gives_up:
            raise Lost(f"{missing:,} bytes did not come")
        time.sleep(LOOK)
        missing -= sum(member.take() for member in members)
    return (cpu_seconds(session) - used) * 1e6 / (times * len(members))
