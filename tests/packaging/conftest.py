"""The distributions, built once, and environments to install them into."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from environments import PACKAGES, REPOSITORY, Environment, build, speedups_source
from processes import not_installed, require_program


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheels and sdists; the wheel of uwasp-speedups has its C where that can be compiled."""
    folder = tmp_path_factory.mktemp("distributions")
    for package in PACKAGES:
        build(REPOSITORY / "packages" / package, folder)
    with speedups_source() as source:
        build(source, folder)
    return folder


@pytest.fixture(scope="session")
def compiler() -> None:
    """For tests of the C: it can be compiled here."""
    require_program("gcc")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        not_installed("Python's headers (python3-dev)")


@pytest.fixture(scope="module")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Make a fresh virtual environment."""
    numbers = count()
    return lambda: Environment(tmp_path_factory.mktemp("environments") / f"environment-{next(numbers)}")
