"""Puts the C of uwasp-speedups in the place of the hot functions, where it is installed.

What is in Python stays the reference, and does what the C leaves to it. `UWASP_SPEEDUPS=0` in the environment leaves
the C out. `in_use` tells whether it is in.
"""

from __future__ import annotations

import logging
import os
import sys

from uwasp import connection, fanout, incoming, listener, outgoing, poller, protocol, websocket

__all__ = ["accelerate", "in_use"]

logger = logging.getLogger("uwasp.speedups")

in_use = False

# pip shows nothing of a build that succeeds, and keeps what it built: so it is said here, and how to see more.
WITHOUT_ITS_C = (
    "uwasp-speedups is installed without its C for CPython %d.%d, and uWASP is slower: "
    "install a C compiler and Python's headers (Debian: gcc, python3-dev), then: "
    "UWASP_SPEEDUPS=1 pip install --force-reinstall --no-deps --no-cache-dir uwasp-speedups==%s"
)


def accelerate(version: str) -> None:
    """Use uwasp-speedups if it is installed, in this version."""
    global in_use
    if os.environ.get("UWASP_SPEEDUPS") == "0":
        return
    try:
        import uwasp_speedups
    except ModuleNotFoundError as error:
        if error.name == "uwasp_speedups._speedups":
            logger.warning(WITHOUT_ITS_C, *sys.version_info[:2], version)
        elif error.name != "uwasp_speedups":
            raise
        return
    except ImportError as error:
        logger.warning("uwasp-speedups is not used, because it cannot be loaded: %s", error)
        return
    if uwasp_speedups.__version__ != version:
        logger.warning(
            "uwasp-speedups %s is not used, because uwasp-core is %s: install the same version of both",
            uwasp_speedups.__version__,
            version,
        )
        return
    protocol.take_messages = uwasp_speedups.take_messages  # type: ignore[assignment]  # its arguments have no names
    fanout.send_to_all = uwasp_speedups.send_to_all  # type: ignore[assignment]
    uwasp_speedups.accelerate(
        protocol.FrameProtocol,
        connection.Connection,
        websocket.WebSocket,
        listener.Listener,
        protocol.OPEN,
        poller.READABLE,
        incoming.SLICE_IS_OVER,
        incoming.SLICE,
        outgoing.CORKED_TIME,
        outgoing.CORKED_SIZE,
        incoming.READ_SIZE,
    )
    in_use = True
