"""`uwasp run`: production. It becomes a uWSGI, with the options of `uwasp_cli.options`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence

from uwasp_cli.bind import Bind, listen
from uwasp_cli.options import Option, arguments, options_for
from uwasp_cli.problem import Problem
from uwasp_cli.production import find_setup
from uwasp_cli.uwsgi import Uwsgi

__all__ = ["run", "say_what_is_left_out"]

BIND = "127.0.0.1:8000"
WIDTH = 34  # of an option, where its reason stands beside it


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Become uWSGI; or show what that would be, and return the exit code.

    Raises:
        Problem: the address is taken, or the application cannot be loaded.
    """
    setup = find_setup(options, environment, BIND)
    used, left_out = options_for(setup)
    uwsgi = setup.uwsgi
    command = [uwsgi.path, *arguments(used), *options.rest]
    if options.show:
        print(shown(uwsgi, used, options.rest))
    say_what_is_left_out(left_out, uwsgi)
    if options.show:
        return 0
    if "--reuse-port" not in options.rest:  # else others may listen there too
        look_at(setup.bind)
    sys.stdout.flush()
    try:
        os.execve(command[0], command, dict(environment))
    except OSError as error:
        raise Problem(f"{command[0]} cannot be run: {error.strerror}") from None


def look_at(bind: Bind) -> None:
    """See that it can be listened there: uWSGI's own words for it are longer.

    Raises:
        Problem: it cannot.
    """
    if not bind.is_unix:
        listen(bind.host, bind.port, "--bind").close()


def shown(uwsgi: Uwsgi, used: Sequence[Option], rest: Sequence[str]) -> str:
    """Each option with its reason, as lines that a shell takes too."""
    lines = [f"{shlex.quote(option.argument):{WIDTH}}  # {option.reason}" for option in used]
    lines += [f"{shlex.quote(one):{WIDTH}}  # as given" for one in rest]
    return "\n".join([uwsgi.path, *lines])


def say_what_is_left_out(left_out: Sequence[Option], uwsgi: Uwsgi) -> None:
    """A word on each option that this uWSGI does not know."""
    for option in left_out:
        since = f", which uWSGI {'.'.join(map(str, option.since))} is the first to have" if option.since else ""
        version = ".".join(map(str, uwsgi.version))
        print(f"uwasp: left out --{option.name}{since}: {uwsgi.path} is {version}", file=sys.stderr)
