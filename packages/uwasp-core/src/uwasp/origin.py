"""Which web pages may open a connection: RFC 6455 §10.2, against cross-site WebSocket hijacking.

A browser sends a page's origin (RFC 6454) with the handshake, and the user's cookies with it. What is no browser can
send any origin, or none; this protects the users of browsers, nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

__all__ = ["is_allowed"]

_LABELS = re.compile(r"[-_.0-9a-z]+")  # what the `*` of a wildcard stands for
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_allowed(environ: dict[str, Any], allowed: Sequence[str] | None, trust_proxy: bool) -> bool:
    """Whether a request for a WebSocket comes from a page that may make it, or from no page.

    Args:
        environ: the WSGI environ of the request.
        allowed: origins, exact or with `*.` before the host's domain, or `*`; `None` for the host that is asked.
        trust_proxy: X-Forwarded-Host tells the host that was asked.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return True
    if allowed is not None:
        return any(_matches(origin.strip().lower(), pattern.lower()) for pattern in allowed)
    asked = environ.get("HTTP_HOST", "")
    if trust_proxy:
        asked = environ.get("HTTP_X_FORWARDED_HOST", asked).split(",")[0]
    return _is_on_host(origin.strip().lower(), asked.strip().lower())


def _is_on_host(origin: str, asked: str) -> bool:
    try:
        page = urlsplit(origin)
        host = urlsplit(f"//{asked}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return (
            page.hostname is not None
            and page.hostname == host.hostname
            and (page.port or default) == (host.port or default)
        )
    except ValueError:  # not a URL, or not a port
        return False


def _matches(origin: str, pattern: str) -> bool:
    if pattern in ("*", origin):
        return True
    scheme, wildcard, domain = pattern.partition("://*.")
    start, end = f"{scheme}://", f".{domain}"
    if not wildcard or len(origin) <= len(start) + len(end) or not (origin.startswith(start) and origin.endswith(end)):
        return False
    return _LABELS.fullmatch(origin[len(start) : -len(end)]) is not None
