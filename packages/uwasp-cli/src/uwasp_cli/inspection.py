"""What uWSGI imports for `uwasp check`, and for `uwasp run` to find the handler: it loads the application, and ends.

That is before uWSGI makes workers, in the loop and with the options that those would have.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from uwasp_cli import loading
from uwasp_cli.inside import answer, describe_failure, ordered, tell_options

__all__: list[str] = []

DJANGO = "uwasp_django"
OWNERS = (DJANGO, "uwasp_socketio")  # they look at a page's origin themselves, and let uWASP take any


class Heard(logging.Handler):
    """Keeps the warnings that uWASP has when an application loads."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def inspect() -> dict[str, Any]:
    """What there is."""
    heard = Heard()
    logging.getLogger("uwasp").addHandler(heard)
    tell_options()
    loaded = loading.load(_target)
    import uwasp
    from uwasp import takeover

    # Not `isinstance`, which would make a lazy object look up what it stands for.
    middlewares: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), uwasp.WebSocketMiddleware)]
    owners = dict(_owners())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return {
        "name": loaded.name,
        "loop": takeover.loop() or "threads",
        "middlewares": [{**_describe(one), "owner": owners.get(id(one), "")} for one in middlewares],
        "routes": [*_routes_of_flask(loaded.application), *_routes_of_django()],
        "speedups": uwasp.speedups.in_use,
        "warnings": [*heard.messages, *_warnings_of_django()],
        "listen": takeover.backlog(),
        "descriptors": limit,
        "master": takeover.is_set("master"),
        "interpreters": bool(takeover.values("mount")) and not takeover.is_set("single-interpreter"),
    }


def _owners() -> Iterator[tuple[int, str]]:
    """By its id, each middleware that a framework's package has made for itself, and that package."""
    from uwasp import WebSocketMiddleware

    for one in gc.get_objects():
        package = str(type(one).__module__).partition(".")[0]
        if package in OWNERS:
            for value in getattr(one, "__dict__", {}).values():
                if issubclass(type(value), WebSocketMiddleware):
                    yield id(value), package


def _describe(middleware: Any) -> dict[str, Any]:
    handler = middleware.handler_class
    return {
        "handler": f"{handler.__module__}.{handler.__qualname__}",
        "bus": repr(middleware.bus).removeprefix("<Bus ").removesuffix(">"),  # without a password
        "options": _differing(middleware.options),
        "servers": [
            {"path": path, "server": _name(made), "options": _differing(middleware.options.overridden_by(made))}
            for path, made in ((path, _made(server)) for path, server in middleware.servers)
        ],
    }


def _differing(options: Any) -> dict[str, str]:
    """Those that are not as by default."""
    return {
        field.name: repr(getattr(options, field.name))
        for field in fields(options)
        if getattr(options, field.name) != field.default
    }


def _made(server: Any) -> Any:
    """The class, or the function, behind a `functools.partial`."""
    while isinstance(server, functools.partial):
        server = server.func
    return server


def _name(server: Any) -> str:
    return f"{getattr(server, '__module__', '')}.{getattr(server, '__qualname__', repr(server))}"


def _routes_of_flask(application: Any) -> list[str]:
    """What uwasp-flask has among Flask's own routes."""
    rules = getattr(getattr(application, "url_map", None), "iter_rules", None)
    if rules is None:
        return []
    views = application.view_functions
    return sorted(f"{rule.rule} {_name(views.get(rule.endpoint))}" for rule in rules() if rule.websocket)


def _is_of_django() -> bool:
    """Whether a project of Django's with WebSockets has been loaded."""
    if DJANGO not in sys.modules:
        return False
    from django.apps import apps

    return bool(apps.ready)


def _routes_of_django() -> list[str]:
    """The WebSockets of the URLconf."""
    if not _is_of_django():
        return []
    from uwasp_django import checks, views

    servers = [(path, getattr(pattern.callback, views.SERVER, None)) for path, pattern in checks.views()]
    return [f"{path} {_name(_made(server))}" for path, server in servers if server is not None]


def _warnings_of_django() -> Iterator[str]:
    """What `manage.py check` would say, and whether it does."""
    if not _is_of_django():
        return
    from django.apps import apps

    from uwasp_django import checks

    if not apps.is_installed(DJANGO):
        yield f"{DJANGO} is not in INSTALLED_APPS, so manage.py check says nothing of WebSockets: add it"
    for check in (checks.check_settings, checks.check_urls, checks.check_wsgi):
        for message in check(None):
            yield f"{message.id}: {message.msg}{f'; {message.hint}' if message.hint else ''}"


_target = ordered()
try:
    answer(**inspect())
except BaseException as error:
    answer(**describe_failure(error, _target.folder))
finally:
    os._exit(0)  # nothing is served, and uWSGI has nothing to say
