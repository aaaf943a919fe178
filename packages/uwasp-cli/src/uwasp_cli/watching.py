"""Which Python files and templates of a folder have changed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

__all__ = ["Watcher"]

TEMPLATES = "templates"  # the name of a folder, all of whose files count: frameworks read them once
LEFT_OUT = ("__pycache__", "node_modules", "site-packages")


class Watcher:
    """Looks at all Python files and templates below some folders, twice a second if that is soon done, and at some
    further files.

    Args:
        folders: those whose files are the application's; what is hidden, and environments, are left out.
        files: further ones, such as one with variables; they need not exist.
        changed: is called, in a thread of the watcher's own, with the path of a file that has changed, come or gone.
    """

    PERIOD = 0.5  # seconds

    def __init__(self, folders: Iterable[Path], files: Iterable[Path], changed: Callable[[Path], object]) -> None:
        self._folders = list(folders)
        self._files = list(files)
        self._changed = changed
        self._is_over = threading.Event()
        self._seen = dict(self._look())
        self._thread = threading.Thread(target=self._run, name="uwasp-watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        took = 0.0
        while not self._is_over.wait(max(self.PERIOD, 9 * took)):  # at most a tenth of a core
            began = time.monotonic()
            found = dict(self._look())
            took = time.monotonic() - began
            if found != self._seen:
                different = {path for path, _ in found.items() ^ self._seen.items()}
                self._seen = found
                self._changed(Path(min(different)))

    def _look(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Each file with its time and size."""
        for path in self._files:
            yield from _state(str(path))
        for folder in self._folders:
            for above, below, names in os.walk(folder):
                below[:] = [name for name in below if _is_wanted(above, name)]
                are_templates = TEMPLATES in (folder.name, *Path(above).relative_to(folder).parts)
                for name in names:
                    if name.endswith(".py") or (are_templates and not name.startswith(".") and not name.endswith("~")):
                        yield from _state(os.path.join(above, name))


def _is_wanted(above: str, name: str) -> bool:
    hidden = name.startswith(".") or name in LEFT_OUT
    return not hidden and not os.path.exists(os.path.join(above, name, "pyvenv.cfg"))


def _state(path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        state = os.stat(path)
    except OSError:
        return  # gone since
    yield path, (state.st_mtime_ns, state.st_size)
