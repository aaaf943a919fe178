"""permessage-deflate (RFC 7692): its options, and the compression of messages in the terms of `uwasp.protocol`.

The negotiation and zlib's streams are those of the `websockets` package.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionParameter

__all__ = ["Deflate", "MessageDeflate", "again"]

# What ends a compressed message before RFC 7692 §7.2.1 has it removed.
EMPTY_BLOCK = b"\x00\x00\xff\xff"


class _Factory(ServerPerMessageDeflateFactory):
    """Passes over offers that zlib cannot meet, which `websockets` before 17 accepts, and then raises an error."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        if ("server_max_window_bits", "8") in params:
            raise NegotiationError("zlib cannot compress with a window of 8 bits")
        return super().process_request_params(params, accepted_extensions)


@dataclass(frozen=True)
class Deflate:
    """How messages are compressed with permessage-deflate, for clients that offer it (RFC 7692 §7).

    Pass one as `compression` to `uwasp.WebSocketMiddleware`; `"deflate"` there means one with the defaults.

    Args:
        server_max_window_bits: the size of the window for what the server sends, as a power of two in bytes, 9 to 15
            (default: 12). Larger compresses better and costs more memory in each connection. A client may ask for
            less (§7.1.2.1).
        client_max_window_bits: the same for what the client sends, 8 to 15 (default: 12). Clients that do not offer
            to have it limited use 15 (§7.1.2.2).
        server_no_context_takeover: compress each message that the server sends by itself (default: no). Costs less
            memory and more time, and compresses similar messages less (§7.1.1.1).
        client_no_context_takeover: the same for what the client sends (default: no; §7.1.1.2).
        threshold: messages of fewer bytes go out uncompressed (default: 1,024).
        level: zlib's level, 0 (fastest) to 9 (smallest) (default: 6).
        memory_level: zlib's memLevel for compressing, 1 to 9 (default: 5).

    Raises:
        ValueError: a number is out of its range.
    """

    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    threshold: int = 1024
    level: int = 6
    memory_level: int = 5

    def __post_init__(self) -> None:
        ranges = {
            "server_max_window_bits": (9, 15),  # zlib cannot compress with 8
            "client_max_window_bits": (8, 15),
            "threshold": (0, 2**63),
            "level": (0, 9),
            "memory_level": (1, 9),
        }
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} is a whole number from {least} to {most}, not {value!r}")

    def factory(self) -> ServerPerMessageDeflateFactory:
        """What negotiates it with a client."""
        return _Factory(
            server_no_context_takeover=self.server_no_context_takeover,
            client_no_context_takeover=self.client_no_context_takeover,
            server_max_window_bits=self.server_max_window_bits,
            client_max_window_bits=self.client_max_window_bits,
            compress_settings={"level": self.level, "memLevel": self.memory_level},
        )


def again(extension: PerMessageDeflate) -> PerMessageDeflate:
    """What was agreed on there, for another connection, with streams of its own."""
    return PerMessageDeflate(
        extension.remote_no_context_takeover,
        extension.local_no_context_takeover,
        extension.remote_max_window_bits,
        extension.local_max_window_bits,
        extension.compress_settings,
    )


class MessageDeflate:
    """The compression of one connection, as it was negotiated.

    Args:
        extension: the outcome of the negotiation.
        threshold: see `Deflate`.
    """

    __slots__ = ("_extension", "_in_message", "threshold")

    def __init__(self, extension: PerMessageDeflate, threshold: int) -> None:
        self._extension = extension
        self._in_message = False
        self.threshold = threshold

    def compress(self, payload: bytes) -> bytes:
        """A message, whole (RFC 7692 §7.2.1)."""
        return bytes(self._extension.encode(Frame(Opcode.BINARY, payload)).data)

    def decompress(self, part: bytes, last: bool, most: int) -> bytes:
        """The next part of a compressed message, cut anywhere (RFC 7692 §7.2.2).

        Args:
            part: some of its bytes, as they came.
            last: with it the message is complete.
            most: how many bytes may come of it.

        Raises:
            PayloadTooBig: more than `most` would; no more than that were kept.
            ProtocolError: this is no such stream.
        """
        opcode = Opcode.CONT if self._in_message else Opcode.BINARY
        self._in_message = not last
        frame = Frame(opcode, part, fin=last, rsv1=opcode is not Opcode.CONT)
        # The extension takes 0 for no limit, so one byte more is let through, and found to be too much by the caller.
        data = bytes(self._extension.decode(frame, max_size=most + 1).data)
        if last and not self._extension.remote_no_context_takeover and self._extension.decoder.eof:
            # A block with BFINAL set ended the stream (§7.2.3.4); zlib needs a new one for the next message.
            self._extension.decoder = zlib.decompressobj(wbits=-self._extension.remote_max_window_bits)
        return data
