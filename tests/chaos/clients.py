"""The clients of the chaos bench, all in one process: `python clients.py PORT SECONDS SEED CLIENTS PATIENCE FILE`.

Four of five behave, and write to FILE what became of each of their connections, one JSON object a line. The others do
what makes servers fail. What each does is drawn from the seed; what happens to it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "uwsgi"))  # for `raw`

from raw import frame, request

HOLD = 10.0  # seconds for one connection of a client that does not behave; at the end of the stage all of them leave
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@dataclass
class Outcome:
    """What became of one connection of a client that behaves.

    Attributes:
        plan: how it means to end.
        id: of the server object, as that said in its first message; "" before.
        sent, echoed: messages.
        opened: the handshake succeeded.
        end: "code", "eof", "reset", "hangs", "no handshake", "refused".
        code: of the server's close frame, or the HTTP status that refused it.
        wrong: what it received and should not have.
        asked: it has sent what ends its connection.
        lingers: the server did not end the TCP connection after the closing handshake.
        began, ended: in seconds of `time.monotonic()`, which all processes share.
    """

    client: int
    plan: str
    began: float
    ended: float = 0.0
    id: str = ""
    sent: int = 0
    echoed: int = 0
    pings: int = 0
    opened: bool = False
    end: str = ""
    code: int = 0
    reason: str = ""
    wrong: str = ""
    asked: bool = False
    lingers: bool = False


class Connection:
    """Frames over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def dial(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def shake_hands(self, query: str = "") -> int:
        """Return the HTTP status."""
        self.writer.write(request("/chaos" + query))
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    async def frame(self) -> tuple[int, bytes]:
        first, length = await self.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8), "big")
        return first & 0x0F, await self.reader.readexactly(length)

    def send(self, opcode: int, payload: bytes) -> None:
        self.writer.write(frame(opcode, payload))

    def end(self, reset: bool = False) -> None:
        """Close the socket; with `reset`, by RST."""
        own = self.writer.get_extra_info("socket")
        if reset and own is not None:
            with contextlib.suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


class Behaving:
    """One connection of a client that behaves: numbered messages, each echoed exactly once and in order."""

    PLANS = ("polite", "polite", "polite", "hasty", "raise", "close", "terminate", "raise-in-open", "raise-in-close")

    def __init__(
        self, number: int, port: int, patience: float, rng: random.Random, is_over: Callable[[], bool]
    ) -> None:
        self.outcome = Outcome(number, rng.choice(self.PLANS), time.monotonic())
        self.port = port
        self.patience = patience
        self.rng = rng
        self.is_over = is_over
        self.in_flight: deque[tuple[int, bytes]] = deque()
        self.moved = asyncio.Event()
        self.has_said_close = False

    async def run(self) -> Outcome:
        outcome = self.outcome
        try:
            await asyncio.wait_for(self.connect(), self.patience)
        except asyncio.TimeoutError:  # before Python 3.11, this is no OSError
            outcome.end = outcome.end or "hangs"
        except (OSError, EOFError) as error:
            lost = "reset" if isinstance(error, ConnectionError) else "eof"
            outcome.end = outcome.end or (lost if outcome.opened else "no handshake")
        outcome.ended = outcome.ended or time.monotonic()
        return outcome

    async def connect(self) -> None:
        connection = await Connection.dial(self.port)
        try:
            await self.converse(connection)
        finally:
            connection.end()

    async def converse(self, connection: Connection) -> None:
        outcome = self.outcome
        query = "?raise-in-open" if outcome.plan == "raise-in-open" else ""
        query = query or self.rng.choice(("", "", "", "?block-in-open"))
        status = await connection.shake_hands(query)
        if status != 101:
            outcome.end, outcome.code = "refused", status
            return
        outcome.opened = True
        outcome.asked = outcome.plan == "raise-in-open"
        receiver = asyncio.ensure_future(self.receive(connection))
        sender = asyncio.ensure_future(self.send(connection))
        try:
            await receiver
        finally:
            sender.cancel()
            (failure,) = await asyncio.gather(sender, return_exceptions=True)
        if isinstance(failure, Exception) and not isinstance(failure, OSError):
            raise failure

    async def receive(self, connection: Connection) -> None:
        outcome = self.outcome
        while not outcome.end:
            opcode, payload = await connection.frame()
            if opcode == PING:
                connection.send(PONG, payload)
            elif opcode == PONG:
                outcome.pings += 1
            elif opcode == CLOSE:
                outcome.end = "code"
                outcome.code = int.from_bytes(payload[:2], "big") or 1005
                outcome.reason = payload[2:].decode()
                outcome.ended = time.monotonic()
                if not self.has_said_close:
                    connection.send(CLOSE, payload[:2])
            elif not outcome.id and payload.startswith(b"hello "):
                outcome.id = payload[6:].decode()
                self.moved.set()
            elif self.in_flight and self.in_flight[0] == (opcode, payload):
                self.in_flight.popleft()
                outcome.echoed += 1
                self.moved.set()
            else:
                awaited = self.in_flight[0][1][:20] if self.in_flight else None
                outcome.wrong = outcome.wrong or f"{payload[:20]!r} where {awaited!r} was due"
        try:  # all is said; the server ends the connection, by FIN
            if await connection.reader.read(1):
                outcome.wrong = outcome.wrong or "bytes after the close frame"
        except ConnectionResetError:
            pass
        except BaseException:
            outcome.lingers = True
            raise

    async def send(self, connection: Connection) -> None:
        outcome, rng = self.outcome, self.rng
        await self.until(lambda: outcome.id)
        window = rng.choice((1, 1, 4, 64))
        pace = rng.choice((0.0, 0.01, 0.05, 0.1))
        for _ in range(rng.randint(0, 80)):
            if self.is_over():
                break
            await self.until(lambda: len(self.in_flight) < window)
            if rng.random() < 0.03:
                connection.send(PING, b"are you there")
            self.message(connection, *self.what())
            if pace or rng.random() < 0.1:
                await asyncio.sleep(pace * rng.random())
            await connection.writer.drain()
        await self.part(connection)

    def what(self) -> tuple[str, str]:
        chance = self.rng.random()
        if chance < 0.01:
            return "block", f"{self.rng.choice((0.01, 0.1, 0.5))}"
        if chance < 0.0105:
            return "block-hard", "0.05"
        return "echo", "-"

    def message(self, connection: Connection, word: str, argument: str, is_echoed: bool = True) -> None:
        outcome, rng = self.outcome, self.rng
        size = rng.choice((0, 10, 100, 100, 100, 1000)) if rng.random() < 0.98 else 20_000
        payload = f"{outcome.sent} {word} {argument} {'é' * (size // 2)}".encode()
        opcode = rng.choice((TEXT, BINARY))
        outcome.sent += 1
        if is_echoed:
            self.in_flight.append((opcode, payload))
        if rng.random() < 0.1:
            cut = rng.randint(0, len(payload))
            data = frame(opcode, payload[:cut], fin=False) + frame(PING, b"between") + frame(0, payload[cut:])
        else:
            data = frame(opcode, payload)
        connection.writer.write(data)

    async def part(self, connection: Connection) -> None:
        """Say what ends the connection."""
        outcome = self.outcome
        if outcome.plan == "raise-in-close":
            self.message(connection, "raise-in-close", "-")
        if outcome.plan != "hasty":
            await self.until(lambda: not self.in_flight)
        if outcome.plan in ("raise", "close", "terminate"):
            for _ in range(self.rng.choice((0, 3))):
                self.message(connection, "echo", "-")
            self.message(connection, outcome.plan, "4001", is_echoed=False)
        else:
            self.has_said_close = True
            connection.send(CLOSE, (1000).to_bytes(2, "big"))
        outcome.asked = True

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.moved.clear()
            await self.moved.wait()


async def cut(connection: Connection, rng: random.Random) -> None:
    """Leave in the middle of a frame."""
    await connection.shake_hands()
    whole = frame(TEXT, b"- echo - " + b"x" * rng.choice((10, 1000, 100_000)))
    connection.writer.write(whole[: rng.randint(1, len(whole) - 1)])
    await connection.writer.drain()


async def stall(connection: Connection, rng: random.Random) -> None:
    """Ask for much and read nothing."""
    await connection.shake_hands()
    connection.writer.transport.pause_reading()
    for _ in range(rng.choice((20, 100))):
        connection.writer.write(frame(TEXT, b"- swell 200000 x"))
    await asyncio.sleep(rng.uniform(0.5, 4))


async def flood(connection: Connection, rng: random.Random) -> None:
    """Send much, pings and tiny frames and what blocks its server, and read nothing."""
    await connection.shake_hands()
    connection.writer.transport.pause_reading()
    kind = rng.choice(("pings", "fragments", "messages"))
    if kind == "pings":
        data = frame(PING, b"x" * 125) * 5000
    elif kind == "fragments":
        data = frame(TEXT, b"- echo - ", fin=False) + frame(0, b"", fin=False) * 20_000
    else:
        data = frame(TEXT, b"- block 0.002 x") * 500
    connection.writer.write(data)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(connection.writer.drain(), 3)


async def babble(connection: Connection, rng: random.Random) -> None:
    """Send garbage."""
    await connection.shake_hands()
    connection.writer.write(rng.randbytes(rng.choice((1, 2, 14, 1000, 50_000))))
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(connection.reader.read(100_000), 1)


async def drip(connection: Connection, rng: random.Random) -> None:
    """Send a frame a byte at a time."""
    await connection.shake_hands()
    for byte in frame(TEXT, b"- echo - slowly"):
        connection.writer.write(bytes((byte,)))
        await asyncio.sleep(rng.uniform(0, 0.1))


async def vanish(connection: Connection, rng: random.Random) -> None:
    """Ask for a WebSocket and be gone before the answer, or send with the request what should wait for the answer."""
    connection.writer.write(request("/chaos") + rng.choice((b"", frame(TEXT, b"- echo - x") * 3, b"garbage")))
    await asyncio.sleep(rng.choice((0, 0.001, 0.1)))


ILL: tuple[Callable[[Connection, random.Random], Awaitable[None]], ...] = (cut, stall, flood, babble, drip, vanish)


class Clients:
    def __init__(self, port: int, seconds: float, seed: str, count: int, patience: float, file: Any) -> None:
        self.port = port
        self.deadline = time.monotonic() + seconds
        self.seed = seed
        self.count = count
        self.patience = patience
        self.file = file
        self.ill: dict[str, int] = {}

    def is_over(self) -> bool:
        return time.monotonic() >= self.deadline

    async def run(self) -> None:
        ill = self.count // 5
        storms = max(1, self.count // 100)
        await asyncio.gather(
            *(self.behave(number) for number in range(self.count - ill)),
            *(self.misbehave(number) for number in range(ill - storms)),
            *(self.storm(number) for number in range(storms)),
        )
        self.write({"ill": self.ill})

    def write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")

    async def behave(self, number: int) -> None:
        rng = random.Random(f"{self.seed} behaves {number}")
        await asyncio.sleep(rng.random() * 0.5)
        while not self.is_over():
            outcome = await Behaving(number, self.port, self.patience, rng, self.is_over).run()
            self.write(asdict(outcome))
            if outcome.end == "no handshake":
                await asyncio.sleep(0.1)

    async def misbehave(self, number: int) -> None:
        rng = random.Random(f"{self.seed} misbehaves {number}")
        while not self.is_over():
            await self.once(rng.choice(ILL), rng)
            await asyncio.sleep(rng.random() * 0.2)

    async def storm(self, number: int) -> None:
        """Many come back at once, and leave at once, over and over."""
        rng = random.Random(f"{self.seed} storms {number}")
        while not self.is_over():
            await asyncio.gather(*(self.once(rng.choice((vanish, cut, drip)), rng) for _ in range(40)))
            await asyncio.sleep(rng.random())

    async def once(self, what: Callable[[Connection, random.Random], Awaitable[None]], rng: random.Random) -> None:
        connection = None
        self.ill[what.__name__] = self.ill.get(what.__name__, 0) + 1
        try:
            connection = await Connection.dial(self.port)
            left = max(0.0, self.deadline - time.monotonic())
            await asyncio.wait_for(what(connection, rng), min(HOLD, left))
        except (OSError, EOFError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass
        finally:
            if connection is not None:
                connection.end(reset=rng.random() < 0.5)


def main() -> None:
    port, seconds, seed, count, patience, path = sys.argv[1:]
    logging.getLogger("asyncio").setLevel("ERROR")  # it warns of what is written to a connection that is lost
    with open(path, "w") as file:
        asyncio.run(Clients(int(port), float(seconds), seed, int(count), float(patience), file).run())


if __name__ == "__main__":
    main()
