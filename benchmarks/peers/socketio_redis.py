"""python-socketio with its Redis manager, as an ASGI application: rooms over several processes."""

import os

import socketio

NAME = 8  # as in members.py
manager = socketio.AsyncRedisManager(os.environ["REDIS_URL"])
# Its pings would be counted as messages.
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager, transports=["websocket"], ping_interval=600)
aims = {}


@sio.event
async def say(sid, text):
    if text.startswith("join "):
        for room in text[5:].split(","):
            await sio.enter_room(sid, room)
        await sio.emit("ok", to=sid)
    elif text.startswith("aim "):
        aims[sid] = text[4:]
        await sio.emit("ok", to=sid)
    else:
        await sio.emit("said", text, room=text[:NAME] if aims[sid] == "*" else aims[sid])


@sio.event
async def disconnect(sid, reason):
    aims.pop(sid, None)


application = socketio.ASGIApp(sio)
