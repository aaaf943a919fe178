"""Which versions of python-engineio are known: what is used of it here is not all documented there."""

from __future__ import annotations

import re
from importlib.metadata import version

from uwasp import ConfigurationError

__all__ = ["OLDEST", "TOO_NEW", "check"]

OLDEST = (4, 15, 1)
TOO_NEW = (4, 16)  # the first that is not known


def check(installed: str | None = None) -> None:
    """Refuse a python-engineio that is not known.

    Args:
        installed: its version (default: that of the one that is installed).

    Raises:
        ConfigurationError: the message names those that are known.
    """
    if installed is None:
        installed = version("python-engineio")
    numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:3])
    if not OLDEST <= numbers < TOO_NEW:
        known = "python-engineio>={}.{}.{},<{}.{}".format(*OLDEST, *TOO_NEW)
        raise ConfigurationError(
            f"uwasp-socketio knows {known}, and {installed} is installed: "
            f'pip install "{known}", or a uwasp-socketio that knows this one'
        )
