"""Built distributions, and virtual environments that know nothing of this repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SPEEDUPS = "uwasp-speedups"
PACKAGES = sorted({file.parent.name for file in REPOSITORY.glob("packages/*/pyproject.toml")} - {SPEEDUPS})
COMPILED = shutil.ignore_patterns("build", "*.egg-info", "*.so")


def run(command: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end, with `env` added, and return what it printed; one that fails shows all of it."""
    # The tests' own environment is none of its business.
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env = {**own, **(env or {})}
    done = subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def build(project: Path, folder: Path) -> None:
    """Build a project's sdist, and its wheel from that sdist, with the build tools of the tests' environment."""
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, project])


@contextmanager
def speedups_source() -> Iterator[Path]:
    """A copy of the uwasp-speedups of this repository, to be compiled: nothing has been yet."""
    with tempfile.TemporaryDirectory(prefix="uwasp-speedups-") as folder:
        yield shutil.copytree(REPOSITORY / "packages" / SPEEDUPS, Path(folder) / SPEEDUPS, ignore=COMPILED)


class Environment:
    """An empty virtual environment in `folder`, of a Python; the pip of the tests' environment installs into it."""

    def __init__(self, folder: Path, python: str | Path = sys.executable) -> None:
        self.programs = folder / "bin"
        self.python = self.programs / "python"
        self.cwd = folder
        run([python, "-m", "venv", "--without-pip", folder])

    def install(self, *arguments: str | Path) -> None:
        self._pip("install", "--quiet", *arguments)

    def installed(self) -> set[str]:
        """The names of all distributions in it."""
        listed = json.loads(self._pip("list", "--format", "json"))
        return {distribution["name"].lower().replace("_", "-") for distribution in listed}

    def _pip(self, *arguments: str | Path) -> str:
        return run([sys.executable, "-m", "pip", "--python", self.python, *arguments], self.cwd)

    def evaluate(self, statements: str, expression: str) -> str:
        """What an expression is, after these statements. An exception is its class's name and its message."""
        code = (
            "try:\n"
            + "".join(f"    {statement}\n" for statement in statements.split("; "))
            + f"    print({expression})\n"
            + "except Exception as error:\n"
            + "    print(f'{type(error).__name__}: {error}')\n"
        )
        return run([self.python, "-c", code], self.cwd).strip()
