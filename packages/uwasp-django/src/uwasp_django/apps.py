"""The Django app, for `INSTALLED_APPS`: it has `manage.py check` look at the WebSockets, and groups find their bus."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import mail
from django.core.checks import register
from django.core.signals import request_started

from uwasp import takeover
from uwasp.bus import default_by
from uwasp_django import checks
from uwasp_django.settings import named_bus

__all__ = ["UwaspConfig"]


class UwaspConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """The app `uwasp_django`, which has neither models nor templates."""

    name = "uwasp_django"
    verbose_name = "uWASP"

    def ready(self) -> None:
        register(checks.check_settings)
        register(checks.check_urls)
        register(checks.check_wsgi)
        default_by(named_bus)
        if not takeover.running_under_uwsgi():
            takeover.be_an_instance_if(is_tested)
            request_started.connect(look_at_server)


def is_tested() -> bool:
    """Whether Django's test environment is set up: then, and only then, mail that is sent is kept there."""
    return hasattr(mail, "outbox")


def look_at_server(environ: dict[str, Any] | None = None, **rest: object) -> None:
    """Told by Django of each request, of one by ASGI without an environ."""
    takeover.look_at_server(environ or {})
