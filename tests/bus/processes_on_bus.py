"""The processes of the tests of a bus: each with one transport, driven by the test that started it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import wait_until

PEER = Path(__file__).parent / "peer.py"


@dataclass(frozen=True)
class Kind:
    """A kind of bus under test, as it was set up for one test.

    Attributes:
        name: of the kind.
        url: of the bus.
        gone_within: after how many seconds all others have been told that a process was killed.
        env: further variables for the processes on it.
    """

    name: str
    url: str
    gone_within: float
    env: Mapping[str, str]


class Peer:
    """A process on the bus. Its methods are the commands of peer.py, by their names: `peer.publish("c", "text")`."""

    def __init__(self, url: str, log: Path, env: Mapping[str, str]) -> None:
        self.process = secrets.token_bytes(8)
        self.id = self.process.hex()
        self.log = log
        self.events: list[list[Any]] = []
        self._changed = threading.Condition()
        with log.open("wb") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, str(PEER), url, self.id],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **env},
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *arguments: self._command(name, *arguments)

    def _command(self, *command: Any) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(command).encode() + b"\n")
        self.popen.stdin.flush()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self._changed.notify_all()

    def find(self, name: str, *arguments: Any) -> list[list[Any]]:
        """The events of this name that begin with these arguments, so far."""
        begin = [name, *arguments]
        return [event for event in list(self.events) if event[: len(begin)] == begin]

    def wait(self, name: str, *arguments: Any, count: int = 1, timeout: float = 20.0) -> list[Any]:
        """Wait until there have been `count` events of this name that begin with these arguments; the last of them."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.find(name, *arguments)) >= count, timeout)
        found = self.find(name, *arguments)
        assert there, f"waited {timeout} s for {count} of {[name, *arguments]}:\n{self.events[-50:]}\n{self.output}"
        return found[count - 1]

    def answer(self, command: str, *arguments: Any, event: str | None = None) -> list[Any]:
        """Give a command and wait for the event that answers it, by default one of the same name."""
        before = len(self.find(event or command))
        self._command(command, *arguments)
        return self.wait(event or command, count=before + 1, timeout=60.0)

    @property
    def received(self) -> list[str]:
        return [event[1] for event in self.find("received")]

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def hear(self, *channels: str) -> None:
        """Subscribe, and wait until the channels are heard."""
        for channel in channels:
            before = len(self.find("heard", channel))
            self._command("subscribe", channel)
            self.wait("heard", channel, count=before + 1)

    def signal(self, number: int) -> None:
        os.kill(self.popen.pid, number)
        if number == signal.SIGSTOP:
            stat = Path(f"/proc/{self.popen.pid}/stat")
            wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it to stop")

    def kill(self) -> None:
        """Kill it as the kernel would, and reap it, as a master does."""
        self.popen.kill()
        self.popen.wait()

    def end(self) -> None:
        """Let it end by itself, which closes nothing; killed if it does not."""
        self.signal(signal.SIGCONT) if self.popen.poll() is None else None
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Peers:
    """Starts processes on one bus, and ends them and the children that they left."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.all: list[Peer] = []

    def start(self, url: str | None = None, **env: str) -> Peer:
        """One that has not opened its transport yet."""
        log = self.folder / f"peer-{len(self.all)}.log"
        peer = Peer(url or self.kind.url, log, {**self.kind.env, **env})
        self.all.append(peer)
        return peer

    def open(self, number: int = 1, **env: str) -> list[Peer]:
        """Several that know each other."""
        peers = [self.start(**env) for _ in range(number)]
        for peer in peers:
            peer.wait("ready")
            peer.open()
        self.acquainted(*peers)
        return peers

    def acquainted(self, *peers: Peer) -> None:
        """Wait until each of these knows all others."""
        for peer in peers:
            for other in peers:
                if other is not peer:
                    peer.wait("appeared", other.id)

    def end(self) -> None:
        for peer in self.all:
            for _, child in peer.find("forked"):
                os.kill(child, signal.SIGKILL)
        for peer in self.all:
            peer.end()


def talk(*peers: Peer) -> None:
    """Each of them, all of which hear the channel "talk", says something there that the others hear."""
    for peer in peers:
        text = f"{len(peer.received)} of {peer.id}"
        peer.publish("talk", text)
        for other in peers:
            if other is not peer:
                other.wait("received", text, timeout=30)


__all__ = ["Kind", "Peer", "Peers", "talk", "wait_until"]
