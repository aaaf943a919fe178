"""aiohttp on uvloop: an echo, a broadcast and a plain page."""

import os
import sys

import uvloop
from aiohttp import WSMessage, WSMsgType, web

LIMIT = int(os.environ["MAX_MESSAGE_SIZE"])
everyone: set[web.WebSocketResponse] = set()


async def send(ws: web.WebSocketResponse, message: WSMessage) -> None:
    if message.type is WSMsgType.TEXT:
        await ws.send_str(message.data)
    else:
        await ws.send_bytes(message.data)


async def echo(request: web.Request) -> web.WebSocketResponse:
    # Its limit refuses what is as large as the limit.
    ws = web.WebSocketResponse(compress=False, max_msg_size=LIMIT + 1)
    await ws.prepare(request)
    async for message in ws:
        await send(ws, message)
    return ws


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False, max_msg_size=LIMIT + 1)
    await ws.prepare(request)
    everyone.add(ws)
    try:
        async for message in ws:
            for other in list(everyone):
                await send(other, message)
    finally:
        everyone.discard(ws)
    return ws


async def page(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


application = web.Application()
application.add_routes([web.get("/echo", echo), web.get("/broadcast", broadcast), web.get("/", page)])
web.run_app(
    application,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    access_log=None,
    print=None,
    backlog=1024,
    loop=uvloop.new_event_loop(),
)
