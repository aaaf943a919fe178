"""The figures of `uwasp.stats()` by the paths that servers have."""

from __future__ import annotations

from takeovers import ENVIRON, SocketPair
from uwasp import Handler, Listener, Server, WebSocketMiddleware, stats

HELLO = b"\x81\x85\0\0\0\0hello"


class InTurn(Handler):
    listener = Listener()

    def handle(self, environ, protocol_name=None):
        self.listener.add(self.ws, self.server)
        return []


class Figured(Server):
    def on_message(self, message):
        self.ws.send(message)


class Handed(Figured): ...


def app(environ, start_response):
    return handing.accept(environ, start_response, Handed)


MIDDLEWARE = WebSocketMiddleware(print, InTurn, [("/figured/<name>", Figured), ("/figured", Figured)])
handing = WebSocketMiddleware(app, InTurn)


def ask(middleware, path, message=HELLO):
    pair = middleware.takeover = SocketPair()
    list(middleware(dict(ENVIRON, PATH_INFO=path), lambda status, headers: None))
    pair.client.sendall(message)
    run()
    return pair.client


def run():
    InTurn.listener.poll(0)
    while InTurn.listener.ready:
        InTurn.listener.ready.popleft().consume()


def test_connections_and_messages_are_counted_by_the_path_or_the_pattern_of_their_server():
    clients = [ask(MIDDLEWARE, path) for path in ("/figured/a", "/figured/b", "/figured")]
    clients.append(ask(handing, "/any"))
    clients.pop(0).close()
    run()
    paths = stats()["paths"]
    one = {"open": 1, "opened": 1, "messages_in": 1, "messages_out": 1, "bytes_in": 11, "bytes_out": 7}
    one |= {"queued_in": 0, "queued_out": 0}
    two = {**{name: 2 * figure for name, figure in one.items()}, "open": 1}
    assert paths["/figured/<name>"] == two
    assert paths["/figured"] == one
    assert paths["accept Handed"] == one
    assert not any("/figured/a" in path for path in paths)
    for client in clients:
        client.close()
    run()
    assert stats()["paths"]["/figured/<name>"] == {**two, "open": 0}
