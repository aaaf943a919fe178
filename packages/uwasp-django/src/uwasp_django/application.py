"""`WebSocketApplication`: what a project's wsgi.py has around `get_wsgi_application()`.

A request for a WebSocket goes through Django like any other. Where its view has opened a WebSocket, and nothing on the
way back has made another answer of that, the core answers, and takes the connection over. Where Django sends it to log
in, which no WebSocket can, it gets 401.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.shortcuts import resolve_url

from uwasp import ConfigurationError, WebSocketMiddleware, handshake, takeover
from uwasp_django import checks, database, greenlets
from uwasp_django.servers import LOCALE, REQUEST
from uwasp_django.settings import Settings
from uwasp_django.views import KEY, Visit

__all__ = ["WebSocketApplication"]

logger = logging.getLogger("uwasp.django")

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]

# What the 101 has of its own, or has not.
NOT_FOR_A_101 = ("connection", "content-length", "content-type", "transfer-encoding", "upgrade")
# RFC 9110 §15.5.2 has a 401 name a scheme. For sessions there is none that is registered.
LOG_IN = handshake.refuse(HTTPStatus.UNAUTHORIZED, "log in first", ("WWW-Authenticate", "Cookie"))


class WebSocketApplication:
    """A WSGI application that serves the WebSockets of a Django project, and leaves all else to Django.

        application = WebSocketApplication(get_wsgi_application())

    Outside uWSGI it leaves all to Django, whose views for WebSockets answer 501 there. What `uwasp.testing` asks for is
    served there, too.

    Args:
        application: what `get_wsgi_application()` returned.

    Attributes:
        application: as given.
        middleware: the `uwasp.WebSocketMiddleware` that takes connections over, with what the setting `UWASP` says.

    Raises:
        HandlerNotFound: the handler is not installed.
        ConfigurationError: the project's WebSockets cannot work as it is set up; the message says what to change.
        TypeError, ValueError: `UWASP` has something in it that it cannot have.
    """

    def __init__(self, application: WSGIApplication) -> None:
        self.application = application
        given = Settings()
        greenlets.check()
        wrong = checks.wrong_servers(given)
        if wrong:
            raise ConfigurationError("; ".join(f"{path}: {error}" for path, error in wrong))
        self.middleware = WebSocketMiddleware(
            application,
            database.releasing(given.handler_class),
            bus=given.bus,
            allowed_origins="*",  # the view has looked
            **given.options,
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not handshake.is_upgrade(environ) or environ["REQUEST_METHOD"] != "GET" or self._is_outside(environ):
            return self.application(environ, start_response)
        visit = Visit()
        # Django decodes these two in the environ itself, which is the request's META.
        paths: dict[str, Any] = {name: environ[name] for name in ("PATH_INFO", "SCRIPT_NAME") if name in environ}
        # A copy, because uWSGI empties its own when the request is over; with nothing in it that is the next one's.
        environ = {**environ, KEY: visit, "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr}
        kept: list[Headers] = []  # of an answer that does not go out as it is

        def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            opens = visit.request is not None and status.startswith("101 ")
            if not opens and not leads_to_login(status, headers):
                return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)
            visit.request = visit.request if opens else None
            kept.append(headers)
            return None

        try:
            body = self.application(environ, start)
        finally:
            del environ[KEY]  # which leads to the request, which leads here
        if not kept:
            return body
        try:
            if visit.request is not None:
                return self._accept({**environ, **paths}, start_response, visit, kept[0])
            start_response(LOG_IN.status, [*LOG_IN.headers, *_cookies(kept[0])])
            return [LOG_IN.body]
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()  # the request is over, and Django tells everybody

    def _is_outside(self, environ: dict[str, Any]) -> bool:
        """Whether there is no uWSGI, and nothing that stands for it."""
        return not takeover.running_under_uwsgi() and self.middleware.takeover_for(environ).refusal() is not None

    def _accept(
        self, environ: dict[str, Any], start_response: Callable[..., Any], visit: Visit, headers: Headers
    ) -> Iterable[bytes]:
        request = visit.request
        environ.update({REQUEST: request, LOCALE: visit.locale})  # in another dict than META: they would be a cycle
        further = [(name, value) for name, value in headers if goes_with_a_101(name, value)]
        return self.middleware.accept(environ, start_response, visit.server, request.resolver_match.kwargs, further)


def goes_with_a_101(name: str, value: str) -> bool:
    """Whether a header of Django's answer is one of the handshake's, too. Of headers, Django allows more than we do."""
    if name.lower() in NOT_FOR_A_101 or name.lower().startswith("sec-websocket-"):
        return False
    if value.isascii() and value.isprintable():
        return True
    logger.warning("the header %s is left out of the answer to a handshake, as it is not in ASCII: %a", name, value)
    return False


def leads_to_login(status: str, headers: Headers) -> bool:
    """Whether an answer sends somebody to log in: to LOGIN_URL, or anywhere with the way back in the query."""
    location = next((value for name, value in headers if name.lower() == "location"), None)
    if location is None or not status.startswith("302 "):
        return False
    to = urlsplit(location)
    return to.path == urlsplit(resolve_url(settings.LOGIN_URL)).path or REDIRECT_FIELD_NAME in parse_qs(to.query)


def _cookies(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() == "set-cookie"]
