"""The chaos bench for groups: `hatch run chaos-groups --seconds 600 [--bus redis]`.

Members join groups, send, and leave; some do not read. Meanwhile workers are killed, stopped for a while, and reloaded;
a Redis is paused, stopped and started again, and cuts its clients off. Then what each member got is held against what
was accepted: every message that a group accepted reached every member that stayed, once and in order, or was told as
missed. Exits with 0 if that is so, with 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `processes`
sys.path.insert(0, str(Path(__file__).parents[1] / "uwsgi"))  # for `raw`

from clients import CLOSE, PING, PONG, TEXT, Connection
from processes import Uwsgi, wait_until
from raw import request

HERE = Path(__file__).parent
BUSES = ("local", "redis")
LOOP_OPTIONS = {"threads": ("--threads", "4"), "gevent": ("--gevent", "100"), "asyncio": ("--threads", "4")}
WORKERS = 4
SIZE = 100  # bytes of a message
STOPPED = 2.0  # seconds for which a worker or a Redis is stopped
# How long after it was accepted a message may come, in seconds: a member's worker, or the Redis, was stopped meanwhile.
PATIENCE = 10.0
# What a worker accepted so shortly before it was killed may be lost with it, in seconds.
LAST_WORDS = 1.0
# A member is told of what it missed after that was sent, and so many seconds after it could notice at the latest.
TOLD_WITHIN = 10.0
# One that leaves so shortly after it could notice need not be told, in seconds.
TOO_SHORT_TO_TELL = 0.5
SHOWN = 5


@dataclass
class Sender:
    """What one connection has sent to its group. Times are in seconds of `time.monotonic()`."""

    id: str
    group: str
    sent: list[float] = field(default_factory=list)  # when each was, by its number
    accepted: list[float] = field(default_factory=list)

    @property
    def worker(self) -> int:
        return int(self.id.partition("-")[0])


@dataclass
class Member:
    """What one connection was sent by its group.

    Attributes:
        heard: by sender: the numbers of the first and the last message.
        gaps: between them: when it was noticed, whose, the first and the last number that did not come.
        missed: when it was told that it had missed something.
    """

    id: str
    group: str
    joined: float
    left: float = 0.0
    heard: dict[str, list[int]] = field(default_factory=dict)
    gaps: list[tuple[float, str, int, int]] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    messages: int = 0
    wrong: list[str] = field(default_factory=list)

    def hear(self, sender: str, number: int) -> None:
        self.messages += 1
        place = self.heard.get(sender)
        if place is None:
            self.heard[sender] = [number, number]
            return
        if number <= place[1]:
            self.wrong.append(f"{self.id} got {number} of {sender} after {place[1]}")
        elif number > place[1] + 1:
            self.gaps.append((time.monotonic(), sender, place[1] + 1, number - 1))
        place[1] = max(number, place[1])


@dataclass
class Record:
    """All that a run left behind."""

    seconds: float
    senders: dict[str, Sender] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    killed: dict[int, float] = field(default_factory=dict)  # workers, and when
    happened: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    told: int = 0  # that did not come and were told as missed
    told_after: float = 0.0  # how long after it could be noticed, at the latest, in seconds
    excused: int = 0  # that their sender's worker took with it
    left: int = 0  # to those who left before they could be told


class World:
    """The servers: a Redis if that is the bus, and one uWSGI, or two that have only that in common."""

    def __init__(self, handler: str, bus: str, folder: Path, faults: str) -> None:
        self.redis: Any = None
        url = "local:"
        if bus == "redis":
            from redis_servers import RedisServer

            self.redis = RedisServer(_made(folder / "redis"))
            url = self.redis.url
        instances = 1 if self.redis is None else 2
        env = {"UWASP_HANDLER": handler, "UWASP_BUS": url, "UWASP_CHAOS_FAULTS": faults}
        options = (*LOOP_OPTIONS[handler], "--processes", str(WORKERS // instances), "--disable-logging")
        self.instances = [
            Uwsgi(HERE / "groups_application.py", _made(folder / f"uwsgi-{number}"), *options, env=env)
            for number in range(instances)
        ]

    def workers(self) -> list[int]:
        masters = [instance.popen.pid for instance in self.instances]
        return [
            int(child)
            for master in masters
            for child in Path(f"/proc/{master}/task/{master}/children").read_text().split()
        ]

    def end(self) -> str:
        """Returns their logs."""
        for instance in self.instances:
            instance.stop()
        if self.redis is not None:
            self.redis.stop()
        return "".join(instance.output for instance in self.instances)


class Bench:
    def __init__(self, handler: str, bus: str, folder: Path, seconds: float, seed: str, clients: int, faults: str):
        self.rng = random.Random(f"{seed} {handler} {bus}")
        self.world = World(handler, bus, folder, faults)
        self.record = Record(seconds)
        self.clients = clients
        self.ends = 0.0
        self.log = ""

    def go(self) -> Record:
        try:
            asyncio.run(self._run())
        finally:
            self.log = self.world.end()
        return self.record

    async def _run(self) -> None:
        self.ends = time.monotonic() + self.record.seconds
        clients = [asyncio.ensure_future(self._client(number)) for number in range(self.clients)]
        try:
            await self._disturb()
            await asyncio.wait_for(asyncio.gather(*clients), 4 * PATIENCE)
        except Exception as error:
            self.record.failures.append(f"the bench failed: {type(error).__name__}: {error}")
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    # Disturbances

    async def _disturb(self) -> None:
        """Until shortly before the end, so that all is well for as long as a message may take."""
        kinds: list[Callable[[], Awaitable[None]]] = [self._kill, self._kill, self._stop, self._reload]
        if self.world.redis is not None:
            kinds += [self._pause_redis, self._restart_redis, self._cut_redis_clients]
        await asyncio.sleep(1)
        while time.monotonic() < self.ends:
            kind = self.rng.choice(kinds)
            self.record.happened[kind.__name__.strip("_").replace("_", " ")] += 1
            await kind()
            await asyncio.sleep(self.rng.uniform(0.5, 2.5))

    async def _kill(self) -> None:
        victim = self.rng.choice(self.world.workers())
        self.record.killed[victim] = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)

    async def _stop(self) -> None:
        victim = self.rng.choice(self.world.workers())
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGSTOP)
            await asyncio.sleep(STOPPED)
            os.kill(victim, signal.SIGCONT)

    async def _reload(self) -> None:
        instance = self.rng.choice(self.world.instances)
        before = set(self.world.workers())
        instance.popen.send_signal(signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: len(set(self.world.workers()) - before) >= 1, "a reload", 30)

    async def _pause_redis(self) -> None:
        self.world.redis.pause()
        await asyncio.sleep(STOPPED)
        self.world.redis.resume()

    async def _restart_redis(self) -> None:
        self.world.redis.stop()
        await asyncio.sleep(self.rng.uniform(0, STOPPED))
        await asyncio.to_thread(self.world.redis.start)

    async def _cut_redis_clients(self) -> None:
        await asyncio.to_thread(self.world.redis.command, "CLIENT", "KILL", "TYPE", "normal")
        await asyncio.to_thread(self.world.redis.command, "CLIENT", "KILL", "TYPE", "pubsub")

    # Clients

    async def _client(self, number: int) -> None:
        """One connection after the other."""
        rng = random.Random(self.rng.random())
        group = str(number % max(1, self.clients // 8))
        while time.monotonic() < self.ends:
            reads = rng.random() > 0.05
            stays = rng.uniform(2, 12)
            if time.monotonic() + stays > self.ends:
                stays = self.ends - time.monotonic() + PATIENCE  # all that was sent is to come
            try:
                await self._connection(group, stays, reads, rng)
            except (OSError, EOFError, asyncio.TimeoutError):
                await asyncio.sleep(0.1)  # its worker was ended, or no worker accepts just now

    async def _connection(self, group: str, stays: float, reads: bool, rng: random.Random) -> None:
        port = rng.choice(self.world.instances).port
        connection = await asyncio.wait_for(Connection.dial(port), PATIENCE)
        try:
            connection.writer.write(request(f"/member?{group}"))
            await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), PATIENCE)
            early = []  # what others send is heard from before `add` has returned
            while True:
                opcode, hello = await asyncio.wait_for(connection.frame(), PATIENCE)
                if opcode == CLOSE:
                    return
                if hello.startswith(b"hello "):
                    break
                early.append(hello)
            who = hello.decode().removeprefix("hello ")
            if not reads:
                await asyncio.sleep(stays)
                return
            sender = self.record.senders[who] = Sender(who, group)
            member = Member(who, group, time.monotonic())
            self.record.members.append(member)
            for payload in early:
                _take(payload, member, sender)
            sending = asyncio.ensure_future(self._send(connection, sender, rng))
            try:
                await asyncio.wait_for(self._receive(connection, member, sender), stays)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                member.left = time.monotonic()
        finally:
            connection.end(reset=not reads)

    async def _receive(self, connection: Connection, member: Member, sender: Sender) -> None:
        while True:
            opcode, payload = await connection.frame()
            if opcode == PING:
                connection.send(PONG, payload)
            elif opcode == CLOSE:
                return
            else:
                _take(payload, member, sender)

    async def _send(self, connection: Connection, sender: Sender, rng: random.Random) -> None:
        pause = rng.choice((0.02, 0.1, 0.1, 0.3))
        while time.monotonic() < self.ends and not connection.writer.is_closing():
            for _ in range(rng.choice((1, 1, 1, 30))):
                if connection.writer.is_closing():
                    return
                number = len(sender.sent)
                sender.sent.append(time.monotonic())
                connection.send(TEXT, f"{number} ".encode().ljust(SIZE, b"x"))
            await connection.writer.drain()
            await asyncio.sleep(pause * rng.uniform(0.5, 1.5))


def _take(payload: bytes, member: Member, sender: Sender) -> None:
    """What a text message from the server means."""
    if payload == b"missed":
        member.missed.append(time.monotonic())
    elif payload.startswith(b"ack "):
        sender.accepted.append(time.monotonic())
    else:
        who, number, _ = payload.decode().split(" ", 2)
        member.hear(who, int(number))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def broken_promises(record: Record) -> list[str]:
    """What was not kept. Counts in the record what was told, and what is excused."""
    broken = list(record.failures)
    by_group: dict[str, list[Sender]] = {}
    for sender in record.senders.values():
        by_group.setdefault(sender.group, []).append(sender)
    for member in record.members:
        broken += member.wrong
        for sender in by_group[member.group]:
            for when, first, last in _lacking(member, sender):
                broken += _judged(record, member, sender, when, first, last)
    return broken


def _lacking(member: Member, sender: Sender) -> list[tuple[float, int, int]]:
    """What a member should have got of a sender and has not: when, from which number, to which."""
    # From what was sent after it was a member, to what was accepted long enough before it left.
    first = bisect_right(sender.sent, member.joined)
    last = bisect_right(sender.accepted, member.left - PATIENCE) - 1
    lacking = [(when, begin, end) for when, who, begin, end in member.gaps if who == sender.id]
    if last < first:
        return lacking
    heard = member.heard.get(sender.id)
    if heard is None:
        return [(sender.accepted[last], first, last)]
    if first < heard[0]:
        end = min(heard[0] - 1, last)
        lacking.append((sender.accepted[end], first, end))
    if heard[1] < last:
        lacking.append((sender.accepted[last], heard[1] + 1, last))
    return lacking


def _judged(record: Record, member: Member, sender: Sender, when: float, first: int, last: int) -> list[str]:
    killed = record.killed.get(sender.worker)
    if killed is not None and first < len(sender.accepted) and sender.accepted[first] > killed - LAST_WORDS:
        record.excused += last - first + 1
        return []
    # Who was told before it was sent was told of something else.
    told = next((told for told in member.missed if told >= sender.sent[first]), None)
    if told is not None and told <= when + TOLD_WITHIN:
        record.told += last - first + 1
        record.told_after = max(record.told_after, told - when)
        return []
    if when > member.left - TOO_SHORT_TO_TELL:
        record.left += last - first + 1
        return []
    what = f"{member.id} in group {member.group} never got {first} to {last} of {sender.id}, and was not told"
    return [f"{what} (joined {member.joined:.2f}, left {member.left:.2f}, noticed {when:.2f})"]


def table(record: Record) -> str:
    lines = {
        "seconds": round(record.seconds),
        "connections": len(record.members),
        "messages accepted by a group": sum(len(sender.accepted) for sender in record.senders.values()),
        "messages received by a member": sum(member.messages for member in record.members),
        "told as missed": record.told,
        "told after it could be noticed, at the latest, ms": round(record.told_after * 1000),
        "lost with the worker that had just accepted them": record.excused,
        "lost to those who left at once": record.left,
        "on_missed": sum(len(member.missed) for member in record.members),
        **record.happened,
    }
    return "\n".join(f"| {name} | {value:,} |" for name, value in lines.items())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of load, for each handler (default: 600)")
    parser.add_argument("--handler", choices=sorted(LOOP_OPTIONS), default="gevent", help="default: gevent")
    parser.add_argument("--bus", choices=BUSES, default="local", help="default: local")
    parser.add_argument("--seed", default=None, help="what is drawn at random is drawn from it (default: a new one)")
    parser.add_argument("--clients", type=int, default=120, help="at a time (default: 120)")
    parser.add_argument("--faults", default="", help="plant drop, twice, silent: does the bench find them?")
    options = parser.parse_args(arguments)
    seed = options.seed or str(random.randrange(10**6))
    folder = Path(tempfile.mkdtemp(prefix="uwasp-chaos-"))
    print(f"seed {seed}", flush=True)
    bench = Bench(options.handler, options.bus, folder, options.seconds, seed, options.clients, options.faults)
    record = bench.go()
    broken = broken_promises(record)
    print(f"\n{table(record)}\n")
    for line in broken[:SHOWN]:
        print(line)
    if broken:
        print(f"\n{len(broken)} broken promises; seed {seed}; logs: {folder}")
        return 1
    print("Every message reached every member that stayed, once and in order, or was told as missed.")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
