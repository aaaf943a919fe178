"""The environments of what is not ours: made once, below the folder of the compiled programs, and kept.

Each program has one of its own, so that what one requires is in nobody's way and what cannot be installed is missing
alone. It is made again when its requirements change, or when its folder is deleted (for newer versions of them).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from programs import cache_folder

__all__ = ["NotInstalled", "node_environment", "python_environment", "speedups"]

INSTALL_TIMEOUT = 300  # seconds; npm tries for long to reach a registry that it cannot
INSTALLED = "installed.json"  # holds the versions, and is written last
VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""
Versions = dict[str, str]


class NotInstalled(Exception):
    """An environment cannot be made; the message says why in one line."""


def python_environment(name: str, requirements: Sequence[str]) -> tuple[Path, Versions]:
    """The folder with the programs of an environment that has `requirements`, and the versions of what they name.

    Raises:
        NotInstalled
    """
    version = "{}.{}".format(*sys.version_info)
    folder = _folder(f"{name}-python{version}", requirements)
    programs = folder / "bin"
    if not (folder / INSTALLED).exists():
        venv.EnvBuilder(clear=True, with_pip=True).create(folder)
        _run([str(programs / "python"), "-m", "pip", "install", "--quiet", *requirements], "ERROR: ")
        _run([str(programs / "python"), "-c", VERSIONS, *requirements], "", folder / INSTALLED)
    return programs, json.loads((folder / INSTALLED).read_text())


def node_environment(name: str, requirements: Sequence[str]) -> tuple[Path, Versions]:
    """The folder in which Node.js finds `requirements`, and the versions of these and of Node.js.

    Raises:
        NotInstalled
    """
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        raise NotInstalled(f"there is no `{missing[0]}` on the PATH")
    folder = _folder(name, requirements)
    if not (folder / INSTALLED).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # What these would build when they are installed they also bring, built.
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
        _run([*command, *requirements], "npm error ")
        versions = {"node": _run(["node", "--version"], "").strip().removeprefix("v")}
        for requirement in requirements:
            package = folder / "node_modules" / requirement / "package.json"
            versions[requirement] = json.loads(package.read_text())["version"]
        (folder / INSTALLED).write_text(json.dumps(versions))
    return folder / "node_modules", json.loads((folder / INSTALLED).read_text())


def speedups(packages: Path) -> Path | None:
    """A folder for PYTHONPATH with the uwasp-speedups of a folder like packages/; `None` if there is none.

    Raises:
        NotInstalled: it cannot be compiled here.
    """
    source = packages / "uwasp-speedups"
    if not source.exists():
        return None
    files = sorted(path for path in source.rglob("*") if path.suffix in (".c", ".py", ".toml") and path.is_file())
    content = [f"{sys.version_info[:2]}", *(path.read_text() for path in files)]
    folder = _folder("uwasp-speedups", content)
    if not (folder / "uwasp_speedups").exists():
        with tempfile.TemporaryDirectory(prefix="uwasp-speedups-") as name:
            own = shutil.copytree(source, Path(name) / source.name)  # what compiling leaves, it leaves there
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--target",
                str(folder),
                str(own),
            ]
            _run(command, "error: ", env={**os.environ, "UWASP_SPEEDUPS": "1"})  # or it may have no C in it
    return folder


def _folder(name: str, requirements: Sequence[str]) -> Path:
    return cache_folder() / "peers" / f"{name}-{hashlib.sha256(' '.join(requirements).encode()).hexdigest()[:8]}"


def _run(
    command: Sequence[str], complaint: str, output: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What a program prints, written to `output` too. If it fails, the reason is its line that begins with
    `complaint`.
    """
    try:
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=INSTALL_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{Path(command[0]).name} took longer than {INSTALL_TIMEOUT} s") from None
    if run.returncode:
        print(run.stderr, file=sys.stderr)
        lines = [line.removeprefix(complaint) for line in run.stderr.splitlines() if line.startswith(complaint)]
        raise NotInstalled(next(iter(lines), "") or f"{Path(command[0]).name} ended with {run.returncode}")
    if output is not None:
        output.write_text(run.stdout)
    return run.stdout
