"""`GeventHandler`, and where it refuses to run."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import gevent
from gevent.event import Event
from gevent.monkey import get_original

from uwasp import ConfigurationError, Handler, WebSocket, goodbye, preflight, takeover
from uwasp.conversations import Conversation
from uwasp.listener import Waiter
from uwasp.server import ServerInterface
from uwasp_gevent.greenlets import Greenlets
from uwasp_gevent.loop import unregister

__all__ = ["GeventHandler"]

logger = logging.getLogger("uwasp.gevent")


class GeventHandler(Handler):
    """Handles connections on uWSGI's gevent loop, with greenlets that all connections of a process share.

    An idle connection costs no greenlet. A server that blocks, in gevent's way, keeps one greenlet; another takes its
    place for the other connections.

    Attributes:
        max_consumers: the largest number of consumer greenlets in a process (default: 1,000). So many servers can
            block at once before others wait for them. To set it, derive a class with another value and pass that.
        max_conversations: the largest number of servers that are functions, each of which is a greenlet (default:
            10,000).
    """

    max_consumers: ClassVar[int] = 1000
    max_conversations: ClassVar[int] = 10_000

    _greenlets: ClassVar[dict[tuple[type[GeventHandler], int], Greenlets]] = {}

    def __init__(self, ws: WebSocket, server: ServerInterface | Conversation) -> None:
        super().__init__(ws, server)
        self._own_greenlets = self._of_this_process()

    @classmethod
    def check(cls) -> None:
        """Refuse a process without uWSGI's gevent loop.

        Raises:
            ConfigurationError: uWSGI runs another loop, or waits for the hub to end.
        """
        if not takeover.running_under_uwsgi():
            return
        if takeover.loop() != "gevent":
            raise ConfigurationError(
                f"{cls.__name__} needs uWSGI's gevent loop: add --gevent N (gevent = N in an ini file), "
                'or pass handler_class="threads" (pip install uwasp-threads)'
            )
        if takeover.is_set("gevent-wait-for-hub"):
            raise ConfigurationError(
                f"{cls.__name__} cannot work with --gevent-wait-for-hub: the hub watches the WebSockets for as long as "
                "the worker lives, so that a reload or a stop would never end; leave that option out"
            )
        if takeover.values("http11-socket"):
            logger.warning(
                "uWSGI's gevent loop does not serve --http11-socket: its second request on a kept connection hangs, "
                "or ends the worker, with or without WebSockets; use --http-socket"
            )

    @classmethod
    def spawn(cls, function: Callable[..., object], *args: Any) -> None:
        """Call `function(*args)` in a greenlet of its own; what it raises is logged, and ends nothing else.

        In another thread than the hub's, the greenlet is the hub's all the same, once there has been a connection.

        Raises:
            ConfigurationError: uWSGI loads the application, and is yet to fork its workers.
            RuntimeError: in another thread, before that.
        """
        preflight.check_spawn(cls.__name__)
        cls._of_this_process().spawn(function, *args)

    @classmethod
    def new_waiter(cls) -> Waiter | None:
        """In greenlets, gevent's event; in another thread than uWSGI's, a real one; in the hub there is no waiting."""
        if threading.get_native_id() != os.getpid():  # gevent can have patched what the main thread is called else
            return get_original("threading", "Event")()  # type: ignore[no-any-return]
        return None if gevent.getcurrent() is gevent.get_hub() else Event()

    @classmethod
    def before_release(cls, fd: int) -> None:
        """Have the loop forget uWSGI's number for the connection, whose events are the listener's from here on."""
        unregister(gevent.get_hub().loop, fd)

    def handle(self, environ: dict[str, Any], protocol_name: str | None = None) -> Iterable[bytes]:
        """Hand the connection to the hub; the uWSGI core and greenlet of the request are free again."""
        self._own_greenlets.listener.add(self.ws, self.server)
        return []

    @classmethod
    def _of_this_process(cls) -> Greenlets:
        """Made at a process's first connection: uWSGI forks after the application is loaded."""
        key = cls, os.getpid()
        greenlets = cls._greenlets.get(key)
        if greenlets is None:
            if threading.get_native_id() != os.getpid():  # they would be of a hub that nobody runs
                raise RuntimeError(f"{cls.__name__} does not know uWSGI's hub in another thread before a connection")
            greenlets = cls._greenlets[key] = Greenlets(cls.max_consumers)
            goodbye.arrange(greenlets.listener, Event)
        return greenlets
