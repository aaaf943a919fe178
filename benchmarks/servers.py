"""The servers that the benchmarks race: the floor, uWASP on each handler, other revisions of it, and its peers."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for `processes`

from programs import compiled, pinned

from processes import LOOP_OPTIONS, Process, Uwsgi

__all__ = ["ROOT", "RunningServer", "Server", "floor", "revision", "started", "uwasp"]

ROOT = Path(__file__).parents[1]
APPLICATION = Path(__file__).parent / "uwasp_application.py"
PACKAGES = ("uwasp-core", "uwasp-threads", "uwasp-gevent")


@dataclass(frozen=True)
class RunningServer:
    """A server that listens on `port` of the loopback; `session` is the process that leads its session."""

    port: int
    session: int


@dataclass(frozen=True)
class Server:
    """A server of the race.

    Args:
        name: what the tables call it.
        start: starts it, with its log in the folder that is given; returns its process and its port.
        peer: it is another project's.
    """

    name: str
    start: Callable[[Path], tuple[Process, int]]
    peer: bool = False


def floor() -> Server:
    def start(folder: Path) -> tuple[Process, int]:
        process = Process([str(compiled("floor")), "0"], folder / "floor.log")
        process.wait_for_output("\n")
        return process, int(process.output.split()[-1])

    return Server("floor", start)


def uwasp(handler: str, name: str | None = None, packages: Path | None = None, **env: str) -> Server:
    """uWASP's echo on uWSGI.

    Args:
        handler: the handler's name.
        name: what the tables call it (default: uWASP and the handler).
        packages: a folder like packages/ to take uWASP from (default: what is installed).
        env: further environment variables of uwasp_application.py.
    """

    def start(folder: Path) -> tuple[Process, int]:
        env["UWASP_HANDLER"] = handler
        if packages is not None:
            env["UWASP_PACKAGES"] = str(packages)
            env["PYTHONPATH"] = ":".join(str(packages / package / "src") for package in PACKAGES)
        server = Uwsgi(APPLICATION, folder, "--disable-logging", *LOOP_OPTIONS[handler], env=env)
        return server, server.port

    return Server(name or f"uWASP {handler}", start)


def revision(name: str, folder: Path) -> Path:
    """Lay out packages/ of a revision of this repository, and return where."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", name, "packages"], capture_output=True)
    if archive.returncode:
        raise ValueError(f"git has no revision {name!r} with packages/: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    return folder / "packages"


@contextmanager
def started(servers: list[Server], folder: Path, core: int | None) -> Iterator[dict[Server, RunningServer]]:
    """All servers at once: one that is not measured waits, which costs nothing."""
    with ExitStack() as stack:
        running = {}
        for number, server in enumerate(servers):
            own = folder / f"server-{number}"
            own.mkdir()
            with pinned(core):
                process, port = server.start(own)
            stack.callback(process.stop, signal.SIGTERM)  # SIGINT is ignored by what a shell runs in the background
            running[server] = RunningServer(port, process.popen.pid)
        yield running
