"""uwasp-speedups comes with the default set and is used; where it cannot be compiled, all works without it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from environments import Environment, speedups_source
from processes import Uwsgi

ECHO = """
from uwasp import Server, WebSocketMiddleware


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


application = WebSocketMiddleware(print, "threads", [("/echo", Echo)])
"""
WITHOUT_ITS_C = "uwasp-speedups is installed without its C"
FREE_THREADED = """
import runpy, sysconfig, sys
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
sys.argv = ["setup.py", "--version"]
runpy.run_path("setup.py")
"""


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What is compiled in this test is not."""
    missing = tmp_path / "no-compiler"
    monkeypatch.setenv("CC", str(missing))
    monkeypatch.delenv("UWASP_SPEEDUPS", raising=False)
    return missing


@pytest.fixture
def sdist(distributions: Path) -> Path:
    (path,) = distributions.glob("uwasp_speedups-*.tar.gz")
    return path


@pytest.mark.parametrize("requirement", ["uwasp-meta", "uwasp-core[speedups]"])
def test_the_default_set_and_an_extra_bring_the_c_and_it_is_in_use(
    requirement: str,
    new_environment: Callable[[], Environment],
    distributions: Path,
    compiler: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("UWASP_SPEEDUPS", raising=False)
    environment = new_environment()
    environment.install("--find-links", distributions, requirement)
    assert "uwasp-speedups" in environment.installed()
    assert environment.evaluate("import uwasp", "uwasp.speedups.in_use") == "True"


def test_without_a_compiler_it_installs_all_the_same_and_one_line_says_so_at_run_time(
    new_environment: Callable[[], Environment],
    distributions: Path,
    sdist: Path,
    no_compiler: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    environment = new_environment()
    environment.install("--find-links", distributions, "--no-cache-dir", "uwasp-meta", sdist, "pyuwsgi")
    assert environment.evaluate("import uwasp", "uwasp.speedups.in_use") == "False"

    application = tmp_path / "echo.py"
    application.write_text(ECHO)
    options = ("--threads", "2", "--processes", "2")
    uwsgi = start_uwsgi(application, *options, program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/echo") as client:
        client.send("text")
        assert client.recv(10) == "text"
    (line,) = [line for line in uwsgi.output.splitlines() if "uwasp-speedups" in line]
    version = "{}.{}".format(*sys.version_info)
    assert f"{WITHOUT_ITS_C} for CPython {version}" in line
    assert "install a C compiler and Python's headers (Debian: gcc, python3-dev)" in line


def test_the_command_of_that_line_shows_why_it_cannot_be_compiled_and_mends_it_where_it_can(
    new_environment: Callable[[], Environment],
    distributions: Path,
    sdist: Path,
    no_compiler: Path,
    compiler: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = new_environment()
    environment.install("--find-links", distributions, "--no-cache-dir", "uwasp-core", sdist)
    done = subprocess.run(
        [environment.python, "-c", "import uwasp"], capture_output=True, text=True, check=True, cwd=environment.cwd
    )
    setting, pip, install, *options = done.stderr.rpartition("then: ")[2].split()
    assert (setting, pip, install) == ("UWASP_SPEEDUPS=1", "pip", "install")
    version = environment.evaluate("import uwasp", "uwasp.__version__")
    assert options.pop() == f"uwasp-speedups=={version}"

    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(AssertionError, match=f"No such file or directory: '{no_compiler}'"):
        environment.install(*options, sdist)
    monkeypatch.delenv("CC")
    environment.install(*options, sdist)
    assert environment.evaluate("import uwasp", "uwasp.speedups.in_use") == "True"


def test_a_free_threaded_python_is_refused_in_words() -> None:
    with speedups_source() as source:
        done = subprocess.run(
            [sys.executable, "-c", FREE_THREADED], cwd=source, env=os.environ, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("uwasp-speedups relies on the GIL, and this CPython is free-threaded: use")
