"""A uWSGI as a test wants one: its options are keywords, and it finds the modules that the test finds."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uwasp_pytest.processes import Uwsgi

__all__ = ["serve", "start"]

# What says how a worker serves several requests; if nothing does, it has threads.
LOOPS = ("threads", "enable_threads", "gevent", "async", "asyncio", "loop")
THREADS = 4


def start(
    application: str | Path,
    folder: str | Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    program: Path | None = None,
    **options: Any,
) -> Uwsgi:
    """Start a uWSGI in a folder. See `serve` for the rest."""
    is_a_name = isinstance(application, str) and (":" in application or os.path.isfile(application))
    if not is_a_name and not isinstance(application, Path):
        raise TypeError(
            'the application is a module and a name in it, as in "app:application", or the Path of a file: it is '
            f"loaded by a uWSGI beside the tests, not {application!r}"
        )
    if not any(loop in options or f"--{loop.replace('_', '-')}" in arguments for loop in LOOPS):
        options["threads"] = THREADS
    if isinstance(application, Path):
        application = application.absolute()  # it runs elsewhere
    given = (*_as_arguments(options), *arguments)
    return Uwsgi(application, Path(folder), *given, env=env, program=program, pythonpath=_importable())


@contextmanager
def serve(application: str | Path, folder: str | Path, *arguments: str, **options: Any) -> Iterator[Uwsgi]:
    """A real uWSGI with an application, for as long as a `with` block lasts: for fixtures of a wider scope.

    Args:
        application: a module that the tests can import, and the name in it, `"app:application"`; or the `Path` of a
            file with `application` in it.
        folder: an empty one, for its log, and where it runs.
        arguments: further ones of uWSGI, as on its command line.
        env: what its environment has beside that of the tests.
        program: another uWSGI than that of this Python's environment.
        options: uWSGI's, with underscores: `processes=2`, `gevent=100`, `lazy_apps=True`; a list is given one by one
            (default: a master, one process, four threads).

    Raises:
        TypeError: that is no application.
        AssertionError: it does not start, or does not stop; with all that it has said.
        ConfigurationError: there is no uWSGI.
    """
    uwsgi = start(application, folder, *arguments, **options)
    try:
        yield uwsgi
    finally:
        uwsgi.stop()


def _as_arguments(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is True:
                yield option
            elif one is not False and one is not None:
                yield from (option, str(one))


def _importable() -> list[str]:
    """Where this process finds modules that are not Python's own, nor installed."""
    libraries = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    libraries += [*site.getsitepackages(), site.getusersitepackages()]
    places = dict.fromkeys(Path(place).absolute() for place in ["", *sys.path])  # "": where the tests run
    return [str(place) for place in places if place.is_dir() and not any(map(place.is_relative_to, libraries))]
