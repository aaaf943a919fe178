"""What groups carry, over several processes: `python benchmarks/groups.py`, or `hatch run bench-groups`.

A message of 100 bytes that one client says in one process goes to members in it and in others: by the local bus, by
Redis, by python-socketio and Channels with Redis. What counts is processor time, which other load on the machine
changes little; rounds are interleaved, and the yardstick is the floor, one process in C that writes as many frames.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from installation import NotInstalled, python_environment
from members import NAME, Carried, Connection, Dialect, Lost, carry, latencies, message
from peers import FOLDER, options
from programs import BuildFailed, NoCompiler, cpu_of_processes, cpu_seconds, memory, raise_descriptor_limit
from race import progress
from servers import ROOT, Process, RunningServer, Server, floor, free_port, started, uwasp, wait_until_it_listens
from writing import writing_table

import bench
import uwasp as library
from redis_servers import RedisServer

WORKERS = 4
WINDOW = 32  # messages under way
# How many members are in which process; what is said, is said in the first.
SPREADS = ((0, 1), (0, 1, 1, 1), (0, 100), (10, 10), (100, 100))
THREE = (0, 1, 1, 1)
APART = (0, 10)  # of the latency
IDLE_RATE = 100.0  # messages a second
MOST_RATE = 5_000.0
CONNECTIONS = 300  # of many groups, each of which has three of them
PUBLISHED, BURST, PAUSE = 6_000, 50, 0.005  # by a script: messages, so many at once, and seconds between
SINGLES, SINGLE_PAUSE = 450, 0.002
SOCKET_IO = Dialect("/socket.io/?EIO=4&transport=websocket", '42["say","%s"]', '42["said","%s"]', opening=("40",))


@dataclass(eq=False)
class Site:
    """Processes with one bus.

    Args:
        name: what the tables call it.
        ports: of its processes; if there is one for several, who is greeted by which is seen then.
        leaders: of their sessions.
        processes: how many there are that have members.
        dialect: that they speak.
        redis: the process of its Redis.
        url: of its bus, if that is ours.
        only: the one spread that it is for, where everybody is in one group.
    """

    name: str
    ports: Sequence[int]
    leaders: Sequence[int]
    processes: int
    dialect: Dialect = field(default_factory=Dialect)
    redis: int | None = None
    url: str = ""
    only: tuple[int, ...] | None = None

    def cpu(self) -> dict[int, float]:
        leaders = self.leaders if self.redis is None else (*self.leaders, self.redis)
        return {pid: used for leader in leaders for pid, used in cpu_of_processes(leader).items()}

    def open(self, counts: Sequence[int]) -> list[list[Connection]]:
        """So many connections in each process."""
        found: dict[int, list[Connection]] = {}
        if len(self.ports) > 1:
            for number, count in enumerate(counts):
                found[number] = [self._connection(number) for _ in range(count)]
            return list(found.values())
        # Whichever worker is the first to accept one has it; those that are too many are closed again.
        wanted = sorted(counts, reverse=True)
        deadline = time.monotonic() + 30
        while True:
            connection = self._connection(0)
            found.setdefault(connection.pid, []).append(connection)
            having = sorted(found.values(), key=len, reverse=True)
            if len(having) >= len(wanted) and all(
                len(own) >= count for own, count in zip(having, wanted, strict=False)
            ):
                break
            if time.monotonic() > deadline:
                raise Lost(f"the connections are all with the same workers: {[len(own) for own in having]}")
        by_size = iter(having)
        placed = {number: next(by_size) for number in sorted(range(len(counts)), key=lambda number: -counts[number])}
        for own in having[len(counts) :]:
            for connection in own:
                connection.close()
        for number, count in enumerate(counts):
            for connection in placed[number][count:]:
                connection.close()
        return [placed[number][:count] for number, count in enumerate(counts)]

    def _connection(self, number: int) -> Connection:
        return Connection(self.ports[number], self.leaders[number], self.dialect)


@dataclass
class Spread:
    """Members of one group, and who says something to them.

    Raises:
        Lost, OSError
    """

    site: Site
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = self.counts if self.site.processes > 1 else (sum(self.counts),)
        placed = self.site.open((counts[0] + 1, *counts[1:]))
        self.sender = placed[0].pop()
        self.members = [member for own in placed for member in own]
        self.group = "-".join(map(str, self.counts))
        for member in self.members:
            member.join(self.group)
        if not self.site.dialect.has_groups:  # it is in the only group itself
            self.sender.socket.setblocking(False)
            self.members.append(self.sender)
        self.sender.aim(self.group)

    def carry(self, duration: float) -> Carried:
        # The floor would gather what it has read at once into one write for each member; all others write each frame.
        window = WINDOW if self.site.dialect.has_groups else 1
        return carry(self.sender, self.members, len(self.members), [message()], window, duration, self.site.cpu)

    def close(self) -> None:
        for connection in {self.sender, *self.members}:
            connection.close()


class Cost(NamedTuple):
    """Microseconds of a core for each message.

    Args:
        sending, receiving: of the sender's process, and of all others that have members, together.
        redis: of its Redis.
        rate: messages a second.
        members: to whom each came.
    """

    sending: float
    receiving: float
    redis: float
    rate: float
    members: float

    @property
    def each(self) -> float:
        """For each member."""
        return (self.sending + self.receiving + self.redis) / self.members


def cost(spread: Spread, duration: float) -> Cost:
    carried = spread.carry(duration)
    used = {pid: seconds * 1e6 / carried.messages for pid, seconds in carried.cpu.items()}
    redis = used.pop(spread.site.redis, 0.0) if spread.site.redis is not None else 0.0
    sending = used.pop(spread.sender.pid)
    return Cost(sending, sum(used.values()), redis, carried.rate, len(spread.members))


# The sites


@contextmanager
def floor_site(folder: Path, only: tuple[int, ...]) -> Iterator[Site]:
    dialect = Dialect("/broadcast", greets=False, has_groups=False)
    with started([floor()], folder, None) as running:
        (server,) = running.values()
        yield Site("floor", [server.port], [server.session], 1, dialect, only=only)


@contextmanager
def local_site(folder: Path, handler: str, speedups: Path | None) -> Iterator[Site]:
    folder.mkdir()
    url = f"local:{folder}/bus"
    server = uwasp(handler, None, None, ("--processes", str(WORKERS)), speedups, UWASP_BUS=url)
    with started([server], folder, None) as running:
        (one,) = running.values()
        yield Site(f"uWASP {handler}, local bus", [one.port], [one.session], WORKERS, url=url)


@contextmanager
def redis_site(folder: Path, handler: str, speedups: Path | None) -> Iterator[Site]:
    with redis_server(folder) as redis:
        servers = [uwasp(handler, None, None, (), speedups, UWASP_BUS=redis.url) for _ in range(WORKERS)]
        with started(servers, folder, None) as running:
            yield site(f"uWASP {handler}, Redis", list(running.values()), redis, Dialect(), redis.url)


@contextmanager
def peer_site(
    folder: Path, name: str, application: str, requirements: Sequence[str], dialect: Dialect, layer: str = ""
) -> Iterator[Site]:
    programs, _ = python_environment(application, (*requirements, "uvicorn", "websockets", "uvloop", "httptools"))
    with redis_server(folder) as redis:
        env = {"REDIS_URL": redis.url, "CHANNEL_LAYER": layer}

        def start(folder: Path) -> tuple[Process, int]:
            port = free_port()
            arguments = options(
                f"{application}:application",
                "--no-access-log",
                app_dir=FOLDER,
                port=port,
                loop="uvloop",
                http="httptools",
                ws_per_message_deflate="false",
                ws_ping_interval=600,  # a ping would be counted as a part of a message
                lifespan="off",
                log_level="warning",
            )
            process = Process([str(programs / "uvicorn"), *arguments], folder / "server.log", env, cwd=folder)
            wait_until_it_listens(process, port)
            return process, port

        servers = [Server(f"{name} {number}", start, peer=True) for number in range(2)]
        with started(servers, folder, None) as running:
            yield site(name, list(running.values()), redis, dialect)


def site(name: str, servers: Sequence[RunningServer], redis: RedisServer, dialect: Dialect, url: str = "") -> Site:
    ports, leaders = [server.port for server in servers], [server.session for server in servers]
    return Site(name, ports, leaders, len(servers), dialect, redis.process.popen.pid, url)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    folder.mkdir()
    redis = RedisServer(folder)
    try:
        yield redis
    finally:
        redis.stop()


CHANNEL_LAYERS = {
    "channels_redis": "channels_redis.core.RedisChannelLayer",
    "channels_redis pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}
PEERS = ("python-socketio", *CHANNEL_LAYERS)


def sites(
    folder: Path, handlers: Sequence[str], peers: Sequence[str], speedups: Path | None
) -> dict[str, Callable[[], AbstractContextManager[Site]]]:
    """What starts each, by a name of its own."""
    found: dict[str, Callable[[], AbstractContextManager[Site]]] = {}
    for counts in (*SPREADS, APART):
        found[f"floor {counts}"] = partial(floor_site, folder / str(len(found)), counts)
    for handler in handlers:
        for bus, on_bus in (("local bus", local_site), ("Redis", redis_site)):
            found[f"uWASP {handler}, {bus}"] = partial(on_bus, folder / str(len(found)), handler, speedups)
    for name in peers:
        site = partial(peer_site, folder / str(len(found)), name)
        if name in CHANNEL_LAYERS:
            requirements = ("channels", "channels_redis", "django")
            found[name] = partial(site, "channels_groups", requirements, Dialect("/"), CHANNEL_LAYERS[name])
        else:
            found[name] = partial(site, "socketio_redis", ("python-socketio", "redis"), SOCKET_IO)
    return found


# The parts


def measure_costs(present: Sequence[Site], rounds: int, duration: float) -> dict[Site, dict[tuple[int, ...], Cost]]:
    """The medians of the rounds; what fails is left out, and said."""
    with ExitStack() as stack:
        spreads: list[Spread] = []
        for counts in SPREADS:
            for one in present:
                if len(counts) > one.processes > 1 or one.only not in (None, counts):
                    continue
                progress(f"{one.name}: {counts} members")
                try:
                    spreads.append(Spread(one, counts))
                except (OSError, Lost) as error:
                    print(f"\n{one.name}, {counts} members: {error}", file=sys.stderr)
                else:
                    stack.callback(spreads[-1].close)
        found: dict[int, list[Cost]] = {}
        failed: set[int] = set()
        for number in range(rounds):
            for spread in spreads:
                if id(spread) in failed:
                    continue
                progress(f"round {number + 1} of {rounds}: {spread.site.name}, {spread.counts} members")
                try:
                    found.setdefault(id(spread), []).append(cost(spread, duration))
                except Lost as error:
                    failed.add(id(spread))
                    print(f"\n{spread.site.name}, {spread.counts} members: {error}", file=sys.stderr)
        progress("")
        medians: dict[Site, dict[tuple[int, ...], Cost]] = {}
        for spread in spreads:
            if costs := found.get(id(spread)):
                medians.setdefault(spread.site, {})[spread.counts] = Cost(
                    *(statistics.median(column) for column in zip(*costs, strict=True))
                )
        return medians


def cost_table(counts: tuple[int, ...], found: dict[Site, dict[tuple[int, ...], Cost]]) -> str:
    with_it = {site.name: costs[counts] for site, costs in found.items() if counts in costs}
    ours = with_it.get("uWASP gevent, Redis")
    yardstick = with_it.get("floor")
    lines = [
        f"{' + '.join(map(str, counts))} members, said in the first process",
        "| | messages/s | CPU µs a message: sender's process | others | Redis | a member | to the floor | to uWASP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in with_it.items():
        to_floor = f"{one.each / yardstick.each:.2f}" if yardstick else ""
        to_ours = f"{one.each / ours.each:.2f}" if ours else ""
        redis = f"{one.redis:.1f}" if one.redis else ""
        lines.append(
            f"| {name} | {one.rate:,.0f} | {one.sending:.1f} | {one.receiving:.1f} | "
            f"{redis} | {one.each:.2f} | {to_floor} | {to_ours} |"
        )
    return "\n".join(lines)


def latency_table(present: Sequence[Site], seconds: float) -> str:
    lines = [
        f"from what a client says in one process to {APART[1]} members in another",
        "| | p50, µs | p99, µs | under load, a second | p50, µs | p99, µs |",
        "|---|---|---|---|---|---|",
    ]
    for one in present:
        if one.only not in (None, APART):
            continue
        progress(f"latency: {one.name}")
        try:
            spread = Spread(one, APART)
            try:
                idle = latencies(spread.sender, spread.members, IDLE_RATE, seconds)
                rate = min(MOST_RATE, spread.carry(seconds / 4).rate / 3)
                busy = latencies(spread.sender, spread.members, rate, seconds)
            finally:
                spread.close()
        except (OSError, Lost) as error:
            print(f"\nlatency, {one.name}: {error}", file=sys.stderr)
            continue
        lines.append(f"| {one.name} | {_quantiles(idle)} | {rate:,.0f} | {_quantiles(busy)} |")
    progress("")
    return "\n".join(lines)


def _quantiles(took: list[float]) -> str:
    return f"{took[len(took) // 2] * 1e6:,.0f} | {took[len(took) * 99 // 100] * 1e6:,.0f}"


def many_groups_table(
    present: Sequence[Site], groups: int, three: dict[str, float], rounds: int, duration: float
) -> str:
    """Groups of three, each in three processes: what joining takes, and a message, beside one group of three."""
    lines = [
        f"{groups:,} groups of 3 members, each in a process of its own as far as there are; {CONNECTIONS} connections",
        "| | CPU µs a join | KiB a membership | messages/s | CPU µs a member | to one group of 3 | to uWASP |",
        "|---|---|---|---|---|---|---|",
    ]
    found = {}
    for one in present:
        progress(f"{groups:,} groups: {one.name}")
        try:
            found[one.name] = _many_groups(one, groups, rounds, duration)
        except (OSError, Lost) as error:
            print(f"\n{groups:,} groups, {one.name}: {error}", file=sys.stderr)
    progress("")
    ours = next((cost for name, (*_, cost) in found.items() if name.endswith(", Redis")), None)
    for name, (joining, grown, rate, each) in found.items():
        to_three = f"{each / three[name]:.2f}" if name in three else ""
        to_ours = f"{each / ours:.2f}" if ours else ""
        lines.append(f"| {name} | {joining:.0f} | {grown:.2f} | {rate:,.0f} | {each:.2f} | {to_three} | {to_ours} |")
    return "\n".join(lines)


def _many_groups(one: Site, count: int, rounds: int, duration: float) -> tuple[float, float, float, float]:
    """Processor time of a join, in microseconds, and its memory, in KiB; messages a second, and what a member costs."""
    workers = one.processes
    each = CONNECTIONS // workers
    placed = one.open((each + 1, *[each] * (workers - 1)))
    sender = placed[0].pop()
    members = [member for own in placed for member in own]
    joins: dict[Connection, list[str]] = {member: [] for member in members}
    names = [str(number).ljust(NAME, "-") for number in range(count)]
    for number, name in enumerate(names):
        for worker in range(number, number + 3):
            joins[placed[worker % workers][(number // workers + worker // workers) % each]].append(name)
    try:
        size, used = sum(map(memory, one.leaders)), sum(one.cpu().values())
        for member, groups in joins.items():
            member.begin_to_join(*groups)
        for member in members:
            member.has_joined()
        joining = (sum(one.cpu().values()) - used) * 1e6 / (3 * count)
        grown = (sum(map(memory, one.leaders)) - size) / (3 * count) / 1024
        sender.aim("*")
        texts = [message(name) for name in names]
        rates, costs = [], []
        for _ in range(rounds):
            carried = carry(sender, members, 3, texts, WINDOW, duration, one.cpu)
            rates.append(carried.rate)
            costs.append(sum(carried.cpu.values()) * 1e6 / carried.messages / 3)
    finally:
        for connection in (sender, *members):
            connection.close()
    return joining, grown, statistics.median(rates), statistics.median(costs)


def publish_table(present: Sequence[Site], rounds: int) -> str:
    """From this process, by `open_bus`, to a group with members in other processes."""
    lines = [
        "a script that sends, in pure Python, to processes with a member each: CPU µs a message",
        f"| | {BURST} at once: the script | Redis | one each {SINGLE_PAUSE * 1e3:g} ms: the script | Redis |",
        "|---|---|---|---|---|",
    ]
    for one in present:
        for counts in ((1,), (1, 1, 1)):
            progress(f"publishing: {one.name}")
            spread = Spread(one, (0, *counts))
            try:
                with library.open_bus(one.url) as bus:
                    group = bus.group("room", spread.group)
                    group.send(message())
                    time.sleep(0.5)  # until the bus has met everybody
                    many = [_published(spread, group, PUBLISHED // rounds, BURST, PAUSE) for _ in range(rounds)]
                    single = [_published(spread, group, SINGLES // rounds, 1, SINGLE_PAUSE) for _ in range(rounds)]
            finally:
                spread.close()
            figures = (statistics.median(column) for found in (many, single) for column in zip(*found, strict=True))
            shown = " | ".join(f"{figure:.1f}" if figure else "" for figure in figures)
            lines.append(f"| {one.name}, {len(counts)} | {shown} |")
    progress("")
    return "\n".join(lines)


def _published(spread: Spread, group: library.Group, number: int, burst: int, pause: float) -> tuple[float, float]:
    """Processor time of this process, and of Redis, in microseconds a message."""
    redis, text = spread.site.redis, message()
    of_redis = cpu_seconds(redis) if redis is not None else 0.0
    used = time.process_time()
    for _ in range(number // burst):
        for _ in range(burst):
            group.send(text)
        time.sleep(pause)
    used = time.process_time() - used
    of_redis = (cpu_seconds(redis) if redis is not None else 0.0) - of_redis
    for member in spread.members:
        member.take()
    return used * 1e6 / number, of_redis * 1e6 / number


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parse(arguments)
    raise_descriptor_limit()
    left_out: dict[str, str] = {}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="uwasp-bench-") as name, ExitStack() as stack:
        try:
            speedups = bench.speedups_of(ROOT / "packages", left_out)
            present = []
            for who, starting in sites(Path(name), chosen.handlers, chosen.peers, speedups).items():
                progress(f"starting {who}")
                try:
                    present.append(stack.enter_context(starting()))
                except NotInstalled as error:
                    left_out[who] = str(error)
        except (NoCompiler, BuildFailed) as error:
            print(error, file=sys.stderr)
            return 1
        costs = measure_costs(present, chosen.rounds, chosen.duration)
        for counts in SPREADS:
            print(f"\n{cost_table(counts, costs)}", flush=True)
        print(f"\n{latency_table(present, chosen.duration * 4)}", flush=True)
        ours = [one for one in present if one.url and chosen.handlers[0] in one.name]  # what follows is the buses'
        print(f"\n{publish_table(ours, chosen.rounds)}", flush=True)
        three = {one.name: of[THREE].each for one, of in costs.items() if THREE in of}
        ours += [one for one in present if not one.url and one.dialect.has_groups]
        print(f"\n{many_groups_table(ours, chosen.groups, three, chosen.rounds, chosen.duration)}", flush=True)
        if chosen.fan_out:
            (Path(name) / "writing").mkdir()
            print(f"\n{writing_table(Path(name) / 'writing', chosen.handlers, speedups, chosen.rounds)}", flush=True)
    if chosen.fan_out:
        peers = "socketify" if chosen.peers else "none"
        shapes = ["--shapes", "fan-out-10,fan-out,fan-out-10k", "--rounds", str((chosen.rounds + 1) // 2)]
        handlers = ["--handlers", ",".join(chosen.handlers), "--duration", str(chosen.duration)]
        print("\none process", flush=True)
        bench.main([*shapes, *handlers, "--peers", peers])
    for who, why in left_out.items():
        print(f"\nleft out: {who}: {why}")
    print(f"\n{chosen.rounds} rounds of {chosen.duration:g} s; {time.monotonic() - begun:.0f} s in all")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--duration", type=float, default=0.4, help="of one measurement, in seconds (default: 0.4)")
    parser.add_argument("--handlers", type=lambda value: value.split(","), default=["gevent", "threads"])
    parser.add_argument(
        "--peers",
        type=lambda value: [] if value == "none" else value.split(","),
        default=list(PEERS),
        metavar="none|" + ",".join(PEERS),
    )
    parser.add_argument("--groups", type=int, default=10_000, help="so many of three members (default: 10,000)")
    parser.add_argument("--fan-out", action=argparse.BooleanOptionalAction, default=True, help="in one process, too")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
