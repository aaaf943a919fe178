"""uWSGI's loops in which uWASP's handlers run, of which the application's own handler wants one."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

__all__ = ["CORES", "loops_to_try"]

# How many HTTP requests each worker serves at a time, by default.
CORES = {"threads": 4, "gevent": 100}


def loops_to_try(options: argparse.Namespace) -> list[str]:
    """Those in which the application may load, the likely one first.

    A handler refuses the other when the application is loaded: what it needs, it alone knows, also one that is no
    handler of ours.
    """
    if options.gevent:
        return ["gevent"]
    if options.threads:
        return ["threads"]
    loops = ["threads"]
    if find_spec("gevent") is not None:
        loops.insert(0 if options.handler == "gevent" else 1, "gevent")
    return loops
