"""A name that one process of a local bus holds: a file in the bus's folder, which that process has locked.

The lock is the kernel's, and a process's own (fcntl, not flock): it is free when the process is gone, though a child
that it has forked lives on and has all its descriptors.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat

__all__ = ["Claim"]


class Claim:
    """A name that this process would hold.

    Args:
        folder: the path of the bus's folder.
        name: any text.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, f"claim-{hashlib.blake2s(name.encode(), digest_size=8).hexdigest()}")
        self._fd = -1

    def is_held(self) -> bool:
        """Whether this process holds it; it takes it if nobody does.

        Raises:
            OSError: what the platform has against it.
        """
        if self._fd >= 0 and not self._is_in_place():  # the folder was cleaned: others would lock another file
            self.release()
        if self._fd < 0:
            with contextlib.suppress(BlockingIOError, FileNotFoundError):  # another holds it; the folder is made anew
                self._fd = self._lock()
        return self._fd >= 0

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _lock(self) -> int:
        """
        Raises:
            BlockingIOError: another process has it locked.
            OSError: it cannot be.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._admit(fd)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _admit(self, fd: int) -> None:
        """Let those lock it who may write into the folder, if it is ours."""
        folder, found = os.stat(os.path.dirname(self._path)), os.fstat(fd)
        own = os.geteuid()
        if found.st_uid != own or (folder.st_uid == own and not folder.st_mode & stat.S_IWGRP):
            return
        if own == 0 or found.st_gid != folder.st_gid:
            os.fchown(fd, folder.st_uid if own == 0 else -1, folder.st_gid)
        os.fchmod(fd, folder.st_mode & 0o660)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path, follow_symlinks=False), os.fstat(self._fd))
        except FileNotFoundError:
            return False
