"""One uWSGI that `uwasp dev` has started: its process, and what of its output is for a developer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from uwasp_cli.inside import LOADED, LOADING, Order

__all__ = ["ACCEPTING", "REQUEST", "Instance"]

ACCEPTING = "uwasp: a worker accepts"
REQUEST = "uwasp: request "
# What uWSGI says about its own comings and goings.
CHATTER = re.compile(
    r"\*\*\* running gevent loop|spawned uWSGI worker|SIGINT/SIGTERM received|Brutally killing worker|"
    r"worker \d+ buried|goodbye to|Gracefully killing worker|.* - (stopping gevent|main gevent watchers)|"
    r"running \"print:"
)
LAST_WORDS = 2.0  # seconds, for the output of one that has ended


class Instance:
    """A uWSGI in a session of its own, which hears of Ctrl-C from nobody but `stop`.

    Args:
        command: its command line.
        environment: its environment.
        fd: the descriptor of the socket on which it listens.
        order: what it is to load.
        accepts: is called once its first worker accepts connections.
        ended: is called when it has ended.
        show: is called with each line for the developer. All three in threads of the instance's own.

    Attributes:
        order: as given.
        said: all that it has said until it accepted connections.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        fd: int,
        order: Order,
        accepts: Callable[[Instance], object],
        ended: Callable[[Instance], object],
        show: Callable[[str], object],
    ) -> None:
        self.order = order
        self.said: list[str] = []
        self._accepts = accepts
        self._ended = ended
        self._show = show
        self._process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[fd, order.fd],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, name="uwasp-reader", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name="uwasp-waiter", daemon=True).start()

    @property
    def code(self) -> int:
        """Its exit code, when it has ended."""
        return self._process.wait()

    def terminate(self) -> None:
        """Tell it to stop. While it starts, uWSGI's master misses that: it has to be told again."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        output = iter(self._process.stdout or ())
        loading: list[str] | None = None
        for line in output:
            self.said.append(line)
            if line.startswith(LOADING):
                loading = []
            elif line.startswith(LOADED):
                for early in loading or ():
                    self._show(early.rstrip("\n"))
                loading = None
            elif line.startswith(ACCEPTING):
                self._accepts(self)
                break
            elif loading is not None:
                loading.append(line)
        for line in output:
            if line.startswith(REQUEST):
                self._show(f"{time.strftime('%H:%M:%S')} {line.removeprefix(REQUEST).rstrip()}")
            elif not line.startswith(ACCEPTING) and not CHATTER.match(line):
                self._show(line.rstrip("\n"))

    def _wait(self) -> None:
        self._process.wait()
        self.kill()  # what it may have left
        self._reader.join(LAST_WORDS)
        self._ended(self)
