"""What permessage-deflate costs: `python benchmarks/compression.py`.

Memory of a connection that has had one message each way, and the server's processor time for each message that is
echoed, without compression and with it, with and without context takeover. The client sends all its messages
compressed, as browsers do. Its messages are compressed before the race, so that it costs the client nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs import BuildFailed, Idle, NoCompiler, compiled, load, memory, raise_descriptor_limit
from servers import RunningServer, started, uwasp

KIB = 1024
SIZES = (100, 1 * KIB, 16 * KIB)
MEMORY_SIZE = 1 * KIB  # of the message that connections have had before their memory is measured
MESSAGES = 64  # different ones, sent round and round
CONNECTIONS = 50  # while time is measured
WINDOW_BITS = 12  # uwasp.Deflate's default for what the client sends
OFFER = "permessage-deflate; client_max_window_bits"  # what Chromium and Firefox offer
FINAL_TEXT, RSV1, MASKED = 0x81, 0x40, 0x80  # bits of a frame's head
MASK = bytes((0x37, 0xFA, 0x21, 0x3D))
EMPTY_BLOCK = b"\x00\x00\xff\xff"  # removed from the end of each message (RFC 7692 section 7.2.1)


@dataclass(frozen=True, eq=False)
class Setting:
    """How a connection compresses.

    Args:
        title: for the table.
        arguments: of uwasp.Deflate; `None` for no compression.
        agreed: what the handshake's answer must have in it.
    """

    title: str
    arguments: dict[str, object] | None = None
    agreed: str = ""

    @property
    def context_takeover(self) -> bool:
        return self.arguments is not None and not self.arguments.get("client_no_context_takeover")


NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}
SETTINGS = (
    Setting("no compression"),
    Setting("deflate, context takeover (the default)", {}, f"client_max_window_bits={WINDOW_BITS}"),
    Setting("deflate, no context takeover", NO_TAKEOVER, "client_no_context_takeover"),
)
# A threshold of 0 has the server compress the smallest messages too, which it leaves alone by default.
SMALL_SETTINGS = (
    *SETTINGS,
    Setting("deflate, context takeover, threshold=0", {"threshold": 0}, f"client_max_window_bits={WINDOW_BITS}"),
    Setting("deflate, no context takeover, threshold=0", {**NO_TAKEOVER, "threshold": 0}, "client_no_context_takeover"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        compiled("load")
    except (NoCompiler, BuildFailed) as error:
        print(error, file=sys.stderr)
        return 1
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory(prefix="uwasp-bench-") as name:
        folder = Path(name)
        print(f"handler: {options.handler}; {options.rounds} rounds: the median of memory, the least of times\n")
        print(_memory_table(options, folder))
        for size in SIZES:
            print(f"\n{_time_table(options, size, folder)}", flush=True)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--handler", choices=("gevent", "threads"), default="gevent", help="default: gevent")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--duration", type=float, default=1.0, help="of one measurement, in seconds (default: 1)")
    parser.add_argument("--idle", type=int, default=1000, help="connections while memory is measured (default: 1,000)")
    return parser.parse_args(arguments)


def messages(size: int) -> list[bytes]:
    """What an application might send: lists of records as JSON, cut at exactly `size` bytes. The same in every run."""
    source = random.Random(size)
    words = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo")
    found = []
    for _ in range(MESSAGES):
        records: list[dict[str, object]] = []
        text = ""
        while len(text) < size:
            records.append(
                {
                    "id": source.randrange(10**6),
                    "name": f"{source.choice(words)} {source.choice(words)}",
                    "price": round(source.uniform(1, 1000), 2),
                    "active": source.random() < 0.5,
                }
            )
            text = json.dumps({"type": "update", "records": records})
        found.append(text[:size].encode())
    return found


def compress(payloads: Sequence[bytes], context_takeover: bool) -> Iterator[bytes]:
    """As a client does. Sent round and round this stays valid: the first refers to nothing before it."""
    deflate = None
    for payload in payloads:
        if deflate is None or not context_takeover:
            deflate = zlib.compressobj(wbits=-WINDOW_BITS)
        data = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
        yield data.removesuffix(EMPTY_BLOCK)


def text_frame(payload: bytes, compressed: bool) -> bytes:
    """A client's frame, with a mask (RFC 6455 section 5.2)."""
    first = FINAL_TEXT | RSV1 if compressed else FINAL_TEXT
    length = len(payload)
    if length < 126:
        head = bytes((first, MASKED | length))
    elif length < 2**16:
        head = bytes((first, MASKED | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((first, MASKED | 127)) + length.to_bytes(8, "big")
    return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))


def _stream(setting: Setting, size: int, folder: Path) -> tuple[list[str], float]:
    """Options of the load client to send such messages, and the mean size of what it sends of one."""
    payloads = messages(size)
    compressed = setting.arguments is not None
    if compressed:
        payloads = list(compress(payloads, setting.context_takeover))
    frames = [text_frame(payload, compressed) for payload in payloads]
    file = folder / f"{size}-{compressed}-{setting.context_takeover}.frames"
    file.write_bytes(b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames))
    options = ["--stream", str(file)]
    if compressed:
        options += ["--offer", OFFER, "--expect", setting.agreed]
    return options, statistics.fmean(map(len, payloads))


def _memory_table(options: argparse.Namespace, folder: Path) -> str:
    used: dict[Setting, list[float]] = {setting: [] for setting in SETTINGS}
    for number in range(options.rounds):
        for setting in SETTINGS:
            # A fresh server each time: memory once used is not given back.
            own = folder / f"memory-{number}-{SETTINGS.index(setting)}"
            own.mkdir()
            used[setting].append(_memory_of_a_connection(options, setting, own))
    least = statistics.median(used[SETTINGS[0]])
    lines = [
        f"memory of a connection, of {options.idle:,} that have had one message of {MEMORY_SIZE} B each way",
        "| | KiB a connection | more than without |",
        "|---|---|---|",
    ]
    for setting, found in used.items():
        middle = statistics.median(found)
        lines.append(f"| {setting.title} | {middle / KIB:.1f} | {(middle - least) / KIB:.1f} |")
    return "\n".join(lines)


def _memory_of_a_connection(options: argparse.Namespace, setting: Setting, folder: Path) -> float:
    stream, _ = _stream(setting, MEMORY_SIZE, folder)
    with _running(options.handler, (setting,), folder) as running:
        server = running[setting]
        Idle(server.port, *stream, "--connections", "20").close()  # what is made at the first connection
        before = memory(server.session)
        idle = Idle(server.port, *stream, "--connections", str(options.idle))
        after = memory(server.session)
        idle.close()
    return (after - before) / options.idle


def _time_table(options: argparse.Namespace, size: int, folder: Path) -> str:
    own = folder / f"time-{size}"
    own.mkdir()
    settings = SMALL_SETTINGS if size < MEMORY_SIZE else SETTINGS
    used: dict[Setting, list[float]] = {setting: [] for setting in settings}
    on_the_wire: dict[Setting, float] = {}
    with _running(options.handler, settings, own) as running:
        for _ in range(options.rounds):
            for setting in settings:
                stream, on_the_wire[setting] = _stream(setting, size, own)
                server = running[setting]
                what = (*stream, "--connections", str(CONNECTIONS), "--duration", str(options.duration))
                used[setting].append(load(server.port, server.session, *what).cpu * 1e6)
    least = min(used[settings[0]])  # what else the machine does can only add to it
    lines = [
        f"messages of {size:,} B, echoed on {CONNECTIONS} connections",
        "| | server CPU, µs a message | more than without | bytes of a message from the client |",
        "|---|---|---|---|",
    ]
    for setting, found in used.items():
        cpu = min(found)
        lines.append(f"| {setting.title} | {cpu:.0f} | {cpu - least:.0f} | {on_the_wire[setting]:,.0f} |")
    return "\n".join(lines)


@contextmanager
def _running(handler: str, settings: Sequence[Setting], folder: Path) -> Iterator[dict[Setting, RunningServer]]:
    """A uWASP for each setting."""
    servers = []
    for setting in settings:
        env = {} if setting.arguments is None else {"UWASP_COMPRESSION": repr(setting.arguments)}
        servers.append(uwasp(handler, setting.title, **env))
    with started(servers, folder, 0) as running:
        yield {setting: running[server] for setting, server in zip(settings, servers, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
