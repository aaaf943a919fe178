"""How long a connection may last: what happens when the time is over until which `authorize` has allowed it.

The listener's timers say when to look at the system's clock. Whoever is asked again is asked elsewhere, by
`Handler.spawn`: nothing here waits where the listener is. This module knows no handler, and nothing of a handshake.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from uwasp import admission
from uwasp.admission import Refused
from uwasp.allowed import Allowed
from uwasp.native import new_lock

if TYPE_CHECKING:
    from uwasp.listener import Listener, Timer
    from uwasp.routing import Route
    from uwasp.websocket import WebSocket

__all__ = ["OVER", "Session", "session_of"]

logger = logging.getLogger("uwasp.session")

OVER = 3000  # "Unauthorized", in IANA's registry of close codes
REASON = "the session is over"
# How often the system's clock is looked at, in seconds: somebody can set it meanwhile.
LOOK_PERIOD = 60.0
# How long `authorize` has for its answer when it is asked again, in seconds.
ANSWER_TIMEOUT = 10.0
# So many are asked at a time in a process; all may end at the same moment.
MOST_ASKING = 16

_lock = new_lock()  # for these
_waiting: OrderedDict[Session, None] = OrderedDict()  # for their turn
_asking = 0


def session_of(ws: WebSocket, route: Route, allowed: Any) -> Session | None:
    """That of a connection, if what `authorize` returned says that it has an end.

    Args:
        allowed: what `authorize` returned. Its user, or else this itself, is `ws.user` from now on.
    """
    if not issubclass(type(allowed), Allowed):  # not `isinstance`, as in `admission.authorize`
        ws.user = allowed
        return None
    ws.user = allowed.user
    return Session(ws, route, allowed)


class Session:
    """That of one connection which has an end.

    Args:
        ws: of the connection.
        route: its `authorize` is asked again.
        allowed: until when.
    """

    __slots__ = ("_allowed", "_listener", "_route", "_timer", "_ws")

    def __init__(self, ws: WebSocket, route: Route, allowed: Allowed) -> None:
        self._ws = ws
        self._route = route
        self._allowed = allowed
        self._timer: Timer | None = None

    def begin(self, listener: Listener) -> None:
        """The listener has the connection."""
        self._listener = listener
        self._wait()

    def end(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
        with _lock:
            _waiting.pop(self, None)  # a turn that may never come, where all who are asked hang

    def _wait(self) -> None:
        left = max(0.0, self._allowed.until - time.time())
        self._timer = self._listener.call_later(min(left, LOOK_PERIOD), self._look)

    # In the listener

    def _look(self) -> None:
        if not self._ws.connection.open:
            return
        if self._allowed.until > time.time():
            self._wait()
        elif self._allowed.again:
            self._timer = self._listener.call_later(ANSWER_TIMEOUT, self._give_up)
            self._have_asked()
        else:
            self._close("the end of its session")

    def _have_asked(self) -> None:
        """Have `authorize` asked as soon as it is this one's turn."""
        global _asking
        with _lock:
            _waiting[self] = None
            if _asking >= MOST_ASKING:
                return
            _asking += 1
        try:
            self._route.handler_class.spawn(_ask_all)  # type: ignore[attr-defined]  # it has one, as was looked at
        except Exception:
            _leave()
            logger.exception("%s.authorize cannot be asked again, for %s", self._route.name, self._ws.connection)
            self._close("the end of its session, as nobody could be asked")

    def _give_up(self) -> None:
        connection = self._ws.connection
        if connection.open:
            name = self._route.name
            logger.warning("%s.authorize has not answered for %s s, for %s", name, ANSWER_TIMEOUT, connection)
            self._close("the end of its session, as authorize did not answer")

    def _close(self, by: str) -> None:
        self._ws.connection.close(OVER, REASON, by)

    # Elsewhere

    def ask(self) -> None:
        """Ask `authorize` again, and do what it says."""
        connection = self._ws.connection
        if not connection.open:
            return
        try:
            answer = admission.authorize(self._ws.environ, self._route)
        except Refused as refused:
            logger.log(refused.level, "%s is no longer allowed: %s", connection, refused.why)
            self._close("authorize, which was asked again")
        except (Exception, *admission.EXITS):
            logger.exception("error in %s.authorize, asked again for %s", self._route.name, connection)
            self._close("an error in authorize, which was asked again")
        else:
            self.end()  # of the time for the answer
            if not issubclass(type(answer), Allowed):
                self._ws.user = answer
                return
            self._ws.user = answer.user
            self._allowed = answer
            self._wait()


def _ask_all() -> None:
    """Ask for those who wait, one after the other, until nobody does."""
    try:
        while (session := _next()) is not None:
            session.ask()
    except BaseException:
        _leave()
        raise


def _next() -> Session | None:
    """Who is to be asked for now; `None`: nobody, and whoever asked has left."""
    global _asking
    with _lock:
        if _waiting:
            return _waiting.popitem(last=False)[0]
        _asking -= 1
    return None


def _leave() -> None:
    global _asking
    with _lock:
        _asking -= 1
