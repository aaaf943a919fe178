"""What keeps a user from a file: the modes of the file, and of the folders that it is in."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import NamedTuple

__all__ = ["Closed", "closed_to"]


class Closed(NamedTuple):
    """What a user may not enter or execute, with its mode, and the path that leads through it."""

    place: str
    path: str


def closed_to(user: str, path: str) -> Closed | None:
    """What keeps a user from a file or a folder: the outermost on the way there, or on the way to where a link leads.

    Returns:
        `None` if there is none, or nothing is known of that user here.
    """
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        return None
    if known.pw_uid == 0:
        return None
    groups = os.getgrouplist(user, known.pw_gid)
    for way in (Path(os.path.abspath(path)), Path(os.path.realpath(path))):
        for place in (*reversed(way.parents), way):
            try:
                found = os.stat(place)
            except OSError:
                return None  # who asks may not look there, or there is nothing
            if not found.st_mode & _bit(found, known.pw_uid, groups):
                return Closed(f"{place} ({stat.filemode(found.st_mode)})", str(way))
    return None


def _bit(found: os.stat_result, user: int, groups: list[int]) -> int:
    """The one of a mode that is about this user."""
    if found.st_uid == user:
        return stat.S_IXUSR
    return stat.S_IXGRP if found.st_gid in groups else stat.S_IXOTH
