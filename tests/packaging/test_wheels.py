"""What `hatch run wheels` proves of each wheel is what CI proves of the C. That they pass, CI sees by running it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from environments import REPOSITORY

sys.path.append(str(REPOSITORY / "wheels"))

import cpythons
import wheels

HATCH = (REPOSITORY / "hatch.toml").read_text()


def test_all_tests_of_a_wheel_are_those_of_the_speedups_environment() -> None:
    _, environment = HATCH.split("[envs.speedups]\n")
    assert " ".join(wheels.ALL_TESTS) in environment.replace("\\\n    ", "")
    requirements = ", ".join(f'"{requirement}"' for requirement in wheels.TEST_REQUIREMENTS)
    assert f"dependencies = [{requirements}]\n" in environment


def test_the_essential_ones_are_among_them() -> None:
    for test in wheels.ESSENTIAL_TESTS:
        assert (REPOSITORY / test).exists()
        assert test.startswith(wheels.ALL_TESTS[: wheels.ALL_TESTS.index("--ignore")])
    assert "tests/uwsgi/test_speedups_agree.py" in wheels.ESSENTIAL_TESTS


def test_the_compiler_links_with_the_glibc_that_the_wheels_are_named_by() -> None:
    glibc = wheels.PLATFORM.removeprefix("manylinux_").removesuffix("_x86_64")
    assert f"x86_64-linux-gnu.{glibc.replace('_', '.')}" == wheels.TARGET
    for document in ("docs/performance.md", "packages/uwasp-speedups/README.md"):
        assert f"glibc {glibc.replace('_', '.')} or newer" in (REPOSITORY / document).read_text()


def test_a_wheel_is_for_every_python_that_is_supported() -> None:
    project = (REPOSITORY / "packages" / "uwasp-speedups" / "pyproject.toml").read_text()
    supported = [version for version in wheels.PYTHONS if f'"Programming Language :: Python :: {version}"' in project]
    assert supported == ["3.10", "3.11", "3.12", "3.13"]


def test_no_python_to_build_for_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["wheels.py"])
    monkeypatch.setattr(wheels, "installed_pythons", lambda: iter(()))
    assert wheels.main() == 1
    assert "install the headers of a CPython" in capsys.readouterr().out


def test_the_python_of_the_tests_is_found_if_it_can_compile(compiler: None) -> None:
    assert cpythons.find(cpythons.version()) == Path(sys.executable)


def test_a_python_that_is_not_on_this_machine_is_none() -> None:
    assert cpythons.find("3.99") == "CPython 3.99 is not on this machine"
