"""`SOCK_SERVER_OPTIONS`: what it may have in it, and what that is in uWASP.

This module knows the configuration of an application, and nothing of requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from uwasp import Options

__all__ = ["NAME", "Settings"]

NAME = "SOCK_SERVER_OPTIONS"
OPTIONS = (*(field.name for field in fields(Options)), "bus")
# What simple-websocket has beside: how it reads and waits, which is the handler's here.
WITHOUT_COUNTERPART = ("receive_bytes", "thread_class", "event_class", "selector_class")


class Settings:
    """What an application's configuration says about its WebSockets.

    Args:
        config: the configuration.

    Attributes:
        given: as it stands there.
        options: those of `uwasp.WebSocketMiddleware`.
        subprotocols: for servers that have no `protocols` of their own.

    Raises:
        TypeError: there is no such option.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.given: dict[str, Any] = given(config)
        self.options = dict(self.given)
        subprotocols = self.options.pop("subprotocols", None) or ()
        self.subprotocols: Sequence[str] = (subprotocols,) if isinstance(subprotocols, str) else tuple(subprotocols)
        if "ping_interval" in self.options and not self.options["ping_interval"]:
            self.options["ping_interval"] = None  # 0 is never, there
        for name in self.options:
            if name in WITHOUT_COUNTERPART:
                raise TypeError(
                    f"{NAME}: {name} is about how simple-websocket reads and waits, which uWASP does in its own way: "
                    "leave it out"
                )
            if name not in OPTIONS:
                raise TypeError(f"{NAME} has no option {name!r}; it may have {', '.join((*OPTIONS, 'subprotocols'))}")


def given(config: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a configuration, copied."""
    return dict(config.get(NAME) or {})
