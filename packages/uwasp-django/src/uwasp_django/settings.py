"""`UWASP`, the setting: with what a project opens its WebSockets.

This module knows the settings, and nothing of requests.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from uwasp import Bus, ConfigurationError, Handler, Options, takeover
from uwasp.handler import check_handler_class, find_handler

__all__ = ["Settings", "named_bus"]


class Settings:
    """What the setting says.

    Attributes:
        handler_class: whose events the servers have (default: that for gevent on uWSGI's gevent loop, or else that for
            threads).
        bus: what the groups of several processes have in common, as for `uwasp.WebSocketMiddleware`.
        options: those of `uwasp.Options` that it gives.

    Raises:
        HandlerNotFound: that handler is not installed.
        ConfigurationError, TypeError, ValueError: it has something that it cannot have.
    """

    def __init__(self) -> None:
        self.options = _given()
        self.bus = self.options.pop("bus", None)
        handler_class = self.options.pop("handler_class", None)
        if "allowed_origins" in self.options:
            raise ConfigurationError(
                "UWASP: Django has settings of its own for allowed_origins: leave it out, and put the pages' origins "
                "into CSRF_TRUSTED_ORIGINS"
            )
        Options.named(self.options)
        if handler_class is None:
            handler_class = "gevent" if takeover.loop() == "gevent" else "threads"
        if isinstance(handler_class, str):
            self.handler_class: type[Handler] = find_handler(handler_class)
        else:
            self.handler_class = check_handler_class(handler_class, "UWASP: handler_class")


def named_bus() -> Bus | str | None:
    """The bus that the setting names, if it does.

    Raises:
        TypeError: the setting is none.
    """
    bus: Bus | str | None = _given().get("bus")
    return bus


def _given() -> dict[str, Any]:
    given = getattr(settings, "UWASP", {})
    if not isinstance(given, dict):
        raise TypeError(f"UWASP is a dict, not {given!r}")
    return dict(given)
