"""An echo of python-engineio and one of python-socketio, on the driver that DRIVER names."""

import os

import engineio
import socketio

DRIVER = os.environ["DRIVER"]
# Messages in order, each handled before the next is read: the quicker way, if nothing in a handler waits.
OPTIONS = {
    "async_mode": "threading" if DRIVER == "threads" else "gevent_uwsgi",
    "async_handlers": False,
    "http_compression": False,
    "transports": ["websocket"],
    "max_http_buffer_size": 2**20,
    "ping_interval": 600,  # its pings would be counted as messages
}

engine = engineio.Server(**OPTIONS)
sio = socketio.Server(**OPTIONS)
if DRIVER != "gevent_uwsgi":
    import uwasp
    import uwasp_socketio

    handler_class = uwasp.GeventHandler if DRIVER == "gevent" else uwasp.ThreadHandler
    for server in (engine, sio):
        uwasp_socketio.install(server, handler_class)

engine.on("message", engine.send)


@sio.event
def echo(sid, data):
    sio.emit("echo", data, to=sid)


application = engineio.WSGIApp(engine, socketio.WSGIApp(sio))
