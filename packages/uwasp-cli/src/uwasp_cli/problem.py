"""What the command cannot do, in one line for who typed it."""

from __future__ import annotations

__all__ = ["Problem"]


class Problem(Exception):
    """The command ends with this line, and exit code 1."""
