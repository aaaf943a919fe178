"""The middleware on a socket pair, without uWSGI: the real handshake, and what it asks of a handler on the way."""

from __future__ import annotations

import logging

import pytest

from takeovers import ENVIRON, SocketPair
from uwasp import ConfigurationError, Handler, Listener, Server, WebSocket, WebSocketMiddleware

HELLO = b"\x81\x85\0\0\0\0hello"
ECHO = b"\x81\x05hello"


class NamedWebSocket(WebSocket):
    __slots__ = ()


class InTurn(Handler):
    """Whoever has made the request polls."""

    websocket_class = NamedWebSocket
    released: tuple[int, ...] = ()

    @classmethod
    def before_release(cls, fd):
        cls.released = (*cls.released, fd)

    def handle(self, environ, protocol_name=None):
        self.listener = InTurn.latest = Listener()
        self.listener.add(self.ws, self.server)
        return []


class Echo(Server):
    def on_message(self, message):
        assert type(self.ws) is NamedWebSocket
        self.ws.send(message)


@pytest.fixture
def pair():
    pair = SocketPair()
    with pair.client:
        yield pair


def test_a_takeover_of_ones_own_stands_where_uwsgi_is_not(pair):
    middleware = WebSocketMiddleware(print, InTurn, [("/echo", Echo)])
    middleware.takeover = pair
    fd, statuses = pair.own.fileno(), []
    assert list(middleware(dict(ENVIRON), lambda status, headers: statuses.append(status))) == []
    assert statuses == ["101 Switching Protocols"]
    assert pair.noted == ["answered", "released"]
    assert InTurn.released == (fd,)
    pair.client.sendall(HELLO)
    InTurn.latest.poll(10)
    while InTurn.latest.ready:
        InTurn.latest.ready.popleft().consume()
    assert pair.client.recv(100) == ECHO


def test_a_path_is_quoted_wherever_it_is_told(pair, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []
    path = "/w\u00f6rld\x1b[31m\n"

    class Seen(Server):
        def on_open(self):
            seen.append(repr(self.ws))

    middleware = WebSocketMiddleware(print, InTurn, [(path, Seen)])
    middleware.takeover = pair
    asked = dict(ENVIRON, PATH_INFO=path.encode().decode("latin-1"))
    list(middleware(asked, lambda status, headers: None))
    InTurn.latest.ready.popleft().consume()
    pair.client.close()
    InTurn.latest.poll(10)
    InTurn.latest.ready.popleft().consume()
    list(middleware(dict(asked, HTTP_ORIGIN="null"), lambda status, headers: None))
    lines = [*seen, *(record.getMessage() for record in caplog.records)]
    assert len([line for line in lines if "at /w\\xf6rld\\x1b[31m\\n" in line]) == 3
    assert [line for line in lines if not (line.isascii() and line.isprintable())] == []


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"runs": "threads"}, 'runs is "functions" or "coroutines", not \'threads\''),
        ({"max_consumers": 0}, "max_consumers is a whole number of at least 1, not 0"),
        ({"max_conversations": None}, "max_conversations is a whole number of at least 0, not None"),
        ({"websocket_class": Server}, "websocket_class derives from WebSocket; <class .*Server'> does not"),
    ],
)
def test_a_handler_that_says_of_itself_what_cannot_be_is_refused(attributes, message):
    with pytest.raises(ConfigurationError, match=message):
        WebSocketMiddleware(print, type("Wrong", (InTurn,), attributes))


def test_a_handler_need_not_inherit():
    class Handles:
        def handle(self, environ, protocol_name=None):
            return []

    assert WebSocketMiddleware(print, Handles, [("/echo", Server)]).handler_class is Handles


def test_a_handler_without_spawn_says_so():
    with pytest.raises(NotImplementedError, match="InTurn has no spawn"):
        InTurn.spawn(print)
