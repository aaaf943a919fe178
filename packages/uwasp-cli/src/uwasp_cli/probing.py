"""A look at an application from outside: a uWSGI loads it, reports and ends."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from uwasp_cli import limits
from uwasp_cli.inside import Order
from uwasp_cli.loops import loops_to_try
from uwasp_cli.problem import Problem
from uwasp_cli.target import Target, environment_of
from uwasp_cli.uwsgi import Uwsgi

__all__ = ["probe"]

LONGEST = 60  # seconds, for an application to load


def probe(
    options: argparse.Namespace,
    target: Target,
    uwsgi: Uwsgi,
    environment: Mapping[str, str],
    further: Sequence[str] = (),
) -> dict[str, Any]:
    """What an application is, in the first loop in which it loads.

    Args:
        further: options for uWSGI, in the place of those that `uwasp run` has by default, the loop among them.

    Raises:
        Problem: it loads in none.
    """
    loops = [""] if further else loops_to_try(options)
    refusals: list[str] = []
    for loop in loops:
        start = [*_command(loop, uwsgi), *further]
        report = _report(start, target, uwsgi, environment)
        if "error" not in report:
            return report
        if not report["is_for_another_loop"]:
            raise Problem(report["error"])
        refusals.append(report["error"])
    raise Problem(refusals[0])


def _command(loop: str, uwsgi: Uwsgi) -> list[str]:
    """A uWSGI in that loop; without one, in that which further options name."""
    plugins = uwsgi.plugins(loop)
    uwsgi.options(plugins)  # or say which is missing
    command = [uwsgi.path, *(f"--plugin={plugin}" for plugin in plugins)]
    if uwsgi.virtualenv:
        command.append(f"--virtualenv={uwsgi.virtualenv}")
    if not loop:
        return command
    if uwsgi.binary_path:
        command.append(f"--binary-path={uwsgi.binary_path}")
    command += ["--gevent=2" if loop == "gevent" else "--enable-threads", "--master", "--single-interpreter"]
    return [*command, f"--listen={limits.backlog()}", f"--max-fd={limits.descriptors()}"]


def _report(command: Sequence[str], target: Target, uwsgi: Uwsgi, environment: Mapping[str, str]) -> dict[str, Any]:
    order = Order(target)
    with tempfile.TemporaryDirectory(prefix="uwasp-") as folder:
        said = _run(
            # Without a socket uWSGI loads nothing.
            [*command, f"--socket={folder}/socket", "--shared-pyimport=uwasp_cli.inspection"],
            {**environment, **environment_of(target, environment), **order.environment()},
            order.fd,
        )
    report = order.read()
    if report is None:
        raise Problem(uwsgi.explain(said))
    return report


def _run(command: Sequence[str], environment: Mapping[str, str], fd: int) -> str:
    """What it says. What the application has started ends with it; it may keep the output open, so that is a file."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=[fd],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise Problem(f"the application did not load within {LONGEST} seconds") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return output.read().decode(errors="replace")
