"""A real PostgreSQL for tests: a cluster in a folder of its own, of a user who may do nothing else; a test ends it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from processes import Process, not_installed

READY = "database system is ready to accept connections"
USER = "nobody"  # PostgreSQL refuses to be root's


def programs() -> Path:
    """The folder of PostgreSQL's programs, those of the newest that is here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        not_installed("postgresql")
    return found[-1].parent


class Postgres:
    """A PostgreSQL that listens on a Unix socket alone, and can be stopped and started again.

    Attributes:
        folder: where its socket is: the `HOST` of Django's settings.
    """

    def __init__(self) -> None:
        self._programs = programs()
        self.folder = Path(tempfile.mkdtemp(prefix="uwasp-postgres-"))  # that of pytest is closed to others
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam(USER).pw_uid, -1)
        self._data = self.folder / "data"
        self._processes: list[Process] = []
        initdb = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "django", "--auth=trust", "--no-sync"]
        subprocess.run([*self._as_user(), *initdb], cwd=self.folder, check=True, capture_output=True)
        self.start()

    def _as_user(self) -> list[str]:
        return ["setpriv", f"--reuid={USER}", "--clear-groups", "--"] if os.geteuid() == 0 else []

    @property
    def settings(self) -> dict[str, object]:
        """An entry of Django's `DATABASES`."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "django",
            "HOST": str(self.folder),
        }

    def start(self) -> None:
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self.folder), "-F"]
        command += ["-c", "listen_addresses=", "-c", "max_connections=50"]
        log = self.folder / f"postgres-{len(self._processes)}.log"
        self._processes.append(Process([*self._as_user(), *command], log, cwd=self.folder))
        self._processes[-1].wait_for_output(READY)

    def restart(self) -> None:
        """Cut all connections, and be there again."""
        self._processes[-1].stop(signal.SIGINT)
        self.start()

    def connections(self, seen_as: str = "") -> int:
        """How many connections clients have; or how many of those are in a state, such as "idle in transaction"."""
        query = (
            "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        if seen_as:
            query += f" and state = '{seen_as}'"
        return int(self.ask(query))

    def ask(self, query: str) -> str:
        command = [
            str(self._programs / "psql"),
            "-h",
            str(self.folder),
            "-U",
            "django",
            "-d",
            "postgres",
            "-Atc",
            query,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    def end(self) -> None:
        """Stop it, and leave nothing of it."""
        try:
            if self._processes and self._processes[-1].popen.poll() is None:
                self._processes[-1].stop(signal.SIGINT)
        finally:
            shutil.rmtree(self.folder)
