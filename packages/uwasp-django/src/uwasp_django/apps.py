"""The Django app, for `INSTALLED_APPS`: it has `manage.py check` look at the WebSockets."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from uwasp_django import checks

__all__ = ["UwaspConfig"]


class UwaspConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """The app `uwasp_django`, which has neither models nor templates."""

    name = "uwasp_django"
    verbose_name = "uWASP"

    def ready(self) -> None:
        register(checks.check_settings)
        register(checks.check_urls)
        register(checks.check_wsgi)
