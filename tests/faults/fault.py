"""What a planted fault is, and a copy of this repository to plant it in. The working tree is never touched."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Fault", "Tree", "complaints"]

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted(REPOSITORY.glob("packages/*/README.md")),
]
SPEEDUPS = "uwasp-speedups"
PACKAGES = sorted(source.parent.name for source in REPOSITORY.glob("packages/*/src") if source.parent.name != SPEEDUPS)
STARRED = re.compile(r"^from (uwasp_pytest[\w.]+) import \*", re.MULTILINE)
TIMEOUT = 60  # seconds for a test; some faults make one hang
# What a copy can do without, and what must not be taken for the copy's own.
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "dist", "build", "*.so")


@dataclass(frozen=True)
class Fault:
    """A small change that breaks a promise, and what has to notice it.

    Args:
        name: what is wrong then.
        promise: some words of a README.md or of a document in docs/ that do not hold with it.
        old: a text that is in the packages' sources exactly once, wherever that is.
        new: what stands there instead.
        tests: node ids of pytest, as narrow as they can be. Each must fail: of one that has several cases, any.
        short: it is one of the few that CI plants each time.
        in_c: `old` is in the C of uwasp-speedups, and the tests run with that.
    """

    name: str
    promise: str
    old: str
    new: str
    tests: tuple[str, ...]
    short: bool = False
    in_c: bool = False

    def place(self) -> Path:
        """The file in which it is planted, within the repository.

        Raises:
            ValueError: the code has moved, and this no longer says where the fault goes.
        """
        patterns = ["packages/*/src/*/*.c"] if self.in_c else ["packages/*/src/**/*.py", "packages/*/*.js"]
        sources = sorted(source for pattern in patterns for source in REPOSITORY.glob(pattern))
        found = [source for source in sources for _ in range(source.read_text().count(self.old))]
        if len(found) != 1:
            places = ", ".join(str(path.relative_to(REPOSITORY)) for path in found) or "nowhere"
            raise ValueError(f"{self.name!r}: not once, but in {places}:\n{self.old}")
        return found[0].relative_to(REPOSITORY)

    def planted(self, source: str) -> str:
        """The file's text with the fault in it.

        Raises:
            ValueError: it makes no program.
        """
        planted = source.replace(self.old, self.new)
        if self.place().suffix == ".py":
            try:
                ast.parse(planted)
            except SyntaxError as error:
                raise ValueError(f"{self.name!r} makes no Python: {error}") from None
        return planted


def complaints(fault: Fault) -> Iterator[str]:
    """What is wrong with a fault's description, as the repository is now."""
    try:
        fault.planted((REPOSITORY / fault.place()).read_text())
    except ValueError as error:
        yield str(error)
    if not any(words(fault.promise) in words(document.read_text()) for document in DOCUMENTS):
        yield f"{fault.name!r}: no document says {fault.promise!r}"
    for test in fault.tests:
        path, _, name = test.partition("::")
        if f"\ndef {name.partition('[')[0]}(" not in tests_in(REPOSITORY / path):
            yield f"{fault.name!r}: there is no {test}"


def tests_in(path: Path) -> str:
    """The text of a file of tests, and of those that it has from uwasp_pytest; empty if there is none."""
    if not path.exists():
        return ""
    text = path.read_text()
    found = [REPOSITORY.joinpath("packages/uwasp-pytest/src", *name.split(".")) for name in STARRED.findall(text)]
    return "".join([text, *(module.with_suffix(".py").read_text() for module in found)])


def words(text: str) -> str:
    """A text without its line breaks and its indentation."""
    return re.sub(r"\s+", " ", text)


class Tree:
    """A copy of this repository, and Python processes that run it.

    Args:
        folder: an empty one.
        with_c: they use the C of uwasp-speedups, compiled from the copy.
    """

    def __init__(self, folder: Path, with_c: bool) -> None:
        self.folder = folder / "uwasp"
        self.with_c = with_c
        shutil.copytree(REPOSITORY, self.folder, ignore=LEFT_OUT)
        packages = [*PACKAGES, SPEEDUPS] if with_c else PACKAGES
        paths = [str(self.folder / "packages" / package / "src") for package in packages]
        self.env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),  # in front of what is installed editable
            "PYTHONDONTWRITEBYTECODE": "1",  # a fault of the same length, planted within a second, would be passed over
            "COLUMNS": "250",  # pytest cuts what it says of a failure to the width of a terminal
            "UWASP_SPEEDUPS": "1" if with_c else "0",
        }
        if with_c:
            self.compile()

    def compile(self) -> None:
        self.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], self.folder / "packages" / SPEEDUPS)

    def run(self, command: list[str], folder: Path | None = None) -> str:
        """What a command says that runs in the copy, wherever it says it.

        Raises:
            AssertionError: it failed.
        """
        done = self.try_to_run(command, folder)
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}"
        return done.stdout

    def try_to_run(self, command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder or self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )

    @contextmanager
    def with_planted(self, fault: Fault) -> Iterator[None]:
        """For that time, the copy has the fault."""
        path = self.folder / fault.place()
        healthy = path.read_text()
        path.write_text(fault.planted(healthy))
        try:
            if fault.in_c:
                self.compile()
            yield
        finally:
            path.write_text(healthy)

    def check(self) -> None:
        """See that what runs is the copy, in a Python as in a worker of uWSGI, with the C or without.

        Raises:
            AssertionError: something else runs.
        """
        where = self.folder / "tests" / "faults" / "where.py"
        for command in ([sys.executable, str(where)], [sys.executable, str(where), "under uWSGI"]):
            told = self.run(command)
            found = dict(re.findall(r"^runs (\w+) (.*)$", told, re.MULTILINE))
            modules = {package.removesuffix("-core").replace("-", "_") for package in PACKAGES}
            assert set(found) == {*modules, "speedups"}, told
            assert found.pop("speedups") == str(self.with_c), told
            assert all(Path(path).is_relative_to(self.folder) for path in found.values()), told

    def test(self, tests: list[str]) -> dict[str, str]:
        """Run tests; of each case, "passed", or "failed" and why, or what else pytest says of it.

        Raises:
            ValueError: none ran, as where there is no test of that name.
        """
        options = ["-q", "-rA", "--tb=line", "--show-capture=no", "-p", "no:cacheprovider", f"--timeout={TIMEOUT}"]
        told = self.try_to_run([sys.executable, "-m", "pytest", *options, *tests]).stdout
        found = re.findall(r"^([A-Z]{5,}) (tests/\S+?::.*?)(?: - (.*))?$", told, re.MULTILINE)
        if not found:
            raise ValueError(f"no test ran:\n{told}")
        said = {"PASSED": "passed", "FAILED": "failed", "ERROR": "failed"}
        return {case: f"{said.get(word, word)} {why}".rstrip() for word, case, why in found}
