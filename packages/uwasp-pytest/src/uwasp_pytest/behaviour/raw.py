"""A WebSocket client that does only what it is told, byte by byte: for what no well-behaved client would send."""

from __future__ import annotations

import socket
from types import TracebackType

from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

__all__ = ["RawClient", "frame", "request"]

MASK = b"\x12\x34\x56\x78"


def request(path: str = "/echo", *headers: str) -> bytes:
    """The opening handshake of RFC 6455 §1.3, with further headers."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", fin: bool = True, mask: bytes = MASK, rsv: int = 0) -> bytes:
    """A masked frame (RFC 6455 §5.2), however wrong."""
    first = (0x80 if fin else 0) | rsv | opcode
    if len(payload) < 126:
        head = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 2**16:
        head = bytes((first, 0x80 | 126)) + len(payload).to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + len(payload).to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class RawClient:
    """A TCP connection after its opening handshake."""

    def __init__(self, port: int, path: str = "/echo", *headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(request(path, *headers))
        self.received = bytearray()
        while b"\r\n\r\n" not in self.received:
            self._receive()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes | bytearray | memoryview) -> None:
        self.socket.sendall(data)

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.received += data

    def recv(self) -> Frame:
        """The next frame from the server.

        Raises:
            EOFError: the server has ended the connection.
        """
        while True:
            reader = StreamReader()
            reader.feed_data(bytes(self.received))
            parser = Frame.parse(reader.read_exact, mask=False)
            try:
                next(parser)
            except StopIteration as result:
                left = reader.read_to_eof(2**30)
                reader.feed_eof()
                try:
                    next(left)
                except StopIteration as rest:
                    self.received = bytearray(rest.value)
                frame: Frame = result.value
                return frame
            self._receive()

    def recv_close(self) -> tuple[int, str]:
        """The server's close frame, which must come next, and then the end of the connection."""
        closing = self.recv()
        assert closing.opcode is Opcode.CLOSE, closing
        close = Close.parse(closing.data)
        return int(close.code), close.reason

    def recv_end(self) -> None:
        """Wait for the server to end the connection, with nothing more said."""
        assert self.socket.recv(1) == b""
