"""One connection and its listener, on a pair of sockets: what is promised of single reads and writes, and their order.

Each is seen at the other end of the pair or by the server, so it holds for the Python and for the C.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from websockets.extensions.permessage_deflate import PerMessageDeflate

from processes import wait_until
from races import LockWithARace
from raw import frame
from uwasp import ConnectionClosed, Listener, Server, WebSocket
from uwasp.compression import MessageDeflate
from uwasp.connection import Connection
from uwasp.options import Options
from uwasp.protocol import FrameProtocol

BATCH = [str(number).encode() for number in range(8)]
ANSWERS = b"".join(b"\x81\x01" + message for message in BATCH)


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


@pytest.fixture
def connect():
    """A client's socket, and what is at the other end: `connect(kind, protocol, server class, new_lock, **options)`."""
    ends = []

    def start(kind=socket.SOCK_STREAM, protocol=None, server_class=Echo, new_lock=threading.Lock, **options):
        client, served = socket.socketpair(socket.AF_UNIX, kind)
        client.settimeout(10)
        listener = Listener(new_lock=new_lock)
        ws = WebSocket({}, "/pair", options=Options(**options))
        ws.connection = Connection(served.detach(), protocol or FrameProtocol(), ws.options, "192.0.2.7", "/pair")
        pair = SimpleNamespace(client=client, ws=ws, listener=listener, server=server_class(ws))
        listener.add(ws, pair.server)
        ends.append(pair)
        return pair

    yield start
    for pair in ends:
        pair.client.close()
        pair.ws.terminate()
        wait_until(lambda pair=pair: pair.listener.poll(0.01) or not pair.listener.connections(), "the end", 10)


def go_on(pair, cork=False):
    """Read what has come, and have the server called for it."""
    pair.listener.poll(0)
    while pair.listener.ready:
        pair.listener.ready.popleft().consume(cork=cork)


def arrived(client):
    """Each thing that was written since, where the socket keeps them apart."""
    client.setblocking(False)
    found = []
    try:
        while data := client.recv(2**20):
            found.append(data)
    except BlockingIOError:
        pass
    return found


@pytest.mark.parametrize("cork", [True, False])
def test_the_answers_to_a_batch_are_one_write_for_whoever_asks_for_that(connect, cork):
    """Where the server is fast, which it is not each time on a machine under load."""
    pair = connect(socket.SOCK_SEQPACKET)
    writes = []
    for _ in range(100):
        pair.client.send(b"".join(frame(1, message) for message in BATCH))
        go_on(pair, cork)
        answers = arrived(pair.client)
        assert b"".join(answers) == ANSWERS
        writes.append(len(answers))
    if cork:
        assert 1 in writes
    else:
        assert set(writes) == {len(BATCH)}


def test_a_websocket_is_not_open_while_its_server_is_being_made():
    ws = WebSocket({}, "/pair")
    with pytest.raises(RuntimeError, match=r"while the server object is being made; use it from on_open"):
        ws.send("too early")
    with pytest.raises(RuntimeError, match=r"a method that is to converse has @conversation\(\) above it"):
        ws.receive()


class Verbose(Server):
    def on_message(self, message):
        self.ws.send(ANSWER)


ANSWER = bytes(20_000)


def test_no_more_than_64_kib_of_answers_are_kept_back(connect):
    pair = connect(socket.SOCK_SEQPACKET, server_class=Verbose)
    writes = []
    for _ in range(100):
        pair.client.send(b"".join(frame(1, message) for message in BATCH))
        go_on(pair, cork=True)
        writes += map(len, arrived(pair.client))
    assert len(ANSWER) + 4 < max(writes) < 2**16 + len(ANSWER) + 4


def test_a_write_to_a_client_that_is_gone_raises_no_signal(connect):
    """SIGPIPE would end the process, or have uWSGI say so in its log."""
    signals = []
    before = signal.signal(signal.SIGPIPE, lambda *arguments: signals.append(arguments))
    try:
        pair = connect()
        pair.client.close()
        pair.ws.send("to nobody")
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert signals == []
    assert (pair.ws.closed, pair.ws.close_code) == (True, 1006)


class Slow(MessageDeflate):
    """Compresses what begins with a zero when it is told to."""

    __slots__ = ("begun", "told")

    def __init__(self):
        super().__init__(PerMessageDeflate(False, False, 15, 15), 0)
        self.begun = threading.Event()
        self.told = threading.Event()

    def compress(self, payload):
        compressed = super().compress(payload)
        if payload[:1] == b"\0":
            self.begun.set()
            self.told.wait(10)
        return compressed


def test_compressed_messages_go_out_in_the_order_in_which_they_were_compressed(connect):
    """Else the client cannot decompress them: each builds on the ones before."""
    slow = Slow()
    pair = connect(socket.SOCK_SEQPACKET, FrameProtocol(deflate=slow))
    first = threading.Thread(target=pair.ws.send, args=(bytes(100),))
    second = threading.Thread(target=pair.ws.send, args=(b"second",))
    first.start()
    assert slow.begun.wait(10)
    second.start()
    second.join(0.2)  # it waits for the first; one that did not would be done long before
    slow.told.set()
    for thread in (first, second):
        thread.join(10)
    receiver = FrameProtocol(deflate=MessageDeflate(PerMessageDeflate(False, False, 15, 15), 0))
    messages = [message for data in arrived(pair.client) for message in receiver.receive(as_a_clients(data))]
    assert messages == [bytes(100), b"second"]


def as_a_clients(data):
    """A short frame of a server with a mask, such as a client's has."""
    assert data[1] < 126
    return bytes((data[0], data[1] | 0x80)) + bytes(4) + data[2:]


def test_of_pings_whose_answers_are_not_read_the_last_is_answered(connect):
    pair = connect(write_limit=2**16)
    go_on(pair)
    for _ in range(100):
        if pair.ws.buffered_amount < 2**16:
            pair.ws.send(bytes(2**14))
    queued = pair.ws.buffered_amount
    assert queued >= 2**16
    for payload in (b"first", b"second", b"last"):
        pair.client.send(frame(9, payload))
        go_on(pair)
    assert pair.ws.buffered_amount == queued  # the answers cost no memory
    came = b""
    while pair.ws.buffered_amount or not came:
        came += b"".join(arrived(pair.client))
        go_on(pair)
    came += b"".join(arrived(pair.client))
    assert came.endswith(b"\0" * 100 + b"\x8a\x04last")
    assert pair.ws.connection.bytes_out == len(came)


def test_a_ping_of_the_servers_own_goes_out(connect):
    pair = connect(socket.SOCK_SEQPACKET)
    pair.ws.ping()
    pair.ws.ping(b"are you there?")
    assert arrived(pair.client) == [b"\x89\x00", b"\x89\x0eare you there?"]


def test_what_waits_for_the_client_is_counted_before_others_can_send(connect):
    """They can as soon as the poller is told to look, and add to the same figure."""
    pair = connect()
    go_on(pair)
    counted = []

    class Watching:
        def __init__(self, poller):
            self.__dict__["poller"] = poller

        def __getattr__(self, name):
            return getattr(self.poller, name)

        def modify(self, fd, wanted):
            counted.append(pair.ws.connection.bytes_out)
            self.poller.modify(fd, wanted)

    pair.listener.poller = Watching(pair.listener.poller)
    pair.ws.send(bytes(2**22))
    assert counted == [2**22 + 10]


def test_a_send_that_waits_goes_on_when_there_is_room(connect):
    pair = connect(write_limit=2**16, send_timeout=None)
    pair.ws.send(bytes(2**20))
    waiting = threading.Thread(target=pair.ws.send, args=(b"after",), daemon=True)
    waiting.start()
    left = 2**20 + 10
    while left:
        left -= len(pair.client.recv(min(left, 2**17)))
        pair.listener.poll(0.01)
    waiting.join(10)
    assert not waiting.is_alive()
    assert pair.client.recv(100) == b"\x82\x05after"


def test_a_send_that_waits_ends_with_its_connection(connect):
    pair = connect(write_limit=2**16, send_timeout=None)
    pair.ws.send(bytes(2**20))
    raised = []

    def send():
        try:
            pair.ws.send(b"after")
        except ConnectionClosed as error:
            raised.append(error.code)

    waiting = threading.Thread(target=send, daemon=True)
    waiting.start()
    waiting.join(0.1)  # it waits by now
    pair.ws.terminate()
    waiting.join(10)
    assert raised == [1006]


class Curious(Server):
    """Looks whether there is more while it is busy, and takes longer than a slice for its first message."""

    def on_open(self):
        self.seen = []
        self.was_ready = []

    def on_message(self, message):
        self.seen.append(message)
        if len(self.seen) == 1:
            self.look()
            self.was_ready.append(list(self.pair.listener.ready))
            time.sleep(0.01)

    def look(self):
        self.pair.client.send(frame(1, b"3") + frame(1, b"4"))
        self.pair.listener.poll(0)


@pytest.fixture
def curious(connect):
    pair = connect(server_class=Curious)
    pair.server.pair = pair
    go_on(pair)
    pair.client.send(b"".join(frame(1, message) for message in (b"0", b"1", b"2")))
    go_on(pair)
    return pair.server


def test_the_events_of_one_connection_come_one_at_a_time(curious):
    """While its server is busy, no other consumer finds it in `ready`."""
    assert curious.was_ready == [[]]


def test_what_is_put_back_comes_before_what_has_come_since(curious):
    """Others had their turn after the first, and more had arrived."""
    assert curious.seen == ["0", "1", "2", "3", "4"]


class Noting(Server):
    def __init__(self, ws):
        super().__init__(ws)
        self.seen = []

    def on_open(self):
        self.seen.append("open")

    def on_message(self, message):
        self.seen.append(message)

    def on_close(self):
        self.seen.append(f"close {self.ws.close_code}")


def test_a_connection_that_is_not_read_is_not_pinged(connect):
    """Its answer could not be heard."""
    pair = connect(max_queue=1, ping_interval=0.02)
    go_on(pair)
    for message in (b"seen", b"left", b"unread"):
        pair.client.send(frame(1, message))
        pair.listener.poll(0.01)
    arrived(pair.client)  # pings from before
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pair.listener.poll(0.02)
    assert arrived(pair.client) == []
    go_on(pair)
    wait_until(lambda: pair.listener.poll(0.02) or b"\x89\x00" in b"".join(arrived(pair.client)), "a ping", 10)


def test_a_client_that_is_gone_while_nothing_is_read_is_noticed(connect):
    """At once, before its server has taken anything; and it sees all that came before."""
    pair = connect(max_queue=1, server_class=Noting)
    for message in (b"0", b"1", b"2"):
        pair.client.send(frame(1, message))
        pair.listener.poll(0.01)
    pair.client.close()
    wait_until(lambda: pair.listener.poll(0.01) or pair.ws.closed, "the end to be noticed", 10)
    go_on(pair)
    assert pair.server.seen == ["open", "0", "1", "2", "close 1006"]


def test_what_a_client_that_is_gone_has_left_is_read_at_once(connect):
    """However many messages wait otherwise: it is as much as the kernel holds."""
    pair = connect(max_queue=2)
    go_on(pair)
    pair.client.send(b"".join(frame(1, message) for message in BATCH))
    pair.client.close()
    pair.listener.poll(0)
    assert pair.ws.connection.queued_messages == len(BATCH)


def test_a_client_that_is_gone_is_the_last_event(connect):
    pair = connect(server_class=Noting)
    go_on(pair)
    pair.client.close()
    go_on(pair)
    assert pair.server.seen == ["open", "close 1006"]


def test_on_close_comes_as_soon_as_the_closing_has_begun(connect):
    """The client has not answered, and need not."""
    pair = connect(server_class=Noting)
    go_on(pair)
    pair.ws.close(4000)
    go_on(pair)
    assert pair.server.seen == ["open", "close 4000"]


def test_tcp_is_ended_when_both_have_closed(connect):
    """By the server, long before it would be out of patience (RFC 6455 §7.1.1)."""
    pair = connect(close_timeout=100)
    go_on(pair)
    pair.ws.close(4000)
    closing = pair.client.recv(100)
    pair.client.send(frame(8, closing[2:]))
    go_on(pair)
    assert pair.client.recv(100) == b""


class Ending(Server):
    def on_open(self):
        self.events = []

    def on_message(self, message):
        self.events.append(message)

    def on_close(self):
        self.events.append("on_close")


class LeftAlone(Echo):
    """Fails at "the last", when the client is gone already."""

    def on_message(self, message):
        if message == "the last":
            self.client.close()
            raise ValueError("on purpose")
        super().on_message(message)


def test_an_error_in_the_server_is_the_end_also_where_the_client_is_gone(connect):
    pair = connect(server_class=LeftAlone)
    pair.server.client = pair.client
    for _ in range(10):  # so that it is known to be fast
        pair.client.send(frame(1, b"a") + frame(1, b"b"))
        go_on(pair, cork=True)
    pair.client.send(frame(1, b"kept back") + frame(1, b"the last"))
    go_on(pair, cork=True)
    assert pair.ws.close_code == 1011
    assert pair.ws.connection.closed_by == "an error in the server"


@pytest.mark.parametrize("messages", [1, 3])
def test_a_connection_that_another_thread_closes_while_messages_are_taken_comes_to_its_end(connect, messages):
    locks = []

    def new_lock():
        locks.append(LockWithARace())
        return locks[-1]

    pair = connect(server_class=Ending, new_lock=new_lock)
    go_on(pair)
    pair.client.send(frame(1, b"x") * messages)
    pair.listener.poll(0)
    locks[-1].then = lambda: pair.ws.close(4001)
    go_on(pair)
    assert pair.server.events[-1] == "on_close"
    assert pair.server.events[:-1] in ([], ["x"])  # the first may have been taken already


def test_a_connection_that_another_thread_closes_as_answers_begin_to_be_kept_back_comes_to_its_end(connect):
    pair = connect(server_class=Ending)
    cork = pair.listener.cork

    def cork_and_close(connection):
        cork(connection)
        pair.ws.close(4001)

    pair.listener.cork = cork_and_close
    while not pair.ws.closed:  # it is fast, sooner or later
        pair.client.send(frame(1, b"x") * 8)
        go_on(pair, cork=True)
    go_on(pair)
    assert pair.server.events[-1] == "on_close"
