"""The real servers that tests talk to: uWSGI, nginx. Each is a process of its own, on a port that the kernel chose."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

START_TIMEOUT = 30.0  # seconds; a machine under load is slow
STOP_TIMEOUT = 20.0
ACCEPTING = "a worker accepts\n"  # with the end of its line, for uWSGI also says beforehand that it will print it

# The options that give each handler of ours what it needs.
LOOP_OPTIONS: dict[str, tuple[str, ...]] = {"threads": ("--threads", "2"), "gevent": ("--gevent", "10")}


def wait_until(condition: Callable[[], object], what: str, timeout: float = START_TIMEOUT) -> None:
    """Wait until a condition holds; what cannot notify us is asked every 10 ms."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.01)


def listening_socket() -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    return listening


class Process:
    """A server process with its output in a file."""

    stop_interval = 4.0  # seconds after which it is told once more to stop

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

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, count: int = 1, timeout: float = START_TIMEOUT) -> None:
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
        """End it; the processes that it started end with it.

        The signal is repeated: uWSGI's master does not hear one that comes while it is starting.
        """
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
        application: the path of the Python file with `application` in it.
        folder: where its log (and its Unix socket) goes.
        kind: the option for its socket: http-socket, http11-socket, http, socket.
        unix: the socket is a Unix one, in `folder`.
        program: another uWSGI than that of this Python's environment.
        plugins: of that uWSGI, which has to load them before it knows their options.
        reloadable: it is told what it needs to start itself anew.
        die_on_term: SIGTERM stops it, where it would reload without.
        options: further options, as on the command line.
    """

    def __init__(
        self,
        application: Path,
        folder: Path,
        *options: str,
        kind: str = "http-socket",
        unix: bool = False,
        master: bool = True,
        env: Mapping[str, str] | None = None,
        program: Path | None = None,
        plugins: Sequence[str] = (),
        reloadable: bool = True,
        die_on_term: bool = True,
        wait: bool = True,
    ) -> None:
        self.path = folder / "uwsgi.sock" if unix else None
        self.port = 0
        program = program or uwsgi_program()
        command = [str(program), *(f"--plugin={plugin}" for plugin in plugins)]
        command += ["--need-app", "--wsgi-file", str(application), "--listen", "100"]
        if reloadable:
            command += _binary_path(program)
        if die_on_term:
            command.append("--die-on-term")
        # A signal that comes between the fork of a worker and this is lost on it. Without a master there is no fork.
        command += ["--hook-accepting-once", f"print:{ACCEPTING.strip()}"]
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
                workers = int(options[options.index("--processes") + 1]) if "--processes" in options else 1
                self.wait_for_output(ACCEPTING if master else "spawned uWSGI worker 1 (and the only)", workers)
            except BaseException:
                self.stop(signal.SIGKILL)
                raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"ws://{self.address}"


class Nginx(Process):
    """An nginx with one `location /` in front of something."""

    def __init__(self, folder: Path, location: str) -> None:
        program = require_program("nginx", "/usr/sbin/nginx")
        with listening_socket() as listening:
            self.port = listening.getsockname()[1]
            configuration = folder / "nginx.conf"
            configuration.write_text(
                f"""
                daemon off;
                user root;
                pid {folder}/nginx.pid;
                error_log stderr;
                events {{ worker_connections 4096; }}
                http {{
                    access_log off;
                    client_body_temp_path {folder}/body;
                    proxy_temp_path {folder}/proxy;
                    fastcgi_temp_path {folder}/fastcgi;
                    uwsgi_temp_path {folder}/uwsgi;
                    scgi_temp_path {folder}/scgi;
                    server {{
                        listen 127.0.0.1:{self.port};
                        location / {{ {location} }}
                    }}
                }}
                """
            )
            # nginx takes over listening sockets whose numbers are in this variable.
            env = {"NGINX": f"{listening.fileno()};"}
            command = [str(program), "-c", str(configuration), "-e", "stderr"]
            super().__init__(command, folder / "nginx.log", env, [listening.fileno()])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


def _binary_path(program: Path) -> tuple[str, ...]:
    """What a uWSGI has to be told so that it can reload: pyuwsgi is a script, and takes the wrong Python for itself."""
    with program.open("rb") as file:
        if file.read(2) != b"#!":
            return ()
    own = program.with_name("python3")
    return ("--binary-path", str(own) if own.exists() else sys.executable)


def uwsgi_program() -> Path:
    """The uWSGI of this Python's environment."""
    return require_program("uwsgi", str(Path(sys.executable).parent / "uwsgi"))


def debian_uwsgi(*plugins: str) -> Path:
    """Debian's own uWSGI, with these of its plugins for Python 3."""
    program = require_program("uwsgi-core", "/usr/bin/uwsgi-core")
    for plugin in plugins:
        if not Path(f"/usr/lib/uwsgi/plugins/{plugin}_plugin.so").exists():
            not_installed(f"the plugin {plugin} of Debian's uWSGI")
    version = "python{}{}".format(*sys.version_info)
    if not Path(f"/usr/lib/uwsgi/plugins/{version}_plugin.so").exists():
        import pytest

        pytest.skip("Debian's uWSGI has another Python than this")
    return program


def require_program(name: str, path: str | None = None) -> Path:
    """A program that a test needs; where there is none, the test is skipped, or fails where CI runs."""
    found = shutil.which(path or name) or shutil.which(name)
    if found is None:
        not_installed(name)
    return Path(found)


def not_installed(what: str) -> NoReturn:
    """Skip the test; or fail it, where CI runs."""
    import pytest

    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and where CI runs nothing is skipped for that")
    pytest.skip(f"{what} is not installed")


@contextmanager
def running(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.stop()
