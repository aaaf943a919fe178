"""The C of uwasp-speedups does what the Python does: what a server is told, what goes out, the figures, the end.

A scenario comes of its seed: clients of one listener send frames of all kinds, cut anywhere, and go; their servers
answer, close and raise, and a group sends to all of them. This file is also the program that runs scenarios, with the C
or without it, and says what was seen of each. No time plays a part: a slice ends after each message or never, and what
is delayed comes in a week. For a longer search, give the program the first seed, and how many.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

import uwasp
from raw import frame
from uwasp import Listener, Options, Server, WebSocket, fanout, speedups
from uwasp.compression import MessageDeflate
from uwasp.connection import Connection
from uwasp.events import Told
from uwasp.fanout import Backlog, FanOut, Farewell
from uwasp.protocol import FrameProtocol, encode_shared
from uwasp_asyncio.events import serve

WEEK = 7 * 24 * 60 * 60.0
OPTIONS = Options(ping_interval=None, send_timeout=None, close_timeout=WEEK)
PAYLOADS = [b"", b"a", b"seven b", b"eight by", "Grüße".encode(), bytes(125), bytes(126), b"\x7f" * 1000]
LARGE = [b"x" * 65_535, b"x" * 70_000, b"x" * 2**17, b"x" * 80_000 + "Grüße".encode(), b"x" * 70_000 + b"\xff"]
FAULTS = [frame(3), frame(0), frame(1, b"\xff"), frame(2, b"x", rsv=0x10), frame(2, bytes(2**17 + 1)), b"\x81\x01x"]
FAULTS += [frame(9, b"x", fin=False), frame(8, b"\x03"), b"\x82\xff" + b"\xff" * 12]
HIDDEN = frame(9, frame(2, b"in a ping"), mask=bytes(4))
ANSWERS = ["", "a", "Grüße", b"b" * 125, "c" * 126, b"d" * 1024, b"e" * 1025, bytearray(b"f"), memoryview(b"g")]
SEEN_AT_THE_END = ["close_code", "close_reason", "closed_by", "messages_in", "messages_out", "bytes_in", "bytes_out"]
SEEN_AT_THE_END += ["server", "_inbox", "_batch", "_corked", "_outgoing"]
SEEN_ON_THE_WAY = ["queued_messages", "messages_in", "bytes_in", "_queued", "_told", "_paused", "_is_crowded", "_busy"]


class Foreign(BaseException):
    """Is for the consumer, as gevent's `GreenletExit` is."""


class Scripted(Server):
    """Notes each event, and does what its random numbers say."""

    def __init__(self, ws, source, pairs, group):
        super().__init__(ws)
        self.source, self.pairs, self.group, self.told, self.is_calm = source, pairs, group, [], False

    def on_open(self):
        self.on_message("open")

    def on_close(self):
        self.on_message(f"close {self.ws.close_code} {self.ws.close_reason}")

    def on_notify(self, group):
        self.on_message(group)

    def on_message(self, message):
        self.told.append(f"{type(message).__name__} of {len(message)}: {message[:30]!r}")
        roll = self.source.random()
        if self.is_calm and self.source.random() < 0.9:
            return
        if roll < 0.5:
            for _ in range(self.source.choice([1, 1, 1, 12])):
                self.ws.send(self.source.choice(ANSWERS))
        elif roll < 0.51:
            self.ws.send(LARGE[1])
        elif roll < 0.55:
            self.source.choice(self.pairs).ws.send("from another")
        elif roll < 0.56:
            raise self.source.choice([ValueError, SystemExit, Foreign])
        elif roll < 0.57:
            self.ws.close(4000, "enough")
        elif roll < 0.575:
            self.ws.terminate()
        elif roll < 0.65:
            self.source.choice(self.pairs).ws.connection.tell(Told("on_notify", "a group"))
        elif roll < 0.7:
            self.group.send(self.source)
        elif roll < 0.72:
            self.on_message = partial(Scripted.on_message, self)


class Everybody:
    """A group that all connections are in, more than once or not at all, at each time anew; who has left too."""

    def __init__(self, pairs):
        self.pairs, self.fan_out = pairs, FanOut(Backlog(2**20))

    def send(self, source):
        kind = source.random()
        if kind < 0.5:
            payload = encode_shared(source.choice([*ANSWERS[:6], LARGE[1]]))
        elif kind < 0.97:
            payload = Told("on_notify", "a group", size=source.choice([0, 9]))
        else:
            payload = Farewell(4001, "all")
        members = [pair.ws.connection for pair in self.pairs for _ in range(source.choice([0, 1, 1, 3]))]
        if self.fan_out.put(payload, tuple(members), source.choice([0, 1, 2**19])):
            self.fan_out.run()


def sent_by_a_client(source, deflate):
    """Frames, one by one or together: mostly what clients send."""
    frames = source.choice([[], [HIDDEN[:6], HIDDEN[6:]]])  # its head, and what looks like a message
    for number in range(source.choice([3, 20, 80])):
        payload = source.choice(PAYLOADS) + b"%d" % number if source.random() < 0.98 else source.choice(LARGE)
        opcode = source.choice([1, 1, 2])
        kind = source.random()
        if kind < 0.05:
            frames.append(frame(9, b"ping %d" % number))
        elif kind < 0.15:
            cut = source.randrange(len(payload))
            frames += [frame(opcode, payload[:cut], fin=False), frame(9, b"between"), frame(0, payload[cut:])]
        elif kind < 0.3 and deflate is not None:
            frames.append(frame(opcode, deflate.compress(payload), rsv=0x40))
        elif kind < 0.32:
            frames.append(source.choice(FAULTS))
        elif kind < 0.34:
            frames += [frame(1, b"begun", fin=False), frame(1, b"another")]
        else:
            frames.append(frame(opcode, payload, mask=source.randbytes(4)))
    if source.random() < 0.5:
        frames += [frame(8, source.choice([b"", b"\x03\xe8bye"])), frame(1, b"behind the end")]
    return frames if source.random() < 0.5 else [b"".join(frames)]


def more_than_the_limits(source):
    """What one read brings of it fills the limits: hundreds of small messages, and among them and at the end, what is
    not ordinary, or nothing of it.
    """
    strange = source.choice([0, 0, 0.01, 0.1])
    frames = []
    for number in range(source.choice([40, 200, 800])):
        if source.random() < strange:
            in_two = [frame(1, b"a", fin=False), frame(0, b"b")]
            frequent = [[frame(9, b"ping %d" % number)], in_two, [frame(2, bytes(1000))]] * 5
            frames += source.choice([*frequent, [source.choice(FAULTS)], [frame(8, b"\x03\xe8bye")]])
        frames.append(frame(source.choice([1, 2]), source.choice(PAYLOADS[:5]) + b"%d" % number))
    if source.random() < 0.5:
        frames += [source.choice([frame(8, b"\x03\xe8bye"), *FAULTS]), frame(1, b"behind the end")]
    return [b"".join(frames)]


class Pair:
    """A client's socket with what it is to send, and the connection at its other end."""

    def __init__(self, source, pairs, group):
        self.client, served = socket.socketpair()
        self.client.setblocking(False)
        if source.random() < 0.5:
            served.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that the kernel has
        deflates = [None, None]
        if source.random() < 0.2:
            deflates = [MessageDeflate(PerMessageDeflate(False, False, 12, 12), 64) for _ in range(2)]
        self.following, self.unsent, self.received = sent_by_a_client(source, deflates[0]), b"", b""
        limits = {"max_queue": source.choice([1, 3, 8, 32]), "max_queue_size": source.choice([40, 300, 2**20])}
        limits |= {"write_limit": source.choice([500, 2**20]), "slow_member": source.choice([None, 1, 10**5])}
        limits["skip_slow_members"] = source.random() < 0.5
        self.ws = WebSocket({}, "/", options=replace(OPTIONS, **limits))
        protocol = FrameProtocol(source.choice([100, 2**17, 2**17]), deflate=deflates[1])
        if source.random() < 0.1:
            protocol.accepts = source.choice([str, bytes])
        self.ws.connection = Connection(served.detach(), protocol, self.ws.options, "192.0.2.7", "/")
        self.server = Scripted(self.ws, source, pairs, group)

    def send(self, size):
        if not self.unsent:
            self.unsent = self.following.pop(0) if self.following else frame(2, b"late")
        try:
            self.unsent = self.unsent[self.client.send(self.unsent[:size]) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody is there any more
            self.unsent, self.following = b"", []

    def receive(self, size):
        with contextlib.suppress(OSError):
            self.received += self.client.recv(size)

    def seen_on_the_way(self):
        unread = self.ws.connection._protocol.unread
        left = None if unread is None else len(unread[0]) - unread[1]
        return [left, *(getattr(self.ws.connection, name) for name in SEEN_ON_THE_WAY)]

    def seen(self):
        end = [getattr(self.ws.connection, name) for name in SEEN_AT_THE_END]
        return [self.server.told, len(self.received), hashlib.md5(self.received).hexdigest(), *end]


def run(seed):
    """What was seen of a scenario: what `consume` returned or raised, what waited for servers, and what was seen of
    each connection. In every fourth, clients send only what is ordinary, and more than their servers get the turns for;
    in every other fourth, what one read brings fills the limits, and others close and tell while it waits.
    """
    source = random.Random(seed)
    is_overloaded, is_filled = seed % 4 == 3, seed % 4 == 1
    listener = Listener(new_waiter=lambda: None)
    pairs, seen = [], []
    group = Everybody(pairs)
    pairs += [Pair(random.Random(f"{seed} {number}"), pairs, group) for number in range(source.choice([1, 2, 4]))]
    for pair in pairs:
        listener.add(pair.ws, pair.server)
        if is_overloaded:
            pair.following = [frame(2, pair.server.source.choice(PAYLOADS)) for _ in range(100)]
        elif is_filled:
            pair.following, pair.server.is_calm = more_than_the_limits(pair.server.source), True

    in_steps = source.random() < 0.3

    def consume():
        if listener.ready:
            if in_steps:  # of which the C has one
                with contextlib.suppress(StopIteration):
                    serve(listener.ready.popleft()).send(None)
                return
            try:
                seen.append(listener.ready.popleft().consume(source.random() < 0.5))
            except Foreign:
                seen.append("foreign")

    sizes = source.choice([[1, 2, 7], [50, 1000], [10, 10**6]])
    if is_overloaded:
        sizes = [10**6]
    elif is_filled:
        sizes = source.choice([[10**6], [100, 1000], [9, 500, 10**6]])
    for _ in range(source.choice([50, 300])):
        pair = source.choice(pairs)
        roll = source.random()
        if roll < 0.4:
            pair.send(source.choice(sizes))
        elif roll < 0.5:
            pair.receive(source.choice([100, 10**5]))
        elif roll < 0.7:
            listener.poll(0)
            seen.append([pair.seen_on_the_way() for pair in pairs])
        elif roll < 0.9:
            if not is_overloaded or source.random() < 0.2:
                consume()
                seen.append([pair.seen_on_the_way() for pair in pairs])
        elif roll < 0.995 and is_filled:
            another = source.random()
            if another < 0.1:
                pair.ws.close(4002, "from another")
            elif another < 0.13:
                pair.ws.terminate()
            elif another < 0.5:
                pair.ws.connection.tell(Told("on_notify", "a group", size=source.choice([0, 9])))
        elif roll < 0.995:
            group.send(source)
        else:
            pair.client.close()
    for turn in range(2000):
        for pair in pairs:
            pair.receive(10**6)
            if pair.unsent or pair.following:
                pair.send(10**6)
            elif turn > 100 and not pair.ws.buffered_amount:
                pair.client.close()
        listener.poll(0)
        for _ in range(len(listener.ready)):
            consume()
        if not len(listener) and not listener.ready:
            break
    assert not len(listener), f"scenario {seed} does not end"
    listener.poller.close()
    return [seen, listener.totals.slow_members, *(pair.seen() for pair in pairs)]


def say(with_c, slices, first, count):
    """In a process of its own: what the C takes a copy of is set before it is put in."""
    logging.disable()
    uwasp.incoming.SLICE = uwasp.connection.SLICE = 0.0 if slices == "short" else WEEK
    fanout.SLICE = 0.0 if slices == "short" else WEEK
    uwasp.outgoing.CORKED_TIME = uwasp.connection.CORKED_TIME = uwasp.closing.CLOSE_ANSWER_DELAY = WEEK
    if with_c == "with":
        del os.environ["UWASP_SPEEDUPS"]
        speedups.accelerate(uwasp.__version__)
        assert speedups.in_use
    for seed in range(int(first), int(first) + int(count)):
        print(json.dumps([seed, *run(seed)]))


def compare(slices, first, count):
    env = {**os.environ, "UWASP_SPEEDUPS": "0"}  # the program puts it in by itself
    commands = [[sys.executable, __file__, with_c, slices, str(first), str(count)] for with_c in ("without", "with")]
    said = [subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True).stdout for command in commands]
    for python, c in zip(*(lines.splitlines() for lines in said), strict=True):
        assert json.loads(c) == json.loads(python)


@pytest.mark.skipif(not speedups.in_use, reason="uwasp-speedups is not installed")
@pytest.mark.parametrize("slices", ["short", "endless"])
def test_the_c_and_the_python_agree(slices):
    compare(slices, 0, 40)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        say(*sys.argv[1:])
    else:
        for slices in ("short", "endless"):
            compare(slices, *map(int, sys.argv[1:]))
