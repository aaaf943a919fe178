"""The chat's server, as clients see it that send what the page never would."""

from __future__ import annotations

import json
import re
import socket
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

WORKERS = 2


class Client:
    """Somebody in a room.

    Attributes:
        welcome: what came first.
        people: who is there, as far as it was told, and where.
    """

    def __init__(self, connection, name):
        self.connection = connection
        self.people = {}
        self.send(type="join", name=name)
        self.welcome = self.receive("welcome")
        self.name = self.welcome["name"]
        self.receive("people")

    def send(self, **event):
        self.connection.send(json.dumps(event))

    def receive(self, kind):
        """The next event of a kind; what comes before it is about people, and noted."""
        while True:
            event = json.loads(self.connection.recv(timeout=20))
            if event["type"] == "people":
                self.people = event["people"]
            elif event["type"] == "presence":
                self.people.update(event["joined"])
                for name in event["left"]:
                    self.people.pop(name, None)
            if event["type"] == kind:
                return event

    def hears(self, text):
        """What was said next is this; who said it."""
        said = self.receive("said")
        assert said["text"] == text
        return said["name"]

    def sees(self, *names):
        """Wait until these people are there, and nobody else."""
        while sorted(self.people) != sorted(names):
            self.receive("presence")


@pytest.fixture
def url(serve_example):
    return serve_example("chat/chat.py", "--processes", str(WORKERS)).url


@pytest.fixture
def open_client(url):
    with ExitStack() as clients:
        yield lambda room="blue", **keywords: clients.enter_context(
            connect(f"{url}/rooms/{room}", proxy=None, **keywords)
        )


@pytest.fixture
def join(open_client):
    return lambda name, room="blue", **keywords: Client(open_client(room, **keywords), name)


@pytest.fixture
def in_each_worker(join):
    """Somebody in each worker: uWSGI's workers take connections as they like, so more are opened than stay."""
    found = {}
    for number in range(100):
        client = join(f"client {number}")
        if found.setdefault(client.welcome["place"], client) is not client:
            client.connection.close()
        if len(found) == WORKERS:
            for one in found.values():
                one.sees(*(client.name for client in found.values()))
            return list(found.values())
    raise AssertionError(f"all connections went to {list(found)}")


def close_code(client):
    """Wait until the server closes the connection."""
    with pytest.raises(ConnectionClosedError) as closed:
        list(client)  # all that comes before
    return closed.value.rcvd.code


def test_who_joins_learns_who_is_here_and_the_others_learn_of_it(join):
    ada = join("Ada")
    assert ada.people == {"Ada": ada.welcome["place"]}
    bob = join("Bob")
    assert bob.people == {"Ada": ada.welcome["place"], "Bob": bob.welcome["place"]}
    ada.sees("Ada", "Bob")
    assert ada.people == bob.people


def test_people_in_different_workers_see_and_hear_each_other(in_each_worker):
    for number, client in enumerate(in_each_worker):
        client.send(type="say", text=f"message {number}")
        assert [one.hears(f"message {number}") for one in in_each_worker] == [client.name] * WORKERS


def test_a_room_hears_nothing_of_another(join):
    ada, bob = join("Ada", "green"), join("Bob", "red")
    ada.send(type="say", text="in green")
    assert ada.hears("in green") == "Ada"
    bob.send(type="say", text="in red")
    assert bob.hears("in red") == "Bob"
    assert bob.people == {"Bob": bob.welcome["place"]}
    assert (ada.welcome["room"], bob.welcome["room"]) == ("green", "red")


def test_a_room_has_a_short_name(open_client):
    open_client("%C3%BC" * 24)
    with pytest.raises(InvalidStatus, match="404"):
        open_client("x" * 25)


NAMES = {
    "  Ada   Lovelace ": "Ada Lovelace",
    "Line\nbreak\0": "Line break",
    "\u202eTurned\U000e0001": "Turned",
    "bob": "bob",
}


def test_a_name_is_one_line(join):
    assert {wanted: join(wanted).name for wanted in NAMES} == NAMES


def test_who_gives_no_name_is_a_guest_with_a_number(join):
    assert re.fullmatch(r"Guest \d{4}", join("  \n ").name)


def test_one_name_in_two_tabs_is_one_person_who_leaves_with_the_last(join):
    ada, bob = join("Ada"), join("Bob")
    again = join("Bob")
    for client in (ada, bob, again):
        client.sees("Ada", "Bob")
    bob.connection.close()
    again.send(type="say", text="still here")
    assert ada.hears("still here") == "Bob"
    again.connection.close()
    ada.sees("Ada")


NO_JSON = {
    "words": "hello",
    "binary": b"\xff\xfe\xfd",
    "brackets": "[" * 10_000,
    "digits": "1" * 10_000,
    "a surrogate": '{"type": "say", "text": "\\ud800"}',
}
BAD_MESSAGES = {
    "a list": "[]",
    "null": "null",
    "no type": "{}",
    "unknown type": '{"type": "kick", "name": "Ada"}',
    "no text": '{"type": "say"}',
    "text is a number": '{"type": "say", "text": 1}',
    "text is a list": '{"type": "say", "text": ["x"]}',
    "text is too long": json.dumps({"type": "say", "text": "x" * 2001}),
    "joined already": '{"type": "join", "name": "Eve"}',
}


def test_what_the_page_never_sends_closes_that_connection_alone(join):
    ada = join("Ada")
    for code, messages in ((1007, NO_JSON), (1008, BAD_MESSAGES)):
        for name, message in messages.items():
            mallory = join(name)
            mallory.connection.send(message)
            assert close_code(mallory.connection) == code, name
    ada.sees("Ada")
    ada.send(type="say", text="still here")
    assert ada.hears("still here") == "Ada"


NOT_JOINED = [
    {"type": "say", "text": "not joined yet"},
    {"type": "join"},
    {"type": "join", "name": None},
    {"type": "join", "name": "x" * 25},
]


def test_nobody_speaks_before_joining_with_a_name(join, open_client):
    ada = join("Ada")
    for event in NOT_JOINED:
        stranger = open_client()
        stranger.send(json.dumps(event))
        assert close_code(stranger) == 1008, event
    ada.send(type="say", text="nobody came")
    assert ada.hears("nobody came") == "Ada"
    assert ada.people.keys() == {"Ada"}


def test_blank_messages_are_not_passed_on(join):
    ada = join("Ada")
    ada.send(type="say", text=" \n ")
    ada.send(type="say", text=" words ")
    assert ada.hears("words") == "Ada"


def test_what_one_says_is_heard_in_that_order_in_every_worker(in_each_worker):
    count = 200
    for number in range(count):
        for client in in_each_worker:
            client.send(type="say", text=str(number))
    for client in in_each_worker:
        said = {}
        for _ in range(count * WORKERS):
            event = client.receive("said")
            said.setdefault(event["name"], []).append(event["text"])
        assert said == {one.name: [str(number) for number in range(count)] for one in in_each_worker}


def test_a_client_that_does_not_read_keeps_nobody_waiting_and_has_to_leave(join, url):
    ada = join("Ada")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = url.removeprefix("ws://").split(":")
    slow.connect((host, int(port)))
    join("Slow", sock=slow, max_queue=1)  # the client stops to read when its queue is full
    ada.sees("Ada", "Slow")
    text = "x" * 2000
    for _ in range(3000):  # 6 MB, more than the buffers of both sockets hold
        ada.send(type="say", text=text)
        assert ada.hears(text) == "Ada"
        if "Slow" not in ada.people:
            break
    else:
        pytest.fail("it could stay")
    slow.close()


def test_a_client_that_is_gone_without_a_word_leaves(join):
    ada, gone = join("Ada"), join("Gone")
    ada.sees("Ada", "Gone")
    gone.connection.socket.shutdown(socket.SHUT_RDWR)
    ada.sees("Ada")
