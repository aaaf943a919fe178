"""uWSGI's metrics, where the operator has registered ours: the figures of `uwasp.statistics`, summed over all workers.

Gauges go down again: a worker takes back what it has added to them when it ends. One that is killed cannot, so each
keeps account of it in a file, and the worker that comes in its place takes it back. Not in memory that workers share:
with --lazy-apps nothing of ours runs before they are forked. Where a whole uWSGI was killed no worker comes; its files
are removed by the next uWSGI that begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import logging
import mmap
import os
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uwasp import figures_file, statistics, takeover

if TYPE_CHECKING:
    from uwasp.listener import Listener

__all__ = ["Metrics", "are_wanted", "begin_in_each_worker"]

logger = logging.getLogger("uwasp.metrics")

GAUGES = ("open", "queued_in", "queued_out")


def are_wanted() -> bool:
    """Whether the operator has registered one of those that a listener has."""
    names = (*GAUGES, "opened", "closed", "slow_members", *statistics.COUNTED)
    return any(takeover.has_metric(f"uwasp.{name}") for name in names)


def begin_in_each_worker() -> None:
    """Have each worker, as it begins, take back what the one before it has left, which was killed, and tell its own."""
    if are_wanted():
        takeover.in_each_worker(_begin)


def _begin() -> None:
    _account_of_this_process()
    file = figures_file.of_this_process()
    if file is not None:
        file.write()


class Metrics:
    """Passes the figures of one listener on to those of uWSGI's metrics that the operator has registered.

    They are named `uwasp.` and the name in `stats`; beside them there are `uwasp.closed`, and `uwasp.closed.1000` and
    so on for the close codes. `statistics.count_refusal` does the same for `uwasp.refused`.

    Args:
        listener: whose figures; `publish` is to be called where it polls.
        new_lock: makes a lock.
    """

    PERIOD = 1.0  # seconds

    def __init__(self, listener: Listener, new_lock: Callable[[], Any]) -> None:
        self._listener = listener
        self._lock = new_lock()
        self._published: Counter[str] = Counter()
        self._account = _account_of_this_process()
        self._file = figures_file.of_this_process()
        self._has_ended = False
        takeover.at_exit(self._end)

    def publish(self) -> None:
        """Add what has changed since the last time."""
        if not self._has_ended:
            self._publish(statistics.figures_of(self._listener))
            if self._file is not None:
                self._file.write()

    def _end(self) -> None:
        """The process ends: all counts in full, and nothing that is open or queued."""
        self._has_ended = True
        self._publish({**statistics.figures_of(self._listener), **dict.fromkeys(GAUGES, 0)})
        self._account.close()

    def _publish(self, figures: dict[str, int]) -> None:
        closed = dict(self._listener.totals.closed)
        figures["closed"] = sum(closed.values())
        figures.update({f"closed.{code}": number for code, number in closed.items()})
        with self._lock:
            for name, value in figures.items():
                difference = value - self._published[name]
                if difference:
                    takeover.add_to_metric(f"uwasp.{name}", difference)
                    self._published[name] = value
                    if name in GAUGES:
                        self._account.add(name, difference)


class _Account:
    """What this worker has added to the gauges, for all of its listeners. It outlives the worker.

    Args:
        slot: what this worker has in common with those before and after it; `None`: there are none.
    """

    _layout = struct.Struct(f"={len(GAUGES)}q")

    def __init__(self, slot: str | None) -> None:
        self._path = ""
        self._lock = threading.Lock()
        self._kept: bytearray | mmap.mmap = bytearray(self._layout.size)
        if slot is None:
            return
        try:
            path = os.path.join(tempfile.gettempdir(), f"uwasp-gauges-{os.geteuid()}-{slot}")
            self._kept = self._open(path)
            self._path = path
            _remove_abandoned(path)
        except OSError as error:
            logger.warning("a worker that is killed will leave its gauges wrong, without account of them: %s", error)
            return
        for name, left in zip(GAUGES, self._layout.unpack_from(self._kept), strict=True):
            takeover.add_to_metric(f"uwasp.{name}", -left)
            self.add(name, -left)

    def _open(self, path: str) -> mmap.mmap:
        """The file in memory, and locked as long as it is: `mmap` has a duplicate of its descriptor."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_uid != os.geteuid():  # in a folder where everybody may write
                raise PermissionError(f"{path}, which belongs to somebody else")
            fcntl.flock(fd, fcntl.LOCK_SH)  # shared: what the worker before has forked may live on
            os.ftruncate(fd, self._layout.size)
            return mmap.mmap(fd, self._layout.size)
        finally:
            os.close(fd)

    def add(self, name: str, difference: int) -> None:
        with self._lock:
            values = list(self._layout.unpack_from(self._kept))
            values[GAUGES.index(name)] += difference
            self._layout.pack_into(self._kept, 0, *values)

    def close(self) -> None:
        """Leave nothing, if nothing is left to take back."""
        with self._lock:
            if self._path and not any(self._layout.unpack_from(self._kept)):
                with contextlib.suppress(OSError):
                    os.unlink(self._path)


def _remove_abandoned(own: str) -> None:
    """Remove the files, of those beside our own, from which no worker will take anything back.

    Nobody has such a file locked, and the master that it names is gone. Either alone is not enough: a worker may just
    have been killed and the next be about to come; and a master in another container that shares the folder, which has
    other numbers for processes, cannot be seen.
    """
    prefix, master, started, _ = own.rsplit("-", 3)
    for path in glob.glob(f"{glob.escape(prefix)}-*-*-*"):
        _, its_master, its_start, _ = path.rsplit("-", 3)
        if (its_master, its_start) == (master, started) or (its_master != master and _is_alive(its_master)):
            continue
        with contextlib.suppress(OSError):  # another worker was faster, or it is somebody else's
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(fd)


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True


_accounts: dict[int, _Account] = {}
_accounts_lock = threading.Lock()


def _account_of_this_process() -> _Account:
    with _accounts_lock:
        account = _accounts.get(os.getpid())
        if account is None:
            account = _accounts[os.getpid()] = _Account(takeover.slot())
            takeover.at_exit(account.close)  # also if there is never a listener
        return account
