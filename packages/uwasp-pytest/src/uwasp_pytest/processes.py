"""Servers as processes that tests start and stop, each on a port that the kernel chose: uWSGI above all.

This module does not know pytest: what it says about a failure is in the exceptions that it raises.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from uwasp import ConfigurationError
from uwasp_pytest.client import Client

__all__ = ["ACCEPTING", "Process", "Uwsgi", "listening_socket", "running", "uwsgi_program", "wait_until"]

START_TIMEOUT = 30.0  # seconds; a machine under load is slow
STOP_TIMEOUT = 20.0
# With the end of their lines, for uWSGI also says beforehand that it will print them.
ACCEPTING = "a worker accepts\n"  # for the first time in its place, since uWSGI has started itself
READY = "a worker is ready\n"  # also one that has taken another's place

_running: list[Process] = []


def running() -> list[Process]:
    """The processes that have been started here and not been stopped yet."""
    return list(_running)


def wait_until(condition: Callable[[], object], what: str, timeout: float = START_TIMEOUT) -> None:
    """Wait until a condition holds; what cannot notify us is asked every 10 ms.

    Raises:
        TimeoutError: it does not in time, in seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.01)


def listening_socket() -> socket.socket:
    """A TCP socket of this machine that listens at a port of the kernel's choice."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    return listening


class Process:
    """A server process with its output in a file.

    Args:
        command: what to run.
        log: the file.
        env: what its environment has beside that of the tests.
        pass_fds: descriptors that it inherits.
        cwd: where it runs (default: where the tests do).

    Attributes:
        popen: the process.
        stop_interval: seconds after which it is told once more to stop.
    """

    stop_interval = 4.0

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
                cwd=cwd,
                start_new_session=True,
            )
        _running.append(self)

    def __str__(self) -> str:
        return f"process {self.popen.pid}"

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, count: int = 1, timeout: float = START_TIMEOUT) -> None:
        """Wait until it has said something, so many times.

        Raises:
            AssertionError: it has not in time, or has ended before; with all that it has said.
        """

        def is_there() -> bool:
            if self.output.count(text) >= count:
                return True
            if self.popen.poll() is not None and self.output.count(text) < count:
                raise AssertionError(f"ended with {self.popen.returncode} before {text!r}:\n{self.output}")
            return False

        try:
            wait_until(is_there, repr(text), timeout)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the output is:\n{self.output}") from None

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        """End it; the processes that it started end with it, those of a uWSGI without a master by force.

        The signal is repeated: uWSGI's master does not hear one that comes while it is starting.

        Returns:
            Its exit code.

        Raises:
            AssertionError: it did not stop, and was killed; with all that it has said.
        """
        try:
            return self._stop(with_signal)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            with suppress(ValueError):  # it is stopped once more
                _running.remove(self)

    def _stop(self, with_signal: int) -> int:
        deadline = time.monotonic() + STOP_TIMEOUT
        while time.monotonic() < deadline:
            if self.popen.poll() is None:
                self.popen.send_signal(with_signal)
            try:
                return self.popen.wait(self.stop_interval)
            except subprocess.TimeoutExpired:
                continue
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        raise AssertionError(f"did not stop:\n{self.output}")


class Uwsgi(Process):
    """A uWSGI that serves an application on one socket.

    Args:
        application: the path of the Python file with `application` in it; or, as a `str`, a module and the name in it,
            `"app:application"`.
        folder: where its log (and its Unix socket) goes, and where it runs.
        options: further options, as on the command line.
        kind: the option for its socket: http-socket, http11-socket, http, socket.
        unix: the socket is a Unix one, in `folder`.
        master: it has a master, which starts workers anew and reloads.
        env: what its environment has beside that of the tests.
        program: another uWSGI than that of this Python's environment.
        plugins: of that uWSGI, which has to load them before it knows their options.
        pythonpath: further folders in which it finds modules.
        reloadable: it is told what it needs to start itself anew.
        die_on_term: SIGTERM stops it, where it would reload without.
        wait: return when all workers accept, or without a master when it is there.

    Attributes:
        path: of the Unix socket, or `None`.
        port: of the TCP socket, or 0.

    Raises:
        AssertionError: it does not start; with all that it has said.
        ConfigurationError: there is no uWSGI.
    """

    def __init__(
        self,
        application: Path | str,
        folder: Path,
        *options: str,
        kind: str = "http-socket",
        unix: bool = False,
        master: bool = True,
        env: Mapping[str, str] | None = None,
        program: Path | None = None,
        plugins: Sequence[str] = (),
        pythonpath: Iterable[Path | str] = (),
        reloadable: bool = True,
        die_on_term: bool = True,
        wait: bool = True,
    ) -> None:
        self._application = application
        self.path = folder / "uwsgi.sock" if unix else None
        self.port = 0
        self._workers = _workers_at_first(options)
        self._threads = max(map(int, re.findall(r"--threads[ =](\d+)", " ".join(options))), default=1)
        program = program or uwsgi_program()
        command = [str(program), *(f"--plugin={plugin}" for plugin in plugins)]
        command += ["--need-app", "--module" if _is_module(application) else "--wsgi-file", str(application)]
        command += ["--listen", "100", *(f"--pythonpath={place}" for place in pythonpath)]
        if reloadable:
            command += _binary_path(program)
        if die_on_term:
            command.append("--die-on-term")
        # A signal that comes between the fork of a worker and this is lost on it. Without a master there is no fork.
        command += ["--hook-accepting-once", f"print:{ACCEPTING.strip()}"]
        command += ["--hook-accepting", f"print:{READY.strip()}"]
        self._accepts = ACCEPTING if master else "spawned uWSGI worker 1 (and the only)"
        if master:
            command.append("--master")
            # It looks once a second whether its workers have ended, and whenever a signal wakes it. One to stop it
            # means no more than that when it is stopping.
            self.stop_interval = 0.05
        if self.path is not None:
            super().__init__([*command, f"--{kind}", str(self.path), *options], folder / "uwsgi.log", env, cwd=folder)
        else:
            with listening_socket() as listening:
                fd = listening.fileno()
                self.port = listening.getsockname()[1]
                command += [f"--{kind}", f"fd://{fd}", *options]
                super().__init__(command, folder / "uwsgi.log", env, [fd], cwd=folder)
        if wait:
            try:
                self.wait_for_workers(self._workers if master else 1)
            except BaseException:
                self.stop(signal.SIGKILL)
                raise

    def __str__(self) -> str:
        return f"the uWSGI with {self._application}"

    @property
    def address(self) -> str:
        """Host and port, as in `f"http://{uwsgi.address}/"`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The beginning of the URLs of its WebSockets, without a path: `ws://...`."""
        return f"ws://{self.address}"

    def connect(self, path: str = "/", **options: Any) -> Client:
        """A client of a WebSocket at a path; see `Client` for the options."""
        return Client(self.port, path, **options)

    def reload(self) -> None:
        """Have it start itself anew, gracefully, and wait until all workers accept.

        Raises:
            AssertionError: they do not; with all that it has said.
        """
        accepted = self.output.count(ACCEPTING)
        self.popen.send_signal(signal.SIGHUP)
        self.wait_for_workers(accepted + self._workers)

    @property
    def workers(self) -> dict[int, int]:
        """The pids of its workers, by their numbers, from 1 on. It has a master."""
        return dict(self._spawned())

    def kill_worker(self, number: int = 1, with_signal: int = signal.SIGKILL) -> None:
        """Kill a worker, and wait until the one in its place accepts.

        Args:
            number: which one, from 1 on.
            with_signal: by which signal.

        Raises:
            AssertionError: none takes its place; with all that it has said.
        """
        ready = self.output.count(READY)
        os.kill(self.workers[number], with_signal)
        self.wait_for_output(READY, ready + 1)
        self._wait_until_they_wait()

    def wait_for_workers(self, count: int = 1) -> None:
        """Wait until so many workers, those before a reload among them, have begun to wait for requests.

        Raises:
            AssertionError: they have not in time; with all that it has said.
        """
        self.wait_for_output(self._accepts, count)
        self._wait_until_they_wait()

    def _wait_until_they_wait(self) -> None:
        """Workers say that they accept a moment before it is true: then uWSGI starts its threads, or gevent's loop. A
        stop that comes meanwhile hangs now and then, without uWASP too: `exit` in a signal handler, beneath it `malloc`
        for a thread. The master may say later still what their pids are.
        """
        wait_until(lambda: len(self._spawned()) >= self.output.count(self._accepts), "uWSGI to tell of all workers")
        pids = [pid for _, pid in self._spawned()]
        wait_until(
            lambda: all(waits_or_has_ended(pid, self._threads) for pid in pids), "the workers to wait for requests"
        )

    def _spawned(self) -> list[tuple[int, int]]:
        """The numbers and the pids of all workers that it has told of since it was started."""
        told = re.findall(r"pawned uWSGI worker (\d+) (?:\(and the only\) )?\((?:new )?pid: (\d+)", self.output)
        return [(int(number), int(pid)) for number, pid in told]


def waits_or_has_ended(pid: int, threads: int = 1) -> bool:
    """Whether the main thread of a process sleeps, in two looks of which one alone might see it wait for a lock; and
    whether there are so many threads, or more.
    """
    if not _sleeps_or_has_ended(pid, threads):
        return False
    time.sleep(0.01)
    return _sleeps_or_has_ended(pid, threads)


def _sleeps_or_has_ended(pid: int, threads: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    fields = stat.rpartition(")")[2].split()
    return fields[0] == "Z" or (fields[0] == "S" and int(fields[17]) >= threads)


def _workers_at_first(options: Sequence[str]) -> int:
    """How many workers uWSGI starts with these options."""
    told = dict(re.findall(r"--(processes|workers|cheaper-initial|cheaper)[ =](\d+)", " ".join(options)))
    names = ("cheaper-initial", "cheaper", "processes", "workers")
    return next((int(told[name]) for name in names if name in told), 1)


def _is_module(application: Path | str) -> bool:
    return isinstance(application, str) and ":" in application


def _binary_path(program: Path) -> tuple[str, ...]:
    """What a uWSGI has to be told so that it can reload: pyuwsgi is a script, and takes the wrong Python for itself."""
    with program.open("rb") as file:
        if file.read(2) != b"#!":
            return ()
    own = program.with_name("python3")
    return ("--binary-path", str(own) if own.exists() else sys.executable)


def uwsgi_program() -> Path:
    """The uWSGI of this Python's environment, or else on the path.

    Raises:
        ConfigurationError: there is none.
    """
    found = shutil.which(Path(sys.executable).parent / "uwsgi") or shutil.which("uwsgi")
    if found is None:
        raise ConfigurationError("there is no uWSGI in this environment: pip install pyuwsgi")
    return Path(found)
