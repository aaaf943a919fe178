"""The opening handshake as real uWSGI hands it to us, and what is refused before a connection is taken over.

The table of `handshakes.py` goes over TCP here, byte for byte: straight to uWSGI, and through nginx.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from handshakes import HANDSHAKES, NOTHING, Handshake, Reply
from processes import LOOP_OPTIONS, Nginx, Uwsgi, wait_until
from raw import RawClient, frame, request
from test_deployments import PROXY, UWSGI
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "application.py"
LONGEST_BODY = 500
TIMEOUT = 10.0
LOOKS = 50  # `wait_until` takes one every 10 ms

CASES = [
    pytest.param(way, handshake, getattr(handshake, way), id=f"{way}-{handshake.name}")
    for way in ("http_socket", "uwsgi_pass", "proxy_pass")
    for handshake in HANDSHAKES
    if getattr(handshake, way) is not None
]


class Site:
    """A uWSGI with two sockets, an nginx before each, and a WebSocket that nothing must disturb.

    Attributes:
        uwsgi: the uWSGI.
        ports: where each way of `handshakes.py` begins.
    """

    def __init__(self, uwsgi: Uwsgi, ports: dict[str, int], witness: ClientConnection) -> None:
        self.uwsgi = uwsgi
        self.ports = ports
        self._witness = witness
        uwsgi.wait_for_output("GET /echo => generated 0 bytes")  # uWSGI has closed its own descriptor before
        spawned = re.search(r"spawned uWSGI worker 1 \(pid: (\d+)", uwsgi.output)
        assert spawned is not None
        self._descriptors = Path(f"/proc/{spawned[1]}/fd")
        self._usual = self._settled()

    def _settled(self) -> int:
        """Its descriptors, once they are as many for half a second: other threads of the worker may still begin."""
        looks: list[int] = []

        def agree() -> bool:
            looks.append(len(os.listdir(self._descriptors)))
            return len(looks) >= LOOKS and len(set(looks[-LOOKS:])) == 1

        wait_until(agree, "the descriptors of the worker to be as many as before")
        return looks[-1]

    def wait_for_connections(self, number: int) -> None:
        """Wait until the worker has so many descriptors more than for the one WebSocket alone."""

        def reached() -> bool:
            return len(os.listdir(self._descriptors)) == self._usual + number

        wait_until(reached, f"{self._usual} + {number} descriptors in the worker", TIMEOUT)

    def check_unharmed(self) -> None:
        """The worker holds what it held before, and the WebSocket goes on."""
        self.wait_for_connections(0)
        self._witness.send("unharmed?")
        assert self._witness.recv(TIMEOUT) == "unharmed?"


@pytest.fixture(scope="module")
def site(handler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("uwsgi")
    second = folder / "second.sock"
    env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": json.dumps({"compression": "deflate"})}
    with ExitStack() as at_end:
        uwsgi = Uwsgi(APPLICATION, folder, *LOOP_OPTIONS[handler], "--socket", str(second), env=env)
        at_end.callback(uwsgi.stop)
        ports = {"http_socket": uwsgi.port}
        locations = {
            "uwsgi_pass": UWSGI.format(target=f"unix:{second}"),
            "proxy_pass": PROXY.format(target=uwsgi.address),
        }
        for way, location in locations.items():
            nginx = Nginx(tmp_path_factory.mktemp(way), location)
            at_end.callback(nginx.stop)
            ports[way] = nginx.port
        yield Site(uwsgi, ports, at_end.enter_context(connect(f"{uwsgi.url}/echo", compression=None, proxy=None)))


class Exchange:
    """A request as it is, and the response to it; `status` is NOTHING if the connection is closed without one."""

    def __init__(self, port: int, sent: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self.status = NOTHING
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.rest = b""
        try:
            self.socket.sendall(sent)
            self._read_response()
        except (ConnectionResetError, BrokenPipeError):
            assert self.rest == b""  # closed while the request was still on its way

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self) -> bytes:
        data = self.socket.recv(65536)
        self.rest += data
        return data

    def _read_response(self) -> None:
        while b"\r\n\r\n" not in self.rest:
            if not self.receive():
                assert self.rest == b""
                return
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        start, *lines = self.head.split("\r\n")
        _, status, phrase = start.split(" ", 2)
        self.status = int(status)
        assert phrase == HTTPStatus(self.status).phrase
        for line in lines:
            name, _, value = line.partition(": ")
            self.headers.append((name.lower(), value))
        if self.status != 101:
            length = int(self.header("content-length") or 0)
            while len(self.rest) < length:
                assert self.receive()
            self.body, self.rest = self.rest[:length], self.rest[length:]

    def header(self, name: str) -> str | None:
        values = [value for given, value in self.headers if given == name]
        assert len(values) <= 1, self.head
        return values[0] if values else None

    def expect(self, data: bytes) -> None:
        """The next that comes is exactly this."""
        while len(self.rest) < len(data):
            assert self.receive()
        assert self.rest == data
        self.rest = b""

    def expect_end(self) -> None:
        assert self.rest == b""
        assert self.receive() == b""


def check_accepted(site: Site, exchange: Exchange, reply: Reply, handshake: Handshake) -> None:
    assert exchange.header("upgrade") == "websocket"
    assert exchange.header("sec-websocket-accept") == handshake.accept
    assert exchange.header("sec-websocket-protocol") == reply.protocol
    assert exchange.header("sec-websocket-extensions") == reply.extensions
    site.wait_for_connections(1)
    if handshake.target == "/subprotocols":
        said = f"protocol {reply.protocol}".encode()
        exchange.expect(bytes((0x81, len(said))) + said)
    else:
        exchange.socket.sendall(frame(1, b"echo"))
        exchange.expect(b"\x81\x04echo")


def check_refused(exchange: Exchange, reply: Reply) -> None:
    assert reply.says in exchange.body.decode("ascii")
    assert exchange.header("sec-websocket-accept") is None
    if reply.author == "uwasp":
        assert exchange.header("content-type") == "text/plain; charset=utf-8"
        assert exchange.body.endswith(b"\n")
        assert len(exchange.body) < LONGEST_BODY
        assert exchange.header("sec-websocket-version") == ("13" if reply.status == 426 else None)


@pytest.mark.parametrize(("way", "handshake", "reply"), CASES)
def test_each_handshake_gets_its_answer_and_harms_no_other_connection(site, way, handshake, reply):
    with Exchange(site.ports[way], handshake.request) as exchange:
        assert exchange.status == reply.status
        if reply.status == 101:
            check_accepted(site, exchange, reply, handshake)
        elif reply.status != NOTHING:
            check_refused(exchange, reply)
            if way == "http_socket":
                exchange.expect_end()
    site.check_unharmed()


def test_the_answer_is_this_to_the_byte(site):
    """With the key of the example in RFC 6455 §1.3."""
    with Exchange(site.ports["http_socket"], request("/echo")) as exchange:
        assert exchange.head.split("\r\n") == [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ]


def test_a_refusal_is_this_to_the_byte(site):
    sent = request("/echo").replace(b"Version: 13", b"Version: 8")
    with Exchange(site.ports["http_socket"], sent) as exchange:
        assert exchange.head.split("\r\n") == [
            "HTTP/1.1 426 Upgrade Required",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Length: 48",
            "Sec-WebSocket-Version: 13",
            "Upgrade: websocket",
            "Connection: Upgrade",
        ]
        assert exchange.body == b"WebSocket version '8' is not spoken here; 13 is\n"


def test_a_handshake_that_comes_byte_by_byte_is_accepted(site):
    with socket.create_connection(("127.0.0.1", site.ports["http_socket"]), timeout=TIMEOUT) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request("/echo"):
            slow.sendall(bytes((byte,)))
        assert slow.recv(12) == b"HTTP/1.1 101"
    site.check_unharmed()


def test_a_handshake_that_is_broken_off_leaves_nothing(site):
    with socket.create_connection(("127.0.0.1", site.ports["http_socket"]), timeout=TIMEOUT) as broken:
        broken.sendall(request("/echo")[:-2])
    site.check_unharmed()


@pytest.mark.parametrize("way", ["http_socket", "uwsgi_pass", "proxy_pass"])
def test_hundreds_of_refusals_leave_nothing(site, way):
    for _ in range(300):
        with Exchange(site.ports[way], request("/echo").replace(b"Key: ", b"Key: x")) as exchange:
            assert exchange.status == 400
    site.check_unharmed()


def test_what_follows_a_refusal_is_not_taken_for_another_request(site):
    """Otherwise a proxy that believes in a WebSocket could be used to reach what it does not let through."""
    refused = request("/echo").replace(b"Version: 13", b"Version: 8")
    with Exchange(site.ports["http_socket"], refused + b"GET /inner HTTP/1.1\r\nHost: inner\r\n\r\n") as exchange:
        assert exchange.status == 426
        exchange.expect_end()


def test_a_real_client_is_told_that_there_is_no_server(site):
    with pytest.raises(InvalidStatus, match="404") as refusal:
        connect(f"{site.uwsgi.url}/echo/", proxy=None)
    assert refusal.value.response.body == b"there is no WebSocket at this path\n"


def test_a_frame_right_behind_the_servers_answer_is_not_lost(site):
    for _ in range(100):
        with RawClient(site.ports["http_socket"]) as client:
            client.send(frame(1, b"at once"))
            assert client.recv().data == b"at once"


def test_through_nginx_a_frame_behind_the_request_is_not_lost(site):
    for way in ("uwsgi_pass", "proxy_pass"):
        with Exchange(site.ports[way], request("/echo") + frame(1, b"hasty")) as exchange:
            assert exchange.status == 101
            exchange.expect(b"\x81\x05hasty")


# What comes in one packet with the request, where uWSGI reads that: whole frames, a part of one, what looks like what
# uWSGI itself could have been given to read.
HASTY = {
    "a frame": frame(1, b"hasty"),
    "several": frame(1, b"hasty") * 2000,
    "a part of a frame": frame(1, b"hasty" * 100)[:200],
    "one byte": b"\x81",
    "one digit": b"5",
    "a chunk": b"5\r\nhasty\r\n",
    "the last chunk": b"0\r\n\r\n",
}


@pytest.mark.parametrize("hasty", HASTY)
def test_straight_to_uwsgi_a_frame_before_the_answer_fails_the_connection(site, hasty):
    """RFC 6455 §4.1 has the client wait for the answer. uWSGI reads on behind a request and keeps what it finds. What
    comes next would be taken for something else.
    """
    with Exchange(site.ports["http_socket"], request("/echo") + HASTY[hasty]) as exchange:
        assert exchange.status == 101
        exchange.socket.sendall(frame(1, b"patient"))
        reason = b"a frame before the answer to the handshake"
        exchange.expect(b"\x88" + bytes([2 + len(reason)]) + b"\x03\xea" + reason)
        exchange.expect_end()
    site.check_unharmed()
