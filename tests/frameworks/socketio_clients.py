"""Clients of Socket.IO that none of us wrote, with one interface: python-socketio's, and that of JavaScript."""

from __future__ import annotations

import base64
import itertools
import json
import queue
import shutil
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import socketio

from processes import require_program, wait_until

TIMEOUT = 20.0  # seconds
BOTH = ("polling", "websocket")
WEBSOCKET = ("websocket",)
POLLING = ("polling",)


class Client(ABC):
    """One connection to one namespace. It comes back by itself when it is lost."""

    @abstractmethod
    def start(self, url: str, transports: Sequence[str], path: str, namespace: str, auth: Any, query: str, cookie: str):
        """Begin to connect."""

    @abstractmethod
    def state(self) -> tuple[str, str]:
        """The next of "connect", "disconnect" and "connect_error", with its reason."""

    @abstractmethod
    def transport(self) -> str: ...

    @abstractmethod
    def emit(self, event: str, *data: Any) -> None: ...

    @abstractmethod
    def call(self, event: str, *data: Any) -> Any:
        """Emit, and return what the server answers: several values as a list."""

    @abstractmethod
    def receive(self) -> list[Any]:
        """The next event, with its data."""

    @abstractmethod
    def disconnect(self) -> None: ...

    def connect(
        self,
        url: str,
        transports: Sequence[str] = WEBSOCKET,
        path: str = "socket.io",
        namespace: str = "/",
        auth: Any = None,
        query: str = "",
        cookie: str = "",
    ) -> None:
        """Connect, and upgrade where that is to come."""
        self.start(url, transports, path, namespace, auth, query, cookie)
        state = self.state()
        assert state == ("connect", ""), state
        wait_until(lambda: self.transport() == transports[-1], f"the transport {transports[-1]}", TIMEOUT)


class PythonClient(Client):
    """python-socketio's own."""

    def __init__(self) -> None:
        self._client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2, handle_sigint=False)
        self._events: queue.Queue[list[Any]] = queue.Queue()
        self._states: queue.Queue[tuple[str, str]] = queue.Queue()
        self._namespace = "/"

    def start(self, url, transports, path, namespace, auth, query, cookie):
        self._namespace = namespace
        put = self._states.put
        self._client.on("connect", lambda: put(("connect", "")), namespace)
        self._client.on("disconnect", lambda reason: put(("disconnect", reason)), namespace)
        self._client.on("connect_error", lambda data: put(("connect_error", message_of(data))), namespace)
        self._client.on("*", lambda event, *data: self._events.put([event, *data]), namespace)
        self._client.on("ask", lambda question: f"yes: {question}", namespace)
        try:
            self._client.connect(
                f"{url}/?{query}" if query else url,
                {"Cookie": cookie},
                auth,
                list(transports),
                [namespace],
                path,
                wait_timeout=TIMEOUT,
            )
        except socketio.exceptions.ConnectionError as error:
            put(("refused", str(error)))

    def state(self):
        return self._states.get(timeout=TIMEOUT)

    def transport(self):
        return self._client.transport()

    def emit(self, event, *data):
        self._client.emit(event, data, self._namespace)

    def call(self, event, *data):
        answer = self._client.call(event, data, self._namespace, TIMEOUT)
        return list(answer) if isinstance(answer, tuple) else answer

    def receive(self):
        return self._events.get(timeout=TIMEOUT)

    def disconnect(self):
        self._client.disconnect()
        self._client.shutdown()


class Node:
    """A Node.js with Socket.IO's client, which npm installs into its folder, for any number of connections."""

    def __init__(self, folder: Path) -> None:
        npm, node = require_program("npm"), require_program("node")
        here = Path(__file__).parent / "socketio_client"
        for name in ("package.json", "client.js"):
            shutil.copy(here / name, folder)
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        self._process = subprocess.Popen(
            [node, "client.js"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.numbers = itertools.count()

    def call(self, command: str, **parameters: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **parameters}) + "\n")
        self._process.stdin.flush()
        late = threading.Timer(2 * TIMEOUT, self._process.kill)  # then the answer is empty
        late.start()
        try:
            answer = json.loads(self._process.stdout.readline())
        finally:
            late.cancel()
        assert "error" not in answer, answer
        return answer

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(TIMEOUT)
        self._process.stdout.close()


class JavaScriptClient(Client):
    """socket.io-client of npm."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._number = next(node.numbers)

    def start(self, url, transports, path, namespace, auth, query, cookie):
        self._call(
            "connect",
            url=url + namespace,
            transports=list(transports),
            path=f"/{path}/",
            auth=auth or {},
            query=dict(pair.split("=") for pair in query.split("&")) if query else {},
            extraHeaders={"Cookie": cookie},
        )

    def state(self):
        answer = self._call("state")
        return answer["state"], answer.get("reason", "")

    def transport(self):
        return self._call("transport")["name"]

    def emit(self, event, *data):
        self._call("emit", data=[event, *map(encode, data)])

    def call(self, event, *data):
        answer = [decode(value) for value in self._call("call", data=[event, *map(encode, data)])["value"]]
        return answer[0] if len(answer) == 1 else answer

    def receive(self):
        return [decode(value) for value in self._call("receive")["value"]]

    def disconnect(self):
        self._call("disconnect")

    def _call(self, command: str, **parameters: Any) -> Any:
        return self._node.call(command, number=self._number, **parameters)


def encode(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def decode(value: Any) -> Any:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) and "base64" in value else value


def message_of(data: Any) -> str:
    """Of a refusal, which has one, or of what has been raised on the way."""
    return str(data["message"] if isinstance(data, dict) else data)
