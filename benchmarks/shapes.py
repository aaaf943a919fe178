"""The shapes of load that the benchmarks measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from programs import Idle, cpu_seconds, load, memory
from servers import RunningServer

__all__ = ["DEFAULT_SHAPES", "SHAPES", "Result", "Shape"]

KIB = 1024
IDLE_CONNECTIONS = 10_000
FIXED_RATE = 5_000  # messages a second: far less than any of the servers is capable of


@dataclass(frozen=True)
class Result:
    """One measurement.

    Args:
        value: in the unit of its shape.
        cpu: the server's processor time for each message, in microseconds, where that makes sense.
        client_cpu: the share of a core that the load client used.
        details: further figures, by name.
    """

    value: float
    cpu: float | None = None
    client_cpu: float | None = None
    details: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Shape:
    """A shape of load.

    Args:
        name: for the command line.
        title: for the tables.
        unit: of the values.
        measure: measures it once, within the seconds given.
        more_is_better: of two values, the larger is the better one.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[RunningServer, float], Result]
    more_is_better: bool = True


def loaded(*options: str) -> Callable[[RunningServer, float], Result]:
    def measure(server: RunningServer, duration: float) -> Result:
        found = load(server.port, server.session, "--duration", str(duration), *options)
        return Result(found.rate, found.cpu * 1e6, found.client_cpu, tuple(found.latency.items()))

    return measure


def idle_memory(server: RunningServer, duration: float) -> Result:
    """KiB for each of many connections that have had one message. What was used before is not given back, so that only
    the first measurement on a server counts.
    """
    Idle(server.port, "--connections", "20").close()  # what is made at the first connection
    before = memory(server.session)
    idle = Idle(server.port, "--connections", str(IDLE_CONNECTIONS))
    used = memory(server.session) - before
    idle.close()
    return Result(used / IDLE_CONNECTIONS / KIB)


def idle_cpu(server: RunningServer, duration: float) -> Result:
    """Percent of a core for many connections on which nothing happens but keepalive."""
    idle = Idle(server.port, "--connections", str(IDLE_CONNECTIONS))
    used, since = cpu_seconds(server.session), time.monotonic()
    time.sleep(duration)
    used, since = cpu_seconds(server.session) - used, time.monotonic() - since
    idle.close()
    return Result(100 * used / since)


def echo(name: str, title: str, connections: int, size: int = 32, in_flight: int = 1) -> Shape:
    options = ("--connections", str(connections), "--size", str(size), "--in-flight", str(in_flight))
    return Shape(name, title, "messages/s", loaded(*options))


SHAPES = (
    echo("1", "1 connection, 32 B", 1),
    echo("50", "50 connections, 32 B", 50),
    echo("50x16", "50 connections, 16 in flight, 32 B", 50, in_flight=16),
    echo("50-16k", "50 connections, 16 KiB", 50, 16 * KIB),
    echo("50-1m", "50 connections, 1 MiB", 50, KIB * KIB),
    echo("1000", "1,000 connections, 32 B", 1000),
    Shape("open", "opening handshakes", "handshakes/s", loaded("--mode", "open", "--connections", "16")),
    Shape(
        "fan-out",
        "one message to 1,000 connections",
        "messages/s",
        loaded("--mode", "fan-out", "--connections", "1000", "--path", "/broadcast"),
    ),
    Shape(
        "latency",
        f"latency at {FIXED_RATE:,} messages a second on 50 connections",
        "messages/s",
        loaded("--mode", "rate", "--connections", "50", "--rate", str(FIXED_RATE)),
    ),
    Shape("idle-memory", f"memory of {IDLE_CONNECTIONS:,} idle connections", "KiB a connection", idle_memory, False),
    Shape("idle-cpu", f"{IDLE_CONNECTIONS:,} idle connections", "% of a core", idle_cpu, False),
)
# What is raced unless told otherwise: a few minutes.
DEFAULT_SHAPES = SHAPES[:4]
