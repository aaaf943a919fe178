"""The benchmarks run, on a short race, and say what they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "benchmarks" / "bench.py"


def bench(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), "--rounds", "1", "--duration", "0.2", "--peers", "none", *options]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True)


@pytest.fixture
def compiler() -> None:
    if shutil.which("cc") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no cc")
        pytest.skip("there is no cc")


@pytest.mark.usefixtures("compiler")
def test_a_short_race_fills_its_tables(tmp_path: Path) -> None:
    done = bench("--shapes", "50,fan-out,latency", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    tables = done.stdout.split("\n\n")
    for title in ("50 connections, 32 B", "one message to 1,000 connections"):
        (table,) = (table for table in tables if table.startswith(title))
        for server in ("floor", "uWASP gevent", "uWASP threads"):
            (line,) = (line for line in table.splitlines() if line.startswith(f"| {server} |"))
            assert float(line.split("|")[2].replace(",", "")) > 0


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    done = bench(CC="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "there is no `cc` on the PATH: install gcc or clang" in done.stderr


@pytest.mark.parametrize("shape", [("3", "1", "32"), ("2", "16", "32"), ("2", "1", "16384")])
def test_the_program_whose_instructions_are_counted_echoes_and_ends(shape: tuple[str, ...]) -> None:
    """And is what it says: that of this repository, without the C."""
    core = ROOT / "packages" / "uwasp-core" / "src"
    env = {**os.environ, "PYTHONPATH": str(core), "UWASP_PACKAGES": str(core), "UWASP_SPEEDUPS": "0"}
    subprocess.run([sys.executable, ROOT / "benchmarks" / "echoing.py", *shape, "3"], env=env, check=True, timeout=30)
