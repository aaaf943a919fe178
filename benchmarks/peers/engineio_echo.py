"""python-engineio on uWSGI's own WebSockets: an echo and a broadcast, in packets of Engine.IO, and a plain page."""

import os

import engineio

# Messages in order, each handled before the next is read: the quicker way, if nothing in a handler waits.
server = engineio.Server(
    async_mode="gevent_uwsgi",
    async_handlers=False,
    http_compression=False,
    max_http_buffer_size=int(os.environ["MAX_MESSAGE_SIZE"]),
)
everyone = set()  # of those that came for the broadcast


@server.on("connect")
def connect(sid, environ):
    if "broadcast" in environ["QUERY_STRING"]:
        everyone.add(sid)


@server.on("message")
def message(sid, data):
    if sid in everyone:
        for other in list(everyone):
            server.send(other, data)
    else:
        server.send(sid, data)


@server.on("disconnect")
def disconnect(sid, reason):
    everyone.discard(sid)


def page(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


application = engineio.WSGIApp(server, page)
