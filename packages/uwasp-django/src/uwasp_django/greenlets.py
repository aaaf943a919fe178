"""Whether each greenlet has database connections of its own, under uWSGI's gevent loop.

Django has them by thread, in a local that it makes when it is imported. A greenlet counts as a thread there if gevent
had replaced threads by then.
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from uwasp import ConfigurationError, takeover

__all__ = ["REMEDY", "check"]

REMEDY = "begin wsgi.py with: from gevent import monkey; monkey.patch_all()"


def check() -> None:
    """Refuse a process in which greenlets would share connections, and with them transactions.

    Raises:
        ConfigurationError: they would.
    """
    if takeover.loop() == "gevent" and not have_their_own():
        raise ConfigurationError(
            "under --gevent, all requests and WebSockets would share one database connection, and its transactions: "
            f"{REMEDY}. uWSGI's --gevent-monkey-patch comes too late, when Django is loaded already"
        )


def have_their_own() -> bool:
    """Whether another greenlet has another connection than this one. None is opened for that."""
    import greenlet

    found: list[Any] = [connections[DEFAULT_DB_ALIAS]]
    greenlet.greenlet(lambda: found.append(connections[DEFAULT_DB_ALIAS])).switch()
    return found[0] is not found[1]
