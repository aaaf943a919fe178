"""The real servers that tests talk to: uWSGI, nginx. Each is a process of its own, on a port that the kernel chose.

What is of use to others too is in uwasp_pytest.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from uwasp_pytest import processes
from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.processes import (
    ACCEPTING,
    START_TIMEOUT,
    STOP_TIMEOUT,
    Process,
    listening_socket,
    wait_until,
    waits_or_has_ended,
)

__all__ = [
    "ACCEPTING",
    "LOOP_OPTIONS",
    "START_TIMEOUT",
    "STOP_TIMEOUT",
    "BareUwsgi",
    "Nginx",
    "Process",
    "Uwsgi",
    "debian_uwsgi",
    "listening_socket",
    "not_installed",
    "processes_below",
    "require_program",
    "running",
    "uwsgi_program",
    "wait_until",
]

# The options that give each handler of ours what it needs.
LOOP_OPTIONS: dict[str, tuple[str, ...]] = {
    "threads": ("--threads", "2"),
    "gevent": ("--gevent", "10"),
    "asyncio": ("--threads", "2"),
}


class Uwsgi(processes.Uwsgi):
    """A uWSGI that finds `waiting`; a test is skipped where there is none. See `uwasp_pytest.Uwsgi`."""

    def __init__(self, application: Path, folder: Path, *options: str, program: Path | None = None, **keywords: Any):
        program = program or uwsgi_program()
        super().__init__(application, folder, *options, program=program, pythonpath=[APPLICATIONS], **keywords)


class BareUwsgi(Process):
    """A uWSGI by a command line from elsewhere. It is stopped as soon as all of its processes wait for something.

    See `uwasp_pytest.Uwsgi.wait_for_workers` for the reason.
    """

    stop_interval = 0.5  # seconds; its master misses a signal while it starts

    def stop(self, with_signal: int = signal.SIGINT) -> int:
        def is_calm() -> bool:
            return all(waits_or_has_ended(pid) for pid in [self.popen.pid, *processes_below(self.popen.pid)])

        try:
            wait_until(is_calm, "all of its processes to wait for something", STOP_TIMEOUT)
        finally:
            code = super().stop(with_signal)
        return code


def processes_below(pid: int) -> list[int]:
    """The ids of all processes that one has started, and those have, and so on."""
    found = [pid]
    for each in found:  # grows meanwhile
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found[1:]


class Nginx(Process):
    """An nginx with one `location /` in front of something; further directives of its `http` say what."""

    def __init__(self, folder: Path, location: str, http: str = "") -> None:
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
                    {http}
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
