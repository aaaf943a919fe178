"""websockets (its asyncio server) on uvloop: an echo, a broadcast and a plain page."""

import asyncio
import os
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

everyone: set[ServerConnection] = set()


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def to_everyone(connection: ServerConnection) -> None:
    everyone.add(connection)
    try:
        async for message in connection:
            broadcast(everyone, message)
    finally:
        everyone.discard(connection)


async def handle(connection: ServerConnection) -> None:
    assert connection.request is not None
    await (to_everyone if connection.request.path == "/broadcast" else echo)(connection)


def page(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(200, "ok\n") if request.path == "/" else None


async def main() -> None:
    limit = int(os.environ["MAX_MESSAGE_SIZE"])
    server = await serve(
        handle,
        "127.0.0.1",
        int(sys.argv[1]),
        compression=None,
        max_size=limit,
        process_request=page,
        backlog=1024,
    )
    async with server:
        await asyncio.Future()


uvloop.run(main())
