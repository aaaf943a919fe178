"""Clients that none of us wrote, all with the same methods, so that each test runs with each of them."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import pytest
import simple_websocket
import websockets.asyncio.client
import websockets.sync.client
from websockets.exceptions import ConnectionClosed
from wsproto.events import AcceptConnection, BytesMessage, Ping, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from browser import Browser, Page
from processes import require_program, wait_until

TIMEOUT = 30.0

Message = str | bytes
T = TypeVar("T")


class Client(ABC):
    """A client with one connection. What it offers to the server is what its library offers by default.

    Args:
        folder: for its files, if it has any.

    Attributes:
        subprotocol: what the server agreed on, `None` if nothing.
        extensions: the names of the extensions that the server agreed on.
        fragments: whether its library can send a message in several frames.
        pings: whether its library lets a program ping.
        declines_compression: whether its library lets a program not offer compression.
        sees_answers_to_its_close: whether its library shows the code that the server answers a close with.
    """

    fragments = True
    pings = True
    declines_compression = True
    sees_answers_to_its_close = True

    subprotocol: str | None
    extensions: list[str]

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abstractmethod
    def connect(self, url: str, subprotocols: Sequence[str] = (), compression: bool = True) -> None: ...

    @abstractmethod
    def send(self, message: Message) -> None: ...

    def send_fragments(self, parts: Sequence[Message]) -> None:
        raise NotImplementedError

    @abstractmethod
    def receive(self) -> Message: ...

    def ping(self, data: str) -> None:
        """Ping, and wait for the pong with the same data."""
        raise NotImplementedError

    @abstractmethod
    def close(self, code: int, reason: str) -> tuple[int, str]:
        """Close the connection; return what `closed` does."""

    @abstractmethod
    def closed(self) -> tuple[int, str]:
        """Wait for the end of the connection; return the code and the reason that the server gave."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the connection, whatever its state."""

    @abstractmethod
    def end(self) -> None:
        """Let go of all else."""


class Websockets(Client):
    """`websockets`, its client for threads."""

    def connect(self, url: str, subprotocols: Sequence[str] = (), compression: bool = True) -> None:
        connecting = websockets.sync.client.connect(
            url,
            subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
            compression="deflate" if compression else None,
            max_size=None,
            proxy=None,
        )
        self._at_end = ExitStack()
        self._connection = self._at_end.enter_context(connecting)
        self.subprotocol = self._connection.subprotocol
        self.extensions = [extension.name for extension in self._connection.protocol.extensions]

    def send(self, message: Message) -> None:
        self._connection.send(message)

    def send_fragments(self, parts: Sequence[Message]) -> None:
        self._connection.send(iter(parts))

    def receive(self) -> Message:
        return self._connection.recv(TIMEOUT)

    def ping(self, data: str) -> None:
        assert self._connection.ping(data).wait(TIMEOUT)

    def close(self, code: int, reason: str) -> tuple[int, str]:
        self._connection.close(code, reason)
        return self.closed()

    def closed(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as ended:
            self._connection.recv(TIMEOUT)
        close = ended.value.rcvd
        assert close is not None
        return int(close.code), close.reason

    def abandon(self) -> None:
        self._at_end.close()

    def end(self) -> None:
        """There is nothing else."""


class Asynchronous(Client):
    """A client on asyncio: its event loop runs while one of its methods does."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._loop = asyncio.new_event_loop()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, TIMEOUT))

    def end(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


class WebsocketsAsyncio(Asynchronous):
    """`websockets`, its client for asyncio."""

    def connect(self, url: str, subprotocols: Sequence[str] = (), compression: bool = True) -> None:
        async def connect() -> websockets.asyncio.client.ClientConnection:
            return await websockets.asyncio.client.connect(
                url,
                subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
                compression="deflate" if compression else None,
                max_size=None,
                proxy=None,
            )

        self._connection = self._run(connect())
        self.subprotocol = self._connection.subprotocol
        self.extensions = [extension.name for extension in self._connection.protocol.extensions]

    def send(self, message: Message) -> None:
        self._run(self._connection.send(message))

    def send_fragments(self, parts: Sequence[Message]) -> None:
        self._run(self._connection.send(iter(parts)))

    def receive(self) -> Message:
        return self._run(self._connection.recv())

    def ping(self, data: str) -> None:
        async def ping() -> None:
            await (await self._connection.ping(data))

        self._run(ping())

    def close(self, code: int, reason: str) -> tuple[int, str]:
        self._run(self._connection.close(code, reason))
        return self.closed()

    def closed(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as ended:
            self.receive()
        close = ended.value.rcvd
        assert close is not None
        return int(close.code), close.reason

    def abandon(self) -> None:
        self._run(self._connection.close())


class Aiohttp(Asynchronous):
    """`aiohttp`, which hands over pings and pongs if it is told not to answer by itself."""

    fragments = False

    def connect(self, url: str, subprotocols: Sequence[str] = (), compression: bool = True) -> None:
        async def connect() -> None:
            self._session = aiohttp.ClientSession()
            self._connection = await self._session.ws_connect(
                url, protocols=subprotocols, compress=15 if compression else 0, max_msg_size=0, autoping=False
            )

        self._run(connect())
        self.subprotocol = self._connection.protocol
        self.extensions = ["permessage-deflate"] if self._connection.compress else []

    def send(self, message: Message) -> None:
        self._run(
            self._connection.send_str(message) if isinstance(message, str) else self._connection.send_bytes(message)
        )

    def _receive(self) -> aiohttp.WSMessage:
        message = self._run(self._connection.receive())
        while message.type is aiohttp.WSMsgType.PING:
            self._run(self._connection.pong(message.data))
            message = self._run(self._connection.receive())
        return message

    def receive(self) -> Message:
        message = self._receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        data: Message = message.data
        return data

    def ping(self, data: str) -> None:
        self._run(self._connection.ping(data.encode()))
        pong = self._receive()
        assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, data.encode())

    def close(self, code: int, reason: str) -> tuple[int, str]:
        self._run(self._connection.close(code=code, message=reason.encode()))
        assert self._connection.close_code is not None
        return self._connection.close_code, ""  # it shows no reason here

    def closed(self) -> tuple[int, str]:
        closing = self._receive()
        assert closing.type is aiohttp.WSMsgType.CLOSE, closing
        assert self._connection.close_code == closing.data
        return closing.data, closing.extra or ""

    def abandon(self) -> None:
        self._run(self._connection.close())
        self._run(self._session.close())


class _OfferingCompression(simple_websocket.Client):  # type: ignore[misc]
    """`simple-websocket`, and the compression of `wsproto`, which it does not offer by itself."""

    compression = True
    agreed: Sequence[Any] = ()

    def handshake(self) -> None:
        extensions = [PerMessageDeflate()] if self.compression else []
        request = Request(self.host, self.path, subprotocols=self.subprotocols, extensions=extensions)
        self.sock.sendall(self.ws.send(request))
        accepted = None
        while accepted is None:
            self.ws.receive_data(self.sock.recv(self.receive_bytes))
            accepted = next(self.ws.events(), None)
        assert isinstance(accepted, AcceptConnection), accepted
        self.subprotocol = accepted.subprotocol
        self.agreed = accepted.extensions
        # A message that came with it; by itself simple-websocket sees that when the next one comes.
        self.connected = self._handle_events()


class _Plain(_OfferingCompression):
    compression = False


class SimpleWebsocket(Client):
    """`simple-websocket`, on `wsproto`. A thread of its own reads."""

    sees_answers_to_its_close = False

    def connect(self, url: str, subprotocols: Sequence[str] = (), compression: bool = True) -> None:
        make = _OfferingCompression if compression else _Plain
        self._client = make.connect(url, subprotocols=list(subprotocols), receive_bytes=65536)
        self.subprotocol = self._client.subprotocol
        self.extensions = [extension.name for extension in self._client.agreed]

    def send(self, message: Message) -> None:
        self._client.send(message)

    def send_fragments(self, parts: Sequence[Message]) -> None:
        for number, part in enumerate(parts, 1):
            kind = TextMessage if isinstance(part, str) else BytesMessage
            event = kind(data=part, message_finished=number == len(parts))  # type: ignore[arg-type]
            self._client.sock.sendall(self._client.ws.send(event))

    def receive(self) -> Message:
        message: Message | None = self._client.receive(TIMEOUT)
        assert message is not None
        return message

    def ping(self, data: str) -> None:
        self._client.pong_received = False
        self._client.sock.sendall(self._client.ws.send(Ping(data.encode())))
        wait_until(lambda: self._client.pong_received, "the pong", TIMEOUT)

    def close(self, code: int, reason: str) -> tuple[int, str]:
        self._client.close(code, reason)
        return code, ""

    def closed(self) -> tuple[int, str]:
        with pytest.raises(simple_websocket.ConnectionClosed) as ended:
            self._client.receive(TIMEOUT)
        return int(ended.value.reason), ended.value.message or ""

    def abandon(self) -> None:
        try:
            self._client.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already
        finally:
            self._client.thread.join(TIMEOUT)

    def end(self) -> None:
        """There is nothing else."""


class NodeWs(Client):
    """`ws` of Node.js, in a process of its own; npm installs it into its folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        npm, node = require_program("npm"), require_program("node")
        here = Path(__file__).parent
        for name in ("package.json", "client.js"):
            shutil.copy(here / name, folder)
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self._process = subprocess.Popen(
            [node, "client.js"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _call(self, command: str, **parameters: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **parameters}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def connect(self, url: str, subprotocols: Sequence[str] = (), compression: bool = True) -> None:
        agreed = self._call("open", url=url, subprotocols=subprotocols, compression=compression)
        self.subprotocol = agreed["subprotocol"] or None
        self.extensions = agreed["extensions"].split(", ") if agreed["extensions"] else []

    def send(self, message: Message) -> None:
        self._call("send", **_as_json(message))

    def send_fragments(self, parts: Sequence[Message]) -> None:
        for number, part in enumerate(parts, 1):
            self._call("send", **_as_json(part), fin=number == len(parts))

    def receive(self) -> Message:
        return _from_json(self._call("receive"))

    def ping(self, data: str) -> None:
        assert self._call("ping", text=data)["text"] == data

    def close(self, code: int, reason: str) -> tuple[int, str]:
        answer = self._call("close", code=code, reason=reason)
        return answer["code"], answer["reason"]

    def closed(self) -> tuple[int, str]:
        answer = self._call("closed")
        return answer["code"], answer["reason"]

    def abandon(self) -> None:
        self._call("terminate")

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT)
        self._process.stdout.close()


class Chromium(Client):
    """The WebSocket of a page in Chromium.

    Attributes:
        kind: of the last binary message, the name of its type in JavaScript.
        extension_parameters: the extensions that the server agreed on, as the page sees them.
    """

    fragments = False
    pings = False
    declines_compression = False

    SCRIPT = """
        window.queue = [];
        window.takers = [];
        window.put = (value) => takers.length ? takers.shift()(value) : queue.push(value);
        window.take = () => queue.length ? queue.shift() : new Promise((resolve) => takers.push(resolve));
        window.toBytes = async (base64) => {
            const response = await fetch(`data:;base64,${base64}`);
            return new Uint8Array(await response.arrayBuffer());
        };
        window.toBase64 = (data) => new Promise((resolve) => {
            const reader = new FileReader();
            reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
            reader.readAsDataURL(new Blob([data]));
        });
        window.open_socket = (url, subprotocols, binaryType) => {
            queue.length = 0;
            window.socket = new WebSocket(url, subprotocols);
            socket.binaryType = binaryType;
            socket.onmessage = ({data}) => put(data);
            window.ending = new Promise((resolve) => {
                socket.onclose = ({code, reason, wasClean}) => resolve({code, reason, wasClean});
            });
            return new Promise((resolve, reject) => {
                socket.onopen = () => resolve({subprotocol: socket.protocol, extensions: socket.extensions});
                socket.onerror = () => reject("could not connect");
            });
        };
        window.receive = async () => {
            const data = await take();
            if (typeof data === "string") return {text: data};
            return {binary: await toBase64(data), kind: data.constructor.name};
        };
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._browser = Browser(folder)
        self._page: Page
        self._host: str  # that the page is from; another page could not connect to this machine
        self._open_tab()
        self.kind = ""
        self.extension_parameters = ""

    def _open_tab(self) -> None:
        self._page = self._browser.open("about:blank")
        self._page.call("Network.disable")  # it would tell of every frame, with all that is in it
        self._host = ""

    def connect(
        self, url: str, subprotocols: Sequence[str] = (), compression: bool = True, binary_type: str = "arraybuffer"
    ) -> None:
        host = urlsplit(url).netloc
        if host != self._host:
            self._page.navigate(f"http://{host}/page")
            self._page.evaluate(self.SCRIPT + "undefined")
            self._host = host
        arguments = json.dumps([url, list(subprotocols), binary_type])
        agreed = self._page.evaluate(f"open_socket(...{arguments})")
        self.subprotocol = agreed["subprotocol"] or None
        self.extension_parameters = agreed["extensions"]
        self.extensions = [agreed["extensions"].split(";")[0]] if agreed["extensions"] else []

    def send(self, message: Message, make: str = "bytes") -> None:
        """Send a message, a binary one as `make`, an expression over `bytes`, a Uint8Array."""
        if isinstance(message, str):
            self._page.evaluate(f"socket.send({json.dumps(message)})")
        else:
            encoded = base64.b64encode(message).decode()
            self._page.evaluate(f"toBytes('{encoded}').then((bytes) => socket.send({make}))")

    def receive(self) -> Message:
        answer = self._page.evaluate("receive()")
        self.kind = answer.get("kind", "")
        return _from_json(answer)

    def close(self, code: int, reason: str) -> tuple[int, str]:
        self._page.evaluate(f"socket.close({code}, {json.dumps(reason)})")
        return self.closed()

    def closed(self) -> tuple[int, str]:
        answer = self._page.evaluate("ending")
        assert answer["wasClean"]
        return answer["code"], answer["reason"]

    def close_tab(self) -> None:
        """What a user does; the next connection is another tab's."""
        self._page.close()
        self._open_tab()

    def abandon(self) -> None:
        if self._host:
            self._page.evaluate("socket.close(); ending")

    def end(self) -> None:
        self._browser.stop()


def _as_json(message: Message) -> dict[str, str]:
    if isinstance(message, str):
        return {"text": message}
    return {"binary": base64.b64encode(message).decode()}


def _from_json(answer: dict[str, str]) -> Message:
    return answer["text"] if "text" in answer else base64.b64decode(answer["binary"])


CLIENTS: dict[str, type[Client]] = {
    "websockets": Websockets,
    "websockets-asyncio": WebsocketsAsyncio,
    "aiohttp": Aiohttp,
    "simple-websocket": SimpleWebsocket,
    "node-ws": NodeWs,
    "chromium": Chromium,
}
