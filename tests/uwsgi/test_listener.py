"""The listener by itself, on pairs of sockets: for what has to happen at one moment, and for faults of our own.

A fault is logged with its connection, and cuts that alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import re
import select
import socket
import struct
import sys
import termios
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from one_thread import code_of
from processes import wait_until
from raw import frame
from uwasp import ConnectionClosed, Listener, Server, WebSocket
from uwasp.connection import Connection
from uwasp.events import Told
from uwasp.options import Options
from uwasp.protocol import FrameProtocol, State

PING = b"\x89\x00"
END_OF_STREAM = "the end of the stream, from the client or a proxy"


@pytest.fixture
def listener():
    return Listener()


@pytest.fixture
def connect(listener):
    """A client's socket, and the connection at its other end: `connect(path, server_class, **options)`."""
    clients = []

    def start(path, server_class=Server, **options):
        client, served = socket.socketpair()
        clients.append(client)
        client.settimeout(10)
        ws = WebSocket({}, path, options=Options(**options))
        ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", path)
        listener.add(ws, server_class(ws))
        return client, ws.connection

    yield start
    for client in clients:
        client.close()


def work(listener):
    """Read what is there, and have the servers see it."""
    listener.poll(0)
    while listener.ready:
        listener.ready.popleft().consume()


def wait_for_log(listener, caplog):
    def is_there():
        listener.poll(0.01)
        return caplog.records

    with caplog.at_level(logging.ERROR, "uwasp.listener"):
        wait_until(is_there, "a line in the log", 10)
    (record,) = caplog.records
    return record.getMessage()


def fail_at(path, method, monkeypatch):
    """Have a method of one connection raise."""
    original = getattr(Connection, method)

    def failing(self, *arguments):
        if str(self).endswith(path):
            raise RuntimeError("a fault of ours")
        return original(self, *arguments)

    monkeypatch.setattr(Connection, method, failing)


def test_what_fails_later_names_its_connection(listener, connect, caplog, monkeypatch):
    fail_at("/failing", "answer_close", monkeypatch)
    client, connection = connect("/failing")
    client.sendall(frame(8))
    assert wait_for_log(listener, caplog) == f"{connection} failed in the listener and is cut; the others go on"
    assert client.recv(1) == b""


def test_a_keepalive_that_fails_is_that_of_one_connection(listener, connect, caplog, monkeypatch):
    fail_at("/failing", "keep_alive", monkeypatch)
    failing, connection = connect("/failing", ping_interval=0.02)
    other, _ = connect("/other", ping_interval=0.02)
    assert wait_for_log(listener, caplog) == f"{connection} failed in the listener and is cut; the others go on"
    assert failing.recv(1) == b""
    other.setblocking(False)

    def is_pinged():
        listener.poll(0.01)
        try:
            return other.recv(2) == PING
        except BlockingIOError:
            return False

    wait_until(is_pinged, "a ping to the other", 10)


def test_what_belongs_to_no_connection_is_logged_and_the_rest_goes_on(listener, caplog):
    done = []
    listener.call_later(0, lambda: 1 / 0)
    listener.call_later(0, lambda: done.append(True))
    assert wait_for_log(listener, caplog) == "an action of the listener failed"
    assert done


def test_a_connection_that_the_poller_does_not_take_is_none(listener):
    """As if it had not been added."""
    client, served = socket.socketpair()
    with closing(client), closing(served):
        ws = SimpleNamespace(options=Options())
        ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/full")
        listener.poller.close()
        with pytest.raises(ValueError, match=r"closed epoll"):
            listener.add(ws, Server(ws))
        assert len(listener) == 0
        assert listener.totals.by_route == {}
        ws.connection.abandon()
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    ("came", "answer"),
    [
        (frame(8, b"\x03\xe8bye"), (1000, "")),
        (frame(8), (1005, "")),
        (frame(3), (1002, "reserved opcode 0x3")),
    ],
    ids=["close", "close without a code", "fault"],
)
def test_a_goodbye_that_crosses_the_clients_end_answers_that(listener, connect, came, answer):
    """Client and server see the same code, that of what came first."""
    client, connection = connect("/crossing")
    client.sendall(came)
    wait_until(lambda: listener.poll(0.01) or connection.close_code is not None, "what came to be read", 10)
    listener.shut_down(threading.Event())
    code, reason = answer
    payload = b"" if code == 1005 else code.to_bytes(2, "big") + reason.encode()
    assert client.recv(200) == bytes((0x88, len(payload))) + payload
    assert connection.close_code == code


def test_a_goodbye_is_said_to_all_where_the_others_end_and_are_gone_a_moment_later(listener, connect):
    client, _ = connect("/late")
    others_stay = iter([False])
    listener.shut_down(threading.Event(), lambda: next(others_stay, True))
    assert client.recv(4) == b"\x88\x02" + (1001).to_bytes(2, "big")


def test_a_listener_that_fails_says_so_once_and_goes_on(listener, connect, caplog, monkeypatch):
    """Whatever it is: there are all the other connections."""
    client, _ = connect("/other")
    work(listener)
    poll = listener.poller.poll

    class Failing:
        left = 3

        def __getattr__(self, name):
            return getattr(poller, name)

        def poll(self, timeout):
            if self.left:
                self.left -= 1
                raise OverflowError("a fault of ours")
            return poll(timeout)

    poller, listener.poller = listener.poller, Failing()
    with caplog.at_level(logging.ERROR, "uwasp.listener"):
        for _ in range(3):
            listener.poll(0)
    assert [record.getMessage() for record in caplog.records] == ["the listener failed, and goes on"]
    client.sendall(frame(9))
    listener.poll(1)
    assert client.recv(10) == b"\x8a\x00"


def test_a_wait_is_never_longer_than_the_poller_takes(listener, connect):
    """`close_timeout` of the longest that an option may have, and a timer that is beyond it."""
    timer = listener.call_later(1e12, list)
    connect("/idle", ping_interval=None)
    waits = []
    poller, listener.poller = listener.poller, SimpleNamespace(poll=lambda timeout: waits.append(timeout) or [])
    listener.poll()
    listener.poll(1e9)
    listener.poller = poller
    assert waits == [3600.0, 3600.0]
    timer.cancel()


def test_cancelled_timers_are_not_kept(listener):
    kept = [listener.call_later(3600, list) for _ in range(100)]
    for _ in range(10_000):
        listener.call_later(3600, list).cancel()
    assert len(listener._timers) < 1000
    for timer in kept:
        timer.cancel()
    listener.call_later(3600, list)
    assert len(listener._timers) < 202


def test_a_timer_that_is_left_runs_when_others_are_thrown_away(listener):
    ran = []
    listener.call_later(0, lambda: ran.append(True))
    for _ in range(1000):
        listener.call_later(3600, list).cancel()
    listener.poll(0)
    assert ran == [True]


def test_the_listener_watches_other_descriptors_too(listener, connect, caplog):
    """What a callback raises is its own."""
    near, far = socket.socketpair()
    heard = []

    def hear():
        heard.append(near.recv(10))
        if len(heard) == 2:
            raise RuntimeError("a fault in a callback")

    with closing(near), closing(far):
        listener.watch(near.fileno(), hear)
        for message in (b"one", b"two", b"three"):
            far.sendall(message)
            listener.poll(1)
        assert heard == [b"one", b"two", b"three"]
        assert [record.exc_info[1].args for record in caplog.records] == [("a fault in a callback",)]
        listener.unwatch(near.fileno())
        far.sendall(b"four")
        listener.poll(0)
        assert len(heard) == 3


def test_what_the_poller_does_not_take_is_not_watched(listener, tmp_path):
    with open(tmp_path / "file", "w") as file, pytest.raises(OSError, match="not permitted"):  # epoll has no use for it
        listener.watch(file.fileno(), list)
    assert listener._watched == {}


class Noting(Server):
    """Notes its events, and does what a message asks for."""

    others: list[WebSocket] = []  # noqa: RUF012 - for the test to fill

    def __init__(self, ws):
        super().__init__(ws)
        self.seen = []

    def on_message(self, message):
        self.seen.append(message)
        if message == "send to all":
            for ws in self.others:
                ws.send("hello")
        elif message == "exit":
            raise SystemExit(3)
        elif message == "nap":
            time.sleep(0.005)

    def on_close(self):
        self.seen.append("closed")


def text(*messages):
    return b"".join(frame(1, message.encode()) for message in messages)


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "one by one"])
def test_that_another_connection_is_closed_is_not_the_senders_end(listener, connect, caplog, monkeypatch, at_once):
    """It is logged, the rest of that event is not done, and the next one comes."""
    _, gone = connect("/gone")
    client, sender = connect("/sender", Noting)
    monkeypatch.setattr(Noting, "others", [SimpleNamespace(send=gone.send)])
    gone.close(4000, "left")
    messages = ["first", "send to all", "after it"]
    for sent in [messages] if at_once else [[message] for message in messages]:
        client.sendall(text(*sent))
        work(listener)
    assert sender.server.seen == messages
    assert sender.open
    (record,) = [record for record in caplog.records if record.name == "uwasp.server"]
    closed = f"connection {gone.number} is closed (code 4000, reason 'left')"
    assert (record.levelname, record.getMessage()) == (
        "WARNING",
        f"Noting for {sender} did not get on: {closed}; its own goes on",
    )


@pytest.mark.parametrize("messages", [("exit",), ("first", "exit", "last")], ids=["alone", "in a batch"])
def test_an_exit_in_a_server_is_the_end_of_its_connection_alone(listener, connect, messages):
    client, connection = connect("/exit", Noting)
    server = connection.server
    client.sendall(text(*messages))
    work(listener)
    assert server.seen == [*messages[: messages.index("exit") + 1], "closed"]
    assert (connection.close_code, connection.closed_by) == (1011, "an error in the server")


def test_a_slice_ends_and_the_others_have_their_turn(listener, connect):
    """What the server has not seen then comes first the next time."""
    client, busy = connect("/busy", Noting)
    other_client, other = connect("/other", Noting)
    work(listener)
    client.sendall(text("nap", "2", "3"))
    listener.poll(0)
    other_client.sendall(text("1"))
    listener.poll(0)
    assert listener.ready.popleft() is busy
    assert busy.consume() is True
    assert busy.server.seen == ["nap"]
    client.sendall(text("4"))
    listener.poll(0)
    assert list(listener.ready) == [other, busy]
    while listener.ready:
        assert listener.ready.popleft().consume() is False
    assert (busy.server.seen, other.server.seen) == (["nap", "2", "3", "4"], ["1"])


def test_a_slice_that_ends_with_the_last_message_leaves_nothing_to_do(listener, connect):
    """The connection is not in `ready` once more for nothing, nor are its messages kept."""
    client, connection = connect("/busy", Noting)
    work(listener)
    client.sendall(text("1", "nap"))
    listener.poll(0)
    assert listener.ready.popleft().consume() is False
    assert connection.server.seen == ["1", "nap"]
    assert not listener.ready
    assert connection._batch is None


def test_a_server_may_have_its_next_message_come_elsewhere(listener, connect):
    """Whether messages come together or one by one: as where each has a meaning by its place, like a greeting."""

    class Polite(Noting):
        def on_message(self, message):
            super().on_message(f"greeting {message}")
            self.on_message = self.seen.append

    client, connection = connect("/polite", Polite)
    client.sendall(text("1", "2", "3"))
    work(listener)
    assert connection.server.seen == ["greeting 1", "2", "3"]


def test_a_client_that_sends_without_end_gives_way_between_batches(listener, connect):
    class Endless(Noting):
        def on_message(self, message):
            super().on_message(message)
            client.sendall(text("more"))
            listener.poll(0)

    client, connection = connect("/endless", Endless)
    work_once = connect("/other")[1]
    work(listener)
    client.sendall(text("more"))
    listener.poll(0)
    assert listener.ready.popleft().consume() is True
    assert list(listener.ready) == [connection]
    assert work_once.open


def test_the_steps_of_consuming_are_enough_for_a_scheduler(listener, connect):
    """As docs/handlers.md has them: `begin`, `take`, `fail`, `put_back`, `done`."""
    client, connection = connect("/steps", Noting, max_queue=4)
    server = connection.server
    listener.poll(0)
    assert listener.ready.popleft() is connection
    assert connection.begin()
    assert connection.take() == []
    client.sendall(text(*map(str, range(10))))
    listener.poll(0)
    assert listener.ready.popleft() is connection
    assert not connection.begin()
    events = connection.take()
    assert events == ["0", "1", "2", "3"]
    connection.put_back(events[1:])
    taken = []
    while events := connection.take():
        taken += events
    assert taken == [str(number) for number in range(1, 10)]
    assert events == []
    client.sendall(text("last") + frame(8, b"\x03\xe8"))
    listener.poll(0)
    assert listener.ready.popleft() is connection
    connection.begin()
    assert connection.take() == ["last"]
    connection.fail(RuntimeError("raised by the server"))
    assert connection.take() is None
    server.on_close()
    connection.done()
    assert connection.server is None
    assert client.recv(100) == b"\x88\x02\x03\xe8"


def test_what_a_server_has_not_seen_when_it_closes_it_does_not_see(listener, connect):
    """Also of what a consumer has taken, puts back, or has not taken; the client's close frame behind it is seen."""
    client, connection = connect("/closing", Noting, max_queue=2)
    listener.poll(0)
    listener.ready.popleft().consume()
    client.sendall(text("1", "2", "3", "4", "5", "6") + frame(8, b"\x03\xe8"))
    listener.poll(0)
    connection.begin()
    events = connection.take()
    rest = events[1:]
    connection.close(4000, "enough")
    assert events == ["1"]  # which the server has been given already
    connection.put_back(rest)
    assert connection.take() is None
    assert connection._protocol.state == State.CLOSED
    assert client.recv(100) == b"\x88\x08\x0f\xa0enough"
    assert client.recv(100) == b""


def test_no_more_messages_wait_than_max_queue(listener, connect):
    """However many one read brings; all of them come, in order."""
    client, connection = connect("/queue", Noting, max_queue=3)
    messages = [str(number) for number in range(100)]
    work(listener)
    client.sendall(text(*messages))
    listener.poll(0)
    assert connection.queued_messages == 3
    work(listener)
    assert connection.server.seen == messages


def test_a_ping_waits_for_a_client_that_does_not_read_like_a_message(listener, connect):
    client, connection = connect("/slow", write_limit=2**16, send_timeout=0.3)
    connection.send(bytes(2**20))
    queued = connection.buffered_amount
    assert queued > 2**16
    begin = time.monotonic()
    with pytest.raises(ConnectionClosed, match=r"the client did not read for 0.3 s"):
        connection.ping(b"now")
    assert time.monotonic() - begin >= 0.3
    assert (connection.close_code, connection.closed_by) == (1006, "send_timeout")
    client.close()


def test_a_client_that_reads_slowly_is_not_cut(listener, connect):
    """`send_timeout` begins anew whenever it has read something; this takes several of them."""
    client, connection = connect("/slow", write_limit=2**16, send_timeout=1)
    connection.send(bytes(2**20))
    sent = threading.Event()

    def send():
        connection.send("at last")
        sent.set()

    sender = threading.Thread(target=send)
    sender.start()
    begin = time.monotonic()
    while not sent.is_set() and sender.is_alive():
        if time.monotonic() - begin < 2.5:
            client.recv(2**13)
            time.sleep(0.05)
        elif select.select([client], [], [], 0.01)[0]:  # once the last has been read, there is nothing more
            client.recv(2**16)
        listener.poll(0)
    sender.join(10)
    assert sent.is_set()
    assert time.monotonic() - begin > 2
    assert connection.open


def test_nothing_is_logged_under_a_connections_lock(listener, connect):
    """A log handler may send what it is given to a WebSocket, that of the connection among them."""
    locked = []

    class ToTheBrowser(logging.Handler):
        def emit(self, record):
            held = connection._lock.locked()
            locked.append((record.getMessage(), held))
            if not held and connection.open:
                connection.send(record.getMessage())

    logger, handler = logging.getLogger("uwasp"), ToTheBrowser()
    logger.addHandler(handler)
    before, _ = logger.level, logger.setLevel(logging.DEBUG)
    try:
        client, connection = connect("/log")
        work(listener)
        client.sendall(frame(8, b"\x03\xe8"))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        work(listener)
        work(listener)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    assert len(locked) == 2
    assert not any(held for _, held in locked)


@pytest.mark.parametrize(
    ("end", "who"),
    [
        (lambda client, connection: client.sendall(frame(8, b"\x03\xe8")), "the client"),
        (lambda client, connection: client.sendall(frame(3)), "a fault of the client's"),
        (lambda client, connection: client.shutdown(socket.SHUT_WR), END_OF_STREAM),
        (lambda client, connection: connection.close(4000, ""), "the server"),
        (lambda client, connection: connection.terminate(), "the server"),
        (lambda client, connection: connection._listener.shut_down(threading.Event()), "the goodbye of its worker"),
        (lambda client, connection: connection.keep_alive(time.monotonic() + 1000), "keepalive"),
        (lambda client, connection: connection.fail(RuntimeError()), "an error in the server"),
    ],
    ids=["client", "fault", "end", "close", "terminate", "goodbye", "keepalive", "error"],
)
def test_the_log_says_who_closed_a_connection_and_what_had_been(listener, connect, caplog, end, who):
    client, connection = connect("/told")
    work(listener)
    client.sendall(text("1", "2"))
    work(listener)
    connection.send("3")
    connection._pinged = time.monotonic() + 1  # for the keepalive: it is waiting for an answer
    with caplog.at_level(logging.INFO, "uwasp.connection"):
        end(client, connection)
        wait_until(lambda: work(listener) or caplog.records, "the line")
    message = caplog.records[-1].getMessage()
    assert re.fullmatch(
        rf"connection \d+ of 192\.0\.2\.7 at /told is closed with \d+ '.*' by {re.escape(who)}, after \d+\.\d s "
        r"with 2 messages from the client and 1 to it",
        message,
    )


def test_an_error_of_the_kernels_is_told_with_its_name(listener, connect, caplog):
    client, connection = connect("/reset")
    work(listener)
    connection._broken(ConnectionResetError(104, "Connection reset by peer"))
    with caplog.at_level(logging.INFO, "uwasp.connection"):
        work(listener)
    assert "by the kernel ([Errno 104] Connection reset by peer), after" in caplog.text
    client.close()


class Slow(Noting):
    def on_open(self):
        self.seen.append("open")

    def on_message(self, message):
        super().on_message(message)
        time.sleep(0.002)  # longer than a slice
        if message == "raise":
            raise RuntimeError("raised in on_message")


def test_the_steps_of_the_document_do_what_consume_does(listener, connect):
    steps = {}
    exec(code_of("steps.py"), steps)
    client, connection = connect("/steps", Slow)
    server = connection.server
    client.sendall(b"".join(frame(1, text) for text in (b"first", b"second", b"raise", b"not seen")))
    slices = 0

    def parted():
        nonlocal slices
        listener.poll(0.01)
        while listener.ready:
            steps["consume"](listener.ready.popleft())
            slices += 1
        return "raise" in server.seen

    wait_until(parted, "the server to have raised", 10)
    assert client.recv(200) == b"\x88\x10" + (1011).to_bytes(2, "big") + b"internal error"
    client.sendall(frame(8))
    wait_until(lambda: parted() and "closed" in server.seen, "on_close", 10)
    assert server.seen == ["open", "first", "second", "raise", "closed"]
    assert slices > 1
    assert connection.server is None


def test_no_pong_follows_the_close_frame(listener, connect):
    """RFC 6455 §5.5.1: not that of a ping which came while the client did not read, either."""
    client, connection = connect("/slow", write_limit=2**16)
    connection.send(bytes(2**20))
    client.sendall(frame(9, b"late"))
    work(listener)
    connection.close(1000, "")
    client.setblocking(False)
    received = bytearray()
    deadline = time.monotonic() + 10
    while connection.buffered_amount and time.monotonic() < deadline:
        received += client.recv(2**20)
        work(listener)
    received += client.recv(2**20)
    assert received.endswith(b"\x88\x02\x03\xe8")


def test_a_message_that_comes_in_many_reads_counts_in_full(listener, connect):
    """As it does over a network; what of it was read last would be next to nothing."""
    client, connection = connect("/long", Noting, max_queue_size=2**20, max_message_size=2**20)
    client.setblocking(False)
    message = b"\x82\xff" + (2**19).to_bytes(8, "big") + bytes(4 + 2**19)
    data = message * 8
    sent = 0
    while not connection._paused:
        assert sent < len(data), "all was read"
        with contextlib.suppress(BlockingIOError):
            sent += client.send(data[sent : sent + 2**12])
        listener.poll(0)
    assert connection.queued_messages == 2


def test_what_arrives_while_another_thread_looks_at_what_was_left_unread_comes_behind_it(listener, connect):
    client, connection = connect("/unread", Noting)
    connection._protocol.max_messages = 2
    client.sendall(text("1", "2", "3"))
    listener.poll(0)
    protocol = connection._protocol
    with connection._lock:
        unread, protocol.unread = protocol.unread, None  # as a consumer does with it, who has the lock
        assert unread is not None
        connection._inbox = None
        client.sendall(text("4"))
        reading = threading.Thread(target=connection.receive)
        reading.start()
        wait_until(lambda: not has_arrived(connection.fd), "it to be read")
        protocol.unread = unread
    reading.join()
    connection._inbox = ["1", "2"] + (connection._inbox or [])
    while len(connection.server.seen) < 4:
        work(listener)
    assert connection.server.seen == ["1", "2", "3", "4"]


def test_nothing_is_taken_while_another_thread_has_the_lock(listener, connect):
    client, connection = connect("/locked", Noting, max_queue=2)
    client.sendall(text("1", "2", "3", "4", "5"))
    listener.poll(0)
    taken = []
    with connection._lock:
        taking = threading.Thread(target=lambda: taken.append(connection.take()))
        taking.start()
        taking.join(0.1)
        assert not taken
    taking.join()
    assert taken == [["1", "2"]]
    assert connection._inbox == ["3", "4"]


def test_more_is_read_once_all_that_was_left_unread_is_in_the_inbox(listener, connect):
    client, connection = connect("/paused", Noting, max_queue=2)
    client.sendall(text("1", "2", "3"))
    listener.poll(0)
    client.sendall(text("4"))
    listener.poll(0)
    assert connection._paused
    assert connection.take() == ["1", "2"]
    assert connection._inbox == ["3"]
    listener.poll(0)
    assert connection._inbox == ["3", "4"]


PING_OF_THE_CLIENT = frame(9)
BEHIND = [
    (PING_OF_THE_CLIENT, None),
    (frame(8, b"\x03\xe8"), 1000),
    (frame(3), 1002),
    (frame(1, b"\xff"), 1007),
    (frame(2, bytes(2**20 + 1))[:14], 1009),
    (frame(1, b"begun", fin=False) + frame(0, b", and ended"), None),
    (text("to come")[:5], None),
]


@pytest.mark.parametrize(("behind", "code"), BEHIND)
def test_what_is_behind_what_was_left_unread_is_found_with_it(listener, connect, behind, code):
    client, connection = connect("/behind", Noting, max_queue=2)
    client.sendall(text("1", "2", "3") + behind)
    listener.poll(0)
    assert connection.close_code is None
    assert connection.take() == ["1", "2"]
    assert connection._inbox is not None
    assert connection._inbox[0] == "3"
    assert connection._protocol.unread is None
    assert connection.close_code == code
    if behind == PING_OF_THE_CLIENT:
        assert client.recv(2) == b"\x8a\x00"


@pytest.mark.parametrize("end", ["all was seen", "closed by the server", "closed by the client", "cut"])
def test_a_flood_is_in_order_while_other_threads_tell_and_close(listener, connect, end):
    """With more than `max_queue` in each read, and in threads that meet where they seldom do."""
    count = 3000
    client, connection = connect("/flood", Noting, max_queue=7, max_queue_size=60, close_timeout=0.1)
    over = threading.Event()

    def read():
        while not over.is_set():
            listener.poll(0.001)

    def consume():
        while not over.is_set():
            with contextlib.suppress(IndexError):
                listener.ready.popleft().consume()

    def tell():
        while not over.is_set():
            connection.tell(Told("on_missed", "a group"))
            if end not in ("all was seen", "closed by the client") and len(seen) > count / 4:
                connection.close(4000, "enough") if end == "closed by the server" else connection.terminate()

    seen = connection.server.seen
    interval = sys.getswitchinterval()
    threads = [threading.Thread(target=target) for target in (read, consume, tell)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        with contextlib.suppress(OSError):  # it was cut
            client.sendall(text(*map(str, range(count))) + (frame(8) if end == "closed by the client" else b""))
        if end == "all was seen":
            wait_until(lambda: len(seen) == count, "all to be seen", 30)
        else:
            client.setblocking(False)
            wait_until(lambda: is_over(client), "the end", 30)
            client.close()
            wait_until(lambda: connection.server is None, "`on_close`", 30)
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()
    if end != "all was seen":
        assert seen.pop() == "closed"
    assert seen == [str(number) for number in range(len(seen))]
    assert len(seen) == count or end in ("closed by the server", "cut")
    assert connection.messages_in >= len(seen)
    assert connection._protocol.unread is None


def is_over(client):
    with contextlib.suppress(BlockingIOError):
        return client.recv(2**16) == b""
    return False


def has_arrived(fd):
    waiting = bytearray(4)
    fcntl.ioctl(fd, termios.FIONREAD, waiting)
    return any(waiting)


@pytest.mark.parametrize("kind", ["ASCII", "text that is not ASCII at its end", "binary"])
@pytest.mark.parametrize("at_once", [2**12, 10**9])
def test_a_long_message_is_whole_however_it_comes(listener, connect, kind, at_once):
    size = 5 * 2**20 if at_once > 2**12 else 10**6 + 1
    message = b"".join(b"%07d\n" % number for number in range(size // 8))
    message += {"ASCII": b"x", "binary": b"\xff"}.get(kind, "ü".encode())
    expected = message if kind == "binary" else message.decode()
    client, connection = connect("/long", Noting)
    connection._protocol.max_message_size = 2**23
    client.setblocking(False)
    data = frame(2 if kind == "binary" else 1, message) + text("behind it")
    sent = 0
    while sent < len(data) or len(connection.server.seen) < 2:
        if sent < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += client.send(data[sent : sent + at_once])
        work(listener)
    assert connection.server.seen == [expected, "behind it"]
    assert (connection.bytes_in, connection.messages_in) == (len(data), 2)


@pytest.mark.parametrize("limit", ["messages", "bytes"])
def test_no_more_wait_however_often_a_slice_ends_before_the_server_has_seen_all(listener, connect, limit):
    """What is put back and what has come since are together twice the limit at most, not more with each slice."""

    class Slow(Noting):
        def on_message(self, message):
            super().on_message(message[:6])
            time.sleep(0.0012)
            listener.poll(0)  # as a thread of its own would meanwhile

    options = {"max_queue": 8} if limit == "messages" else {"max_queue": 10**6, "max_queue_size": 2**14}
    client, connection = connect("/slow", Slow, **options)
    client.setblocking(False)
    size = 0 if limit == "messages" else 2**12
    data = text(*(f"{number:06}".ljust(size) for number in range(1000)))
    sent = most = 0
    while sent < len(data) or connection.queued_messages or connection._protocol.unread or listener.ready:
        with contextlib.suppress(BlockingIOError):
            sent += client.send(data[sent : sent + 2**14])
        listener.poll(0)
        most = max(most, connection.queued_messages)
        if listener.ready:
            listener.ready.popleft().consume()
    assert connection.server.seen == [f"{number:06}" for number in range(1000)]
    assert most <= (2 * 8 if limit == "messages" else 2 * (2**14 + 2**16 + 2**18) // size)
