"""The command `uwasp` as a process, with all that it starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from processes import Process, processes_below, uwsgi_program

PARTING = 2.0  # seconds, for what was killed to be gone
UWASP = [sys.executable, "-m", "uwasp_cli"]


def uwasp(*arguments: object, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    uwsgi_program()  # skips the test if there is none
    command = [*UWASP, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **keywords)


class Command(Process):
    """A program that says where it serves, by a line `open http://...`, and ends with all that it has started.

    Args:
        command: its command line.
        folder: where its log goes.
        cwd: the folder in which it runs (default: that of the log).
        wait: whether to wait until it says where.

    Attributes:
        left: the ids of what it had started and was there still when it was stopped, or a moment later.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> None:
        uwsgi_program()  # skips the test if there is none
        self.left: list[int] = []
        super().__init__(command, folder / "command.log", env, cwd=cwd or folder)
        if wait:
            self.wait_for_output("open http://")

    def processes(self) -> list[int]:
        """The ids of all that it has started: of `uwasp dev` uWSGI's master first, then its workers."""
        return processes_below(self.popen.pid)

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        started = self.processes()
        try:
            return super().stop(with_signal)
        finally:
            deadline = time.monotonic() + PARTING
            while any(map(is_alive, started)) and time.monotonic() < deadline:
                time.sleep(0.01)
            self.left = list(filter(is_alive, started))
            for pid in self.left:
                os.kill(pid, signal.SIGKILL)

    @property
    def url(self) -> str:
        return str(re.findall(r"open (http://\S+/)", self.output)[-1])

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])


def port_of(uwsgi: Process) -> int:
    """The port that the kernel chose for a uWSGI that was told 127.0.0.1:0."""
    return int(re.findall(r"bound to TCP address 127\.0\.0\.1:(\d+)", uwsgi.output)[-1])


def port_of_router(uwsgi: Process) -> int:
    """The same of uWSGI's HTTP router, which does not say it; what it does say is where its workers listen."""
    folder = Path(f"/proc/{uwsgi.popen.pid}")
    links = {os.readlink(descriptor) for descriptor in (folder / "fd").iterdir()}
    rows = [row.split() for row in (folder / "net" / "tcp").read_text().splitlines()[1:]]
    ports = {int(row[1].partition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links}
    (port,) = ports - {port_of(uwsgi)}
    return port


def hears_signals(pid: int) -> bool:
    """Whether a process has a handler for SIGUSR2, as uWSGI's workers have once they are ready."""
    caught = re.search(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGUSR2 - 1) & 1)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for init to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
