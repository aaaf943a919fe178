"""`wstest`, the program of the Autobahn testsuite: found on this machine, or built.

The suite is a Python 2 program. Its release on the registry still installs, under a Python 2.7 and with the
versions below of what it needs; so that is what is built here, once, in the user's cache.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["BuildFailed", "NoPython27", "UnusableWstest", "Wstest", "find_or_build"]

VERSION = "25.10.1"
SUITE = f"autobahntestsuite=={VERSION}"
# The newest of their kind that the suite works with. They go first: its own dependencies would draw in others, and
# with them there, nothing has to be built in isolation, for which Python 2.7 has no tools any more.
NEEDED_FIRST = ("incremental==16.10.1", "Twisted==19.10.0", "pyOpenSSL==19.1.0", "cryptography==3.3.2")
VIRTUALENV = "virtualenv<20.22"  # later ones make no environments for Python 2.7

# CPython first: `cryptography` has wheels for it.
PYTHON_NAMES = ("python2.7", "python2", "python", "pypy2.7", "pypy2", "pypy")
ASK_VERSION = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"

ANSWER_TIMEOUT = 60.0  # seconds for a program to tell its version
STEP_TIMEOUT = 600.0  # seconds for one step of the build
LINES_TO_SHOW = 15


class NoPython27(Exception):
    """No `wstest` is here, nor a Python 2.7 to build it with."""


class BuildFailed(Exception):
    """There is a Python 2.7, but the suite could not be built with it; the message ends with what pip said."""


class UnusableWstest(Exception):
    """UWASP_WSTEST is set to something that does not work."""


class Wstest(NamedTuple):
    """A `wstest` that works, and the version of the suite that it is of."""

    program: Path
    version: str


def find_or_build() -> Wstest:
    """The `wstest` that UWASP_WSTEST names; else one on the PATH; else our own from the cache, built if need be.

    Raises:
        UnusableWstest, NoPython27, BuildFailed.
    """
    named = os.environ.get("UWASP_WSTEST")
    if named:
        version = suite_version(Path(named))
        if version is None:
            raise UnusableWstest(f"UWASP_WSTEST is {named!r}, which does not answer to --autobahnversion")
        return Wstest(Path(named), version)
    for program in on_path("wstest"):
        version = suite_version(program)
        if version is not None:
            return Wstest(program, version)
    return from_cache()


def suite_version(program: Path) -> str | None:
    """What version of the suite a `wstest` is of; `None` if it is none, or does not run (a shim of pyenv, say)."""
    answer = ask([str(program), "--autobahnversion"])
    for line in answer.splitlines():
        name, _, version = line.partition(" ")
        if name == "AutobahnTestSuite":
            return version
    return None


def from_cache() -> Wstest:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "suite" / "bin" / "wstest"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once build it once
        if suite_version(program) is None:
            build(folder, find_python27())
        version = suite_version(program)
    if version is None:
        raise BuildFailed(f"built, but {program} does not answer to --autobahnversion")
    return Wstest(program, version)


def cache_folder() -> Path:
    """By the XDG Base Directory Specification; a relative path in the variable is to be ignored."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "uwasp" / f"wstest-{VERSION}"


def find_python27() -> Path:
    """A Python 2.7 of this machine: on the PATH, or among pyenv's versions.

    Raises:
        NoPython27
    """
    for name in PYTHON_NAMES:
        for program in (*on_path(name), *of_pyenv(name)):
            if ask([str(program), "-c", ASK_VERSION]) == "2.7":
                return program
    raise NoPython27(
        "the Autobahn testsuite needs a Python 2.7, and there is none on the PATH or in pyenv. Install one, for "
        "instance with `pyenv install 2.7.18`; or set UWASP_WSTEST to a wstest that you have"
    )


def on_path(name: str) -> Iterator[Path]:
    """Every program of that name on the PATH, not only the first, which can be a shim that leads nowhere."""
    for folder in os.get_exec_path():
        found = shutil.which(name, path=folder) if folder else None
        if found:
            yield Path(found)


def of_pyenv(name: str) -> Iterator[Path]:
    """Every program of that name in pyenv's versions, whichever of them is selected."""
    if shutil.which("pyenv") is None:
        return
    root = ask(["pyenv", "root"]).strip()
    if root:
        yield from sorted(Path(root).glob(f"versions/*/bin/{name}"))


def ask(command: Sequence[str]) -> str:
    """What a program prints when asked; nothing if it fails or cannot be run, which is an answer too."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_TIMEOUT,
            env=clean_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def build(folder: Path, python27: Path) -> None:
    """Install the suite in an environment of its own. The virtualenv that can still make one is put beside it."""
    print(f"building {SUITE} with {python27} in {folder} (once)", flush=True)
    maker, suite = folder / "virtualenv", folder / "suite"
    pip = [str(suite / "bin" / "python"), "-m", "pip", "install"]
    steps: tuple[list[str], ...] = (
        [sys.executable, "-m", "venv", "--clear", str(maker)],
        [str(maker / "bin" / "python"), "-m", "pip", "install", VIRTUALENV],
        [str(maker / "bin" / "python"), "-m", "virtualenv", "--clear", "-p", str(python27), str(suite)],
        [*pip, *NEEDED_FIRST],
        [*pip, "--no-build-isolation", SUITE],
    )
    log = folder / "build.log"
    with log.open("wb") as output:
        for step in steps:
            output.write(f"\n$ {' '.join(step)}\n".encode())
            output.flush()
            try:
                subprocess.run(
                    step,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=STEP_TIMEOUT,
                    check=True,
                    env=clean_environment(),
                )
            except (OSError, subprocess.SubprocessError) as error:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-LINES_TO_SHOW:])
                raise BuildFailed(f"{SUITE} could not be built: {error}\nThe end of {log}:\n{said}") from error


def clean_environment() -> dict[str, str]:
    """The environment without what would have a Python 2.7 import the modules of this Python 3."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
