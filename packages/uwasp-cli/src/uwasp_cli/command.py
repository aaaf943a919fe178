"""The command line: what can be typed, and that what goes wrong is one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from uwasp_cli import __version__
from uwasp_cli.problem import Problem
from uwasp_cli.variables import environment_for

__all__ = ["main"]

APPLICATION = (
    "module:callable, or a file in the module's place; without it, what FLASK_APP names, Django's manage.py, wsgi.py "
    "or app.py"
)

INTERRUPTED, NOBODY_READS = 130, 141  # as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was typed; return the exit code."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    typed, rest = _split(typed)
    options = _parser().parse_args(typed)
    options.rest = rest
    try:
        return _run(options)
    except Problem as problem:
        print(f"uwasp: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS


def _split(typed: list[str]) -> tuple[list[str], list[str]]:
    """What is the command's own, and what goes to uWSGI as it is."""
    if "--" not in typed:
        return typed, []
    place = typed.index("--")
    return typed[:place], typed[place + 1 :]


def _run(options: argparse.Namespace) -> int:
    command = import_module(f"uwasp_cli.{options.command}")  # and nothing that is not asked for
    code: int = command.run(options, environment_for(options))
    sys.stdout.flush()
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="uwasp",
        description="Runs WSGI applications with uWASP's WebSockets on a real uWSGI.",
        epilog="What stands behind -- goes to uWSGI as it is.",
    )
    parser.add_argument("--version", action="version", version=f"uwasp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_dev(commands.add_parser("dev", help="serve on this machine, and anew at each save"))
    _add_run(commands.add_parser("run", help="serve in production: become a uWSGI"))
    _add_config(commands.add_parser("config", help="write the same as a file to keep"))
    _add_check(commands.add_parser("check", help="say what is there and what will bite, and try a handshake"))
    _add_top(commands.add_parser("top", help="show the figures of a running one, live or once"))
    return parser


def _add_dev(parser: argparse.ArgumentParser) -> None:
    _add_application(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: %(default)s")
    parser.add_argument("--port", type=_number(0, 65535), default=8000, help="0: any; default: %(default)s")
    parser.add_argument("--processes", type=_number(1, 1000), default=1, help="workers; default: %(default)s")
    parser.add_argument("--watch", action="append", default=[], metavar="FOLDER", help="a further folder to look at")
    parser.add_argument("--no-reload", dest="reload", action="store_false", help="do not look at files")
    parser.add_argument("--verbose", "-v", action="store_true", help="show the traceback of what cannot be loaded")


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_application(parser)
    _add_production(parser)
    parser.add_argument("--bind", metavar="ADDRESS", help="host:port, or unix:/path; default: 127.0.0.1:8000")
    parser.add_argument("--show", action="store_true", help="show uWSGI's options, and the reason for each")


def _add_config(parser: argparse.ArgumentParser) -> None:
    _add_application(parser)
    _add_production(parser)
    parser.add_argument("--for", dest="kind", choices=("ini", "systemd", "nginx"), required=True, help="which file")
    parser.add_argument("--name", help="of the site, its files and its folder in /run; default: the module's")
    parser.add_argument("--bind", metavar="ADDRESS", help="default: unix:/run/NAME/uwsgi.sock")
    parser.add_argument("--ini", metavar="FILE", help="where the ini will be; default: /etc/uwsgi/NAME.ini")
    parser.add_argument("--user", default="www-data", help="whose the processes are; default: %(default)s")
    parser.add_argument("--server-name", default="example.com", help="the site's host; default: %(default)s")
    parser.add_argument("--certificate", metavar="FILE", help="default: /etc/ssl/SERVER_NAME.pem")
    parser.add_argument("--certificate-key", metavar="FILE", help="default: /etc/ssl/SERVER_NAME.key")


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_application(parser)
    parser.add_argument("--url", metavar="URL", help="try a handshake there; without an application, that alone")
    parser.add_argument("--origin", metavar="ORIGIN", help="as from a page of that origin, such as https://example.com")


def _add_top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "address",
        nargs="?",
        metavar="ADDRESS",
        help="of uWSGI's stats server: a path, host:port or http://host:port; default: that of this user's `uwasp run`",
    )
    once = parser.add_mutually_exclusive_group()
    once.add_argument("--json", action="store_true", help="once, as JSON")
    once.add_argument("--prometheus", action="store_true", help="once, in Prometheus' text format")
    parser.add_argument("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="default: %(default)g")
    parser.set_defaults(env_file=None, handler=None)


def _add_production(parser: argparse.ArgumentParser) -> None:
    """The options of production."""
    parser.add_argument("--router", action="store_true", help="put uWSGI's HTTP router in front, for slow clients")
    parser.add_argument("--processes", type=_number(1, 1000), metavar="N", help="workers; default: one for each CPU")
    parser.add_argument("--listen", type=_number(1, 65535), metavar="N", help="default: net.core.somaxconn")
    parser.add_argument(
        "--max-fd", type=_number(64, 2**30), metavar="N", help="default: what is allowed, 65,536 at most"
    )
    parser.add_argument(
        "--buffer-size", type=_number(4096, 65535), default=32_768, metavar="BYTES", help="default: %(default)s"
    )
    parser.add_argument("--harakiri", type=_number(1, 86_400), metavar="SECONDS", help="default: none")
    parser.add_argument("--stats", metavar="PATH", help="of the socket with the figures; '' for none")


def _add_application(parser: argparse.ArgumentParser) -> None:
    """What all have that load an application."""
    parser.add_argument("application", nargs="?", metavar="APPLICATION", help=APPLICATION)
    parser.add_argument("--handler", metavar="NAME", help="set UWASP_HANDLER to it, for the application to read")
    loop = parser.add_mutually_exclusive_group()
    of_handler = "for requests, in each worker; default: {} if the application's handler is for that"
    loop.add_argument("--threads", type=_number(1, 10_000), metavar="N", help=of_handler.format("4 threads"))
    loop.add_argument("--gevent", type=_number(1, 100_000), metavar="N", help=of_handler.format("100 greenlets"))
    parser.add_argument("--env-file", metavar="FILE", help="variables for the environment, NAME=value in each line")
    parser.add_argument("--uwsgi", metavar="PROGRAM", help="which uWSGI; default: that of this environment, or on PATH")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"seconds from 0.1 to 3600, not {text}")
    return seconds


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"a number from {least} to {most}, not {text}")
        return int(text)

    return parse
