"""Puts the C of uwasp-speedups in the place of the hot functions, where it is installed.

What is in Python stays the reference, and does what the C leaves to it. `UWASP_SPEEDUPS=0` in the environment leaves
the C out. `in_use` tells whether it is in.
"""

from __future__ import annotations

import logging
import os

from uwasp import connection, incoming, listener, outgoing, poller, protocol, websocket

__all__ = ["accelerate", "in_use"]

logger = logging.getLogger("uwasp.speedups")

in_use = False


def accelerate(version: str) -> None:
    """Use uwasp-speedups if it is installed, in this version."""
    global in_use
    if os.environ.get("UWASP_SPEEDUPS") == "0":
        return
    try:
        import uwasp_speedups
    except ModuleNotFoundError as error:
        if error.name != "uwasp_speedups":
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
