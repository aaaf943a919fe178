"""The uWSGI at hand: which program it is, and what it can do. It is asked; nothing is known of versions by heart."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from uwasp_cli.problem import Problem

__all__ = ["Uwsgi", "find_uwsgi"]

NAMES = ("uwsgi", "pyuwsgi", "uwsgi-core")  # the last is Debian's
PYTHON = "python3"  # Debian's plugins, in whose order they are loaded
GEVENT = "gevent_python3"
ROUTER = "http"
# What to install for one of them.
PACKAGES = {PYTHON: "uwsgi-plugin-python3", GEVENT: "uwsgi-plugin-gevent-python3", ROUTER: "uwsgi-core"}
LONGEST = 20  # seconds, to print its help


@dataclass(frozen=True)
class Uwsgi:
    """A uWSGI program.

    Attributes:
        path: where it is.
        version: such as (2, 0, 31).
    """

    path: str
    version: tuple[int, ...]

    @cached_property
    def is_modular(self) -> bool:
        """Whether it has Python in a plugin, as Debian's has, which has to be loaded before its options are known."""
        return "module" not in _options(self.path, ())

    def plugins(self, loop: str, router: bool = False) -> tuple[str, ...]:
        """What it has to load for a loop, in this order."""
        if not self.is_modular:
            return ()
        gevent = (GEVENT,) if loop == "gevent" else ()
        return (PYTHON, *gevent, *((ROUTER,) if router else ()))

    def options(self, plugins: Sequence[str]) -> frozenset[str]:
        """The names of all options that it knows with these plugins.

        Raises:
            Problem: it has no such plugin.
        """
        known: frozenset[str] = frozenset()
        for count in range(len(plugins) + 1):
            before, known = known, _options(self.path, tuple(plugins[:count]))
            if count and known <= before:
                plugin = plugins[count - 1]
                raise Problem(f"{self.path} has no plugin {plugin}; in Debian, the package {PACKAGES[plugin]} has it")
        return known

    @cached_property
    def binary_path(self) -> str | None:
        """The Python that runs it, if it is a script, as pyuwsgi is: it would not find itself again at a reload."""
        with open(self.path, "rb") as file:
            if file.read(2) != b"#!":
                return None
            first = file.readline().decode(errors="replace").split()
        beside = Path(self.path).with_name("python3")
        return str(beside) if beside.exists() else first[0]

    @cached_property
    def virtualenv(self) -> str | None:
        """The environment of this Python, if that uWSGI has to be told it."""
        if sys.prefix == sys.base_prefix or Path(self.path).parent == Path(sys.prefix) / "bin":
            return None
        return sys.prefix

    def explain(self, said: str) -> str:
        """Why it did not come to load the application, from what it said."""
        own = "{}.{}".format(*sys.version_info)
        found = re.search(r"^Python version: (\d+\.\d+)", said, re.MULTILINE)
        if found and found[1] != own:
            return (
                f"{self.path} has Python {found[1]} in it, and this environment is of {own}: "
                "install a uWSGI into it (pip install pyuwsgi), or name another with --uwsgi"
            )
        return f"{self.path} did not come to load the application, and said:\n{said.rstrip()}"


def _options(path: str, plugins: tuple[str, ...]) -> frozenset[str]:
    command = [path, *(f"--plugin={plugin}" for plugin in plugins), "--help"]
    return frozenset(re.findall(r"^\s+(?:-\S\|)?--([\w-]+)", _ask(command), re.MULTILINE))


def _ask(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=LONGEST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem(f"{command[0]} cannot be run: {error}") from None
    return done.stdout


def find_uwsgi(named: str | None) -> Uwsgi:
    """The uWSGI that was named, or that of this Python's environment, or the one on PATH.

    Raises:
        Problem: there is none.
    """
    path = _named(named) if named else _search()
    version = re.fullmatch(r"(\d+(?:\.\d+)+)\S*", _ask([path, "--version"]).strip())
    if version is None:
        raise Problem(f"{path} is no uWSGI: it does not tell its version")
    return Uwsgi(path, tuple(int(number) for number in version[1].split(".")))


def _named(named: str) -> str:
    found = shutil.which(named)
    if found is None:
        raise Problem(f"there is no program {named}")
    return os.path.abspath(found)


def _search() -> str:
    beside = str(Path(sys.executable).parent)
    for folder in (beside, None):
        for name in NAMES:
            found = shutil.which(name, path=folder)
            if found is not None:
                return os.path.abspath(found)
    raise Problem("uWSGI is not installed; try: pip install pyuwsgi")
