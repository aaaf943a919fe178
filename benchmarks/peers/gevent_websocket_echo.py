"""gevent-websocket on gevent's own server: an echo, a broadcast and a plain page."""

import sys

from gevent.pywsgi import WSGIServer
from geventwebsocket.handler import WebSocketHandler

everyone = set()


def application(environ, start_response):
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"ok\n"]
    (to_everyone if environ["PATH_INFO"] == "/broadcast" else echo)(ws)
    return []


def echo(ws):
    while (message := ws.receive()) is not None:
        ws.send(message)


def to_everyone(ws):
    everyone.add(ws)
    try:
        while (message := ws.receive()) is not None:
            for other in list(everyone):
                other.send(message)
    finally:
        everyone.discard(ws)


server = WSGIServer(
    ("127.0.0.1", int(sys.argv[1])), application, handler_class=WebSocketHandler, log=None, backlog=1024
)
server.serve_forever()
