"""What a function receives, step by step, on a socket pair, without a thread."""

from __future__ import annotations

import errno
import select
import threading
import time

import pytest

from processes import wait_until
from races import LockWithARace
from takeovers import ENVIRON, SocketPair
from uwasp import ConnectionClosed, Handler, Listener, WebSocketMiddleware
from uwasp.conversations import NOTHING, conversation, running
from uwasp.events import Told
from uwasp.exceptions import Refusal
from uwasp.incoming import SLICE

HELLO = b"\x81\x85\0\0\0\0hello"


class Stepping(Handler):
    """Whoever tests goes through the steps."""

    listener: Listener
    spawned: list
    latest = None

    @classmethod
    def spawn(cls, function, *args):
        cls.spawned.append((function, args))

    def handle(self, environ, protocol_name=None):
        type(self).latest = self.server
        self.listener.add(self.ws, self.server)
        return []


class Talk:
    """A function's connection, and what happens to it."""

    def __init__(self, function=lambda ws: None, **replaced):
        self.lock: LockWithARace  # the connection's, whose is the last that is made
        self.listener = Listener(new_lock=self.new_lock)
        self.handler = type("OwnStepping", (Stepping,), {"listener": self.listener, "spawned": []})
        middleware = WebSocketMiddleware(print, self.handler, [("/echo", function)])
        self.pair = middleware.takeover = SocketPair()
        vars(self.pair).update(replaced)
        self.statuses = []
        try:
            list(middleware(dict(ENVIRON), lambda status, headers: self.statuses.append(status[:3])))
        finally:
            self.conversation = self.handler.latest

    def new_lock(self):
        self.lock = LockWithARace()
        return self.lock

    def poll(self, timeout=0):
        self.listener.poll(timeout)
        while self.listener.ready:
            self.listener.ready.popleft().consume()

    @property
    def is_done(self):
        """The connection has let go of its server: nothing waits for it any more."""
        return self.conversation.ws.connection.server is None and self.conversation not in running()


@pytest.fixture
def talk():
    talk = Talk()
    yield talk
    talk.pair.client.close()
    talk.conversation.finish(None)
    talk.poll()
    assert talk.is_done


def test_a_message_is_there_once_it_has_come(talk):
    talk.poll()
    assert talk.conversation.next() is NOTHING
    talk.pair.client.sendall(HELLO * 2)
    assert talk.conversation.next() is NOTHING
    talk.poll()
    assert [talk.conversation.next() for _ in range(2)] == ["hello", "hello"]
    assert talk.conversation.next() is NOTHING


def test_whoever_waits_is_told_by_the_alarm(talk):
    talk.poll()
    assert talk.conversation.next() is NOTHING
    rung = []
    talk.conversation.alarm = lambda: rung.append("rung")
    talk.pair.client.sendall(HELLO)
    talk.poll()
    assert rung == ["rung"]


def test_what_is_told_of_groups_is_passed_over(talk):
    talk.poll()
    talk.pair.client.sendall(HELLO)
    talk.conversation.ws.connection.tell(Told("on_notify", "group"))
    talk.poll()
    talk.conversation.ws.connection.tell(Told("on_missed", "group"))
    assert talk.conversation.next() == "hello"
    assert talk.conversation.next() is NOTHING


def test_once_this_side_has_closed_nothing_is_received_that_came_before(talk):
    talk.poll()
    talk.pair.client.sendall(HELLO * 2)
    talk.poll()
    assert talk.conversation.next() == "hello"
    talk.conversation.ws.close(4001)
    with pytest.raises(ConnectionClosed, match="code 4001"):
        talk.conversation.next()


def test_after_the_last_message_comes_the_end_and_again(talk):
    talk.poll()
    talk.pair.client.sendall(HELLO + b"\x88\x82\0\0\0\0\x0f\xa0")
    talk.poll()
    assert talk.conversation.next() == "hello"
    for _ in range(2):
        with pytest.raises(ConnectionClosed, match="code 4000"):
            talk.conversation.next()


def test_a_connection_that_is_not_taken_over_calls_no_function():
    def fail(*_):
        raise Refusal(404)

    talk = Talk(duplicate=fail)
    assert talk.statuses == ["404"]
    ((run, arguments),) = talk.handler.spawned
    assert run(*arguments) is None  # it would wait, if nobody had told it
    talk.pair.client.close()
    talk.pair.own.close()


def test_a_connection_that_another_thread_closes_while_messages_are_taken_comes_to_its_end(talk):
    talk.poll()
    talk.pair.client.sendall(HELLO * 2)
    talk.poll()
    talk.lock.then = lambda: talk.conversation.ws.close(4001)
    ends = [end_of(talk.conversation) for _ in range(2)]
    assert ends in (["hello", "code 4001"], ["code 4001"] * 2)  # the first may have been taken already


def test_a_slice_that_is_over_has_whoever_polls_look_for_what_is_left(talk):
    """Else it would lie until something else comes: no consumer is awake."""
    talk.poll()
    talk.pair.client.sendall(HELLO * 4)
    talk.poll()
    slices = 1
    for _ in range(4):
        time.sleep(2 * SLICE)
        while (message := talk.conversation.next()) is NOTHING:
            assert select.select([talk.listener.poller.fileno()], [], [], 0)[0]
            talk.poll()
            slices += 1
        assert message == "hello"
    assert slices > 1


def test_whoever_receives_in_another_thread_is_told_that_the_function_has_returned(talk):
    talk.poll()
    ended = []
    thread = threading.Thread(target=lambda: ended.append(end_of(talk.conversation)), daemon=True)
    thread.start()
    wait_until(lambda: talk.conversation.alarm is not None, "it to wait")
    talk.conversation.finish(None)
    talk.poll()
    thread.join(10)
    assert ended == ["code 1000"]
    assert talk.is_done


def end_of(conversation):
    try:
        return conversation.receive(10)
    except ConnectionClosed as error:
        return f"code {error.code}"


def test_a_function_returns_while_another_thread_receives_what_cannot_be_decoded():
    class Codec:
        def decode(self, message):
            talk.conversation.finish(None)
            raise ValueError(message)

        def encode(self, value):
            raise NotImplementedError

    talk = Talk(conversation(codec=Codec())(lambda ws: None))
    talk.poll()
    talk.pair.client.sendall(HELLO)
    talk.poll()
    with pytest.raises(ConnectionClosed, match="code 1000"):
        talk.conversation.receive(1)
    talk.pair.client.close()
    talk.poll()
    assert talk.is_done


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_timeout_may_be_longer_than_the_system_can_wait(talk, timeout):
    talk.poll()
    received = []
    thread = threading.Thread(target=lambda: received.append(talk.conversation.receive(timeout)), daemon=True)
    thread.start()
    wait_until(lambda: talk.conversation.alarm is not None, "it to wait")
    talk.pair.client.sendall(HELLO)
    talk.poll(10)
    thread.join(10)
    assert received == ["hello"]


def test_one_whose_handshake_is_not_answered_yet_has_a_name_in_the_log():
    names = []

    def fail():
        names.extend(str(one) for one in running())
        raise Refusal(404)

    talk = Talk(duplicate=fail)
    assert names == ["<lambda> for <WebSocket /echo connecting>"]
    talk.pair.client.close()
    talk.pair.own.close()


class Waiting(Handler):
    """Functions run in threads, and a failure comes where the test wants it."""

    @classmethod
    def spawn(cls, function, *args):
        fail(cls, "spawn", RuntimeError("can't start new thread"))
        thread = threading.Thread(target=function, args=args, name="waiting", daemon=True)
        thread.start()

    def __init__(self, ws, server):
        fail(self, "handler", ZeroDivisionError())
        super().__init__(ws, server)

    def handle(self, environ, protocol_name=None):
        fail(self, "handle", ZeroDivisionError())
        return []


def fail(handler, place, error):
    if place == handler.fails_in:
        raise error


class FailingPair(SocketPair):
    def __init__(self, fails_in):
        super().__init__()
        self.fails_in = fails_in

    def duplicate(self):
        fail(self, "duplicate", OSError(errno.EMFILE, "no more"))
        return super().duplicate()

    def release(self, *args):
        fail(self, "release", OSError("write error"))  # as uWSGI has it where the client is gone
        super().release(*args)


@pytest.mark.parametrize(
    ("place", "outcome"),
    [
        ("max_conversations", "503"),
        ("spawn", "503"),
        ("handler", "ZeroDivisionError"),
        ("duplicate", "503"),
        ("release", ""),
        ("handle", "ZeroDivisionError"),
    ],
)
def test_nothing_waits_for_a_handshake_that_came_to_nothing(place, outcome):
    limit = 0 if place == "max_conversations" else 10
    handler = type("OwnWaiting", (Waiting,), {"fails_in": place, "max_conversations": limit})
    middleware = WebSocketMiddleware(print, handler, [("/echo", lambda ws: None)])
    pair = middleware.takeover = FailingPair(place)
    outcomes = []
    try:
        list(middleware(dict(ENVIRON), lambda status, headers: outcomes.append(status[:3])))
    except ZeroDivisionError:
        outcomes.append("ZeroDivisionError")
    assert outcomes[-1:] == [outcome] * bool(outcome)
    assert running() == []
    wait_until(lambda: "waiting" not in [thread.name for thread in threading.enumerate()], "its thread to end")
    pair.client.close()
    pair.own.close()
