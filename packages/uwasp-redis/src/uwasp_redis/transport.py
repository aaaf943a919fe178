"""The transport of a bus on Redis: hands over what is to be carried to the one thread that talks to Redis."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from uwasp.transport import Receiver, Transport
from uwasp_redis.address import Address
from uwasp_redis.carrier import HEARTBEAT, LEASE, Carrier
from uwasp_redis.channels import Channels
from uwasp_redis.claims import Claims
from uwasp_redis.outbox import Change, Outbox
from uwasp_redis.wire import HEADER

__all__ = ["RedisTransport"]


class RedisTransport(Transport):
    """Carries a bus by the channels of a Redis, version 6 or newer, or of a Valkey.

    URLs are `redis://host:6379`, `rediss://` with TLS, `redis+unix:///path`, `redis+sentinel://host,host/service` and
    `rediss+sentinel://`. Options of all of them: `prefix`, of the channels' names, so that several sites share one
    server (default: `uwasp`); and `bound`, the most bytes that wait to be sent (default: 16 MiB).
    """

    def __init__(self, url: str, process: bytes, receiver: Receiver) -> None:
        super().__init__(url, process, receiver)
        address = Address.parse(url)
        self._channels = Channels(address.prefix, process)
        self._outbox = Outbox(address.bound, self._channels.all)
        largest = HEADER + 4 + self.max_message_size
        self._pid = os.getpid()
        self._claims = Claims(LEASE, HEARTBEAT)
        self._carrier = Carrier(address, self._channels, process, receiver, self._outbox, self._claims, largest)

    @classmethod
    def check(cls, url: str) -> None:
        Address.parse(url)

    @property
    def malformed(self) -> int:
        """How much has come on our channels that none of ours has sent, or a newer one."""
        return self._carrier.malformed

    @property
    def dropped(self) -> int:
        """How much was handed over and found no place."""
        return self._outbox.dropped

    def open(self) -> None:
        self._carrier.start()

    def publish(self, channel: str, data: bytes) -> None:
        self._put(self._channels.group(channel), data)

    def tell(self, process: bytes, data: bytes) -> None:
        self._put(self._channels.process(process), data)

    def tell_all(self, data: bytes) -> None:
        self._put(self._channels.all, data)

    def ask(self, channel: str, data: bytes, expected: Callable[[int], None]) -> None:
        self._put(self._channels.group(channel), data, expected)

    def subscribe(self, channel: str, heard: Callable[[], None]) -> None:
        self._change(channel, heard)

    def unsubscribe(self, channel: str) -> None:
        self._change(channel, None)

    def claim(self, name: str) -> None:
        if os.getpid() == self._pid:
            self._claims.claim(name)
            self._outbox.ring()

    def holds(self, name: str) -> bool:
        return os.getpid() == self._pid and self._claims.holds(name, time.monotonic())

    def close(self, timeout: float) -> None:
        if os.getpid() == self._pid:
            self._outbox.close(time.monotonic() + timeout)
            self._carrier.join(timeout + 1)

    # In a child of this process there is no thread that would carry anything, and its lock may be held for ever.

    def _change(self, channel: str, heard: Callable[[], None] | None) -> None:
        if os.getpid() == self._pid:
            self._outbox.change(Change(self._channels.group(channel), heard))

    def _put(self, channel: bytes, data: bytes, expected: Callable[[int], None] | None = None) -> None:
        if len(data) > self.max_message_size:
            raise ValueError(f"a bus carries up to {self.max_message_size} bytes at once, not {len(data)}")
        if os.getpid() == self._pid:
            self._outbox.put(channel, data, expected)
