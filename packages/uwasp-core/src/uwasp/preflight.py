"""What of uWSGI's set-up is refused, or warned about, when the application loads.

Here is what holds whatever the handler, and what several have in common; what one handler needs is in its own `check`.
All that is known comes from `uwasp.takeover`: this module never imports `uwsgi`, and never looks at a request.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import cache

from uwasp import takeover
from uwasp.exceptions import ConfigurationError
from uwasp.native import threads_are_greenlets

__all__ = ["check", "check_spawn", "check_threads", "warn_of_mercy"]

logger = logging.getLogger("uwasp.preflight")

DEFAULT_MERCY = 60  # seconds; uWSGI's
GRACEFUL_HARAKIRI = (2, 0, 22)  # the first uWSGI with --harakiri-graceful-timeout
# The options that have uWSGI end workers for want of requests, and what each does.
COUNTING = {
    "idle": "after so many seconds without a request it ends the workers, and open WebSockets are closed with 1001",
    "cheaper": "a worker that it takes away closes its own with 1001",
}


def check() -> None:
    """Refuse a uWSGI under which a promise cannot hold; warn about what an operator should know. Once in a process.

    Raises:
        ConfigurationError: the message names the option to add.
    """
    if not takeover.running_under_uwsgi():
        return
    if not takeover.in_main_interpreter():
        raise ConfigurationError(
            "this application is in an interpreter of its own, as uWSGI has one for each --mount, where uWASP would "
            "not hear of reloads: add --single-interpreter (single-interpreter = true in an ini file)"
        )
    _warn()


def check_threads(handler: str) -> None:
    """For the `check` of a handler that has threads of its own: refuse a uWSGI in which they would not run.

    Args:
        handler: what the message calls it.

    Raises:
        ConfigurationError: uWSGI has threads disabled, or runs requests in another way than by threads, or gevent has
            replaced threads.
    """
    if not takeover.running_under_uwsgi():
        return
    loop = takeover.loop()
    if loop == "gevent":
        raise ConfigurationError(
            f"{handler} is not for uWSGI's gevent loop: "
            'pass handler_class="gevent" (pip install uwasp-gevent), or run uWSGI with --threads, not --gevent'
        )
    if takeover.async_cores() or loop is not None:
        mode = "--async N, alone or with --ugreen or --greenlet" if loop is None else f"{loop} loop"
        raise ConfigurationError(
            f"{handler} is not for uWSGI's {mode}: threads may starve there, and a worker ends without a "
            "goodbye; take --threads N in its place"
        )
    if not takeover.threads_enabled():
        raise ConfigurationError(
            f"{handler} needs Python threads, which uWSGI has disabled: "
            "add --enable-threads (enable-threads = true in an ini file), or --threads N"
        )
    if threads_are_greenlets():
        raise ConfigurationError(
            f"{handler} needs real threads, which gevent.monkey has patched away: "
            'run uWSGI with --gevent and handler_class="gevent", or leave threads unpatched'
        )


def check_spawn(handler: str) -> None:
    """For the `spawn` of a handler: refuse to start something where the workers are yet to be forked.

    Args:
        handler: what the message calls it.

    Raises:
        ConfigurationError: this is the process that loads the application, and no worker would have what it starts.
    """
    if takeover.is_to_be_forked():
        raise ConfigurationError(
            f"{handler}.spawn is called while the application is loaded, in the process of which uWSGI forks the "
            "workers: none of them would have what it starts. Call it in a worker, as in a view, in on_open, in a "
            "function below @application.every; or take --lazy-apps"
        )


@cache
def warn_of_mercy(shutdown_timeout: float) -> None:
    """Warn about a goodbye that uWSGI would not see to its end; of each once."""
    given = takeover.values("worker-reload-mercy")[-1:]
    mercy = int(given[0]) if given and given[0].isdigit() else DEFAULT_MERCY
    if takeover.running_under_uwsgi() and shutdown_timeout >= mercy:
        logger.warning(
            "a worker that ends may take %s s for its clients (shutdown_timeout), but uWSGI kills it after %d: "
            "raise uWSGI's --worker-reload-mercy",
            shutdown_timeout,
            mercy,
        )


@cache
def _warn() -> None:
    counting = [_of_counting(option) for option in COUNTING]
    for warning in (_of_interpreters(), _of_routers(), _of_harakiri(), *counting, _of_reloads()):
        if warning:
            logger.warning(warning)


def _of_interpreters() -> str:
    """gevent refuses before we can, and does not say why."""
    if takeover.loop() != "gevent" or takeover.is_set("single-interpreter"):
        return ""
    if not any("=" in mount for mount in takeover.values("mount")):  # uWSGI cuts that off when it loads one
        return ""
    return (
        "uWSGI will have an interpreter of its own for the application of the next --mount, where neither gevent nor "
        "uWASP works: add --single-interpreter"
    )


def _of_routers() -> str:
    for option in ("http", "https", "http-to", "https-to"):
        if takeover.values(option) and not takeover.is_set("http-websockets"):
            return (
                f"uWSGI's --{option} router forwards no WebSocket frames without --http-websockets: clients would "
                "hang; add http-websockets to uWSGI's options"
            )
    return ""


def _of_harakiri() -> str:
    if not takeover.is_set("harakiri"):
        return ""
    consequence = (
        "uWSGI's --harakiri kills a worker in which one HTTP request takes too long, and all its WebSockets end with "
        "1006, without on_close"
    )
    if takeover.version() < GRACEFUL_HARAKIRI:
        return f"{consequence}; uWSGI 2.0.22 and later let them part with 1001, by --harakiri-graceful-timeout"
    if not takeover.is_set("harakiri-graceful-timeout"):
        return f"{consequence}: add --harakiri-graceful-timeout N, a little longer than shutdown_timeout"
    number = takeover.values("harakiri-graceful-signal")[-1:]
    if number and number[0] not in (str(int(signal.SIGTERM)), str(int(signal.SIGINT))):
        return (
            f"{consequence}, since --harakiri-graceful-signal {number[0]} does not end a worker at once: "
            "leave that option out, or give it 15 (SIGTERM)"
        )
    return ""


def _of_counting(option: str) -> str:
    if not takeover.is_set(option):
        return ""
    return (
        f"uWSGI's --{option} counts requests and sees no WebSockets: {COUNTING[option]}, however busy; "
        "leave it out if that is not wanted"
    )


def _of_reloads() -> str:
    """To reload, uWSGI starts the program again that it is: for pyuwsgi the Python that the environment links to."""
    if "pyuwsgi" not in sys.modules or takeover.values("binary-path") or not takeover.is_set("master"):
        return ""
    if sys.prefix == sys.base_prefix or os.path.realpath("/proc/self/exe").startswith(f"{sys.prefix}/"):
        return ""
    python = os.path.join(sys.prefix, "bin", "python3")
    return f"uWSGI would not find pyuwsgi again at a reload, and end: add --binary-path {python}"
