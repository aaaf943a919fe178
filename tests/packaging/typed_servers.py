"""What users write, for `mypy --strict`: what is wrong is marked so, and a mark where nothing is wrong is an error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from typing_extensions import assert_type

import uwasp_asyncio
from uwasp import JSON, Codec, Group, Server, WebSocket, WebSocketMiddleware

Kind = TypeVar("Kind")


class Move:
    square = 1


class Moves:
    def decode(self, message: str | bytes) -> Move:
        return Move()

    def encode(self, value: Move) -> str:
        return "1"


class Text(Server[str]):
    def on_message(self, message: str) -> None:
        self.ws.send(message.upper())


class Binary(Server[bytes]):
    def on_message(self, message: bytes) -> None:
        self.ws.send(message.hex())


class Either(Server):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


class Anything(Server[Any]):
    codec = JSON

    def on_message(self, message: Any) -> None:
        self.ws.send_json(message)
        Group("all").send_json(message, exclude=self.ws)


class Game(Server[Move]):
    codec = Moves()

    def on_message(self, move: Move) -> None:
        assert_type(self.codec, Moves)
        self.ws.send(self.codec.encode(move))


class Declared(Server[Move]):
    codec: Codec[Move] = Moves()


class Open(Server[Kind]):
    pass


class Closed(Open[str]):
    def on_message(self, message: str) -> None:
        assert_type(self.codec, Codec[str] | None)


class WithMore(Text):
    def __init__(self, ws: WebSocket, more: int) -> None:
        super().__init__(ws)


class Methods:
    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    def on_open(self) -> None: ...

    def on_message(self, text: str) -> None: ...

    def on_close(self) -> None: ...


class Coroutines:
    def __init__(self, ws: WebSocket) -> None:
        self.ws = ws

    async def on_open(self) -> None: ...

    async def on_message(self, message: str | bytes) -> None: ...

    async def on_close(self) -> None: ...


class Asynchronous(uwasp_asyncio.Server[str]):
    """Either kind of method, as it waits or not."""

    async def on_open(self) -> None:
        await super().on_open()
        assert_type(self.ws, uwasp_asyncio.WebSocket)

    async def on_message(self, message: str) -> None:
        await self.ws.send(message)

    def on_close(self) -> None: ...


class OtherAsynchronous(uwasp_asyncio.Server[str]):
    async def on_message(self, message: bytes) -> None:  # type: ignore[override]
        ...


class OtherType(Server[str]):
    def on_message(self, message: bytes) -> None:  # type: ignore[override]
        ...


class EitherIsMore(Server):
    def on_message(self, message: str) -> None:  # type: ignore[override]
        ...


class OtherCodec(Server[str]):
    codec = Moves()  # type: ignore[assignment]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    return []


servers: list[tuple[str, type[Server[Any]]]]
servers = [("/text", Text), ("/binary", Binary), ("/either", Either), ("/anything", Anything), ("/game", Game)]
application = WebSocketMiddleware(app, "threads", servers, max_queue=3, ping_interval=None, compression="deflate")
WebSocketMiddleware(app, servers=[("/methods", Methods), ("/coroutines", Coroutines), ("/closed", Closed)])
WebSocketMiddleware(app, servers=[("/more", functools.partial(WithMore, more=1)), ("/server", Server)])
WebSocketMiddleware(app, servers=[("/no-server", Move)])  # type: ignore[list-item]
WebSocketMiddleware(app, max_qeue=3)  # type: ignore[call-arg]
WebSocketMiddleware(app, max_queue="3")  # type: ignore[arg-type]
