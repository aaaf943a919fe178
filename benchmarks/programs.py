"""The programs of a benchmark as processes: built, pinned to a core, and what they use of the machine."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

__all__ = [
    "BuildFailed",
    "Idle",
    "Load",
    "LoadFailed",
    "NoCompiler",
    "Storm",
    "cache_folder",
    "compiled",
    "cpu_of_processes",
    "cpu_seconds",
    "library",
    "memory",
    "pinned",
    "raise_descriptor_limit",
    "session",
]

HERE = Path(__file__).parent
FLAGS = ("-O2", "-Wall")
PROCESS_CPU_CLOCK = 2  # Linux: what clock_getcpuclockid makes of a process, as Python has no such function


class NoCompiler(Exception):
    """There is no C compiler on this machine."""


class BuildFailed(Exception):
    """The C compiler refused a program; the message has what it said."""


class LoadFailed(Exception):
    """The load client gave up, because the server did what it must not; the message says what."""


def cache_folder() -> Path:
    """By the XDG Base Directory Specification; a relative path in the variable is to be ignored."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "uwasp" / "benchmarks"


def library(name: str) -> Path:
    """The shared library of `name`.c, as `compiled` does it."""
    return compiled(name, ("-shared", "-fPIC"))


def compiled(name: str, flags: Sequence[str] = ()) -> Path:
    """The program of `name`.c, compiled once for each version of its source.

    Raises:
        NoCompiler, BuildFailed.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise NoCompiler(
            "the load client and the floor server are C programs, and there is no `cc` on the PATH: "
            "install gcc or clang (Debian: apt-get install gcc libc6-dev), or set CC"
        )
    source = HERE / f"{name}.c"
    program = cache_folder() / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        command = [compiler, *FLAGS, *flags, str(source), "-o", str(unfinished)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise BuildFailed(f"{' '.join(command)}\n{run.stderr}")
        unfinished.rename(program)
    return program


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started within runs on one core: a process inherits where its parent may run. `None`: on any."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_descriptor_limit() -> int:
    """Let this process and those that it starts have as many descriptors as they may; return how many that are."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def session(leader: int) -> list[int]:
    """The processes of a session: a server and all that it has started."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            if int(fields[3]) == leader:
                found.append(int(entry))
    return found


def cpu_of_processes(leader: int) -> dict[int, float]:
    """The processor time that each process of a session has used so far, with that of threads that have ended."""
    used = {}
    for pid in session(leader):
        with suppress(OSError):  # it has ended
            used[pid] = time.clock_gettime(~pid << 3 | PROCESS_CPU_CLOCK)
    return used


def cpu_seconds(leader: int) -> float:
    """The same of all processes of a session together."""
    return sum(cpu_of_processes(leader).values())


def memory(leader: int) -> int:
    """The resident memory of a session in bytes; what its processes share counts once for each."""
    pages = 0
    for pid in session(leader):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


class Load(NamedTuple):
    """What one run of the load client found.

    Args:
        rate: messages (or handshakes, or requests) a second.
        messages: how many in the time that was measured.
        cpu: the server's processor time for each, in seconds.
        client_cpu: the share of a core that the client used; near 1, it was the client that was measured.
        latency: quantiles in microseconds, where the mode measures them.
    """

    rate: float
    messages: int
    cpu: float
    client_cpu: float
    latency: dict[str, float]


def load(
    port: int, leader: int, *options: str, core: int | None = 1, while_measuring: Callable[[], None] | None = None
) -> Load:
    """Run the load client against the server of the session `leader`.

    Args:
        while_measuring: called once in between, while the load goes on; it must not take longer than that.

    Raises:
        LoadFailed
    """
    client = _start(port, options, core)
    assert client.stdout is not None
    with client:
        used = 0.0
        answer: dict[str, Any] | None = None
        for line in client.stdout:
            if line == "measuring\n":
                used = -cpu_seconds(leader)
                if while_measuring is not None:
                    while_measuring()
            elif line == "measured\n":
                used += cpu_seconds(leader)
            else:
                answer = json.loads(line)
        _, complaint = client.communicate()
    if answer is None or not answer["messages"]:
        raise LoadFailed(complaint.strip() or "no message came back")
    return Load(
        answer["rate"],
        answer["messages"],
        used / answer["messages"],
        answer["client_cpu"],
        answer.get("latency", {}),
    )


class Idle:
    """Connections that had one message each and then are only held open, pings answered, until `close` is called.

    Raises:
        LoadFailed
    """

    def __init__(self, port: int, *options: str, core: int | None = 1) -> None:
        self._client = _start(port, ("--mode", "idle", *options), core)
        assert self._client.stdout is not None
        if self._client.stdout.readline() != "measuring\n":
            _, complaint = self._client.communicate()
            raise LoadFailed(complaint.strip())

    def close(self) -> int:
        """Return how many pings were answered."""
        answer, complaint = self._client.communicate()
        if self._client.returncode:
            raise LoadFailed(complaint.strip())
        return int(json.loads(answer)["pings"])


class Storm:
    """Connections that had one message each; from then on each one that is lost is opened again, for an echo.

    Raises:
        LoadFailed
    """

    def __init__(self, port: int, *options: str, core: int | None = 1) -> None:
        self._client = _start(port, ("--mode", "storm", *options), core)
        if self._line() != "measuring\n":
            self._fail()

    def wait(self) -> tuple[float, int, dict[str, float]]:
        """Until each had an echo: the monotonic time of that, how many connections were tried, and when they had one.

        The last are quantiles in microseconds from the beginning.
        """
        line = self._line()
        if not line:
            self._fail()
        answer = json.loads(line)
        return answer["ended"], answer["attempts"], answer["latency"]

    def close(self) -> None:
        self._client.communicate()

    def _line(self) -> str:
        assert self._client.stdout is not None
        return self._client.stdout.readline()

    def _fail(self) -> NoReturn:
        _, complaint = self._client.communicate()
        raise LoadFailed(complaint.strip())


def _start(port: int, options: Sequence[str], core: int | None) -> subprocess.Popen[str]:
    with pinned(core):
        return subprocess.Popen(
            [str(compiled("load")), "--port", str(port), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
