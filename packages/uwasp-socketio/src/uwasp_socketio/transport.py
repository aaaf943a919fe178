"""`Transport`: the WebSocket of one Engine.IO socket, as a server of uWASP's.

What python-engineio does in a loop of its own, one thread or greenlet for each WebSocket, is done here when something
comes. By its names of a socket: `connected`, `upgrading`, `upgraded`, `queue`, `receive`, `close`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from engineio.exceptions import SocketIsClosedError, UnknownPacketError
from engineio.packet import NOOP, PING, PONG, UPGRADE, Packet
from engineio.socket import Socket

from uwasp import Server, WebSocket

__all__ = ["KEY", "Opening", "Transport"]

logger = logging.getLogger("uwasp.socketio")

KEY = "uwasp_socketio.opening"  # of an `Opening`, in the environ of a request
PROTOCOL_ERROR = 1002  # RFC 6455 §7.4.1


class Opening:
    """A request for a WebSocket, which may become one.

    Args:
        socket: whose it will be.
        spawn: starts a function in a thread or greenlet of its own.
    """

    def __init__(self, socket: Socket, spawn: Callable[..., object]) -> None:
        self.socket = socket
        self.spawn = spawn
        self.websocket: WebSocket | None = None

    @property
    def has_opened(self) -> bool:
        """Whether the handshake has been answered with 101, and a handler has the connection."""
        if self.websocket is None:
            return False
        try:
            _ = self.websocket.connection
        except RuntimeError:
            return False
        return True


class Transport(Server):
    """The WebSocket of an Engine.IO socket: from its beginning, or once it is upgraded, when it has polled before."""

    def __init__(self, ws: WebSocket) -> None:
        super().__init__(ws)
        opening: Opening = ws.environ.pop(KEY)
        opening.websocket = ws
        self._socket = opening.socket
        self._spawn = opening.spawn
        self._is_upgrade = bool(self._socket.connected)
        self._is_probed = False
        self._sends = False  # the socket's packets go this way

    def on_open(self) -> None:
        if self._is_upgrade:
            self._socket.queue.begin_upgrade(self.ws)
            self._socket.upgrading = True  # polls get nothing any more
            if self._socket.closed:
                self.ws.close()
        else:
            self._socket.connected = True
            self._begin()

    def on_message(self, message: Any) -> None:
        try:
            packet = Packet(encoded_packet=message)
        except (ValueError, IndexError, RecursionError) as error:
            self._fail("no packet of Engine.IO", error)
            return
        if self._sends:
            self._receive(packet)
        else:
            self._upgrade(packet)

    def on_close(self) -> None:
        socket = self._socket
        another_upgrades = self._is_upgrade and socket.queue.end_upgrade(self.ws)
        if self._sends:
            socket.close(wait=False, abort=True, reason=socket.server.reason.TRANSPORT_CLOSE)
            socket.server.sockets.pop(socket.sid, None)
        elif not another_upgrades:
            socket.upgrading = False  # it goes on polling

    def _begin(self) -> None:
        self._sends = True
        self._socket.upgraded = True
        self._socket.upgrading = False
        if not self._socket.queue.send_by(self.ws, self._spawn):
            self._sends = False
            self._fail("another WebSocket has been faster")

    def _upgrade(self, packet: Packet) -> None:
        """A socket that polls changes over to this WebSocket: it is probed, and then told."""
        if self._is_probed and packet.packet_type == UPGRADE:
            self._begin()
        elif not self._is_probed and packet.packet_type == PING and packet.data == "probe":
            self._is_probed = True
            self.ws.send(Packet(PONG, data="probe").encode())
            self._socket.queue.put(Packet(NOOP))  # ends the poll that waits
        else:
            self._fail("not the packet that an upgrade has here", packet.packet_type)

    def _receive(self, packet: Packet) -> None:
        try:
            self._socket.receive(packet)
        except UnknownPacketError:
            logger.info("%r: a packet of type %s, which is not for a server", self.ws, packet.packet_type)
        except SocketIsClosedError:
            self.ws.close()

    def _fail(self, why: str, what: object = "") -> None:
        logger.info("%r is closed with %d: %s %s", self.ws, PROTOCOL_ERROR, why, what)
        self.ws.close(PROTOCOL_ERROR, why)
