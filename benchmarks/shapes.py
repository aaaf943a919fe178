"""The shapes of load that the benchmarks measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from programs import load
from servers import RunningServer

__all__ = [
    "DEFAULT_SHAPES",
    "IDLE_CPU",
    "IDLE_MEMORY",
    "PLAIN_GETS",
    "SHAPES",
    "STORM",
    "STORM_CLIENTS",
    "Result",
    "Shape",
    "echo",
]

KIB = 1024
FIXED_RATE = 5_000  # messages a second: what most of the servers are capable of
BUSY_CONNECTIONS = 1_000  # with that rate over all of them, while plain HTTP is measured
HTTP_CLIENTS = 4  # each asks again when it has its answer, on a new connection
HTTP = ("--mode", "http", "--path", "/", "--connections", str(HTTP_CLIENTS), "--warm-up", "0.1")
OPENING = ("--connections", "16")
PLAIN_GETS = "plain GETs on new connections"  # to which handshakes are compared
HTTP_SPARE = 0.5  # seconds for a client to start, warm up and end


@dataclass(frozen=True)
class Result:
    """One measurement.

    Args:
        value: in the unit of its shape.
        cpu: the server's processor time for each message, in microseconds, where that makes sense.
        client_cpu: the share of a core that the load client used.
        details: further figures, by names with their units.
    """

    value: float
    cpu: float | None = None
    client_cpu: float | None = None
    details: tuple[tuple[str, float], ...] = ()


def never(server: RunningServer, duration: float) -> Result:
    raise NotImplementedError("what takes a fresh server is measured by idle.py and storm.py")


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
    measure: Callable[[RunningServer, float], Result] = never
    more_is_better: bool = True


def loaded(*options: str, broadcast: bool = False) -> Callable[[RunningServer, float], Result]:
    def measure(server: RunningServer, duration: float) -> Result:
        path = server.server.broadcast if broadcast else server.server.echo
        found = load(server.port, server.session, "--duration", str(duration), *path, *options)
        return Result(found.rate, found.cpu * 1e6, found.client_cpu, _microseconds(found.latency, "p50", "p99"))

    return measure


def handshakes(server: RunningServer, duration: float) -> Result:
    """Handshakes a second, and how many that is to each plain GET on a connection of its own."""
    seconds = ("--duration", str(duration))
    found = load(server.port, server.session, *server.server.echo, *OPENING, "--mode", "open", *seconds)
    plain = load(server.port, server.session, *OPENING, "--mode", "http", "--path", "/", *seconds)
    details = (*_microseconds(found.latency, "p50", "p99"), (PLAIN_GETS, found.rate / plain.rate))
    return Result(found.rate, found.cpu * 1e6, found.client_cpu, details)


def fixed_rate(server: RunningServer, duration: float) -> Result:
    """The value is the median latency: all servers that keep up have the same rate."""
    options = ("--mode", "rate", "--connections", "50", "--rate", str(FIXED_RATE), "--duration", str(duration))
    found = load(server.port, server.session, *server.server.echo, *options)
    details = _microseconds(found.latency, "p99", "p99.9")
    return Result(found.latency["p50"], found.cpu * 1e6, found.client_cpu, details)


def http_beside(server: RunningServer, duration: float) -> Result:
    """Requests a second, first with no WebSocket open, then with many that echo at a fixed rate."""
    alone = load(server.port, server.session, *HTTP, "--duration", str(duration))
    beside = []

    def ask() -> None:
        beside.append(load(server.port, server.session, *HTTP, "--duration", str(duration)))

    options = ("--mode", "rate", "--connections", str(BUSY_CONNECTIONS), "--rate", str(FIXED_RATE))
    seconds = ("--duration", str(duration + HTTP_SPARE))
    busy = load(server.port, server.session, *server.server.echo, *options, *seconds, while_measuring=ask)
    return Result(
        beside[0].rate,
        details=(
            ("requests/s without WebSockets", alone.rate),
            *((f"request {name}, µs", beside[0].latency[name]) for name in ("p50", "p99")),
            ("echo p99, µs", busy.latency["p99"]),
        ),
    )


def _microseconds(latency: dict[str, float], *names: str) -> tuple[tuple[str, float], ...]:
    return tuple((f"{name}, µs", latency[name]) for name in names if name in latency)


def echo(name: str, title: str, connections: int, size: int = 32, in_flight: int = 1, warm_up: float = 0.2) -> Shape:
    options = ("--connections", str(connections), "--size", str(size), "--in-flight", str(in_flight))
    return Shape(name, title, "messages/s", loaded(*options, "--warm-up", str(warm_up)))


def fan_out(name: str, connections: int) -> Shape:
    """The latencies are those until the last connection has got a message."""
    options = ("--mode", "fan-out", "--connections", str(connections), "--size", "100")
    return Shape(
        name, f"one message to {connections:,} connections, 100 B", "messages/s", loaded(*options, broadcast=True)
    )


IDLE_MEMORY = Shape("idle-memory", "memory of an idle connection", "KiB", more_is_better=False)
IDLE_CPU = Shape("idle-cpu", "processor time of idle connections", "% of a core", more_is_better=False)
STORM_CLIENTS = 10_000
STORM = Shape("storm", f"{STORM_CLIENTS:,} clients that come back after a reload", "s", more_is_better=False)
SHAPES = (
    echo("1", "1 connection, 32 B", 1),
    echo("50", "50 connections, 32 B", 50),
    echo("50x16", "50 connections, 16 in flight, 32 B", 50, in_flight=16),
    echo("50-16k", "50 connections, 16 KiB", 50, 16 * KIB),
    echo("50-1m", "50 connections, 1 MiB", 50, KIB * KIB),
    echo("1000", "1,000 connections, 32 B", 1000),
    Shape("open", "opening handshakes", "handshakes/s", handshakes),
    fan_out("fan-out-10", 10),
    fan_out("fan-out", 1000),
    fan_out("fan-out-10k", 10_000),
    Shape(
        "latency",
        f"latency at {FIXED_RATE:,} messages a second on 50 connections, 32 B",
        "p50, µs",
        fixed_rate,
        more_is_better=False,
    ),
    Shape(
        "http",
        f"plain HTTP beside {BUSY_CONNECTIONS:,} WebSockets that echo {FIXED_RATE:,} messages a second",
        "requests/s",
        http_beside,
    ),
    IDLE_MEMORY,
    IDLE_CPU,
    STORM,
)
# What is raced unless told otherwise: a few minutes.
DEFAULT_SHAPES = SHAPES[:4]
