"""What `uwasp run` and `uwasp config` have in common: from what was typed, and the application, to a setup."""

from __future__ import annotations

import argparse
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from uwasp_cli import limits
from uwasp_cli.bind import Bind, parse_bind
from uwasp_cli.loops import CORES
from uwasp_cli.options import Setup
from uwasp_cli.probing import probe
from uwasp_cli.problem import Problem
from uwasp_cli.target import Target, environment_of, find_target
from uwasp_cli.uwsgi import Uwsgi, find_uwsgi

__all__ = ["find_setup", "own_folder", "stats_path"]

LONGEST_PATH = 107  # bytes of a Unix socket's, on Linux


def find_setup(
    options: argparse.Namespace, environment: Mapping[str, str], bind: str, stats: str | None = None
) -> Setup:
    """The setup that was asked for. The application is loaded once for it, unless all that tells is given.

    Args:
        bind: where it listens by default.
        stats: the path of the stats socket by default, where it listens on no Unix socket.

    Raises:
        Problem: an option cannot be, or the application cannot be loaded.
    """
    target = find_target(options.application, Path.cwd(), environment)
    uwsgi = find_uwsgi(options.uwsgi)
    where = parse_bind(options.bind or bind, options.router)
    _look_at_length(where.path, "--bind")
    figures = stats_path(where, stats if options.stats is None and not where.is_unix else options.stats)
    _look_at_length(figures, "--stats")
    name, loop = _name_and_loop(options, target, uwsgi, environment)
    given: int | None = options.gevent if loop == "gevent" else options.threads
    return Setup(
        uwsgi=uwsgi,
        application=name,
        folder=target.folder,
        environment=_variables(options, target, environment),
        loop=loop,
        cores=given or CORES[loop],
        processes=options.processes or len(os.sched_getaffinity(0)),
        bind=where,
        listen=_listen(options.listen),
        max_fd=options.max_fd or limits.descriptors(),
        buffer_size=options.buffer_size,
        harakiri=options.harakiri,
        stats=figures,
    )


def _variables(
    options: argparse.Namespace, target: Target, environment: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    handler = {"UWASP_HANDLER": options.handler} if options.handler else {}
    return tuple({**environment_of(target, environment), **handler}.items())


def _listen(given: int | None) -> int:
    most = limits.backlog()
    if given is not None and given > most:
        remedy = f"raise that, as by: sysctl -w net.core.somaxconn={given}"
        raise Problem(f"--listen {given}: the kernel allows {most}; {remedy}")
    return given or most


def _name_and_loop(
    options: argparse.Namespace, target: Target, uwsgi: Uwsgi, environment: Mapping[str, str]
) -> tuple[str, str]:
    loop = "gevent" if options.gevent else "threads" if options.threads else ""
    if loop and target.module and target.callable:
        return str(target), loop
    found = probe(options, target, uwsgi, environment)
    return found["name"], found["loop"]


def _look_at_length(path: str, option: str) -> None:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise Problem(f"{path} is too long for a Unix socket; name a shorter path with {option}")


def stats_path(bind: Bind, given: str | None) -> str:
    """Where the stats socket is: as given, or beside a Unix socket, or in a folder of this user's own."""
    if given is not None:
        return given
    if bind.is_unix:
        return str(Path(bind.path).with_suffix(".stats"))
    return str(own_folder() / f"{bind.port}.stats")


def own_folder(make: bool = True) -> Path:
    """A folder that nobody else may look into: what a uWSGI does is nobody else's business.

    Args:
        make: whether it is made, if it is not there.

    Raises:
        Problem: something else is there, or it cannot be made.
    """
    above = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    folder = Path(above, f"uwasp-stats-{os.geteuid()}")
    if not make and not folder.exists():
        return folder
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        remedy = "name a path for the stats socket with --stats"
        raise Problem(f"{folder} cannot be made: {error.strerror}; {remedy}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Problem(f"{folder} is no folder of this user's alone; name a path for the stats socket with --stats")
    return folder
