"""An ASGI application without a framework, for uvicorn and granian: an echo, a broadcast and a plain page."""

from collections.abc import Awaitable, Callable
from typing import Any

Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

everyone: set[Send] = set()


async def application(scope: Event, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await (to_everyone if scope["path"] == "/broadcast" else echo)(receive, send)
    elif scope["type"] == "http":
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok\n"})


async def echo(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send(answer(event))


async def to_everyone(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    everyone.add(send)
    try:
        while (event := await receive())["type"] == "websocket.receive":
            for other in list(everyone):
                await other(answer(event))
    finally:
        everyone.discard(send)


def answer(event: Event) -> Event:
    text = event.get("text")
    if text is not None:
        return {"type": "websocket.send", "text": text}
    return {"type": "websocket.send", "bytes": event["bytes"]}
