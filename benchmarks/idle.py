"""What idle connections cost a worker: its CPU time, and its memory, for many that only answer pings.

    python benchmarks/idle.py threads|gevent [connections] [seconds]

The clients are in this process. It needs a file descriptor for each connection, in itself and in the worker.
"""

from __future__ import annotations

import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOP_OPTIONS = {"threads": ("--threads", "2"), "gevent": ("--gevent", "100")}
PING, PONG = b"\x89\x00", b"\x8a\x80\x00\x00\x00\x00"
REQUEST = (
    b"GET /idle HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
APPLICATION = """
import sys
from uwasp import Server, WebSocketMiddleware

class Idle(Server):
    pass

application = WebSocketMiddleware(lambda environ, start_response: [], {handler!r}, [("/idle", Idle)])
"""


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(REQUEST)
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    return client


def answer_pings(poller: select.epoll, clients: dict[int, socket.socket], seconds: float) -> int:
    """Return how many were answered."""
    pings = 0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for fd, _ in poller.poll(left):
            data = clients[fd].recv(4096)
            if data.replace(PING, b""):
                raise SystemExit(f"not a ping: {data!r}")
            pings += len(data) // len(PING)
            clients[fd].send(PONG * (len(data) // len(PING)))
    return pings


def usage(pid: int) -> tuple[float, int]:
    """The CPU seconds and the resident KiB of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds, int(fields[21]) * os.sysconf("SC_PAGESIZE") // 1024


def main(handler: str, connections: int = 10_000, seconds: int = 60) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        program = Path(folder, "idle.py")
        program.write_text(APPLICATION.format(handler=handler))
        command = [str(Path(sys.executable).parent / "uwsgi"), "--need-app", "--wsgi-file", str(program)]
        command += ["--http-socket", f"fd://{listening.fileno()}", "--disable-logging", *LOOP_OPTIONS[handler]]
        worker = subprocess.Popen(command, pass_fds=[listening.fileno()], stderr=subprocess.DEVNULL)
        try:
            port = listening.getsockname()[1]
            clients: dict[int, socket.socket] = {}
            poller = select.epoll()
            first = connect(port)
            before = usage(worker.pid)[1]
            for client in [first, *(connect(port) for _ in range(connections - 1))]:
                clients[client.fileno()] = client
                poller.register(client.fileno(), select.EPOLLIN)
            answer_pings(poller, clients, 2)
            begin, resident = usage(worker.pid)
            pings = answer_pings(poller, clients, seconds)
            spent = usage(worker.pid)[0] - begin
            print(
                f"{handler}: {len(clients)} connections, {pings} pings in {seconds} s: {spent:.2f} s of CPU, "
                f"{100 * spent / seconds:.2f} % of a core; {(resident - before) / connections:.1f} KiB a connection"
            )
        finally:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    main(sys.argv[1], *(int(argument) for argument in sys.argv[2:]))
