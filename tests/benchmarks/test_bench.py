"""The benchmarks run, on a short race, and say what they need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes import require_program

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


COMPILE = """
from programs import compiled
print(compiled("floor"), compiled("load"))
"""


@pytest.mark.usefixtures("compiler")
def test_a_short_run_of_groups_fills_its_tables() -> None:
    """On the local bus and on Redis; every message of it came to every member, or it would say so."""
    require_program("redis-server")
    options = ["--rounds", "1", "--duration", "0.2", "--peers", "none", "--handlers", "threads", "--groups", "400"]
    command = [sys.executable, str(BENCH.with_name("groups.py")), *options, "--no-fan-out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    tables = done.stdout.strip().split("\n\n")[:-1]
    for bus in ("local bus", "Redis"):
        for table in tables:
            lines = [line for line in table.splitlines() if line.startswith(f"| uWASP threads, {bus}")]
            assert lines, f"{bus} is not in\n{table}"
            assert all(float(line.split("|")[2].replace(",", "")) > 0 for line in lines), table
    assert len(tables) == 8


STORM = """
import sys
from pathlib import Path
import shapes
shapes.STORM_CLIENTS = 200
from servers import floor, uwasp
from storm import measure_spread, measure_storm
def found(shape, server, result):
    assert result.value > 0 and dict(result.details)["connections tried"] >= 200, result
    print(server.name)
measure_storm([floor(), uwasp("gevent"), uwasp("threads")], Path(sys.argv[1]) / "storm", None, 1, found)
for spread in measure_spread(["threads"], None, Path(sys.argv[1]) / "spread", 1):
    assert 0.5 <= spread.shares[0] <= 1.5, spread
    print(spread.name)
"""


@pytest.mark.usefixtures("compiler")
def test_clients_that_come_back_after_a_reload_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STORM, str(tmp_path)]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "floor",
        "uWASP gevent",
        "uWASP threads",
        "uWASP threads",
        "uWASP threads `--thunder-lock`",
    ]


WRITE = """
import sys
from pathlib import Path
import writing
writing.TO = {10: 20}
print(writing.writing_table(Path(sys.argv[1]), ["gevent", "threads"], None, 1))
"""


@pytest.mark.usefixtures("compiler")
def test_sending_is_measured_beside_a_loop_in_c(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    done = subprocess.run(command, cwd=BENCH.parent, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for handler in ("gevent", "threads"):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"| uWASP {handler} without the C |"))
        assert all(float(figure) > 0 for figure in line.split("|")[2:5]), done.stdout


@pytest.mark.usefixtures("compiler")
def test_a_load_client_that_measures_late_measures_no_less(tmp_path: Path) -> None:
    """As when it gets no turn at a core until all should be over; here that is at once."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    compiled = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=BENCH.parent, env=env, capture_output=True, check=True
    )
    floor, load = compiled.stdout.split()
    with subprocess.Popen([floor, "0"], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split()[-1]
            command = [load, "--port", port, "--connections", "1", "--warm-up", "0.001", "--duration", "0.000001"]
            runs = [subprocess.run(command, capture_output=True, check=True, timeout=30) for _ in range(5)]
        finally:
            server.kill()
    assert all(json.loads(run.stdout.splitlines()[-1])["seconds"] > 0 for run in runs)


def test_without_a_compiler_it_says_so(tmp_path: Path) -> None:
    done = bench(CC="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "there is no `cc` on the PATH: install gcc or clang" in done.stderr


@pytest.mark.parametrize("shape", [("3", "1", "32"), ("2", "16", "32"), ("2", "1", "16384"), ("2", "1000", "32")])
def test_the_program_whose_instructions_are_counted_echoes_and_ends(shape: tuple[str, ...]) -> None:
    """And is what it says: that of this repository, without the C."""
    core = ROOT / "packages" / "uwasp-core" / "src"
    env = {**os.environ, "PYTHONPATH": str(core), "UWASP_PACKAGES": str(core), "UWASP_SPEEDUPS": "0"}
    subprocess.run([sys.executable, ROOT / "benchmarks" / "echoing.py", *shape, "3"], env=env, check=True, timeout=30)
