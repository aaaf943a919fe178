"""`websocket`: the view that opens a WebSocket.

All that comes before and after a view comes before and after this one. It answers 101, which is a promise that
`uwasp_django.application` keeps.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponse, HttpResponseNotAllowed

from uwasp import takeover
from uwasp.handshake import is_upgrade
from uwasp_django.locale import Locale
from uwasp_django.origin import is_trusted, remedy
from uwasp_django.servers import is_class, made_of, name_of

__all__ = ["KEY", "SERVER", "Visit", "websocket"]

logger = logging.getLogger("uwasp.django")

KEY = "uwasp_django.visit"  # in the environ of a request for a WebSocket
SERVER = "websocket_server"  # attribute of a view, which decorators of views copy: what can be checked of its server
OUTSIDE = "For instance: uwsgi --http-socket 127.0.0.1:8000 --threads 4 --module yourproject.wsgi:application"
NOT_WRAPPED = (
    "this WebSocket needs WebSocketApplication, of uwasp_django, around what get_wsgi_application() returns: "
    "see the project's wsgi.py"
)


class Visit:
    """A request for a WebSocket on its way through Django.

    Attributes:
        request: Django's request, if its view opens a WebSocket; else `None`.
        server: what the core is given for it.
        locale: that was chosen for it.
    """

    def __init__(self) -> None:
        self.request: Any = None
        self.server: Any = None
        self.locale: Locale

    def open(self, request: Any, server: Any) -> None:
        self.request = request
        self.server = server
        self.locale = Locale.current()


def websocket(server: Any) -> Any:
    """The view that opens a WebSocket for a server: `path("rooms/<slug:name>/", websocket(Room))`.

    Args:
        server: a server class, such as derives from `uwasp.Server`; or a function, called with the open
            `uwasp.WebSocket` and what the path has in it, `f(ws, **kwargs)`, above which this stands as a decorator.

    Returns:
        A view of Django's. What decorates views decorates it: `login_required(websocket(Room))`.

    Raises:
        TypeError: it can be no server.
        ConfigurationError: it has events in `async def`, and ATOMIC_REQUESTS would surround them.
    """
    made = made_of(server)

    def view(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        if not is_upgrade(request.META):
            # Outside uWSGI, a server may see to this header itself, and refuse it from others.
            headers = {"Upgrade": "websocket"} if takeover.running_under_uwsgi() else {}
            return HttpResponse("This is a WebSocket.\n", status=426, headers=headers, content_type="text/plain")
        if request.method != "GET":
            return HttpResponseNotAllowed(["GET"])
        if not is_trusted(request):
            logger.warning(
                "WebSocket refused at %a to a page of %a: that is neither the origin of this host, %s://%s, nor one of "
                "CSRF_TRUSTED_ORIGINS%s",
                request.path,
                request.META["HTTP_ORIGIN"],
                request.scheme,
                request.get_host(),
                remedy(request),
            )
            raise PermissionDenied("this origin may not open a WebSocket here")
        visit: Visit | None = request.META.get(KEY)
        if visit is not None:
            visit.open(request, made)
            return HttpResponse(status=101)
        if takeover.running_under_uwsgi():
            raise ImproperlyConfigured(NOT_WRAPPED)
        reason = f"{takeover.refusal()}. {OUTSIDE}"
        logger.error("no WebSocket at %s: %s", request.path, reason)
        return HttpResponse(f"{reason}\n", status=501, content_type="text/plain")

    view.__name__ = view.__qualname__ = name_of(server)
    view.__module__ = getattr(server, "__module__", __name__)
    view.__doc__ = server.__doc__
    # Of a class, the core sees more before its events are surrounded.
    setattr(view, SERVER, server if is_class(server) else made)
    return view
