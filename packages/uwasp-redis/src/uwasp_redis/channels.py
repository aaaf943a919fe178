"""The names of our channels and keys in Redis."""

from __future__ import annotations

__all__ = ["Channels"]


class Channels:
    """Those of one bus, for one process.

    Args:
        prefix: what all of them begin with.
        process: the identity of this process.

    Attributes:
        all: that which every process hears.
        own: that which this process alone hears.
    """

    def __init__(self, prefix: str, process: bytes) -> None:
        self._groups = f"{prefix}:g:".encode()
        self._processes = f"{prefix}:p:".encode()
        self._claims = f"{prefix}:claim:".encode()
        self.all = f"{prefix}:all".encode()
        self.own = self.process(process)

    def group(self, channel: str) -> bytes:
        """That of one of the channels that our caller knows."""
        return self._groups + channel.encode()

    def process(self, process: bytes) -> bytes:
        """That which one process alone hears."""
        return self._processes + process.hex().encode()

    def claim(self, name: str) -> bytes:
        """The key of a name that one process holds: no channel, but it begins as they do."""
        return self._claims + name.encode()

    def group_of(self, channel: bytes) -> str | None:
        """What our caller calls a channel, or `None` if it is none of those that it knows."""
        return channel[len(self._groups) :].decode() if channel.startswith(self._groups) else None
