"""The chat as people start it: `examples/chat/run.py` as a process."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from processes import Process, uwsgi_program

EXAMPLES = Path(__file__).parents[2] / "examples"


class Demo(Process):
    """The chat, started by its `run.py` and waited for.

    Args:
        folder: where its log goes.
        handler: the name of the handler.
        port: where it listens (default: any free port).
        wait: whether to wait until it says where it listens.
    """

    def __init__(self, folder: Path, handler: str, port: int = 0, wait: bool = True) -> None:
        uwsgi_program()  # skips the test if there is none
        command = [sys.executable, str(EXAMPLES / "chat" / "run.py"), "--handler", handler, "--port", str(port)]
        super().__init__(command, folder / "run.log", cwd=folder)
        if wait:
            self.wait_for_output("open http://")

    def processes(self) -> list[int]:
        """The ids of all that it has started: uWSGI's master first, then its workers."""
        found = [self.popen.pid]
        for pid in found:  # grows meanwhile
            try:
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
        return found[1:]

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        started = self.processes()
        try:
            return super().stop(with_signal)
        finally:
            for pid in filter(is_alive, started):  # only if the test fails
                os.kill(pid, signal.SIGKILL)

    @property
    def url(self) -> str:
        return str(re.findall(r"open (http://\S+/)", self.output)[-1])

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for init to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
