"""`Allowed`: what a server class's `authorize` returns for a user who may stay until a certain time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

__all__ = ["Allowed"]

# In seconds since the epoch: the end of what a datetime can be. A time in milliseconds is beyond it.
MOST = 253_402_300_800
UNTIL = "until is a Unix time in seconds, or a datetime with a time zone"


class Allowed:
    """Returned by `authorize`: this user may stay until then.

    At that time the connection is closed with 3000, "Unauthorized" in IANA's registry of close codes, or `authorize` is
    asked again. The clock is the system's, so it counts as it is then.

    Args:
        user: what becomes `ws.user`.
        until: a Unix time in seconds, such as the `exp` of a JWT (RFC 7519 §4.1.4), or a `datetime` with a time zone. A
            time in the past refuses the handshake with 401.
        again: at that time, ask `authorize(ws.environ)` again, beside the listener and the servers (default: no).
            Another `Allowed` prolongs, any other value lets the connection go on without an end; either way `ws.user`
            becomes what it says. A `Refusal`, `False`, an exception, and no answer within 10 seconds close it.

    Attributes:
        user, again: as given.
        until: as a Unix time in seconds.

    Raises:
        TypeError: `until` is something else, such as `None`; for a connection without an end, return the user itself.
        ValueError: `until` is a datetime without a time zone, or later than the year 9999.
    """

    __slots__ = ("again", "until", "user")

    def __init__(self, user: Any, until: float | datetime, again: bool = False) -> None:
        if isinstance(until, datetime):
            if until.utcoffset() is None:
                raise ValueError(f"{UNTIL}; {until!r} has none: give it one, as in datetime.now(timezone.utc)")
            until = until.timestamp()
        if not isinstance(until, int | float) or isinstance(until, bool):
            raise TypeError(f"{UNTIL}, not {until!r}; for a connection without an end return the user itself")
        if not until < MOST:  # not NaN either
            raise ValueError(f"{UNTIL}, before the year 10000, not {until!r}; is it in milliseconds?")
        if not isinstance(again, bool):
            raise TypeError(f"again is True or False, not {again!r}")
        self.user = user
        self.until = float(until)
        self.again = again

    def __repr__(self) -> str:
        return f"Allowed({self.user!r}, until={self.until!r}, again={self.again!r})"
