"""The frame protocol of RFC 6455, from its section 5 to its section 7, as seen by a server.

Bytes in, messages and bytes out: everything here works on values alone. This module must never know a socket, a
thread, a greenlet or uWSGI. All that the rules of the RFC decide is decided here, and what has been decided for a
connection is in the attributes of its `FrameProtocol`.

The loop over complete frames, `take_messages`, is the hot path of the whole library.
"""

from __future__ import annotations

import codecs
import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close

try:
    from websockets.speedups import apply_mask
except ImportError:  # a websockets without its C extension: correct all the same, and slow
    from websockets.utils import apply_mask

if TYPE_CHECKING:
    from uwasp.compression import MessageDeflate

__all__ = ["CloseCode", "FrameProtocol", "Opcode", "State", "encode_shared"]


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The close codes that uWASP itself uses (RFC 6455 §7.4.1)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS_RECEIVED = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    TRY_AGAIN_LATER = 1013


class State(IntEnum):
    """How far a connection is on its way from open to closed (RFC 6455 §5.5.1 and §7.1). It never goes back."""

    OPEN = 0  # messages go both ways
    CLOSE_RECEIVED = 1  # the client's close frame came first; the answer to it has not been sent
    FAILED = 2  # the client broke a rule; the close frame that says so has not been sent (§7.1.7)
    CLOSE_SENT = 3  # our close frame came first; the client's is looked for, and nothing else
    CLOSED = 4  # there is nothing more to say or to hear, and TCP is to be ended (§7.1.1)
    LOST = 5  # TCP has ended, before that or after it


OPEN = State.OPEN  # the name alone is found faster
CLOSE_SENT = State.CLOSE_SENT
FIN = 0x80
MASK = 0x80
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
RESERVED_BITS = RSV1 | RSV2 | RSV3

CLOSE_WITHOUT_CODE = bytes((FIN | Opcode.CLOSE, 0))  # which answers such a one; nobody closes so
FINAL_TEXT = FIN | Opcode.TEXT
FINAL_BINARY = FIN | Opcode.BINARY
NO_FRAME = -1  # what no frame begins with
MASK_SIZE = 4

# The head of a server's frame with a payload of at most 125 bytes, made once for every length.
SHORT_TEXT_HEADS = tuple(bytes((FINAL_TEXT, length)) for length in range(126))
SHORT_BINARY_HEADS = tuple(bytes((FINAL_BINARY, length)) for length in range(126))

_UTF8Decoder = codecs.getincrementaldecoder("utf-8")


class _Violation(Exception):
    """The peer broke a rule: the connection must be failed with this code (RFC 6455 §7.1.7)."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        self.code = code
        self.reason = reason


class _Frame:
    """A data frame whose head has been read and whose payload is still arriving."""

    __slots__ = ("fin", "mask", "remaining")

    def __init__(self, fin: bool, mask: bytes, remaining: int) -> None:
        self.fin = fin
        self.mask = mask
        self.remaining = remaining

    def unmask(self, data: bytes) -> bytes:
        """Unmask the next part of the payload (RFC 6455 §5.3)."""
        part = apply_mask(data, self.mask)
        self.remaining -= len(part)
        turn = len(part) % MASK_SIZE
        self.mask = self.mask[turn:] + self.mask[:turn]
        return part


class _Message:
    """A data message that is still arriving, in one frame or several (RFC 6455 §5.4).

    Args:
        opcode: TEXT or BINARY.
        deflate: decompresses it; `None` for a message that is not compressed.
        limit: the most bytes that it may have, once decompressed.
    """

    __slots__ = ("_decoder", "_deflate", "_inflated", "_limit", "_parts", "announced", "fragments")

    def __init__(self, opcode: int, deflate: MessageDeflate | None, limit: int) -> None:
        self._decoder = _UTF8Decoder() if opcode == Opcode.TEXT else None
        self._deflate = deflate
        self._limit = limit
        self._parts: list[str | bytes] = []
        self.announced = 0  # bytes on the wire
        self._inflated = 0  # bytes, where it is compressed
        self.fragments = 0

    def announce(self, length: int) -> None:
        """A frame's head has been read. A compressed message is measured by what comes of it, as that comes; only one
        that deflate cannot have made of an allowed message is refused here.
        """
        self.fragments += 1
        self.announced += length
        most = self._limit if self._deflate is None else self._limit + self._limit // 8 + 1024
        if self.announced > most:
            raise self._too_big()

    def append(self, part: bytes, last: bool) -> None:
        """Take the next part of the payload; text is checked at once, to refuse the first wrong byte (§8.1)."""
        if self._deflate is not None:
            try:
                part = self._deflate.decompress(part, last, self._limit - self._inflated)
            except PayloadTooBig:
                raise self._too_big() from None
            except ProtocolError:
                raise _Violation(CloseCode.INVALID_DATA, "broken deflate stream") from None
            self._inflated += len(part)
            if self._inflated > self._limit:
                raise self._too_big()
        if self._decoder is not None:
            text = self._decoder.decode(part, last)
            if text:
                self._parts.append(text)
            undecoded = self._decoder.getstate()[0]
            if undecoded[:1] == b"\xed" and undecoded[1:] >= b"\xa0":
                # The codec waits for one byte more, which could only make it a surrogate.
                raise _Violation(CloseCode.INVALID_DATA, "invalid UTF-8")
        elif part:
            self._parts.append(part)

    def take_back(self, part: str | bytes) -> None:
        """Begin with what was read elsewhere; of text all characters, and not a part of one."""
        self._parts.append(part)

    def _too_big(self) -> _Violation:
        return _Violation(CloseCode.MESSAGE_TOO_BIG, f"message of more than {self._limit} bytes")

    def join(self) -> str | bytes:
        """The whole message; joining once keeps the cost of any number of parts linear."""
        if self._decoder is not None:
            return "".join(self._parts)  # type: ignore[arg-type]
        return b"".join(self._parts)  # type: ignore[arg-type]


def take_messages(
    data: bytes, position: int, largest: int, most: int, messages: list[str | bytes], accepts: type | None
) -> int:
    """Read the frames, one after the other, that are what almost every frame is: a message of its own, complete, not
    compressed, of less than 64 KiB. Stop at the first that is anything else.

    Args:
        data: frames of a client, as received.
        position: where in it the first begins.
        largest: the most bytes that a message may have.
        most: the most messages that there may be in `messages` in the end.
        messages: where the messages are put.
        accepts: `str` or `bytes`, where all messages have to be of that type.

    Returns:
        where in `data` the frame begins that is something else, not whole, or one too many; its end, if there is none.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.
    """
    text, binary = FINAL_TEXT, FINAL_BINARY
    if accepts is not None:
        text, binary = (FINAL_TEXT, NO_FRAME) if accepts is str else (NO_FRAME, FINAL_BINARY)
    end = len(data)
    while end - position >= 2 + MASK_SIZE and len(messages) < most:
        first = data[position]
        length = data[position + 1] - MASK
        start = position + 2
        if length == 126:
            length = data[start] << 8 | data[start + 1]
            start += 2
        elif not 0 <= length <= 125:
            break
        payload = start + MASK_SIZE
        stop = payload + length
        if stop > end or length > largest:
            break
        if first == binary:
            messages.append(apply_mask(data[payload:stop], data[start:payload]))
        elif first == text:
            messages.append(apply_mask(data[payload:stop], data[start:payload]).decode())
        else:
            break
        position = stop
    return position


class FrameProtocol:
    """One connection's frames: `receive` reads the client's, the `encode_*` methods write the server's.

    It also knows how far the connection is in closing: `close`, `answer` and `lose` tell it what happens on our side.

    Args:
        max_message_size: the largest message that is accepted, in bytes of payload (default 1 MiB); a larger one
            fails the connection with 1009, as soon as a frame announces it.
        max_fragments: the largest number of frames that one message may come in (default 131,072); more fail the
            connection with 1008.
        deflate: the compression that the handshake agreed on, if any (RFC 7692).
        max_messages: the largest number of messages that `receive` returns at once (default: any number).

    Attributes:
        accepts: `str` or `bytes`, where all messages have to be of that type; another fails the connection with 1003,
            as soon as its first frame begins (default: `None`, either). To be set before anything is read.
        arriving: of uwasp-speedups: a message that it reads until there is something that is not ordinary about it.
        begun: bytes of the message that is arriving, as far as the heads of its frames have told; 0 between messages.
        state: how far the connection is from open to closed.
        close_code: the code of the close frame that comes first, from either side (§7.1.5), or that is due; 1005
            for the client's without a code; 1006 if the connection was lost without any. `None` while it is open.
        close_reason: the reason that goes with it (§7.1.6).
        remaining: how many bytes of the payload of the frame that is arriving have not come yet.
        replies: frames that RFC 6455 has the server send at once, pongs; the caller sends and clears them.
        unread: what was received behind the last of so many messages, and where in it `receive` is to go on; `None` if
            everything has been looked at.
    """

    __slots__ = (
        "_buffer",
        "_frame",
        "_message",
        "accepts",
        "arriving",
        "begun",
        "close_code",
        "close_reason",
        "deflate",
        "max_fragments",
        "max_message_size",
        "max_messages",
        "remaining",
        "replies",
        "state",
        "unread",
    )

    def __init__(
        self,
        max_message_size: int = 2**20,
        max_fragments: int = 2**17,
        deflate: MessageDeflate | None = None,
        max_messages: int = sys.maxsize,
    ) -> None:
        self.max_message_size = max_message_size
        self.max_fragments = max_fragments
        self.deflate = deflate
        self.max_messages = max_messages
        self.accepts: type | None = None
        self.arriving: object | None = None
        self.begun = 0
        self.state = OPEN
        self.close_code: int | None = None
        self.close_reason = ""
        self.remaining = 0
        self.replies: bytes | bytearray = b""
        self.unread: tuple[bytes, int] | None = None
        self._buffer = b""  # what has been read of a frame's head, or of a control frame
        self._frame: _Frame | None = None
        self._message: _Message | None = None

    # Reading

    def receive(self, data: bytes = b"", most: int | None = None) -> list[str | bytes]:
        """Read what the client sent and return the messages that it completes, in order.

        Frames that follow a close frame or a violation are not looked at. Messages before it are returned. Once our own
        close frame has been sent, there are no messages any more (RFC 6455 §1.4).

        Args:
            data: bytes as they came from the connection, cut anywhere, after what was left `unread`.
            most: so many messages are read at most (default: `max_messages`); the rest is left `unread`.
        """
        messages: list[str | bytes] = []
        state = self.state
        if state is not OPEN:
            if state is not CLOSE_SENT:
                return messages
            most = sys.maxsize  # none of them is kept
        elif most is None:
            most = self.max_messages
        position = 0
        if self.unread is not None:
            data, position = self._with_unread(data)
        try:
            if self._message is None and not self._buffer:
                position = take_messages(data, position, self.max_message_size, most, messages, self.accepts)
            if position < len(data):
                self._parse(data, position, messages, most)
        except _Violation as violation:
            self.fail(violation.code, violation.reason)
        except UnicodeDecodeError:
            self.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
        if state is not OPEN:
            messages.clear()
            self.replies = b""
        return messages

    def take_back(self, first: int, come: str | bytes, mask: bytes, length: int) -> None:
        """Go on with a message that uwasp-speedups has begun to read.

        Args:
            first: the first byte of its one frame.
            come: what it has unmasked, of text what is ASCII.
            mask: for what comes next.
            length: of the payload, in bytes.
        """
        self._message = _Message(first & 0x0F, None, self.max_message_size)
        self._message.announce(length)
        self.begun = length
        self._message.take_back(come)
        self._frame = _Frame(True, mask, length - len(come))
        self.remaining = self._frame.remaining

    def _with_unread(self, data: bytes) -> tuple[bytes, int]:
        assert self.unread is not None
        unread, position = self.unread
        self.unread = None
        return (unread[position:] + data, 0) if data else (unread, position)

    def _parse(self, data: bytes, position: int, messages: list[str | bytes], most: int) -> None:
        """Read frames from that position on, whatever they are, until there are `most` messages."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = len(data)
        state = self.state
        if self._frame is not None and len(messages) < most:
            position = self._continue_frame(data, position, messages)
        while position < end:
            if len(messages) >= most:
                self.unread = data, position
                return
            following = self._parse_frame(data, position, messages)
            if self.state is not state:
                return
            if following == position:
                self._buffer = data[position:]
                return
            position = following
            if self._message is None:
                position = take_messages(data, position, self.max_message_size, most, messages, self.accepts)

    def _parse_frame(self, data: bytes, position: int, messages: list[str | bytes]) -> int:
        """Read any frame, by RFC 6455 §5.2, and return where the next begins, or `position` if more must arrive."""
        available = len(data) - position
        first = data[position]
        opcode = first & 0x0F
        self._check_reserved_bits(opcode, first & RESERVED_BITS)
        if available < 2:
            return position
        second = data[position + 1]
        if not second & MASK:  # §5.1
            raise _Violation(CloseCode.PROTOCOL_ERROR, "frame from a client without a mask")
        length = second & 0x7F
        start = position + 2 + MASK_SIZE
        if opcode >= Opcode.CLOSE:
            self._check_control_frame(opcode, first & FIN != 0, length)
        else:
            self._check_data_frame(opcode)
        if length == 126:
            start += 2
            if available < 4:
                return position
            length = int.from_bytes(data[position + 2 : position + 4], "big")
        elif length == 127:
            start += 8
            if available < 10:
                return position
            length = int.from_bytes(data[position + 2 : position + 10], "big")
            if length >> 63:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "payload length with its most significant bit set")
        if len(data) < start:
            return position
        mask = data[start - MASK_SIZE : start]
        if opcode >= Opcode.CLOSE:
            stop = start + length
            if len(data) < stop:
                return position
            self._control_frame(opcode, apply_mask(data[start:stop], mask))
            return stop
        message = self._message
        if message is None:
            deflate = self.deflate if first & RSV1 else None
            message = self._message = _Message(opcode, deflate, self.max_message_size)
        message.announce(length)
        self.begun = message.announced
        if message.fragments > self.max_fragments:
            raise _Violation(CloseCode.POLICY_VIOLATION, f"message in more than {self.max_fragments} fragments")
        self._frame = _Frame(first & FIN != 0, mask, length)
        return self._continue_frame(data, start, messages)

    def _continue_frame(self, data: bytes, position: int, messages: list[str | bytes]) -> int:
        """Take what has arrived of the payload of `_frame` and return where it stops in `data`."""
        frame, message = self._frame, self._message
        assert frame is not None
        assert message is not None
        stop = min(position + frame.remaining, len(data))
        part = frame.unmask(data[position:stop])
        self.remaining = frame.remaining
        complete = not frame.remaining
        message.append(part, complete and frame.fin)
        if complete:
            self._frame = None
            if frame.fin:
                self._message = None
                self.begun = 0
                messages.append(message.join())
        return stop

    def _check_reserved_bits(self, opcode: int, bits: int) -> None:
        """RFC 6455 §5.2; RFC 7692 §6 has RSV1 on the first frame of a compressed message."""
        allowed = RSV1 if self.deflate is not None and opcode in (Opcode.TEXT, Opcode.BINARY) else 0
        if bits & ~allowed:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "reserved bit set without an extension that defines it")

    def _check_data_frame(self, opcode: int) -> None:
        """RFC 6455 §5.4: a message's frames are not interleaved with another's."""
        if opcode == Opcode.CONTINUATION:
            if self._message is None:
                raise _Violation(CloseCode.PROTOCOL_ERROR, "continuation frame with nothing to continue")
        elif opcode not in (Opcode.TEXT, Opcode.BINARY):
            raise _Violation(CloseCode.PROTOCOL_ERROR, f"reserved opcode 0x{opcode:X}")
        elif self._message is not None:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "new message before the last fragment of another")
        elif self.state is OPEN and self.accepts is (bytes if opcode == Opcode.TEXT else str):  # §7.4.1
            expected = "binary" if opcode == Opcode.TEXT else "text"
            raise _Violation(CloseCode.UNSUPPORTED_DATA, f"this server takes {expected} messages only")

    def _check_control_frame(self, opcode: int, fin: bool, length: int) -> None:
        """RFC 6455 §5.5."""
        if opcode > Opcode.PONG:
            raise _Violation(CloseCode.PROTOCOL_ERROR, f"reserved opcode 0x{opcode:X}")
        if not fin:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "fragmented control frame")
        if length > 125:
            raise _Violation(CloseCode.PROTOCOL_ERROR, "control frame with a payload of more than 125 bytes")

    def _control_frame(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:  # §5.5.2: answered with the same payload
            if not self.replies:
                self.replies = bytearray()
            self.replies += bytes((FIN | Opcode.PONG, len(payload))) + payload
        elif opcode == Opcode.CLOSE:
            self._close_frame(payload)

    def _close_frame(self, payload: bytes) -> None:
        """RFC 6455 §5.5.1, and §7.4 for which codes may be sent."""
        try:
            close = Close.parse(payload)
        except ProtocolError as error:
            raise _Violation(CloseCode.PROTOCOL_ERROR, str(error)) from None
        if self.state is CLOSE_SENT:
            self.state = State.CLOSED
        else:
            self._set(State.CLOSE_RECEIVED, int(close.code), close.reason)

    def fail(self, code: CloseCode, reason: str) -> None:
        """Fail the connection (RFC 6455 §7.1.7): nothing that is received any more counts."""
        if self.state is CLOSE_SENT:  # a fault instead of the answer
            self.state = State.CLOSED
        else:
            self._set(State.FAILED, int(code), reason)
        self._frame = self._message = None
        self.remaining = 0

    def _set(self, state: State, code: int, reason: str) -> None:
        self.state = state
        if self.close_code is None:
            self.close_code = code
            self.close_reason = reason

    # Closing

    @property
    def may_send(self) -> bool:
        """Whether frames may be sent: no close frame has been (RFC 6455 §5.5.1), and the connection is not lost."""
        return self.state < CLOSE_SENT

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """Our side closes (RFC 6455 §7.1.2); where the client's side came first, this is the answer to that.

        Returns:
            the close frame, after which nothing may be sent; nothing, if it has been sent or the connection is lost.

        Raises:
            ValueError: see `encode_close`.
        """
        frame = self.encode_close(code, reason)
        if self.state is not OPEN:
            return self.answer()
        self._set(CLOSE_SENT, int(code), reason)
        return frame

    def answer(self) -> bytes:
        """The answer to the client's close frame, with its own code (RFC 6455 §5.5.1), or what fails the connection.

        Returns:
            a close frame; nothing, where there is none to be sent.
        """
        if self.state is State.CLOSE_RECEIVED:
            reason = ""
        elif self.state is State.FAILED:
            reason = self.close_reason
        else:
            return b""
        assert self.close_code is not None
        self.state = State.CLOSED
        if self.close_code == CloseCode.NO_STATUS_RECEIVED:
            return CLOSE_WITHOUT_CODE
        return self.encode_close(self.close_code, reason)

    def lose(self, reason: str = "") -> None:
        """The TCP connection has ended, or is given up: without a close frame, the code is 1006 (RFC 6455 §7.1.5)."""
        self._set(State.LOST, int(CloseCode.ABNORMAL_CLOSURE), reason)
        self.unread = self.arriving = None

    # Writing

    def encode_message(self, message: str | bytes | bytearray | memoryview) -> bytes:
        """A message as one frame: text for a `str`, binary for anything bytes-like (RFC 6455 §5.6).

        Raises:
            TypeError: it is neither.
            UnicodeEncodeError: a `str` with a lone surrogate, which UTF-8 cannot carry.
        """
        if isinstance(message, str):
            payload = message.encode()
            if len(payload) < 126 and self.deflate is None:
                return SHORT_TEXT_HEADS[len(payload)] + payload
            return self._data_frame(FINAL_TEXT, payload)
        if isinstance(message, bytes):
            payload = message
        else:
            try:
                payload = bytes(memoryview(message))
            except TypeError:
                raise TypeError(
                    f"a message is a str (sent as text) or bytes-like (sent as binary), not {type(message).__name__}"
                ) from None
        if len(payload) < 126 and self.deflate is None:
            return SHORT_BINARY_HEADS[len(payload)] + payload
        return self._data_frame(FINAL_BINARY, payload)

    def _data_frame(self, first: int, payload: bytes) -> bytes:
        """A data frame, compressed where that was agreed on and its size is worth it (RFC 7692 §7.2.1)."""
        if self.deflate is not None and len(payload) >= self.deflate.threshold:
            payload = self.deflate.compress(payload)
            first |= RSV1
        length = len(payload)
        if length < 126:
            return bytes((first, length)) + payload
        if length < 2**16:
            return bytes((first, 126)) + length.to_bytes(2, "big") + payload
        return bytes((first, 127)) + length.to_bytes(8, "big") + payload

    def encode_ping(self, data: bytes = b"") -> bytes:
        """A ping frame.

        Raises:
            ValueError: more than 125 bytes of data (RFC 6455 §5.5).
        """
        if len(data) > 125:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(data)} (RFC 6455 section 5.5)")
        return bytes((FIN | Opcode.PING, len(data))) + data

    def encode_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> bytes:
        """A close frame.

        Raises:
            TypeError: the code is no `int`, or the reason no `str`.
            ValueError: a code that must not be sent (RFC 6455 §7.4), or a reason of more than 123 bytes in UTF-8
                (§5.5).
        """
        if not isinstance(code, int) or not isinstance(reason, str):
            raise TypeError(
                f"a connection is closed with a code, an int, and a reason, a str, not {code!r}, {reason!r}"
            )
        close = Close(code, reason)
        try:
            close.check()
        except ProtocolError:
            raise ValueError(
                f"close code {code} must not be sent: use 1000 to 1003, 1007 to 1014 or 3000 to 4999 "
                "(RFC 6455 section 7.4)"
            ) from None
        payload = close.serialize()
        if len(payload) > 125:
            raise ValueError(f"a close reason is at most 123 bytes in UTF-8, not {len(payload) - 2}")
        return bytes((FIN | Opcode.CLOSE, len(payload))) + payload


# It has agreed on nothing with anybody.
_PLAIN = FrameProtocol()


def encode_shared(message: str | bytes | bytearray | memoryview) -> bytes:
    """A message as one frame that goes to any number of connections, whatever each has agreed on.

    It is not compressed: no message need be (RFC 7692 §6), and one that is not is no part of what the next builds on.

    Raises:
        TypeError, UnicodeEncodeError: see `FrameProtocol.encode_message`.
    """
    return _PLAIN.encode_message(message)
