"""What the local bus carries: `python benchmarks/local_bus.py`, beside sockets with nothing around them.

One process publishes 100 bytes to three others. The floor has the same frames on the same sockets, with no bus: written
one by one, and gathered. A rate in seconds of CPU is that of the publisher alone, and so the same on a busy machine.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from uwasp.transport import Receiver, find_transport

OTHERS = 3
SIZE = 100  # bytes
BURST = 100_000  # messages
ROUNDS = 3
SINGLE, PAUSE = 500, 0.003  # messages, and seconds between them
HEADER = struct.Struct(">IB")
STAMP = struct.Struct("d")
TIMEOUT = 60.0  # seconds


class Counter:
    """Counts messages; of those of a time it keeps how long they took, in microseconds."""

    def __init__(self) -> None:
        self.count = 0
        self.took: list[float] = []

    def received(self, data: bytes) -> None:
        self.count += 1
        sent = STAMP.unpack_from(data)[0]
        if sent:
            self.took.append((time.monotonic() - sent) * 1e6)
        if self.count % BURST == 0:
            print("all", flush=True)
        if len(self.took) == SINGLE:
            print(" ".join(f"{one:.1f}" for one in self.took), flush=True)
            self.took.clear()
            self.count = 0

    def missed(self, channel: str | None) -> None:
        print("missed", flush=True)

    def appeared(self, process: bytes) -> None:
        pass

    def gone(self, process: bytes) -> None:
        pass


class Floor:
    """The other end of a socket on which there are frames."""

    def __init__(self, path: str, receiver: Counter) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen()
        print("heard", flush=True)
        link, _ = listening.accept()
        poller = select.epoll()
        poller.register(link.fileno(), select.EPOLLIN)
        rest = b""
        while poller.poll() and (chunk := link.recv(2**16)):
            rest += chunk
            begin = 0
            while len(rest) - begin >= HEADER.size + SIZE:
                receiver.received(rest[begin + HEADER.size : begin + HEADER.size + SIZE])
                begin += HEADER.size + SIZE
            rest = rest[begin:]


def other(kind: str, where: str) -> None:
    """One of the three."""
    receiver: Receiver = Counter()
    if kind == "floor":
        Floor(where, Counter())
        return
    bus = find_transport(where)(where, os.urandom(8), receiver)
    bus.open()
    bus.subscribe("news", lambda: print("heard", flush=True))
    sys.stdin.read()
    bus.close(1.0)


class Others:
    def __init__(self, kind: str, places: list[str]) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, kind, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for place in places
        ]
        self.say("heard")

    def say(self, what: str | None = None) -> list[str]:
        """The next line of each."""
        lines = [process.stdout.readline().strip() for process in self.processes if process.stdout is not None]
        if what is not None and lines != [what] * OTHERS:
            raise RuntimeError(f"{lines}, where {what!r} was to come")
        return lines

    def end(self) -> None:
        for process in self.processes:
            process.communicate(timeout=TIMEOUT)


def rate(name: str, publish: Any, finish: Any, others: Others) -> None:
    message = STAMP.pack(0) + b"x" * (SIZE - STAMP.size)
    best = (0.0, 0.0, 0.0)
    for _ in range(ROUNDS):
        begun, of_cpu = time.perf_counter(), time.process_time()
        for _ in range(BURST):
            publish(message)
        finish()
        written, of_cpu = time.perf_counter() - begun, time.process_time() - of_cpu
        others.say("all")
        best = max(best, (BURST / of_cpu, BURST / written, BURST / (time.perf_counter() - begun)))
    print(f"| {name} | {best[0]:,.0f} | {best[1]:,.0f} | {best[2]:,.0f} |")


def latency(name: str, publish: Any, others: Others) -> None:
    for _ in range(SINGLE):
        publish(STAMP.pack(time.monotonic()) + b"x" * (SIZE - STAMP.size))
        time.sleep(PAUSE)
    took = sorted(float(one) for line in others.say() for one in line.split())
    print(f"| {name} | {took[len(took) // 2]:.0f} | {took[len(took) * 99 // 100]:.0f} |")


def floor(folder: Path, gathered: int) -> tuple[Any, Any, Others]:
    places = [str(folder / f"{gathered}-{number}") for number in range(OTHERS)]
    others = Others("floor", places)
    links = [socket.socket(socket.AF_UNIX) for _ in places]
    for link, place in zip(links, places, strict=True):
        link.connect(place)
        link.settimeout(TIMEOUT)
    waiting = bytearray()

    def publish(message: bytes) -> None:
        waiting.extend(HEADER.pack(len(message), 0) + message)
        if len(waiting) >= gathered * (HEADER.size + SIZE):
            finish()

    def finish() -> None:
        for link in links:
            link.sendall(waiting)
        waiting.clear()

    return publish, finish, others


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="uwasp-bench-") as folder:
        url = f"local:{folder}/bus?bound={2 * BURST * (SIZE + HEADER.size)}"
        bus = find_transport(url)(url, os.urandom(8), Counter())
        bus.open()
        listening = Others("bus", [url] * OTHERS)
        time.sleep(1.0)  # all have met, and are at rest
        one_by_one, many = floor(Path(folder), 1), floor(Path(folder), 100)
        print("| to 3 processes | a second of CPU | a second | a second, until all have read |\n|---|---|---|---|")
        rate("floor, one by one", *one_by_one)
        rate("floor, 100 at a time", *many)
        rate("the local bus", lambda message: bus.publish("news", message), lambda: None, listening)
        print("\n| one every 3 ms | p50, µs | p99, µs |\n|---|---|---|")
        latency("floor", one_by_one[0], one_by_one[2])
        latency("the local bus", lambda message: bus.publish("news", message), listening)
        bus.close(1.0)
        listening.end()
        for process in one_by_one[2].processes + many[2].processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        other(*sys.argv[1:])
    else:
        main()
