"""A message that goes to many is one frame: nobody's compression is disturbed by it, and nobody waits for the slow."""

from __future__ import annotations

import logging
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect as connect_to

from processes import wait_until
from raw import frame
from uwasp import Listener, Server, WebSocket, stats
from uwasp.connection import Connection
from uwasp.options import Options
from uwasp.protocol import CloseCode, FrameProtocol, encode_shared

GROUPS = Path(__file__).parent / "groups.py"
BLOCK = encode_shared(bytes(2**16))


@pytest.fixture
def connect():
    """A client's socket, and what is at the other end."""
    ends = []

    def start(server_class=Server, **options):
        client, served = socket.socketpair()
        client.settimeout(10)
        listener = Listener()
        ws = WebSocket({}, "/shared", options=Options(**options))
        ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/shared")
        pair = SimpleNamespace(client=client, ws=ws, connection=ws.connection, listener=listener)
        pair.server = server_class(ws)
        listener.add(ws, pair.server)
        ends.append(pair)
        go_on(pair)
        return pair

    yield start
    for pair in ends:
        pair.client.close()
        pair.ws.terminate()
        wait_until(lambda pair=pair: pair.listener.poll(0.01) or not pair.listener.connections(), "the end", 10)


def go_on(pair):
    pair.listener.poll(0)
    while pair.listener.ready:
        pair.listener.ready.popleft().consume(cork=True)


def fill(pair):
    """Send until its client is too slow, and return how often that was not so."""
    sent = 0
    while pair.connection.send_shared(BLOCK):
        sent += 1
        assert sent < 1000
    return sent


def read_all(pair):
    """What is on its way to the client, which reads now."""
    pair.client.setblocking(False)
    received = bytearray()

    def is_there():
        pair.listener.poll(0)
        try:
            received.extend(pair.client.recv(2**20))
        except BlockingIOError:
            return not pair.connection.buffered_amount
        return False

    wait_until(is_there, "all to be read", 10)
    return bytes(received)


# The frame


@pytest.mark.parametrize(
    "message", ["", "text", "t\u00e4xt" * 50, b"binary", bytearray(b"x" * 70_000), memoryview(b"view")]
)
def test_it_is_the_frame_of_a_connection_without_compression(message):
    assert encode_shared(message) == FrameProtocol().encode_message(message)


def test_what_cannot_be_a_message_is_no_shared_frame_either():
    with pytest.raises(TypeError, match=r"a message is a str .* or bytes-like .*, not int"):
        encode_shared(12)
    with pytest.raises(UnicodeEncodeError):
        encode_shared("\ud800")


def test_compressed_messages_before_it_and_after_it_decompress(serve):
    """With context takeover each builds on those before; `websockets` decompresses them, as a browser does."""
    uwsgi = serve(application=GROUPS, middleware={"compression": "deflate"})
    extension = ClientPerMessageDeflateFactory(server_no_context_takeover=False, client_no_context_takeover=False)
    with connect_to(f"{uwsgi.url}/between", proxy=None, compression=None, extensions=[extension]) as client:
        assert [name.name for name in client.protocol.extensions] == ["permessage-deflate"]
        for number in range(20):
            text = f"a message like the others, number {number} " * 20
            client.send(text)
            assert [client.recv(10) for _ in range(3)] == [text] * 3


# Its place


def test_it_comes_in_order_with_what_the_server_answers_also_where_that_is_kept_back(connect):
    class Answering(Server):
        def on_message(self, message):
            self.ws.send(message)
            self.ws.connection.send_shared(encode_shared(f"{int(message) + 1:02}"))

    pair = connect(Answering)
    pair.client.send(b"".join(frame(1, b"%02d" % number) for number in range(0, 20, 2)))
    go_on(pair)
    assert pair.client.recv(1000) == b"".join(b"\x81\x02%02d" % number for number in range(20))
    assert (pair.connection.messages_out, pair.connection.bytes_out) == (20, 80)


def test_nobody_is_sent_to_where_the_connection_is_over(connect):
    pair = connect()
    pair.ws.close(4000)
    assert pair.connection.send_shared(BLOCK)
    assert pair.client.recv(100) == b"\x88\x02\x0f\xa0"


# The slow


def test_a_client_that_does_not_read_is_closed_with_1013(connect, caplog):
    before = stats()
    pair = connect(slow_member=2**18)
    assert fill(pair) > 2**18 / len(BLOCK)
    assert 2**18 < pair.connection.buffered_amount <= 2**18 + len(BLOCK) + 32
    assert pair.ws.close_code == CloseCode.TRY_AGAIN_LATER == 1013
    assert pair.connection.send_shared(BLOCK)  # it is over
    assert read_all(pair).endswith(b"\x88\x0a" + (1013).to_bytes(2, "big") + b"too slow")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{pair.connection} does not read as fast as its group is sent to: closed with code 1013"
    ]
    assert pair.connection.closed_by == "uWASP, as too slow for a group"
    assert stats()["slow_members"] == before["slow_members"] + 1


def test_it_is_left_out_where_the_option_says_so_until_it_has_read(connect, caplog):
    before = stats()
    pair = connect(write_limit=2**20, skip_slow_members=True)
    sent = fill(pair)
    assert pair.connection.buffered_amount > 2**18  # a quarter
    for _ in range(5):
        assert not pair.connection.send_shared(BLOCK)
    assert pair.ws.close_code is None
    assert read_all(pair) == BLOCK * sent
    assert pair.connection.send_shared(encode_shared("again"))
    assert read_all(pair) == b"\x81\x05again"
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1
    assert stats()["slow_members"] == before["slow_members"] + 6


def test_it_never_waits_however_much_is_queued(connect):
    pair = connect(write_limit=1, slow_member=2**30)
    sending = threading.Thread(target=lambda: [pair.connection.send_shared(BLOCK) for _ in range(100)], daemon=True)
    sending.start()
    sending.join(10)
    assert not sending.is_alive()
    assert read_all(pair) == BLOCK * 100


def test_nothing_foreign_runs_under_its_lock(connect, caplog):
    """A handler of the log may send on the same connection."""
    pair = connect(skip_slow_members=True)
    held = []

    class Looking(logging.Handler):
        def emit(self, record):
            held.append(pair.connection._lock.locked())

    handler = Looking()
    logging.getLogger("uwasp.connection").addHandler(handler)
    try:
        fill(pair)
    finally:
        logging.getLogger("uwasp.connection").removeHandler(handler)
    assert held == [False]
