"""uWSGI's options for an application with WebSockets, in one table: what each is, why, and since when uWSGI has it.

`uwasp run` passes them on, `uwasp run --show` tells them, `uwasp config` writes them into files, and `uwasp dev` takes
those of them that concern it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from uwasp_cli.bind import Bind
from uwasp_cli.figures import METRIC_OPTIONS
from uwasp_cli.uwsgi import Uwsgi

__all__ = ["Option", "Setup", "arguments", "options_for", "options_of_development"]

GRACE = 3  # seconds; a little more than the default of shutdown_timeout


@dataclass(frozen=True)
class Setup:
    """All that the options depend on.

    Attributes:
        uwsgi: the program.
        application: what uWSGI calls it, `module:callable`.
        folder: from which its modules are imported.
        environment: variables that it needs.
        loop: `"threads"` or `"gevent"`.
        cores: of threads or of greenlets, for HTTP requests alone.
        processes: how many workers.
        bind: where it listens.
        listen: the length of the backlog.
        max_fd: how many descriptors a process may have; `None`: as it is.
        buffer_size: bytes, for the headers of a request.
        harakiri: seconds, or `None`.
        stats: the path of the socket of the stats server; empty: none.
    """

    uwsgi: Uwsgi
    application: str
    folder: str
    environment: tuple[tuple[str, str], ...]
    loop: str
    cores: int
    processes: int
    bind: Bind
    listen: int
    max_fd: int | None
    buffer_size: int = 32_768
    harakiri: int | None = None
    stats: str = ""

    @property
    def plugins(self) -> tuple[str, ...]:
        return self.uwsgi.plugins(self.loop, self.has_router)

    @property
    def has_router(self) -> bool:
        return self.bind.kind == "http"

    @property
    def variables(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.environment]

    @property
    def is_shared_by_threads(self) -> bool:
        return self.processes > 1 and self.loop == "threads"

    @property
    def mode(self) -> str | None:
        return "660" if self.bind.is_unix else None

    def cores_of(self, loop: str) -> int | None:
        return self.cores if loop == self.loop else None


class Option(NamedTuple):
    """One of uWSGI's options; one without a value is only there."""

    name: str
    value: str
    reason: str
    since: tuple[int, ...] = ()

    @property
    def argument(self) -> str:
        return f"--{self.name}={self.value}" if self.value else f"--{self.name}"


class Row(NamedTuple):
    """A row of the table: what a value is in a setup. `None` and no values: not there; `True`: no value."""

    name: str
    value: Callable[[Setup], str | int | bool | Sequence[str] | None]
    reason: str
    since: tuple[int, ...] = ()  # the first uWSGI that has it


# For a trial on one's own machine too. Plugins come first: uWSGI knows the options of one only behind it.
ALWAYS = (
    Row("plugin", lambda setup: setup.plugins, "Python, loops and router, which this uWSGI has in plugins, in order"),
    Row("virtualenv", lambda setup: setup.uwsgi.virtualenv, "the environment with the application's packages"),
    Row("binary-path", lambda setup: setup.uwsgi.binary_path, "pyuwsgi is a script, which needs its Python to reload"),
    Row("master", lambda _: True, "a process that replaces workers which end, and that reloads"),
    Row("need-app", lambda _: True, "an application that does not load ends uWSGI, which else answers with errors"),
    Row("die-on-term", lambda _: True, "SIGTERM is a stop, as systemd and containers mean it, and no reload"),
    Row("single-interpreter", lambda _: True, "in an interpreter of its own, uWASP would not hear of reloads"),
    Row("processes", lambda setup: setup.processes, "workers; groups reach the connections of all of them"),
    Row("threads", lambda setup: setup.cores_of("threads"), "in each worker, for HTTP requests; WebSockets need none"),
    Row("gevent", lambda setup: setup.cores_of("gevent"), "in each worker, for HTTP requests; WebSockets need none"),
    Row("buffer-size", lambda setup: setup.buffer_size, "bytes for a request's headers; cookies go over 4,096"),
    Row("env", lambda setup: setup.variables, "what the application reads in its environment"),
)
PRODUCTION = (
    *ALWAYS,
    Row("thunder-lock", lambda setup: setup.is_shared_by_threads, "a connection wakes one worker, not all"),
    Row(
        "listen",
        lambda setup: setup.listen,
        "connections that wait until they are accepted, as many as the kernel allows: after a reload, of 3,000 clients "
        "up to 839 had no answer with uWSGI's 100",
    ),
    Row(
        "max-fd",
        lambda setup: setup.max_fd,
        "descriptors of a process, of which a WebSocket needs one; where a billion are allowed, uWSGI's router would "
        "take 8 GB for its table",
    ),
    Row("vacuum", lambda _: True, "Unix sockets are removed at a stop, but for that of a uWSGI that was reloaded"),
    Row("harakiri", lambda setup: setup.harakiri, "asked for: kills a worker in which a request takes so many seconds"),
    Row(
        "harakiri-graceful-timeout",
        lambda setup: GRACE if setup.harakiri else None,
        "so many seconds for its WebSockets to part with 1001, before it is killed",
        (2, 0, 22),
    ),
    Row("enable-metrics", lambda setup: bool(setup.stats), "for those that follow"),
    Row(
        "metrics-no-cores",
        lambda setup: bool(setup.stats),
        "else seven more for each thread or greenlet: 2 times 5,000 greenlets took 30 s to start",
    ),
    Row("metric", lambda setup: METRIC_OPTIONS if setup.stats else None, "for `uwasp top`"),
    Row("stats", lambda setup: setup.stats or None, "what the workers do, as JSON, for who may open this socket"),
    Row("http-websockets", lambda setup: setup.has_router, "else the router forwards no frames, and clients hang"),
    Row("chmod-socket", lambda setup: setup.mode, "for a proxy that is in the group of uWSGI's user"),
    Row("pythonpath", lambda setup: setup.folder, "where the application is"),
    Row("module", lambda setup: setup.application, "the application"),
)


def options_for(setup: Setup) -> tuple[list[Option], list[Option]]:
    """The options of production, and those that this uWSGI does not know and that are left out for it.

    Raises:
        Problem: it lacks a plugin.
    """
    bind = Option(setup.bind.kind, setup.bind.address, setup.bind.reason)
    known = setup.uwsgi.options(setup.plugins)
    used: list[Option] = []
    left_out: list[Option] = []
    for option in [*_rows(setup, PRODUCTION), bind]:
        (used if option.name in known else left_out).append(option)
    return used, left_out


def options_of_development(setup: Setup) -> list[Option]:
    """Those of them for a trial on one's own machine.

    Raises:
        Problem: this uWSGI lacks a plugin.
    """
    known = setup.uwsgi.options(setup.plugins)
    return [option for option in _rows(setup, ALWAYS) if option.name in known]


def _rows(setup: Setup, rows: Iterable[Row]) -> Iterator[Option]:
    for row in rows:
        value = row.value(setup)
        if value is None or value is False:
            continue
        if value is True:
            yield Option(row.name, "", row.reason, row.since)
        elif isinstance(value, (str, int)):
            yield Option(row.name, str(value), row.reason, row.since)
        else:
            yield from (Option(row.name, one, row.reason, row.since) for one in value)


def arguments(options: Iterable[Option]) -> list[str]:
    """The options as on uWSGI's command line."""
    return [option.argument for option in options]
