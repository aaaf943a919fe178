"""`Pings`: sends the pings of all sockets of one Engine.IO server.

python-engineio has a thread or greenlet for each socket that sleeps until its next ping is due. All wait for the same
time, so here one sleeps for all, in the order in which they come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from engineio.packet import PING, Packet
from engineio.socket import Socket

__all__ = ["Pings"]

logger = logging.getLogger("uwasp.socketio")


class Pings:
    """The pings of one server's sockets.

    Args:
        interval: seconds from the pong, or from the beginning, to the ping.
        spawn: starts a function in a thread or greenlet of its own.
        sleep: sleeps for so many seconds in there.
    """

    def __init__(
        self, interval: float, spawn: Callable[[Callable[[], None]], object], sleep: Callable[[float], object]
    ) -> None:
        self._interval = interval
        self._spawn = spawn
        self._sleep = sleep
        self._lock = threading.Lock()
        self._due: deque[tuple[float, Socket]] = deque()
        self._has_started = False

    def schedule(self, socket: Socket) -> None:
        """Ping a socket when the interval is over."""
        with self._lock:
            self._due.append((time.monotonic() + self._interval, socket))
            if self._has_started:
                return
            self._has_started = True
        try:
            self._spawn(self._send)
        except BaseException:
            self._has_started = False
            raise

    def _send(self) -> None:
        """Send what is due, until there is nothing that will be."""
        while True:
            with self._lock:
                if not self._due:
                    self._has_started = False
                    return
                due, socket = self._due.popleft()
            self._sleep(max(0.0, due - time.monotonic()))
            try:
                ping(socket)
            except Exception:
                logger.exception("the Engine.IO socket %s could not be pinged", socket.sid)


def ping(socket: Socket) -> None:
    """Ping a socket, whose answer is awaited from now on."""
    if not socket.closing and not socket.closed:
        socket.last_ping = time.time()
        socket.send(Packet(PING))
