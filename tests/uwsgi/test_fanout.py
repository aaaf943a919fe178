"""What goes to all members of a group goes in order and in slices, and one member's trouble is its own.

On pairs of sockets, so it holds for the Python and for the C.
"""

from __future__ import annotations

import itertools
import logging
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from processes import wait_until
from uwasp import Listener, Server, WebSocket, fanout
from uwasp.connection import Connection
from uwasp.events import Told
from uwasp.fanout import COST, SLICE, Backlog, FanOut, Farewell
from uwasp.options import Options
from uwasp.protocol import FrameProtocol, encode_shared


class Noting(Server):
    def __init__(self, ws):
        super().__init__(ws)
        self.seen = []

    def on_notify(self, group, data):
        self.seen.append(data)

    def on_close(self):
        self.seen.append("closed")


@pytest.fixture
def new_listener():
    """Makes listeners, each of which the fixture reads to its end."""
    listeners = []

    def make():
        listeners.append(Listener())
        return listeners[-1]

    yield make
    for listener in listeners:
        for connection in listener.connections():
            connection.terminate()
        wait_until(lambda listener=listener: listener.poll(0.01) or not listener.connections(), "the end", 10)


@pytest.fixture
def listener(new_listener):
    return new_listener()


@pytest.fixture
def connect(listener):
    """Members, each a client's socket and its connection: `connect(how many, listener, **options)`."""
    clients = []

    def start(count=1, on=listener, **options):
        members = []
        for _ in range(count):
            client, served = socket.socketpair()
            client.settimeout(10)
            clients.append(client)
            ws = WebSocket({}, "/member", options=Options(**options))
            ws.connection = Connection(served.detach(), FrameProtocol(), ws.options, "192.0.2.7", "/member")
            server = Noting(ws)
            on.add(ws, server)
            members.append(SimpleNamespace(client=client, connection=ws.connection, ws=ws, server=server))
        work(on)
        return members

    yield start
    for client in clients:
        client.close()


def connections(members):
    return tuple(member.connection for member in members)


def work(listener):
    listener.poll(0)
    while listener.ready:
        listener.ready.popleft().consume(cork=True)


def text(number):
    return encode_shared(f"{number:04}")


def received(member):
    """The numbers that have come to its client."""
    member.client.setblocking(False)
    data = bytearray()
    try:
        while more := member.client.recv(2**20):
            data += more
    except BlockingIOError:
        pass
    found = []
    while data:
        if data[0] != 0x81:
            found.append(bytes(data))
            break
        found.append(int(data[2:6]))
        del data[:6]
    return found


@pytest.fixture
def slow_sends(monkeypatch):
    """Each send takes a third of a slice: then a few members are as good as thousands."""
    original = Connection._send_locked

    def slow(self, frame):
        time.sleep(SLICE / 3)
        original(self, frame)

    def start(members):
        for member in members:
            member.connection._corked = bytearray()  # what is kept back is not for the C
        monkeypatch.setattr(Connection, "_send_locked", slow)

    return start


def put(fan_out, members, *numbers):
    for number in numbers:
        assert fan_out.put(text(number), connections(members), 6)


def deliver(fan_out, listener):
    """All of it: a slice can end anywhere on a machine under load."""
    fan_out.run()
    wait_until(lambda: not fan_out._queue or listener.poll(0), "all to be delivered", 10)


def test_all_members_get_what_is_put_in_order(connect, listener):
    members = connect(20)
    fan_out = FanOut(Backlog())
    put(fan_out, members, *range(50))
    assert [received(member) for member in members] == [[]] * 20
    deliver(fan_out, listener)
    assert [received(member) for member in members] == [list(range(50))] * 20


def test_messages_events_and_farewells_are_in_one_order(connect, listener):
    members = connect(5)
    fan_out = FanOut(Backlog())
    everybody = connections(members)
    put(fan_out, members, 1)
    assert fan_out.put(Told("on_notify", "room", "told"), everybody, 0)
    put(fan_out, members, 2)
    assert fan_out.put(Farewell(4001, "bye"), everybody, 0)
    put(fan_out, members, 3)
    deliver(fan_out, listener)
    work(listener)
    for member in members:
        assert received(member) == [1, 2, b"\x88\x05\x0f\xa1bye"]
        assert member.connection.closed_by == "its group"
        assert member.server.seen == ["closed"]  # by which what it had not been told is dropped


def test_a_farewell_that_cannot_be_sent_is_refused():
    for code, reason in ((1006, ""), (99, ""), (1000, "x" * 124)):
        with pytest.raises(ValueError, match="close"):
            Farewell(code, reason)


# Slices


def test_the_caller_and_each_turn_of_the_listener_deliver_for_a_slice_and_not_longer(connect, listener, slow_sends):
    members = connect(20)
    slow_sends(members)
    fan_out = FanOut(Backlog())
    put(fan_out, members, 7)
    delivered = []

    def count():
        delivered.append(sum(member.connection.messages_out for member in members))

    fan_out.run()
    count()
    while fan_out._queue:
        before = time.monotonic()
        listener.poll(1)
        assert time.monotonic() - before < 0.5  # it was due at once
        count()
    steps = [after - before for before, after in itertools.pairwise([0, *delivered])]
    assert sum(steps) == 20
    assert max(steps) <= 4
    assert len(steps) >= 5


def test_so_they_do_where_each_send_is_fast(connect, listener, monkeypatch):
    members = connect(300)
    monkeypatch.setattr(fanout, "SLICE", 3e-5)
    fan_out = FanOut(Backlog())
    put(fan_out, members, 7)
    fan_out.run()
    turns = 1
    while fan_out._queue:
        listener.poll(0)
        turns += 1
    assert turns > 3
    assert [received(member) for member in members] == [[7]] * 300


def test_many_groups_share_a_slice(connect, listener, slow_sends):
    """Else each of them would take one each time that the listener polls."""
    members = connect(10)
    slow_sends(members)
    backlog = Backlog()
    groups = [FanOut(backlog) for _ in range(10)]
    for fan_out in groups:
        put(fan_out, members, 7)
        fan_out.run()
    sent = sum(member.connection.messages_out for member in members)
    listener.poll(0)
    assert 1 <= sum(member.connection.messages_out for member in members) - sent <= 4
    while any(fan_out._queue for fan_out in groups):
        listener.poll(0)
    assert sum(member.connection.messages_out for member in members) == 100
    assert backlog.queued == 0


@pytest.mark.parametrize("small_is_first", [True, False])
def test_each_group_has_its_turn(connect, listener, slow_sends, small_is_first):
    """A small group does not wait until a large one is done."""
    members = connect(30)
    slow_sends(members)
    backlog = Backlog()
    large, small = FanOut(backlog), FanOut(backlog)
    put(large, members, *range(10))
    put(small, members[:8], 7)
    for fan_out in (small, large) if small_is_first else (large, small):
        fan_out.run()
    while small._queue:
        listener.poll(0)
    assert len(large._queue) > 8


def test_thousands_of_small_deliveries_are_in_slices_too(connect, listener):
    (member,) = connect(write_limit=2**26)
    fan_out = FanOut(Backlog())
    for number in range(20_000):
        assert fan_out.put(encode_shared(f"{number:04}"), (member.connection,), 6)
    turns = 1
    fan_out.run()
    while fan_out._queue:
        listener.poll(0)
        turns += 1
    assert turns > 5
    assert member.connection.messages_out == 20_000


def test_others_are_read_between_the_slices(connect, listener, slow_sends):
    members = connect(60)
    slow_sends(members)
    (other,) = connect()
    fan_out = FanOut(Backlog())
    put(fan_out, members, 7)
    fan_out.run()
    other.client.sendall(b"\x89\x80\0\0\0\0")
    listener.poll(0)
    assert other.client.recv(10) == b"\x8a\x00"
    assert fan_out._queue


# Order and threads


def test_threads_that_deliver_at_once_deliver_in_the_order_of_put(connect, listener):
    members = connect(40)
    backlog = Backlog()
    fan_out = FanOut(backlog)
    lock = threading.Lock()
    numbers = itertools.count()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def deliver():
        for _ in range(50):
            with lock:
                assert fan_out.put(text(next(numbers)), connections(members), 6)
            fan_out.run()

    threads = [threading.Thread(target=deliver) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: listener.poll(0) or not any(thread.is_alive() for thread in threads), "the threads", 30)
        wait_until(lambda: listener.poll(0) or not fan_out._queue, "all to be delivered", 30)
    finally:
        sys.setswitchinterval(interval)
    assert [received(member) for member in members] == [list(range(200))] * 40
    assert backlog.queued == 0


def test_what_one_leaves_to_the_listeners_while_another_delivers_it_holds_up_nothing(
    connect, listener, slow_sends, monkeypatch
):
    members = connect(20)
    slow_sends(members)
    fan_out = FanOut(Backlog())
    put(fan_out, members, 7)
    leave = Backlog._go_on_later

    def leave_late(*arguments):
        monkeypatch.setattr(Backlog, "_go_on_later", leave)
        fan_out.deliver(time.monotonic() + 10)
        leave(*arguments)

    monkeypatch.setattr(Backlog, "_go_on_later", leave_late)
    fan_out.run()
    assert not fan_out._queue
    put(fan_out, members, 8)
    deliver(fan_out, listener)
    assert [member.connection.messages_out for member in members] == [2] * 20


def test_who_comes_while_another_delivers_does_not_wait(connect, listener, slow_sends):
    members = connect(3)
    fan_out = FanOut(Backlog())
    begun, may_go_on = threading.Event(), threading.Event()

    class Waiting(Told):
        __slots__ = ()

        def __len__(self):
            begun.set()
            may_go_on.wait(10)
            return 0

    assert fan_out.put(Waiting("on_notify", "room", 1), connections(members[:1]), 1)
    first = threading.Thread(target=fan_out.run)
    first.start()
    begun.wait(10)
    put(fan_out, members[1:], 7)
    before = time.monotonic()
    fan_out.run()
    assert time.monotonic() - before < 1
    assert [received(member) for member in members] == [[]] * 3
    may_go_on.set()
    first.join(10)
    wait_until(lambda: listener.poll(0) or not fan_out._queue, "all to be delivered", 10)
    assert [received(member) for member in members] == [[], [7], [7]]


# Faults


def test_a_fault_of_one_member_cuts_it_and_touches_no_other(connect, listener, monkeypatch, caplog):
    members = connect(5)
    members[2].connection._corked = bytearray()  # so that it is not for the C

    def failing(self, frame):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Connection, "_send_locked", failing)
    fan_out = FanOut(Backlog())
    put(fan_out, members[2:3], 1)
    with caplog.at_level(logging.ERROR, "uwasp.fanout"):
        deliver(fan_out, listener)
    monkeypatch.undo()
    put(fan_out, members, 2)
    deliver(fan_out, listener)
    assert f"{members[2].connection} failed when its group was sent to, and is cut" in caplog.text
    assert "a fault of ours" in caplog.text
    assert [received(member) for member in members] == [[2], [2], [], [2], [2]]
    assert members[2].ws.closed


@pytest.mark.parametrize("payload", [Told("on_notify", "room", 1), Farewell(4000, "")])
def test_so_does_one_in_being_told_or_closed(connect, monkeypatch, payload, caplog, listener):
    members = connect(3)
    original = getattr(Connection, "tell" if isinstance(payload, Told) else "close")

    def failing(self, *arguments):
        if self is members[1].connection:
            raise RuntimeError("a fault of ours")
        return original(self, *arguments)

    monkeypatch.setattr(Connection, original.__name__, failing)
    fan_out = FanOut(Backlog())
    fan_out.put(payload, connections(members), 0)
    deliver(fan_out, listener)
    assert "a fault of ours" in caplog.text
    work(listener)
    expected = [1] if isinstance(payload, Told) else ["closed"]
    assert [members[0].server.seen, members[2].server.seen] == [expected] * 2
    assert members[1].ws.close_code == 1006


def test_a_member_that_has_ended_is_passed_over(connect, listener):
    members = connect(3)
    members[0].ws.close()
    members[1].client.close()
    listener.poll(1)
    fan_out = FanOut(Backlog())
    put(fan_out, members, 1)
    fan_out.put(Told("on_notify", "room", 2), connections(members), 0)
    fan_out.put(Farewell(4000, ""), connections(members), 0)
    deliver(fan_out, listener)
    assert received(members[2]) == [1, b"\x88\x02\x0f\xa0"]
    assert received(members[0]) == [b"\x88\x02\x03\xe8"]


def test_it_comes_behind_what_waits_for_a_member_also_where_there_is_room_again(connect):
    (member,) = connect(slow_member=2**24)
    while member.connection.buffered_amount == 0:
        member.connection.send_shared(encode_shared(bytes(2**16)))
    while len(member.client.recv(2**16)) == 2**16:  # now it could be sent at once
        pass
    fan_out = FanOut(Backlog())
    put(fan_out, [member], 1)
    waiting = member.connection.buffered_amount
    fan_out.run()
    assert member.connection.buffered_amount == waiting + len(text(1))


def test_it_comes_behind_what_is_kept_back_for_a_member(connect):
    (member,) = connect()
    member.connection._corked = bytearray(text(1))
    fan_out = FanOut(Backlog())
    put(fan_out, [member], 2)
    fan_out.run()
    assert member.connection._corked == text(1) + text(2)
    member.connection._corked = None


def test_what_ends_a_greenlet_in_the_midst_of_it_loses_nothing(connect, listener, monkeypatch):
    class Killed(BaseException):
        pass

    members = connect(5)
    for member in members:
        member.connection._corked = bytearray()
    original = Connection._send_locked

    def killed_once(self, frame):
        original(self, frame)
        if self is members[1].connection:
            monkeypatch.setattr(Connection, "_send_locked", original)
            raise Killed

    monkeypatch.setattr(Connection, "_send_locked", killed_once)
    monkeypatch.setattr(fanout, "SLICE", 10)  # so that it is not the listener's
    fan_out = FanOut(Backlog())
    put(fan_out, members, 1)
    with pytest.raises(Killed):
        fan_out.run()
    wait_until(lambda: listener.poll(0) or not fan_out._queue, "the rest to be delivered", 10)
    for member in members:
        member.connection.flush_corked()
    assert [received(member) for member in members] == [[1]] * 5


def test_a_listener_that_has_ended_does_not_keep_the_members_of_another_waiting(connect, new_listener, slow_sends):
    dead, alive = new_listener(), new_listener()
    members = [*connect(10, dead), *connect(10, alive)]
    slow_sends(members)
    fan_out = FanOut(Backlog())
    put(fan_out, members, 7)
    fan_out.run()
    wait_until(lambda: alive.poll(0.01) or not fan_out._queue, "all to be delivered", 10)
    assert sum(member.connection.messages_out for member in members) == 20
    dead.poll(0)  # what was left to it, when it comes back, is nothing


def test_one_that_cannot_be_called_does_not_either(connect, new_listener, slow_sends, monkeypatch, caplog):
    broken, alive = new_listener(), new_listener()
    members = [*connect(5, broken), *connect(10, alive)]
    slow_sends(members)

    def failing(delay, action):
        raise OSError("its pipe is gone")

    monkeypatch.setattr(broken, "call_later", failing)
    fan_out = FanOut(Backlog())
    put(fan_out, members, 7)
    fan_out.run()
    wait_until(lambda: alive.poll(0) or not fan_out._queue, "all to be delivered", 10)
    assert "its pipe is gone" in caplog.text


# The bound


def test_no_more_waits_in_all_groups_together_than_the_bound(connect, listener):
    members = connect(10)
    backlog = Backlog(3 * (100 + COST))
    first, second = FanOut(backlog), FanOut(backlog)
    everybody = connections(members)
    frame = text(7)
    assert first.put(frame, everybody, 100)
    assert second.put(frame, everybody, 100)
    assert first.put(frame, everybody, 100)
    assert not first.put(frame, everybody, 100)
    assert not second.put(frame, everybody, 1)
    assert backlog.queued == 3 * (100 + COST)
    deliver(second, listener)
    assert first.put(frame, everybody, 100)
    deliver(first, listener)
    assert backlog.queued == 0
    assert {tuple(received(member)) for member in members} == {(7,) * 4}


def test_one_that_is_larger_than_the_bound_goes_by_itself(connect, listener):
    (member,) = connect()
    fan_out = FanOut(Backlog(10))
    assert fan_out.put(text(1), (member.connection,), 100)
    assert not fan_out.put(text(2), (member.connection,), 1)
    deliver(fan_out, listener)
    assert received(member) == [1]


def test_what_has_no_size_is_taken_beyond_the_bound_and_is_not_repeated_in_vain(connect, listener):
    members = connect(3)
    everybody = connections(members)
    fan_out = FanOut(Backlog(1))
    put(fan_out, members, 1)
    missed = Told("on_notify", "room", "missed")
    for _ in range(1000):
        assert fan_out.put(missed, everybody, 0)
    assert fan_out.put(missed, everybody[:2], 0)
    assert len(fan_out._queue) == 3
    deliver(fan_out, listener)
    work(listener)
    assert [member.server.seen for member in members] == [["missed"] * 2, ["missed"] * 2, ["missed"]]


def test_it_is_repeated_where_some_have_been_told_already(connect, listener):
    """It is about what was lost before, and they would not hear of what has been since."""
    members = connect(2)
    everybody = connections(members)
    fan_out = FanOut(Backlog())
    missed = Told("on_notify", "room", "missed")
    assert fan_out.put(missed, everybody, 0)
    fan_out._queue[0].go_on(0)
    fan_out._queue[0].has_begun = True
    assert fan_out.put(missed, everybody, 0)
    assert len(fan_out._queue) == 2


def test_without_members_nothing_is_queued():
    backlog = Backlog()
    fan_out = FanOut(backlog)
    assert fan_out.put(text(1), (), 6)
    fan_out.run()
    assert backlog.queued == 0
