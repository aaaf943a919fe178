"""What a server is told that is no message: in order with the messages, in its turn, bounded, whoever consumes.

On pairs of sockets, so it holds for the Python and for the C.
"""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from one_thread import code_of
from processes import wait_until
from raw import frame
from uwasp import Listener, Server, WebSocket
from uwasp.connection import Connection
from uwasp.events import Told
from uwasp.incoming import SLICE
from uwasp.options import Options
from uwasp.protocol import FrameProtocol


def consume(connection):
    return connection.consume()


def consume_in_c_or_not(connection):
    return connection.consume(cork=True)


steps: dict = {}
exec(code_of("steps.py"), steps)
CONSUMERS = {"consume": consume, "corking": consume_in_c_or_not, "steps": steps["consume"]}


class Noting(Server):
    def __init__(self, ws):
        super().__init__(ws)
        self.seen = []

    def on_open(self):
        self.seen.append("open")

    def on_message(self, message):
        self.seen.append(message)

    def on_notify(self, group, data):
        self.seen.append((group, data))

    def on_presence(self, group, joined, left):
        self.seen.append((group, joined, left))

    def on_missed(self, group):
        self.seen.append(f"missed of {group}")

    def on_close(self):
        self.seen.append(f"close {self.ws.close_code}")


@pytest.fixture(params=CONSUMERS)
def connect(request):
    """A client's socket and what is at the other end, whose server has been told that it is open."""
    ends = []

    def start(server_class=Noting, **options):
        client, served = socket.socketpair()
        client.settimeout(10)
        listener = Listener()
        ws = WebSocket({}, "/told", options=Options(**options))
        ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/told")
        pair = SimpleNamespace(
            client=client,
            ws=ws,
            connection=ws.connection,
            listener=listener,
            server=server_class(ws),
            consume=CONSUMERS[request.param],
        )
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
    """Read what has come, and have the server called for it."""
    pair.listener.poll(0)
    while pair.listener.ready:
        pair.consume(pair.listener.ready.popleft())


def notify(data):
    return Told("on_notify", "room", data)


def test_what_is_told_comes_between_the_messages_in_order(connect):
    pair = connect()
    pair.client.send(frame(1, b"1"))
    pair.listener.poll(0)
    assert pair.connection.tell(notify(2))
    pair.client.send(frame(2, b"3") + frame(1, b"4"))
    pair.listener.poll(0)
    assert pair.connection.tell(Told("on_presence", "room", ["a"], ["b"]))
    assert pair.connection.tell(Told("on_missed", "room"))
    go_on(pair)
    assert pair.server.seen == ["open", "1", ("room", 2), b"3", "4", ("room", ["a"], ["b"]), "missed of room"]


def test_one_alone_has_its_server_called(connect):
    pair = connect()
    for number in range(3):
        assert pair.connection.tell(notify(number))
        go_on(pair)
    assert pair.server.seen == ["open", ("room", 0), ("room", 1), ("room", 2)]


def test_it_wakes_who_polls(connect):
    pair = connect(ping_interval=None)
    polling = threading.Thread(target=pair.listener.poll, args=(10,))
    before = time.monotonic()
    polling.start()
    pair.connection.tell(notify("from another thread"))
    polling.join()
    assert time.monotonic() - before < 5
    assert list(pair.listener.ready) == [pair.connection]


class OnlyTheMethods:
    def __init__(self, ws):
        self.seen = []

    def on_open(self): ...

    def on_message(self, message):
        self.seen.append(message)

    def on_close(self): ...


def test_a_server_need_not_have_the_methods(connect):
    pair = connect(OnlyTheMethods)
    pair.connection.tell(notify(1))
    pair.client.send(frame(1, b"after"))
    go_on(pair)
    assert pair.server.seen == ["after"]


class Raising(Noting):
    def on_notify(self, group, data):
        super().on_notify(group, data)
        raise RuntimeError("raised in on_notify")


@pytest.mark.parametrize("several", [False, True])
def test_what_it_raises_closes_the_connection_with_1011(connect, several):
    pair = connect(Raising)
    pair.connection.tell(notify(1))
    if several:
        pair.client.send(frame(1, b"not seen"))
    go_on(pair)
    assert pair.server.seen == ["open", ("room", 1), "close 1011"]
    assert pair.client.recv(100)[:4] == b"\x88\x10" + (1011).to_bytes(2, "big")


def test_it_ends_a_slice_as_a_message_does(connect):
    class Slow(Noting):
        def on_notify(self, group, data):
            super().on_notify(group, data)
            time.sleep(SLICE)

    pair = connect(Slow)
    for number in range(4):
        pair.connection.tell(notify(number))
    taken = 0
    while pair.listener.ready:
        pair.consume(pair.listener.ready.popleft())
        taken += 1
    assert pair.server.seen[1:] == [("room", number) for number in range(4)]
    assert taken > 1


def test_answers_to_it_are_kept_in_order_with_others(connect):
    class Answering(Server):
        def on_message(self, message):
            self.ws.send(message)

        def on_notify(self, group, data):
            self.ws.send(data)

    pair = connect(Answering)
    for number in range(0, 20, 2):
        pair.client.send(frame(1, b"%02d" % number))
        pair.listener.poll(0)
        pair.connection.tell(notify(f"{number + 1:02}"))
    go_on(pair)
    expected = b"".join(b"\x81\x02%02d" % number for number in range(20))
    assert pair.client.recv(1000) == expected


def test_more_than_max_queue_are_not_kept_and_the_server_hears_of_that_once_for_each_group(connect):
    pair = connect(max_queue=3)
    assert [pair.connection.tell(notify(number)) for number in range(6)] == [True] * 3 + [False] * 3
    assert not pair.connection.tell(Told("on_presence", "other", [], []))
    assert not pair.connection.tell(Told("on_missed", "room"))
    go_on(pair)
    first = ["open", *(("room", number) for number in range(3)), "missed of room", "missed of other"]
    assert pair.server.seen == first
    for number in range(10, 15):
        pair.connection.tell(notify(number))
    go_on(pair)
    assert pair.server.seen == [*first, *(("room", number) for number in range(10, 13)), "missed of room"]


def test_messages_leave_room_for_it_and_it_for_messages(connect):
    pair = connect(max_queue=2)
    pair.client.send(b"".join(frame(1, b"%d" % number) for number in range(5)))
    pair.listener.poll(0)
    assert all(pair.connection.tell(notify(number)) for number in range(2))
    go_on(pair)
    messages = [seen for seen in pair.server.seen[1:] if isinstance(seen, str)]
    assert messages == ["0", "1", "2", "3", "4"]
    assert [seen for seen in pair.server.seen[1:] if not isinstance(seen, str)] == [("room", 0), ("room", 1)]
    assert pair.server.seen[1:5] == ["0", "1", ("room", 0), ("room", 1)]


def test_what_is_put_back_counts_among_those_that_wait(connect):
    """A server slower than its slices has no more and more of them."""

    class Slow(Noting):
        def on_notify(self, group, data):
            super().on_notify(group, data)
            time.sleep(2 * SLICE)

    pair = connect(Slow, max_queue=8)
    waiting = []
    for number in range(60):
        pair.connection.tell(notify(number))
        if number % 3 == 2:
            pair.consume(pair.listener.ready.popleft())
        waiting.append(pair.connection.queued_messages)
    assert max(waiting) <= 2 * 8 + 1
    go_on(pair)
    told = [seen[1] for seen in pair.server.seen if isinstance(seen, tuple)]
    assert told == sorted(told)
    assert "missed of room" in pair.server.seen


def test_a_connection_that_is_over_is_told_nothing(connect):
    pair = connect()
    pair.connection.tell(notify("dropped"))
    pair.ws.close(4000)
    assert pair.connection.tell(notify("too late"))
    go_on(pair)
    assert pair.server.seen == ["open", "close 4000"]


def test_what_waits_counts_by_its_size_too(connect):
    """Nothing is read from a client while so many bytes wait for its server, whatever they are."""
    pair = connect(max_queue_size=1000)
    pair.connection.tell(Told("on_notify", "room", "large", size=1000))
    pair.client.send(frame(1, b"unread"))
    pair.listener.poll(0)
    assert pair.connection.queued_messages == 1
    go_on(pair)
    wait_until(lambda: go_on(pair) or len(pair.server.seen) == 3, "the message", 10)
    assert pair.server.seen == ["open", ("room", "large"), "unread"]
