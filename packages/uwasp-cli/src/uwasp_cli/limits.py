"""What the system allows: how many connections may wait, and how many descriptors a process may have."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["LARGEST_MAX_FD", "backlog", "descriptors"]

LARGEST_MAX_FD = 65_536
LARGEST_BACKLOG = 65_535  # what uWSGI's socket options take
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
WITHOUT_PROC = 128  # what other systems have at least


def backlog() -> int:
    """The longest backlog that the kernel grants: uWSGI does not start with more."""
    try:
        return min(int(SOMAXCONN.read_text()), LARGEST_BACKLOG)
    except FileNotFoundError:
        return WITHOUT_PROC


def descriptors() -> int:
    """The largest number of descriptors that this process may allow itself; at most 65,536.

    uWSGI's router has a table with a place for each descriptor that there could be.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return LARGEST_MAX_FD if most == resource.RLIM_INFINITY else min(most, LARGEST_MAX_FD)
