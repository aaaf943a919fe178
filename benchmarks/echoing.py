"""Echoes a number of messages over pairs of sockets, in one thread: a program for benchmarks/instructions.py to count.

Arguments: connections, messages in flight on each, bytes a message, rounds. There is no uWSGI, and nothing waits: what
is left is what a message costs in the listener, the protocol and the consumer, and little for the client.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
from types import SimpleNamespace
from typing import Any

import uwasp
from uwasp import Listener, Options
from uwasp.connection import Connection
from uwasp.protocol import FrameProtocol
from uwasp.websocket import WebSocket

if uwasp.speedups.in_use != (os.environ["UWASP_SPEEDUPS"] == "1") or not uwasp.__file__.startswith(
    os.environ["UWASP_PACKAGES"] + os.sep
):
    raise ImportError(f"not the uWASP that is to be counted: {uwasp.__file__}, in C: {uwasp.speedups.in_use}")


class Echo(uwasp.Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


def connect(listener: Listener) -> socket.socket:
    client, served = socket.socketpair()
    for end in (client, served):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    ws: Any = WebSocket({}, "/echo", None, Options(), None)
    ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/echo")
    listener.add(ws, Echo(ws))
    return client


def main(connections: int, in_flight: int, size: int, rounds: int) -> None:
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    frames = (b"\x82" + length + bytes(4) + b"x" * size) * in_flight
    answer = (size + (2 if size < 126 else 4)) * in_flight
    listener = Listener()
    descriptors = [client.detach() for client in (connect(listener) for _ in range(connections))]
    state = SimpleNamespace(ready=listener.ready, write=os.write, read=os.read)
    for _ in range(rounds):
        for fd in descriptors:
            state.write(fd, frames)
        listener.poll(0)
        while state.ready:
            state.ready.popleft().consume(cork=True)
        for fd in descriptors:
            left = answer
            while left:
                left -= len(state.read(fd, left))


if __name__ == "__main__":
    gc.disable()
    main(*map(int, sys.argv[1:]))
