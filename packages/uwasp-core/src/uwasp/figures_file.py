"""The figures of a worker in a file beside uWSGI's stats socket, for who looks from outside, as `uwasp top` does.

uWSGI's metrics are numbers, whose names it wants to know before an application is loaded. What is told by path, by
close code or by reason of a refusal cannot be among them, so each worker writes that down by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading

from uwasp import statistics, takeover

__all__ = ["FiguresFile", "of_this_process"]

logger = logging.getLogger("uwasp.metrics")


class FiguresFile:
    """A file with the figures of this worker's connections, as `uwasp.stats()` has them, and its `pid`, as JSON. It is
    never seen half written.

    Args:
        path: of the file; another process may have one of its own there afterwards.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._written = ""
        self._has_failed = False

    def write(self) -> None:
        """Write the figures down as they are, if they have changed. From any thread or greenlet; raises nothing."""
        if os.getpid() != self._process:
            return  # in a child of the worker's
        failure = None
        with self._lock:
            try:
                text = json.dumps({"pid": self._process, **statistics.of_connections()})
                if text != self._written and not takeover.is_exiting():
                    self._replace(text)
                    self._written = text
            except Exception as error:  # this is about figures, and called where connections are served
                failure = None if self._has_failed else error
                self._has_failed = True
        if failure is not None:  # said once, and not under the lock
            remedy = "uWSGI's user has to be allowed to write beside the stats socket"
            logger.warning("`uwasp top` will not see this worker's own figures: %s; %s", failure, remedy)

    def _replace(self, text: str) -> None:
        new = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)  # of a worker that was killed meanwhile; or, where everybody may write, not ours at all
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with open(fd, "w") as file:
            file.write(text)
        os.replace(new, self._path)

    def remove(self) -> None:
        """For a worker that ends; nothing is written from now on."""
        # Not for ever: uWSGI may call this in a signal handler, which has interrupted `write` in this very thread.
        if self._written and self._lock.acquire(timeout=1):
            try:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            finally:
                self._lock.release()


_files: dict[int, FiguresFile | None] = {}
_files_lock = threading.Lock()


def of_this_process() -> FiguresFile | None:
    """The file of this worker; `None` where the stats server is not at an absolute path (--stats)."""
    with _files_lock:
        if os.getpid() not in _files:
            _files[os.getpid()] = _new_file()
        return _files[os.getpid()]


def _new_file() -> FiguresFile | None:
    stats = [*takeover.values("stats"), *takeover.values("stats-server")][-1:]
    if not takeover.worker_id() or not stats or not stats[0].startswith("/") or ":" in stats[0]:
        return None
    file = FiguresFile(f"{stats[0]}.{takeover.worker_id()}.json")
    statistics.when_refused(file.write)
    takeover.at_exit(file.remove)
    return file
