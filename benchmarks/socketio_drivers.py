"""uwasp-socketio beside the driver that it replaces: `python benchmarks/socketio_drivers.py`.

That is `gevent_uwsgi` of python-engineio, which has its WebSockets from uWSGI. The same echo, on the same uWSGI,
compiled here with OpenSSL as that driver needs it, raced as in bench.py: packets of Engine.IO, by the load client; and
events of Socket.IO, by a client in Python, which can ask for less, so there it is the server's processor time that
counts.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import engineio
from installation import python_environment
from peers import ENGINE_IO
from programs import LoadFailed, cpu_seconds, raise_descriptor_limit
from race import Outcome, race
from servers import ROOT, Process, RunningServer, Server, free_port, started, wait_until_it_listens
from shapes import SHAPES, Result, Shape
from websockets.asyncio.client import connect

from bench import SERVER_CORE, speedups_of

APPLICATION = Path(__file__).parent / "socketio_application.py"
LIBRARIES = ("python-engineio", "python-socketio", "gevent")
PACKAGES = ("uwasp-core", "uwasp-threads", "uwasp-gevent", "uwasp-socketio")
LOOPS = {"gevent_uwsgi": ("--gevent", "1100"), "gevent": ("--gevent", "100"), "threads": ("--threads", "4")}
REPLACED = "gevent_uwsgi"
CONNECTIONS = 50  # of Socket.IO's clients, each with so many events in flight
IN_FLIGHT = 16


def server_of(driver: str, name: str, programs: Path, speedups: Path | None) -> Server:
    """A server on a driver: `gevent_uwsgi`, or the name of a handler of uWASP's."""
    paths = [ROOT / "packages" / package / "src" for package in PACKAGES]
    paths += [speedups] if speedups else []
    paths.append(Path(engineio.__file__).parents[1])  # this environment's packages
    env = {"DRIVER": driver, "PYTHONPATH": ":".join(map(str, paths))}

    def start(folder: Path) -> tuple[Process, int]:
        port = free_port()
        command = [str(programs / "uwsgi"), "--master", "--need-app", "--die-on-term", "--disable-logging"]
        command += ["--http-socket", f"127.0.0.1:{port}", "--listen", "100", "--websocket-max-size", "1025"]
        command += ["--wsgi-file", str(APPLICATION), *LOOPS[driver]]
        process = Process(command, folder / "server.log", env, cwd=folder)
        wait_until_it_listens(process, port)
        return process, port

    echo = ("--path", "/engine.io/?EIO=4&transport=websocket", *ENGINE_IO)
    return Server(name, start, peer=True, echo=echo)


def events(server: RunningServer, duration: float) -> Result:
    """Events of Socket.IO, each of which comes back."""
    return asyncio.run(_events(server, duration))


async def _events(server: RunningServer, duration: float) -> Result:
    url = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    event = '42["echo","{}"]'.format("x" * 20)  # 32 bytes
    ends = asyncio.Event()
    counts = [0] * CONNECTIONS

    async def client(number: int) -> None:
        async with connect(url, compression=None, max_queue=None) as websocket:
            await websocket.recv()
            await websocket.send("40")
            await websocket.recv()
            for _ in range(IN_FLIGHT):
                await websocket.send(event)
            while not ends.is_set():
                if await websocket.recv() != event:
                    raise LoadFailed("something else came back")
                counts[number] += 1
                await websocket.send(event)

    clients = [asyncio.create_task(client(number)) for number in range(CONNECTIONS)]
    await asyncio.sleep(duration / 2)  # to connect, and to warm up
    begun, used, came = time.perf_counter(), cpu_seconds(server.session), sum(counts)
    await asyncio.sleep(duration)
    took = time.perf_counter() - begun
    used, came = cpu_seconds(server.session) - used, sum(counts) - came
    ends.set()
    await asyncio.gather(*clients)
    if not came:
        raise LoadFailed("no event came back")
    return Result(came / took, used / came * 1e6)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--duration", type=float, default=0.5, help="of one measurement, in seconds (default: 0.5)")
    options = parser.parse_args(arguments)
    raise_descriptor_limit()
    programs, versions = python_environment("uwsgi", ("uwsgi",))
    versions |= {library: version(library) for library in LIBRARIES}
    speedups = speedups_of(ROOT / "packages", {})
    replaced = server_of(REPLACED, REPLACED, programs, None)
    servers = [replaced, server_of("gevent", "uWASP gevent", programs, speedups)]
    servers.append(server_of("threads", "uWASP threads", programs, speedups))
    servers.append(server_of("gevent", "uWASP gevent, no C", programs, None))
    servers.append(server_of("threads", "uWASP threads, no C", programs, None))
    shapes = [shape for shape in SHAPES if shape.name in ("1", "50", "50x16", "50-16k")]
    title = f"{CONNECTIONS} connections, {IN_FLIGHT} events of Socket.IO in flight, 32 B"
    shapes.append(Shape("events", title, "events/s", events))
    outcome = Outcome()
    with (
        tempfile.TemporaryDirectory(prefix="uwasp-bench-") as name,
        started(servers, Path(name), SERVER_CORE) as running,
    ):
        race(outcome, shapes, running, options.rounds, options.duration)
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    for shape, by_server in outcome.results.items():
        print(f"\n{shape.title}\n")
        print(f"| server | {shape.unit} | beside {REPLACED} | µs of processor time | beside {REPLACED} |")
        print("|---|---|---|---|---|")
        base = by_server[replaced]
        for server, results in by_server.items():
            columns = (ratio(results, base, value), ratio(base, results, cpu))
            found = [result for result in results if result is not None]
            if found:
                rate, time_used = (median(map(of, found)) for of in (value, cpu))
                print(f"| {server.name} | {rate:,.0f} | {columns[0]} | {time_used:.2f} | {columns[1]} |")
    return int(bool(outcome.failures))


def value(result: Result) -> float:
    return result.value


def cpu(result: Result) -> float:
    return result.cpu or 0.0


def ratio(results: Sequence[Result | None], base: Sequence[Result | None], of: Callable[[Result], float]) -> str:
    """The median of the ratios within a round, in which both met the same machine."""
    ratios = [of(one) / of(other) for one, other in zip(results, base, strict=True) if one and other and of(other)]
    return f"{median(ratios):.1f} times" if ratios else "failed"


if __name__ == "__main__":
    raise SystemExit(main())
