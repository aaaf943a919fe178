"""What of uWSGI's set-up is refused, or warned about, for a Socket.IO server when the application loads.

A session of Engine.IO is in one process. A WebSocket is too; polls are requests, each of which uWSGI gives to whichever
process is free.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import engineio

from uwasp import ConfigurationError, takeover

__all__ = ["check", "tell_processes_apart"]

logger = logging.getLogger("uwasp.socketio")


def check(server: engineio.Server, manager: Any) -> None:
    """Look at a server where it is to run.

    Args:
        server: the Engine.IO server.
        manager: the client manager of the Socket.IO server, if there is one.

    Raises:
        ConfigurationError: something cannot hold; the message says what to change.
    """
    processes = takeover.processes()
    if "polling" in server.transports:
        _check_polling(processes)
    if manager is None:
        return
    if not between_processes(manager):
        if processes > 1:
            logger.warning(
                "uWSGI has %d processes, and the Socket.IO server has no client manager for several, so what is "
                "emitted reaches the clients of one: add message_queue=, or client_manager=socketio.RedisManager(url)",
                processes,
            )
        return
    if takeover.loop() == "gevent" and not sockets_are_patched():
        raise ConfigurationError(
            f"{type(manager).__name__} would hold up all greenlets while it waits: put "
            "from gevent import monkey; monkey.patch_all() on the first lines of the application"
        )
    if not hasattr(manager, "host_id"):
        raise ConfigurationError(
            f"{type(manager).__name__} has no host_id, which python-socketio 5.18 has and which has to be "
            "another in each process: install that"
        )


def _check_polling(processes: int) -> None:
    if processes > 1 and not takeover.is_set("map-socket"):
        raise ConfigurationError(
            f"uWSGI has {processes} processes on one socket, and a client that polls needs all its requests to come to "
            'one process: add transports=["websocket"] to the server and to the clients, or run each process as a '
            "uWSGI of its own behind a proxy that keeps a client at one (nginx: hash $remote_addr)"
        )
    if takeover.cores() == 1:
        raise ConfigurationError(
            "uWSGI serves one request at a time here, and a client that polls keeps one waiting: add --threads N or "
            '--gevent N, or transports=["websocket"] to the server and to the clients'
        )


def tell_processes_apart(manager: Any) -> None:
    """Give a client manager a name of its own in each process.

    It passes over what comes with its own name, because it has emitted that itself; and uWSGI's workers have the one
    that it was made with, when they are forked.
    """
    if manager is None or not between_processes(manager):
        return

    def rename() -> None:
        manager.host_id = uuid.uuid4().hex

    takeover.in_each_worker(rename)


def between_processes(manager: Any) -> bool:
    """Whether a client manager reaches other processes."""
    from socketio import PubSubManager  # it is there, for the manager comes from it

    return isinstance(manager, PubSubManager)


def sockets_are_patched() -> bool:
    """Whether gevent has patched sockets, or uWSGI will have it do so."""
    from gevent.monkey import is_module_patched

    return bool(is_module_patched("socket")) or takeover.is_set("gevent-monkey-patch")
