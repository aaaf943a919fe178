"""What idle connections cost: the memory of each, and the processor time of many on which nothing happens but
keepalive.

Memory once used is not given back, so each server is a fresh one. Servers that ping then keep their connections for
some ping intervals, all servers at the same time: what is counted is the time that a server ran, not how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from programs import Idle, LoadFailed, cpu_seconds, memory
from servers import NotStarted, RunningServer, Server, started
from shapes import IDLE_CPU, IDLE_MEMORY, Result, Shape

__all__ = ["CONNECTIONS", "measure_idle"]

KIB = 1024
CONNECTIONS = 10_000


def measure_idle(
    servers: Sequence[Server],
    folder: Path,
    core: int | None,
    seconds: float,
    found: Callable[[Shape, Server, Result | str], None],
) -> None:
    """
    Args:
        folder: for logs.
        core: the servers'.
        seconds: for which processor time is counted, or 0 not to count it.
        found: called with each result, or with the reason why there is none.
    """
    with ExitStack() as stack:
        pinged = []
        for number, server in enumerate(servers):
            if IDLE_MEMORY.name in server.lacks:
                continue
            try:
                own = ExitStack()
                with own:
                    running = own.enter_context(started([server], folder / f"idle-{number}", core))[server]
                    idle, used = _opened(running)
                    found(IDLE_MEMORY, server, Result(used))
                    if seconds and server.keepalive:
                        pinged.append((running, idle))
                        stack.enter_context(own.pop_all())
                    else:
                        idle.close()
            except (LoadFailed, NotStarted) as error:
                found(IDLE_MEMORY, server, str(error))
        if pinged:
            _count(pinged, seconds, found)


def _opened(running: RunningServer) -> tuple[Idle, float]:
    """The connections, each of which has had one message, and the KiB that one has taken."""
    path = running.server.echo
    Idle(running.port, *path, "--connections", "20").close()  # what is made at the first connection
    before = memory(running.session)
    idle = Idle(running.port, *path, "--connections", str(CONNECTIONS))
    return idle, (memory(running.session) - before) / CONNECTIONS / KIB


def _count(
    pinged: Sequence[tuple[RunningServer, Idle]],
    seconds: float,
    found: Callable[[Shape, Server, Result | str], None],
) -> None:
    before = [(cpu_seconds(running.session), time.monotonic()) for running, _ in pinged]
    time.sleep(seconds)
    after = [(cpu_seconds(running.session), time.monotonic()) for running, _ in pinged]
    for (running, idle), (used, since), (used_now, now) in zip(pinged, before, after, strict=True):
        share = 100 * (used_now - used) / (now - since)
        try:
            pings = idle.close()
        except LoadFailed as error:
            found(IDLE_CPU, running.server, str(error))
        else:
            found(IDLE_CPU, running.server, Result(share, details=(("pings answered", pings),)))
