"""The four distributions, built once, and environments to install them into."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from environments import PACKAGES, REPOSITORY, Environment, build


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheels and sdists of the four packages."""
    folder = tmp_path_factory.mktemp("distributions")
    for package in PACKAGES:
        build(REPOSITORY / "packages" / package, folder)
    return folder


@pytest.fixture(scope="module")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Make a fresh virtual environment."""
    numbers = count()
    return lambda: Environment(tmp_path_factory.mktemp("environments") / f"environment-{next(numbers)}")
