"""The errors that uWASP raises towards its users, in one place so that they can be caught by name."""

from __future__ import annotations

__all__ = ["ConfigurationError", "ConnectionClosed", "HandlerNotFound", "UwaspError"]


class UwaspError(Exception):
    """The base of every error that uWASP raises on its own account."""


class ConfigurationError(UwaspError):
    """This process cannot run WebSockets the way it is set up; the message names what to change."""


class HandlerNotFound(ConfigurationError, LookupError):
    """No handler, or more than one, answers to the name that was asked for."""


class ConnectionClosed(UwaspError):
    """The connection is closed, or closing: nothing more can be sent on it.

    Args:
        code: the close code, an ``int`` (RFC 6455 §7.1.5 and §7.4): that of the close frame that came first, from
            either side; 1006 where the connection was lost without one.
        reason: the close reason, a ``str``, often empty (RFC 6455 §7.1.6).
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the connection is closed (code {self.code}{f', reason {self.reason!r}' if self.reason else ''})"
