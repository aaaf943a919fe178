"""The servers that the benchmarks race: the floor, uWASP on each handler, other revisions of it, and its peers.

What a peer is and how it is started is in peers.py.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # for `processes`

from programs import compiled, pinned

from processes import LOOP_OPTIONS, Process, Uwsgi, wait_until

__all__ = [
    "BROADCAST",
    "ECHO",
    "ROOT",
    "NotStarted",
    "Process",
    "RunningServer",
    "Server",
    "floor",
    "free_port",
    "revision",
    "started",
    "uwasp",
    "wait_until_it_listens",
]

ROOT = Path(__file__).parents[1]
APPLICATION = Path(__file__).parent / "uwasp_application.py"
PACKAGES = ("uwasp-core", "uwasp-threads", "uwasp-gevent", "uwasp-asyncio")
BRINGS = {"gevent": ["gevent"], "asyncio": ["uvloop"]}  # what a handler runs on
ECHO, BROADCAST = ("--path", "/echo"), ("--path", "/broadcast")  # options of the load client


class NotStarted(Exception):
    """A server ended, or did not listen in time; the message has its log."""


@dataclass(frozen=True, eq=False)
class Server:
    """A server of the race.

    Args:
        name: what the tables call it.
        start: starts it, with its log in the folder that is given, on a port that is given or, at 0, any that is free;
            returns its process and its port.
        peer: it is another project's.
        settings: with which it runs, for the report.
        versions: of what it is made of.
        keepalive: it pings connections by default.
        lacks: the names of the shapes in which it has no part, and why.
        echo, broadcast: the load client's options for it.
    """

    name: str
    start: Callable[[Path, int], tuple[Process, int]]
    peer: bool = False
    settings: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    keepalive: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    echo: tuple[str, ...] = ECHO
    broadcast: tuple[str, ...] = BROADCAST


class RunningServer:
    """A server that listens on `port` of the loopback; `session` is the process that leads its session.

    Args:
        server: which.
        folder: for its logs.
        core: the one that it runs on, or `None` for any.

    Raises:
        NotStarted
    """

    def __init__(self, server: Server, folder: Path, core: int | None) -> None:
        self.server = server
        self._folder, self._core, self._starts = folder, core, 0
        self._start()

    def _start(self, port: int = 0) -> None:
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir(parents=True)
        with pinned(self._core):
            try:
                self._process, self.port = self.server.start(folder, port)
            except (AssertionError, OSError) as error:
                raise NotStarted(f"{self.server.name}: {error}") from None

    @property
    def session(self) -> int:
        return self._process.popen.pid

    def restart(self) -> None:
        """After a failure, which may have left it in any state."""
        self.stop()
        self._start()

    def renew(self) -> None:
        """As for a new version of its program: uWSGI reloads; others are killed and started again on their port."""
        if isinstance(self._process, Uwsgi):
            self._process.popen.send_signal(signal.SIGHUP)
        else:
            _kill(self._process)
            self._start(self.port)

    def stop(self) -> None:
        if self.server.peer:
            # Some peers take their time, and how they stop is not measured.
            _kill(self._process)
        else:
            self._process.stop(signal.SIGTERM)  # SIGINT is ignored by what a shell runs in the background


def floor() -> Server:
    def start(folder: Path, port: int) -> tuple[Process, int]:
        process = Process([str(compiled("floor")), str(port)], folder / "floor.log")
        process.wait_for_output("\n")
        return process, int(process.output.split()[-1])

    return Server("floor", start, settings="benchmarks/floor.c: C, one thread, epoll, no check of any kind")


def uwasp(
    handler: str,
    name: str | None = None,
    packages: Path | None = None,
    options: Sequence[str] = (),
    speedups: Path | None = None,
    **env: str,
) -> Server:
    """uWASP's echo on uWSGI.

    Args:
        handler: the handler's name.
        name: what the tables call it (default: uWASP and the handler).
        packages: a folder like packages/ to take uWASP from (default: what is installed).
        options: further options of uWSGI.
        speedups: where uwasp-speedups is (default: it is left out).
        env: further environment variables of uwasp_application.py.
    """
    uwsgi = (*LOOP_OPTIONS[handler], *options)

    def start(folder: Path, port: int) -> tuple[Process, int]:
        env["UWASP_HANDLER"] = handler
        env["UWASP_SPEEDUPS"] = "0" if speedups is None else "1"
        path = [] if speedups is None else [speedups]
        if packages is not None:
            env["UWASP_PACKAGES"] = str(packages)
            path += [packages / package / "src" for package in PACKAGES]
        env["PYTHONPATH"] = ":".join(map(str, path))
        server = Uwsgi(APPLICATION, folder, "--disable-logging", *uwsgi, env=env)
        return server, server.port

    parts = ["uwasp-core", "pyuwsgi", *BRINGS.get(handler, [])]
    with_or_without = "without uwasp-speedups" if speedups is None else "with uwasp-speedups"
    return Server(
        name or f"uWASP {handler}",
        start,
        settings=f"uWSGI with `--http-socket`, `{' '.join(uwsgi)}`; {with_or_without}",
        versions={part: version(part) for part in parts},
        keepalive=True,
    )


def revision(name: str, folder: Path) -> Path:
    """Lay out packages/ of a revision of this repository, and return where."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", name, "packages"], capture_output=True)
    if archive.returncode:
        raise ValueError(f"git has no revision {name!r} with packages/: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder)
    return folder / "packages"


@contextmanager
def started(
    servers: Sequence[Server],
    folder: Path,
    core: int | None,
    failed: Callable[[Server, NotStarted], None] | None = None,
) -> Iterator[dict[Server, RunningServer]]:
    """All servers at once: one that is not measured waits, which costs nothing.

    Args:
        failed: called for a peer that does not start, which is then left out (default: raise that).

    Raises:
        NotStarted
    """
    with ExitStack() as stack:
        running = {}
        for number, server in enumerate(servers):
            try:
                running[server] = RunningServer(server, folder / f"server-{number}", core)
            except NotStarted as error:
                if failed is None or not server.peer:
                    raise
                failed(server, error)
            else:
                stack.callback(running[server].stop)
        yield running


def free_port() -> int:
    """For a server that has to be told one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


def wait_until_it_listens(process: Process, port: int) -> None:
    def does() -> bool:
        if process.popen.poll() is not None:
            raise AssertionError(f"ended with {process.popen.returncode}:\n{process.output}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(does, f"port {port}")
    except (AssertionError, TimeoutError) as error:
        _kill(process)
        raise AssertionError(f"{error}\n{process.output}") from None


def _kill(process: Process) -> None:
    """With all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.popen.pid, signal.SIGKILL)
    process.popen.wait()
