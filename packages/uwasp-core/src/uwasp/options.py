"""Every option of a connection in one place, with its unit, its default, and what it may be."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from uwasp.compression import Deflate

__all__ = ["TIME", "GivenOptions", "Options", "is_time"]

# Seconds. Sums of two times, in milliseconds, are to be what epoll and the clocks take (2**31 - 1, 24.8 days).
LONGEST = 7 * 24 * 60 * 60
LARGEST = sys.maxsize  # what can be counted in memory

TIME = f"a number of seconds above 0 and at most {LONGEST:,} (seven days)"
COUNT = "a whole number of at least 1"
# What is no option, but an attribute of a handler's, if it has it; and the least that it may be.
OF_THE_HANDLER = {"max_consumers": 1, "max_conversations": 0}


@dataclass(frozen=True)
class Options:
    """The options of `uwasp.WebSocketMiddleware`. A server class overrides one by an attribute of the same name.

    Times are in seconds, above 0 and at most 604,800: seven days.

    Args:
        max_message_size: the largest message that is accepted from a client, in bytes (default: 1 MiB). A larger one
            closes its connection with 1009.
        max_fragments: the largest number of fragments of one message (default: 131,072). More close the connection
            with 1008.
        compression: `"deflate"`, or a `Deflate` with other than its defaults, compresses messages for clients that
            offer permessage-deflate (RFC 7692). The default, `None`, is not to: it costs memory in each connection
            and time in each message, which small messages do not repay.
        ping_interval: a connection from which nothing has come for so many seconds is pinged (default: 20; `None`:
            never).
        ping_timeout: a ping to which nothing has come for so many seconds closes the connection with 1011
            (default: 20; `None`: never).
        close_timeout: how many seconds the client has for its part of the closing handshake before it is cut
            (default: 10).
        shutdown_timeout: how many seconds a worker that ends gives its clients and servers to part (default: 2).
        shutdown_spread: over how many seconds a worker tells its clients to go when it ends and another of its uWSGI
            stays, at most `shutdown_timeout` (default: `None`, all at once).
        write_limit: once so many bytes wait to be sent to a client, `send` waits (default: 1 MiB).
        send_timeout: while `send` waits, a client that reads nothing for so many seconds is cut (default: 30; `None`:
            never).
        slow_member: a client for which more bytes than this wait, when a message to a group that it is in is sent, is
            too slow for the group (default: `None`, a quarter of `write_limit`). It is closed with 1013.
        skip_slow_members: whether a client that is too slow for a group stays open, and does not get that message
            (default: no).
        max_queue: while so many messages wait for the server, none are read from its client (default: 32).
        max_queue_size: the same in bytes (default: 1 MiB).
        max_connections: so many WebSockets may be open in a worker process; further ones get 503 (default: `None`,
            any number).
        allowed_origins: the origins whose pages may connect, such as `"https://example.com"` or
            `"https://*.example.com"`, or `"*"` for all (default: `None`, the host that is asked). What is no browser
            sends no origin, and is let in.
        trust_proxy: whether X-Forwarded-Host and X-Forwarded-For are believed (default: no), because a proxy that
            sets them is in front of every request.

    Raises:
        TypeError: an option of another name.
        ValueError: a value that an option cannot have.
    """

    max_message_size: int = 2**20
    max_fragments: int = 2**17
    compression: Deflate | str | None = None
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 10.0
    shutdown_timeout: float = 2.0
    shutdown_spread: float | None = None
    write_limit: int = 2**20
    send_timeout: float | None = 30.0
    slow_member: int | None = None
    skip_slow_members: bool = False
    max_queue: int = 32
    max_queue_size: int = 2**20
    max_connections: int | None = None
    allowed_origins: Sequence[str] | None = None
    trust_proxy: bool = False

    def __post_init__(self) -> None:
        for name in ("max_message_size", "max_fragments", "write_limit", "max_queue", "max_queue_size"):
            self._check(name, _is_count(getattr(self, name)), COUNT)
        for name in ("max_connections", "slow_member"):
            value = getattr(self, name)
            self._check(name, value is None or _is_count(value), f"{COUNT}, or None")
        for name in ("close_timeout", "shutdown_timeout"):
            self._check(name, is_time(getattr(self, name)), TIME)
        for name in ("ping_interval", "ping_timeout", "send_timeout"):
            value = getattr(self, name)
            self._check(name, value is None or is_time(value), f"{TIME}, or None")
        spread = self.shutdown_spread
        is_within = spread is None or (is_time(spread) and spread <= self.shutdown_timeout)
        self._check("shutdown_spread", is_within, "a number of seconds up to shutdown_timeout, or None")
        if self.compression == "deflate":
            object.__setattr__(self, "compression", Deflate())
        known = self.compression is None or isinstance(self.compression, Deflate)
        self._check("compression", known, '"deflate", a uwasp.Deflate, or None')
        if isinstance(self.allowed_origins, str):
            object.__setattr__(self, "allowed_origins", (self.allowed_origins,))
        origins = self.allowed_origins or ()
        are_origins = all(isinstance(origin, str) and (origin == "*" or "://" in origin) for origin in origins)
        self._check("allowed_origins", are_origins, 'origins such as "https://example.com", or "*"')
        for name in ("skip_slow_members", "trust_proxy"):
            self._check(name, isinstance(getattr(self, name), bool), "True or False")

    def _check(self, name: str, is_right: bool, what: str) -> None:
        if not is_right:
            raise ValueError(f"{name} is {what}, not {getattr(self, name)!r}")

    @property
    def deflate(self) -> Deflate | None:
        """How to compress, if at all."""
        return self.compression if isinstance(self.compression, Deflate) else None

    @property
    def slow_limit(self) -> int:
        """How many bytes may wait for a client before it is too slow for a group."""
        return self.write_limit // 4 if self.slow_member is None else self.slow_member

    @classmethod
    def named(cls, options: Mapping[str, Any]) -> Options:
        """From keywords; the error for an unknown one names those that there are."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            of_handler = [name for name in unknown if name in OF_THE_HANDLER]
            hint = f" ({' and '.join(of_handler)}: of the handler class, derive one with that)" if of_handler else ""
            raise TypeError(f"unknown option {', '.join(unknown)}{hint}; the options are {', '.join(known)}")
        return cls(**options)

    def overridden_by(self, server_class: Any) -> Options:
        """The options for a server class: these, but for those that it has as attributes."""
        own = {
            field.name: getattr(server_class, field.name) for field in fields(self) if hasattr(server_class, field.name)
        }
        return replace(self, **own) if own else self


class GivenOptions(TypedDict, total=False):
    """Those of the `Options` that are given, as keywords: what an editor completes and a type checker knows of them."""

    max_message_size: int
    max_fragments: int
    compression: Deflate | str | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float
    shutdown_timeout: float
    shutdown_spread: float | None
    write_limit: int
    send_timeout: float | None
    slow_member: int | None
    skip_slow_members: bool
    max_queue: int
    max_queue_size: int
    max_connections: int | None
    allowed_origins: Sequence[str] | None
    trust_proxy: bool


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST


def is_time(value: Any) -> bool:
    """Whether it can be an option that is a time: `TIME`, in words."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST  # not NaN either
