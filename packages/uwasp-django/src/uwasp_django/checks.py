"""What `manage.py check` says of a project's WebSockets, and why uWSGI would not start with them.

A check looks, and imports nothing but the URLconf: wsgi.py is read, not run, because it may replace what a management
command has loaded.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.urls import get_resolver

from uwasp import ConfigurationError, Options
from uwasp.routing import find_route
from uwasp_django.greenlets import REMEDY
from uwasp_django.settings import Settings
from uwasp_django.views import SERVER

__all__ = ["check_settings", "check_urls", "check_wsgi", "wrong_servers"]

PATTERNS = "websocket_urlpatterns"
CANNOT = (ConfigurationError, TypeError, ValueError)


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The setting `UWASP`."""
    try:
        Settings()
    except CANNOT as error:
        return [Error(str(error), id="uwasp_django.E001")]
    return []


def check_urls(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The WebSockets of the URLconf, and whether there are any."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        given = Settings()
    except CANNOT:
        return []  # that has been said
    found = list(views())
    wrong = [Error(f"{path}: {error}", id="uwasp_django.E002") for path, error in wrong_servers(given)]
    return [*wrong, *_servers_that_are_no_views(found), *_patterns_left_out(found)]


def _servers_that_are_no_views(found: list[tuple[str, Any]]) -> list[CheckMessage]:
    return [
        Error(
            f"{path}: {pattern.callback.__name__} is a server, and no view",
            hint=f"Write websocket({pattern.callback.__name__}).",
            id="uwasp_django.E003",
        )
        for path, pattern in found
        if isinstance(pattern.callback, type) and hasattr(pattern.callback, "on_message")
    ]


def _patterns_left_out(found: list[tuple[str, Any]]) -> list[CheckMessage]:
    """Whether `websocket_urlpatterns` lead nowhere, or there is no WebSocket at all."""
    there = [pattern for _, pattern in found]
    own = getattr(get_resolver().urlconf_module, PATTERNS, [])
    left_out = [pattern for _, pattern in _patterns(own, "/") if pattern not in there]
    if left_out:
        return [
            Error(
                f"{len(left_out)} of {PATTERNS} are in no urlpatterns",
                hint=f"Add them in {settings.ROOT_URLCONF}: urlpatterns += {PATTERNS}",
                id="uwasp_django.E004",
            )
        ]
    if any(hasattr(pattern.callback, SERVER) for pattern in there):
        return []
    return [
        Warning(
            f"no WebSocket is in {settings.ROOT_URLCONF}",
            hint='Add one to its urlpatterns: path("echo/", websocket(Echo)).',
            id="uwasp_django.W001",
        )
    ]


def check_wsgi(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The file that WSGI_APPLICATION names: whether it is wrapped, and gevent comes first."""
    source = wsgi_source()
    if source is None:
        return []
    messages: list[CheckMessage] = []
    path, tree = source
    if not any(isinstance(node, ast.alias) and node.name == "WebSocketApplication" for node in ast.walk(tree)):
        messages.append(
            Warning(
                f"{path} does not use WebSocketApplication, without which no WebSocket opens",
                hint="application = WebSocketApplication(get_wsgi_application())",
                id="uwasp_django.W002",
            )
        )
    if not comes_first(tree) and (_calls(tree) or _is_for_gevent()):
        messages.append(
            Error(
                f"{path} does not have gevent replace threads before Django is imported",
                hint=f"Under uWSGI's gevent loop, {REMEDY}.",
                id="uwasp_django.E005",
            )
        )
    return messages


def wrong_servers(given: Settings) -> list[tuple[str, Exception]]:
    """The WebSockets of the URLconf that could not be served so, by their paths, and why not."""
    wrong: list[tuple[str, Exception]] = []
    options = Options.named(given.options)
    for path, pattern in views():
        if hasattr(pattern.callback, SERVER):
            try:
                find_route(path, getattr(pattern.callback, SERVER), options, given.handler_class)
            except CANNOT as error:
                wrong.append((path, error))
    return wrong


def views() -> Iterator[tuple[str, Any]]:
    """All views of the URLconf: their paths, as they stand there, and their patterns."""
    return _patterns(get_resolver().url_patterns, "/")


def _patterns(patterns: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = f"{prefix}{pattern.pattern}"
        if hasattr(pattern, "url_patterns"):
            yield from _patterns(pattern.url_patterns, path)
        else:
            yield path, pattern


def wsgi_source() -> tuple[str, ast.Module] | None:
    """The file of the project's WSGI application, and what is in it; `None` if there is none to be read."""
    name = getattr(settings, "WSGI_APPLICATION", None)
    module = name.rpartition(".")[0] if name else ""
    try:
        spec = find_spec(module) if module else None
    except ModuleNotFoundError:
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return spec.origin, ast.parse(Path(spec.origin).read_bytes())


def comes_first(tree: ast.Module) -> bool:
    """Whether `patch_all()` is called before anything of Django is imported."""
    patched = min((call.lineno for call in _calls(tree)), default=math.inf)
    imported = min((line for node in ast.walk(tree) for line in _imports_django(node)), default=math.inf)
    return patched < imported


def _calls(tree: ast.Module) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if "patch_all" in (getattr(call.func, "attr", ""), getattr(call.func, "id", ""))]


def _imports_django(node: ast.AST) -> Iterator[int]:
    """In which line it does, if it does."""
    if isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        return
    if any(name.partition(".")[0] in ("django", "uwasp_django") for name in names):
        yield node.lineno


def _is_for_gevent() -> bool:
    given = getattr(settings, "UWASP", None)
    return isinstance(given, dict) and given.get("handler_class") == "gevent"
