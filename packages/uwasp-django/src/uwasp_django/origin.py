"""Which pages may open a WebSocket: those that may send a form, by the rule that Django has against CSRF.

A page on the host that is asked, and one that CSRF_TRUSTED_ORIGINS names. What is no browser sends no origin.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.http import is_same_domain

__all__ = ["is_trusted", "remedy"]


def is_trusted(request: Any) -> bool:
    """Whether a request comes from a page that may make it, or from none.

    Raises:
        DisallowedHost: the host that was asked is none of ALLOWED_HOSTS.
    """
    host = request.get_host()
    origin = request.META.get("HTTP_ORIGIN")
    if origin is None or origin == f"{request.scheme}://{host}":
        return True
    return any(_matches(origin, trusted) for trusted in settings.CSRF_TRUSTED_ORIGINS)


def remedy(request: Any) -> str:
    """What else than CSRF_TRUSTED_ORIGINS may let in a page that was refused, for the log: if it looks like one of the
    same site, of which a proxy has not passed on all.
    """
    try:
        page, asked = urlsplit(request.META["HTTP_ORIGIN"]), urlsplit(f"//{request.get_host()}")
        if page.hostname != asked.hostname:
            return ""
        if page.port != asked.port:
            return "; have the proxy in front pass on, in Host, the port that the browser asked"
    except ValueError:  # no URL, or no port
        return ""
    return "; if a proxy in front ends TLS, set SECURE_PROXY_SSL_HEADER" if page.scheme == "https" else ""


def _matches(origin: str, trusted: str) -> bool:
    if origin == trusted:
        return True
    scheme, wildcard, domain = trusted.partition("://*")
    try:
        page = urlsplit(origin)
    except ValueError:
        return False
    return bool(wildcard) and page.scheme == scheme and is_same_domain(page.netloc, domain)
