"""What uWSGI would be told by options and files, as uWSGI itself reads them, and what of that is safe to do in a look.

An ini may belong to a service that runs: a second uWSGI with it would take that one's sockets, write into its log and,
with `vacuum`, remove its files. So uWSGI first prints what it reads, and ends before it does any of it. Then the
application is loaded with what says how it is loaded. All else has a name there that means nothing to uWSGI, and the
application is told it by its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = [
    "PREFIX",
    "PRINTED_TOO",
    "PRINTING",
    "is_done",
    "is_socket",
    "printed",
    "text_of",
    "unprinted",
    "without_options",
]

# uWSGI reads all of its files, then has placeholders of this kind replaced, the first ones first, then does what it was
# told, of which it undoes some when it ends: not where that is by `_exit`. `show_config` is what its own --show-config
# calls, when much has been done.
PRINTING = ("--set=uwasp-print=@(callint://show_config)", "--set=uwasp-end=@(callint://_exit)")
PRINTED_TOO = "--hook-asap=call:show_config"  # for a uWSGI that goes on; all placeholders have been replaced by then
PREFIX = "uwasp-not-done-"  # of an option that the application is told of, and that is not done
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
    """The options, in order, in what a uWSGI has said that was to print them; `None` if it did not come to that.

    An option without a value has `"true"`.
    """
    found = CONFIGURATION.search(said)
    if found is None:
        return None
    own = {one.removeprefix(before) for one in (*PRINTING, PRINTED_TOO) for before in ("--", "--set=")}
    pairs = (line.partition(" = ") for line in found[1].splitlines())
    return [
        (name.removeprefix(PREFIX), value) for name, equals, value in pairs if equals and f"{name}={value}" not in own
    ]


def unprinted(said: str) -> str:
    """What else it has said: there may be secrets among the options."""
    return CONFIGURATION.sub("", said)


def is_done(name: str, value: str) -> bool:
    """Whether an option is done in a look, and not only told to the application."""
    return name in DONE and not (name in ("cache2", "sharedarea") and OUTSIDE.search(value))


def is_socket(name: str, value: str) -> bool:
    """Whether an option has uWSGI listen on a Unix socket, at an absolute path."""
    return (name.endswith("socket") or name in STATS) and value.startswith("/")


def text_of(options: Iterable[tuple[str, str]]) -> str:
    """An ini with these options, of which only what is safe has its own name."""
    named = [(name if is_done(name, value) else f"{PREFIX}{name}", value) for name, value in options]
    renamed = {name.removeprefix(PREFIX) for name, _ in named if name.startswith(PREFIX)}
    return "\n".join(["[uwsgi]", *(f"{name} = {_resolvable(value, renamed)}" for name, value in named), ""])


def _resolvable(value: str, renamed: set[str]) -> str:
    """A value for an ini, whose placeholders have the new names."""

    def in_placeholder(placeholder: re.Match[str]) -> str:
        return re.sub(r"[\w-]+", lambda name: PREFIX + name[0] if name[0] in renamed else name[0], placeholder[0])

    literal = re.sub(r"%(?!\()", "%%", value)  # any other percent sign begins one of uWSGI's variables there
    return re.sub(r"%\([^)]*\)", in_placeholder, literal)


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the variables that are options to uWSGI, such as UWSGI_SOCKET."""
    return {name: value for name, value in environment.items() if not name.startswith(ENVIRONMENT)}
