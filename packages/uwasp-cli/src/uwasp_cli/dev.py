"""`uwasp dev`: serves an application on one's own machine, and serves it anew when its files change.

The command holds the listening socket. When a file has changed it starts another uWSGI on it, and ends the one before
when the new one accepts connections: where the new one does not load, the last one that did goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import NamedTuple, TextIO

from uwasp_cli.bind import Bind, bracketed, listen
from uwasp_cli.inside import Order
from uwasp_cli.instance import ACCEPTING, REQUEST, Instance
from uwasp_cli.loops import CORES, loops_to_try
from uwasp_cli.options import Setup, arguments, options_of_development
from uwasp_cli.problem import Problem
from uwasp_cli.target import Target, environment_of, find_target
from uwasp_cli.uwsgi import Uwsgi, find_uwsgi
from uwasp_cli.variables import environment_for
from uwasp_cli.watching import Watcher

__all__ = ["run"]

PATIENCE = 8  # seconds, until what does not end is killed
STARTING = -1  # it was killed while it started


class Accepts(NamedTuple):
    instance: Instance


class Ended(NamedTuple):
    instance: Instance


class Changed(NamedTuple):
    path: Path


class Second(NamedTuple):
    """One more has passed in which something did not end."""


class Stop(NamedTuple):
    """Ctrl-C, or another signal that means the same, or nobody reads what is said."""


Event = Accepts | Ended | Changed | Second | Stop


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Serve until Ctrl-C; return the exit code.

    Raises:
        Problem: the port is taken, or the application cannot be loaded the first time.
    """
    target = find_target(options.application, Path.cwd(), environment)
    uwsgi = find_uwsgi(options.uwsgi)
    with listen(options.host, options.port, "--port") as listening:
        return Development(options, target, uwsgi, environment, listening).run()


class Development:
    """What `uwasp dev` is about: at most one uWSGI that serves, and one that starts.

    Args:
        options: of the command.
        target: the application.
        uwsgi: the program.
        environment: of all that is started.
        listening: the socket on which all listen, one after the other.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        target: Target,
        uwsgi: Uwsgi,
        environment: Mapping[str, str],
        listening: socket.socket,
    ) -> None:
        self._options = options
        self._target = target
        self._uwsgi = uwsgi
        self._environment = environment
        self._listening = listening
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._ending: dict[Instance, int] = {}  # and for how many seconds
        self._serving: Instance | None = None
        self._starting: Instance | None = None
        self._loops = loops_to_try(options)
        self._untried: list[str] = []
        self._refusal = ""  # of the first loop that was tried

    def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, self._hear)
        watcher = self._watch()
        try:
            self._start()
            while True:
                match self._events.get():
                    case Accepts(instance):
                        self._accepts(instance)
                    case Ended(instance):
                        self._ended(instance)
                    case Changed(path):
                        self._say(f"{_shown(path)} has changed")
                        self._start_anew()
                    case Second():
                        self._insist()
                    case Stop():
                        return 0
        finally:
            if watcher is not None:
                watcher.stop()
            self._stop_all()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._events.put(Second() if number == signal.SIGALRM else Stop())

    def _watch(self) -> Watcher | None:
        if not self._options.reload:
            return None
        folders = {Path(self._target.folder), *map(Path, self._options.watch)}
        files = [Path(self._options.env_file)] if self._options.env_file else []
        return Watcher(sorted(folders), files, lambda path: self._events.put(Changed(path)))

    def _start_anew(self) -> None:
        try:
            self._environment = environment_for(self._options)
        except Problem as problem:
            self._say_not(str(problem))
        else:
            self._start()

    def _start(self) -> None:
        """Start a uWSGI with what the files are now, in the place of one that is starting still."""
        self._untried = list(self._loops)
        self._refusal = ""
        self._try_next_loop()

    def _try_next_loop(self) -> None:
        if self._starting is not None:
            self._end(self._starting)
        loop = self._untried.pop(0)
        order = Order(self._target)
        environment = {**self._environment, **environment_of(self._target, self._environment), **order.environment()}
        self._starting = Instance(
            self._command(loop),
            environment,
            self._listening.fileno(),
            order,
            accepts=lambda instance: self._events.put(Accepts(instance)),
            ended=lambda instance: self._events.put(Ended(instance)),
            show=self._show,
        )
        self._loops = [loop, *(other for other in self._loops if other != loop)]

    def _command(self, loop: str) -> list[str]:
        given = self._options.gevent if loop == "gevent" else self._options.threads
        setup = Setup(
            uwsgi=self._uwsgi,
            application="",
            folder=self._target.folder,
            environment=(),
            loop=loop,
            cores=given or CORES[loop],
            processes=self._options.processes,
            bind=Bind("http-socket"),
            listen=0,
            max_fd=None,
        )
        command = [self._uwsgi.path, *arguments(options_of_development(setup))]
        command += [f"--http-socket=fd://{self._listening.fileno()}", "--module=uwasp_cli.development"]
        command += ["--no-orphans", f"--hook-accepting-once=print:{ACCEPTING}"]
        command += [f"--logformat={REQUEST}%(method) %(uri) %(status) in %(msecs) ms"]
        return [*command, *self._options.rest]

    def _accepts(self, instance: Instance) -> None:
        if instance is not self._starting:
            return  # it has been replaced since
        if self._serving is not None:
            self._end(self._serving)  # when it has ended, the new one is what there is
        else:
            self._print(f"open {self._url()}  (Ctrl-C stops it)", sys.stdout)
        self._serving, self._starting = instance, None

    def _url(self) -> str:
        host, port = self._listening.getsockname()[:2]
        host = "localhost" if host in ("::", "0.0.0.0") else bracketed(host)
        return f"http://{host}:{port}/"

    def _ended(self, instance: Instance) -> None:
        """It has been told to, or could not start, or has failed."""
        if instance in self._ending:
            if self._ending.pop(instance) != STARTING:
                self._say("reloaded")
            return
        if instance is self._serving:
            self._serving = None
            raise Problem(f"uWSGI ended by itself, with code {instance.code}")
        self._starting = None
        report = instance.order.read() or {}
        why = report.get("error") or self._uwsgi.explain("".join(instance.said))
        if report.get("is_for_another_loop") and self._untried:
            self._refusal = self._refusal or why
            self._try_next_loop()
            return
        if report.get("is_for_another_loop") and self._refusal:
            why = self._refusal
        if self._options.verbose and "traceback" in report:
            self._say(report["traceback"].rstrip())
        if self._serving is None:
            raise Problem(why)
        self._say_not(why)

    def _say_not(self, why: str) -> None:
        self._say(f"not reloaded: {why}")
        self._say("what was there before goes on; the next save tries again")

    def _say(self, text: str) -> None:
        self._show(f"uwasp: {text}")

    def _show(self, line: str) -> None:
        self._print(line, sys.stderr)

    def _print(self, line: str, stream: TextIO) -> None:
        """Print a line; in whatever thread. Where nobody reads any more, as behind `| head`, all is to end."""
        try:
            print(line, file=stream, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            self._events.put(Stop())

    def _end(self, instance: Instance) -> None:
        """Begin to end one; `Ended` follows."""
        if instance is self._starting:
            self._ending[instance] = STARTING
            instance.kill()  # nobody is there yet to take leave of
        else:
            self._ending[instance] = 0
            instance.terminate()
            signal.alarm(1)

    def _insist(self) -> None:
        """A signal can be lost on a worker that has just been forked, and one can be stuck."""
        for instance, seconds in self._ending.items():
            if seconds >= PATIENCE:
                instance.kill()
            elif seconds != STARTING:
                self._ending[instance] = seconds + 1
                instance.terminate()
        if self._ending:
            signal.alarm(1)

    def _stop_all(self) -> None:
        """End all that was started, and wait for it."""
        for instance in (self._serving, self._starting):
            if instance is not None:
                self._end(instance)
        while self._ending:
            match self._events.get():
                case Ended(instance):
                    self._ending.pop(instance, None)
                case Second():
                    self._insist()
        signal.alarm(0)


def _shown(path: Path) -> str:
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
