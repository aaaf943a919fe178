"""The environment of what is started: this one's, with the variables of `--env-file`, and the handler's name."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

from uwasp_cli.problem import Problem

__all__ = ["environment_for"]

HANDLERS = "uwasp.handlers"  # the group of entry points
LINE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")


def environment_for(options: argparse.Namespace) -> dict[str, str]:
    """The environment for what was typed; the file is read now.

    Raises:
        Problem: there is no such file, or a line in it is something else; or no such handler is installed.
    """
    environment = dict(os.environ)
    if options.env_file:
        environment.update(read_variables(Path(options.env_file)))
    if options.handler:
        _look_for(options.handler)
        environment["UWASP_HANDLER"] = options.handler
    return environment


def _look_for(handler: str) -> None:
    """See that a handler is there: the application may not even read its name."""
    installed = sorted({entry.name for entry in entry_points(group=HANDLERS)})
    if handler not in installed:
        raise Problem(f"--handler {handler}: no such handler is installed; there is {' or '.join(installed) or 'none'}")


def read_variables(path: Path) -> dict[str, str]:
    """The variables of a file. Quotes are a shell's; a line that is empty or begins with # says nothing.

    Raises:
        Problem: there is no such file, or a line in it is something else.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"--env-file {path}: {error}") from None
    found = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise Problem(f"{path}, line {number}: expected NAME=value, not {line!r}")
        found[match[1]] = _unquoted(match[2], f"{path}, line {number}")
    return found


def _unquoted(text: str, where: str) -> str:
    if not text.startswith(("'", '"')):
        return text
    try:
        (value,) = shlex.split(text, comments=True)
    except ValueError:
        raise Problem(f"{where}: expected one value in quotes, not {text}") from None
    return value
