"""Which web pages may open a connection: RFC 6455 §10.2, against cross-site WebSocket hijacking.

A browser sends a page's origin (RFC 6454) with the handshake, and the user's cookies with it. What is no browser can
send any origin, or none; this protects the users of browsers, nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

__all__ = ["asked_host", "is_allowed", "remedy"]

_LABELS = re.compile(r"[-_.0-9a-z]+")  # what the `*` of a wildcard stands for
_ORIGIN = re.compile(r"[a-z][-+.0-9a-z]*://[-_.:0-9a-z\[\]]{1,120}", re.IGNORECASE)  # fit for the log, and to be copied
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
    return _is_on_host(origin.strip().lower(), asked_host(environ, trust_proxy).lower())


def asked_host(environ: dict[str, Any], trust_proxy: bool) -> str:
    """The host that was asked for a WebSocket, as the client or the proxy has sent it."""
    asked: str = environ.get("HTTP_HOST", "")
    if trust_proxy:
        asked = environ.get("HTTP_X_FORWARDED_HOST", asked).split(",")[0]
    return asked.strip()


def remedy(environ: dict[str, Any], allowed: Sequence[str] | None, trust_proxy: bool) -> str:
    """What to set so that a page which was refused may come in, for the log. Arguments as for `is_allowed`."""
    origin = environ["HTTP_ORIGIN"].strip()
    if not _ORIGIN.fullmatch(origin):
        return 'no list of origins can name that page; allowed_origins="*" would let in all'
    if allowed is not None:
        return f'if that page is yours, add "{origin}" to allowed_origins'
    if not trust_proxy and is_allowed(environ, None, True):
        return "X-Forwarded-Host has the host of that page; trust_proxy=True has a proxy that sets it believed"
    header = "X-Forwarded-Host" if trust_proxy else "Host, or X-Forwarded-Host with trust_proxy=True,"
    return (
        f'if that page is yours, set allowed_origins=["{origin}"], '
        f"or have the proxy in front pass on in {header} the host that the browser asked"
    )


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
