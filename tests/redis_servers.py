"""Real servers of Redis for tests: each on a port of this machine's own, in a folder of its own, ended by the test."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from processes import Process, require_program, wait_until

READY = "Ready to accept connections"
WATCHES = "+monitor master"


def free_port() -> int:
    """A port that the kernel chose. Redis cannot be given a socket that listens already."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


class RedisServer:
    """A redis-server, which can be stopped and started again on the same port.

    Args:
        folder: of its own, for its configuration, its log and its socket.
        options: lines of its configuration, such as "requirepass secret"; "{port}" in one is its port.
        is_started: it is there, and ready, at once.
    """

    def __init__(self, folder: Path, *options: str, is_started: bool = True) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.port = free_port()
        self.arguments = ("-p", str(self.port))  # for redis-cli
        self._options = options
        self._processes: list[Process] = []
        if is_started:
            self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def process(self) -> Process:
        return self._processes[-1]

    def start(self) -> None:
        configuration = self.folder / "redis.conf"
        own = [option.replace("{port}", str(self.port)) for option in self._options]
        lines = ["bind 127.0.0.1", f"dir {self.folder}", 'save ""', f"unixsocket {self.socket}", f"port {self.port}"]
        configuration.write_text("".join(f"{line}\n" for line in [*lines, *own]))
        self._start("redis-server", str(configuration), ready=READY)

    def _start(self, program: str, *arguments: str, ready: str) -> None:
        log = self.folder / f"redis-{len(self._processes)}.log"
        self._processes.append(Process([str(require_program(program)), *arguments], log, cwd=self.folder))
        self.process.wait_for_output(ready)

    def stop(self) -> None:
        """End it as a crash would."""
        if self._processes and self.process.popen.poll() is None:
            self.process.popen.kill()
            self.process.popen.wait()

    def pause(self) -> None:
        self.process.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.popen.send_signal(signal.SIGCONT)

    def command(self, *words: str, stdin: bytes | None = None) -> str:
        """What it answers to a command; the last word is read from `stdin` if that is given."""
        reading = () if stdin is None else ("-x",)
        command = [str(require_program("redis-cli")), *self.arguments, *reading, *words]
        done = subprocess.run(command, input=stdin or b"", capture_output=True, timeout=30, check=True)
        return done.stdout.decode().strip()

    def wait_for_subscribers(self, channel: str, number: int) -> None:
        wait_until(
            lambda: self.command("PUBSUB", "NUMSUB", channel).split()[-1] == str(number),
            f"{number} subscribers to {channel}",
        )


class RedisSentinel(RedisServer):
    """A redis-sentinel that watches a master, as `mymaster`, and alone decides that another is to be the master.

    Args:
        folder: of its own.
        master: what it watches.
    """

    def __init__(self, folder: Path, master: RedisServer) -> None:
        self._master = master
        super().__init__(folder)

    def start(self) -> None:
        configuration = self.folder / "sentinel.conf"
        lines = ["bind 127.0.0.1", f"dir {self.folder}", f"port {self.port}"]
        lines += [f"sentinel monitor mymaster 127.0.0.1 {self._master.port} 1"]
        lines += ["sentinel down-after-milliseconds mymaster 1000", "sentinel failover-timeout mymaster 10000"]
        configuration.write_text("".join(f"{line}\n" for line in lines))
        self._start("redis-sentinel", str(configuration), ready=WATCHES)

    def master_port(self) -> int:
        return int(self.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster").split()[1])

    def wait_for_replica(self) -> None:
        """Until it knows of one that could be the master."""
        wait_until(lambda: "flags\nslave\n" in self.command("SENTINEL", "REPLICAS", "mymaster"), "a replica")
