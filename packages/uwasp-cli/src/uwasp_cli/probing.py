"""A look at an application from outside: a uWSGI loads it, reports and ends."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from uwasp_cli import limits
from uwasp_cli.configuration import PRINTED_TOO, PRINTING, printed, text_of, unprinted, without_options
from uwasp_cli.inside import Order
from uwasp_cli.loops import CORES, loops_to_try
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
        further: options for uWSGI, in the place of those that `uwasp run` has by default, the loop among them. They
            are read as uWSGI reads them, but what would concern anybody else, such as an address, is left undone.

    Returns:
        What `uwasp_cli.inspection` found, and `configured`: `further` as uWSGI reads it, names and values.

    Raises:
        Problem: it loads in none.
    """
    configured = _read(further, uwsgi, environment) if further else []
    loops = [""] if further else loops_to_try(options)
    refusals: list[str] = []
    for loop in loops:
        command = _command(loop, uwsgi, options.gevent or options.threads)
        report = _report(command, configured, target, uwsgi, environment)
        if "error" not in report:
            return report
        if not report["is_for_another_loop"]:
            raise Problem(report["error"])
        refusals.append(report["error"])
    raise Problem(refusals[0])


def _read(further: Sequence[str], uwsgi: Uwsgi, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Options, and the files that they name, as uWSGI reads them. It does nothing of what they say.

    Raises:
        Problem: uWSGI does not take them.
    """
    said = _run([*_command("", uwsgi), *PRINTING, *further], environment)
    configured = printed(said)
    if configured is None:
        raise Problem(f"{uwsgi.path} does not take {shlex.join(further)}, and said:\n{said.rstrip()}")
    return configured


def _command(loop: str, uwsgi: Uwsgi, cores: int | None = None) -> list[str]:
    """A uWSGI in that loop, with so many threads or greenlets; without a loop, in that which further options name."""
    plugins = uwsgi.plugins(loop)
    uwsgi.options(plugins)  # or say which is missing
    command = [uwsgi.path, *(f"--plugin={plugin}" for plugin in plugins)]
    if uwsgi.virtualenv:
        command.append(f"--virtualenv={uwsgi.virtualenv}")
    if not loop:
        return command
    if uwsgi.binary_path:
        command.append(f"--binary-path={uwsgi.binary_path}")
    command += [f"--{loop}={cores or CORES[loop]}", "--master", "--single-interpreter"]
    return [*command, f"--listen={limits.backlog()}", f"--max-fd={limits.descriptors()}"]


def _report(
    command: Sequence[str],
    configured: Sequence[tuple[str, str]],
    target: Target,
    uwsgi: Uwsgi,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    order = Order(target)
    with tempfile.TemporaryDirectory(prefix="uwasp-") as folder:
        if configured:  # the command's own options are among them
            ini = Path(folder, "options.ini")
            ini.write_text(text_of(configured))
            command = [uwsgi.path, PRINTED_TOO, f"--ini={ini}"]
        said = _run(
            # Without a socket uWSGI loads nothing; one in the folder would be this user's, and uWSGI another one's. And
            # what cannot be imported, as where that one may not read, is to end it.
            [*command, "--socket=127.0.0.1:0", "--need-app", "--shared-pyimport=uwasp_cli.inspection"],
            {**without_options(environment), **environment_of(target, environment), **order.environment()},
            order.fd,
        )
    report = order.read()
    if report is None:
        raise Problem(uwsgi.explain(unprinted(said)))
    return {**report, "configured": printed(said) or []}


def _run(command: Sequence[str], environment: Mapping[str, str], *fds: int) -> str:
    """What it says. What the application has started ends with it; it may keep the output open, so that is a file."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            env=environment,
            pass_fds=fds,
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
