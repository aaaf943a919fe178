"""`Outbox`: the queue of one Engine.IO socket, out of which its polls take packets until a WebSocket sends them.

python-engineio has a writer, a thread or greenlet of its own for each WebSocket, that waits at such a queue. Here who
puts a packet in sends it, and a writer is there only as long as a client does not read. What a socket is, this module
does not know.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from engineio.packet import NOOP, Packet

from uwasp import ConnectionClosed, WebSocket

if TYPE_CHECKING:
    Queue = queue.Queue[Any]
else:
    Queue = object

__all__ = ["Outbox", "outbox_class"]

logger = logging.getLogger("uwasp.socketio")

# Seconds after which a poll that has nothing to tell is answered all the same. As long as it waits it has a thread or
# greenlet of uWSGI's, which others may need, and a reload waits for it.
LONGEST_POLL = 2.0

Spawn = Callable[[Callable[[], None]], object]


class Outbox(Queue):
    """Beside a class of queues: what is put in after `send_by` goes out by a WebSocket. `None` ends it."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._lock = threading.Lock()  # nobody waits with it
        self._upgrading: set[WebSocket] = set()
        self._websocket: WebSocket | None = None
        self._spawn: Spawn
        self._waiting: deque[Packet | None] = deque()  # for the WebSocket
        self._is_sending = False  # somebody is, and takes what waits along

    def begin_upgrade(self, websocket: WebSocket) -> None:
        """A WebSocket may become the one that sends. When the outbox is ended before, it is too."""
        with self._lock:
            self._upgrading.add(websocket)

    def end_upgrade(self, websocket: WebSocket) -> bool:
        """It is closed. Returns whether there is another such."""
        with self._lock:
            self._upgrading.discard(websocket)
            return bool(self._upgrading)

    def put(self, item: Packet | None, *args: Any, **keywords: Any) -> None:
        """Put a packet in. Never waits."""
        ended: tuple[WebSocket, ...] = ()
        with self._lock:
            begins = self._websocket is not None and not self._is_sending
            if self._websocket is not None:
                self._waiting.append(item)
                self._is_sending = True
            else:
                super().put(item)
                if item is None:
                    ended = tuple(self._upgrading)
        if begins:
            self._send_waiting()
        for websocket in ended:
            websocket.close()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take a packet out, for a poll. Where that waits for long, one that says nothing comes."""
        if not block or timeout is None or timeout <= LONGEST_POLL:
            return super().get(block, timeout)
        while True:
            try:
                return super().get(timeout=LONGEST_POLL)
            except queue.Empty:
                super().put(Packet(NOOP))  # another poll of the client's may be faster, and take it

    def send_by(self, websocket: WebSocket, spawn: Spawn) -> bool:
        """From now on a WebSocket sends what is in here, and what comes.

        Args:
            websocket: which is open.
            spawn: starts a function in a thread or greenlet of its own, where a client does not read.

        Returns:
            False: another one does already.
        """
        with self._lock:
            if self._websocket is not None:
                return False
            with suppress(queue.Empty):
                while True:
                    self._waiting.append(super().get(block=False))  # a poll may take the last one first
                    super().task_done()
            super().put(Packet(NOOP))  # ends a poll that waits, if there is one
            self._spawn = spawn
            self._websocket = websocket
            self._is_sending = True
        self._send_waiting()
        return True

    def join(self) -> None:
        """Wait until polls have taken all; what a WebSocket sends is not waited for."""
        if self._websocket is None:
            super().join()

    def _send_waiting(self, may_wait: bool = False) -> None:
        websocket = cast("WebSocket", self._websocket)
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_sending = False
                    return
                has_room = may_wait or websocket.connection.has_room
                packet = self._waiting.popleft() if has_room else None
            if not has_room:
                if self._spawns_a_writer(websocket):
                    return
            elif packet is None:
                websocket.close()
            else:
                send(websocket, packet)

    def _spawns_a_writer(self, websocket: WebSocket) -> bool:
        """Whether somebody else goes on, who may wait. If nobody can be had, the connection is cut: who puts packets
        in has other clients too.
        """
        try:
            self._spawn(self._send_slowly)
        except RuntimeError as error:
            logger.error("%r does not read and is cut, for nobody can wait for it: %s", websocket, error)
            websocket.terminate()
            return False
        return True

    def _send_slowly(self) -> None:
        self._send_waiting(may_wait=True)


def send(websocket: WebSocket, packet: Packet) -> None:
    """Send a packet, if the connection is open still; one that cannot be sent closes it."""
    try:
        websocket.send(packet.encode())
    except ConnectionClosed:
        pass  # its server is told, and ends the socket
    except Exception:
        logger.exception("%r is closed with 1011, for this cannot be sent", websocket)
        websocket.close(1011)


def outbox_class(queue_class: type[Any]) -> type[Any]:
    """The class of outboxes on a class of queues."""
    return type("Outbox", (Outbox, queue_class), {})
