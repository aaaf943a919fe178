"""What uWSGI would be told by options and files, as uWSGI itself reads them, and what of that is safe to do in a look.

An ini may belong to a service that runs: a second uWSGI with it would take that one's sockets, write into its log and,
with `vacuum`, remove its files. So uWSGI is first had to print what it reads, and to end before it does any of it. Then
the application is loaded with what says how it is loaded; all else it finds in `uwsgi.opt` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["PRINTING", "is_done", "is_socket", "printed", "text_of", "without_options"]

# The first hooks to be run, before there is any socket, file or process; and `_exit` runs none at the end. The first is
# what uWSGI's own --show-config calls, later.
PRINTING = ("--hook-asap=call:show_config", "--hook-asap=callint:_exit 0")
CONFIGURATION = re.compile(r"^;uWSGI instance configuration\n\[uwsgi\]\n(.*?)^;end of configuration$", re.M | re.S)
ENVIRONMENT = "UWSGI_"  # of variables that are options to uWSGI

# What is done in a look: how the application is loaded, and into what. It listens, writes and starts nothing.
OF_LOADING = """
autoload need-plugin need-plugins plugin plugin-dir plugins plugins-dir
binary-path home pyhome pythonpath python-path pp venv virtualenv
py-executable py-programname py-program-name py-sys-executable pyargv pymodule-alias post-pymodule-alias
shared-import shared-pyimport shared-py-import shared-python-import
chdir chdir2 early-envdir env envdir unenv umask
add-gid additional-gid gid immediate-gid immediate-uid uid
async asyncio enable-threads gevent gevent-early-monkey-patch gevent-monkey-patch gevent-wait-for-hub greenlet
loop threads ugreen
buffer-size cache2 enable-metrics lazy lazy-apps listen locks master max-fd metric metrics-no-cores mule mules processes
queue sharedarea single-interpreter workers
"""
DONE = frozenset(OF_LOADING.split())
STATS = ("stats", "stats-server")
OUTSIDE = re.compile(r"\b(store|udp|fd|file)\b")  # in the value of a cache or a shared area: it is not in memory alone


def printed(said: str) -> list[tuple[str, str]] | None:
    """The options, in order, in what a uWSGI has said that was started with `PRINTING`; `None` if there are none.

    All of uWSGI's placeholders, files and conditions have been resolved. An option without a value has `"true"`.
    """
    found = CONFIGURATION.search(said)
    if found is None:
        return None
    pairs = (line.partition(" = ") for line in found[1].splitlines())
    return [(name, value) for name, equals, value in pairs if equals and f"--{name}={value}" not in PRINTING]


def is_done(name: str, value: str) -> bool:
    """Whether an option is done in a look, and not only told to the application."""
    return name in DONE and not (name in ("cache2", "sharedarea") and OUTSIDE.search(value))


def is_socket(name: str, value: str) -> bool:
    """Whether an option has uWSGI listen on a Unix socket, at an absolute path."""
    return (name.endswith("socket") or name in STATS) and value.startswith("/")


def text_of(options: Iterable[tuple[str, str]]) -> str:
    """An ini with what is done of these options."""
    # A percent sign begins one of uWSGI's variables there.
    done = (f"{name} = {value.replace('%', '%%')}" for name, value in options if is_done(name, value))
    return "\n".join(["[uwsgi]", *done, ""])


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables that are options to uWSGI, such as UWSGI_SOCKET."""
    return {name: value for name, value in environment.items() if not name.startswith(ENVIRONMENT)}
