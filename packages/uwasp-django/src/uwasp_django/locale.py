"""`Locale`: what Django has by thread for a request, for events of its connection that run in other threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import tzinfo
from typing import NamedTuple

from django.urls import clear_script_prefix, get_script_prefix, set_script_prefix
from django.utils import timezone, translation

__all__ = ["Locale"]


class Locale(NamedTuple):
    """The language and the time zone that middleware has chosen, and where the project is mounted.

    Attributes:
        language: a code, such as `"de"`; `None` for no translations.
        zone: the time zone.
        script_prefix: of the paths that `django.urls.reverse` returns.
    """

    language: str | None
    zone: tzinfo
    script_prefix: str

    @classmethod
    def current(cls) -> Locale:
        return cls(translation.get_language(), timezone.get_current_timezone(), get_script_prefix())

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, it is the current one. What is chosen within ends with it."""
        with translation.override(self.language, deactivate=True), timezone.override(self.zone):
            set_script_prefix(self.script_prefix)
            try:
                yield
            finally:
                clear_script_prefix()
