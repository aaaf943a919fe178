"""uwasp-speedups is used where it fits, and where it does not, that is said and all works without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging
logging.basicConfig(format="%(name)s: %(message)s")
import uwasp
from uwasp import protocol
messages = []
read = protocol.take_messages(bytes.fromhex("818100000000") + b"a", 0, 10, 9, messages, None)
print(read, messages, uwasp.speedups.in_use)
"""
STAND_IN = """
__version__ = {version!r}
def take_messages(data, position, largest, most, messages, accepts):
    messages.append("from the stand-in")
    return len(data)
def send_to_all(frame, members, following, deadline, cut):
    pass
def accelerate(*arguments):
    pass
"""
IN_PYTHON = "7 ['a'] False\n"


@pytest.fixture
def run(tmp_path: Path):
    """Run the program with that text as the module `uwasp_speedups`; return what it wrote, to both."""

    def run(module: str | None, **env: str) -> tuple[str, str]:
        if module is not None:
            (tmp_path / "uwasp_speedups.py").write_text(module)
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "UWASP_SPEEDUPS": "1", "PYTHONPATH": path, **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout, done.stderr

    return run


def test_it_is_used_where_it_is_of_the_same_version(run):
    import uwasp

    assert run(STAND_IN.format(version=uwasp.__version__)) == ("7 ['from the stand-in'] True\n", "")


def test_it_is_left_out_where_the_environment_says_so(run):
    import uwasp

    assert run(STAND_IN.format(version=uwasp.__version__), UWASP_SPEEDUPS="0") == (IN_PYTHON, "")


def test_another_version_is_not_used(run):
    out, said = run(STAND_IN.format(version="0.0.1"))
    assert out == IN_PYTHON
    assert "uwasp-speedups 0.0.1 is not used" in said


def test_one_that_cannot_be_loaded_is_not_used(run):
    out, said = run("raise ImportError('undefined symbol: PyEval_Nothing')")
    assert out == IN_PYTHON
    assert "cannot be loaded: undefined symbol: PyEval_Nothing" in said


def test_one_that_has_been_installed_without_its_c_is_not_used_and_one_line_says_so(run):
    out, said = run("import uwasp_speedups._speedups  # this is no package, so there is none")
    assert out == IN_PYTHON
    (line,) = said.splitlines()
    assert "uwasp-speedups is installed without its C" in line


def test_without_it_nothing_is_said(run):
    assert run("raise ModuleNotFoundError('no', name='uwasp_speedups')") == (IN_PYTHON, "")
