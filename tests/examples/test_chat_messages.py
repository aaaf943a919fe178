"""The chat's server, as clients see it that send what the page never would."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect


@pytest.fixture
def url(serve_example):
    return f"{serve_example('chat/chat.py').url}/chat"


@pytest.fixture
def open_client(url):
    with ExitStack() as clients:
        yield lambda **keywords: clients.enter_context(connect(url, proxy=None, **keywords))


@pytest.fixture
def join(open_client):
    def join(name, **keywords):
        client = open_client(**keywords)
        send(client, type="join", name=name)
        welcome = receive(client)
        assert welcome["type"] == "welcome"
        return client, welcome

    return join


def send(client, **event):
    client.send(json.dumps(event))


def receive(client):
    return json.loads(client.recv(timeout=20))


def close_code(client):
    """Wait until the server closes the connection."""
    with pytest.raises(ConnectionClosedError) as closed:
        client.recv(timeout=20)
    return closed.value.rcvd.code


def test_who_joins_learns_who_is_here_and_the_others_learn_of_it(join):
    ada, welcome = join("Ada")
    assert welcome == {"type": "welcome", "name": "Ada", "people": ["Ada"]}
    _, welcome = join("Bob")
    assert welcome == {"type": "welcome", "name": "Bob", "people": ["Ada", "Bob"]}
    assert receive(ada) == {"type": "joined", "name": "Bob"}


NAMES = {
    "": "Guest",
    "   ": "Guest 2",
    "  Ada   Lovelace ": "Ada Lovelace",
    "Line\nbreak\0": "Line break",
    "\u202eTurned\ud800": "Turned",
    "bob": "bob",
    "BOB": "BOB 2",
    "Bob": "Bob 3",
}


def test_a_name_is_one_line_and_nobody_elses(join):
    assert {wanted: join(wanted)[1]["name"] for wanted in NAMES} == NAMES


def test_a_name_is_free_again_when_its_owner_has_left(join):
    observer, _ = join("Observer")
    ada, _ = join("Ada")
    assert receive(observer) == {"type": "joined", "name": "Ada"}
    ada.close()
    assert receive(observer) == {"type": "left", "name": "Ada"}
    assert join("Ada")[1]["name"] == "Ada"


BAD_MESSAGES = {
    "no JSON": "hello",
    "no JSON, binary": b"\xff\xfe\xfd",
    "brackets": "[" * 10_000,
    "digits": "1" * 10_000,
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
    ada, _ = join("Ada")
    for name, message in BAD_MESSAGES.items():
        mallory, _ = join(name)
        mallory.send(message)
        assert close_code(mallory) == 1008, name
        assert receive(ada) == {"type": "joined", "name": name}
        assert receive(ada) == {"type": "left", "name": name}
    send(ada, type="say", text="still here")
    assert receive(ada) == {"type": "said", "name": "Ada", "text": "still here"}


NOT_JOINED = [
    {"type": "say", "text": "not joined yet"},
    {"type": "join"},
    {"type": "join", "name": None},
    {"type": "join", "name": "x" * 25},
]


def test_nobody_speaks_before_joining_with_a_name(join, open_client):
    ada, _ = join("Ada")
    for event in NOT_JOINED:
        stranger = open_client()
        send(stranger, **event)
        assert close_code(stranger) == 1008, event
    send(ada, type="say", text="nobody came")
    assert receive(ada) == {"type": "said", "name": "Ada", "text": "nobody came"}


def test_blank_messages_are_not_passed_on(join):
    ada, _ = join("Ada")
    send(ada, type="say", text=" \n ")
    send(ada, type="say", text=" words ")
    assert receive(ada) == {"type": "said", "name": "Ada", "text": "words"}


def test_everybody_sees_the_same_in_the_same_order(join):
    clients = [join(f"client {number}")[0] for number in range(5)]
    for number in range(40):
        send(clients[number % 5], type="say", text=str(number))
    seen = []
    for client in clients:
        said = []
        while len(said) < 40:
            event = receive(client)
            if event["type"] == "said":
                said.append(event["text"])
        seen.append(said)
    assert all(said == seen[0] for said in seen)
    assert sorted(seen[0], key=int) == [str(number) for number in range(40)]


def test_a_client_that_does_not_read_keeps_nobody_waiting_and_has_to_leave(join, url):
    ada, _ = join("Ada")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = url.removeprefix("ws://").removesuffix("/chat").split(":")
    slow.connect((host, int(port)))
    join("Slow", sock=slow, max_queue=1)  # the client stops to read when its queue is full
    assert receive(ada) == {"type": "joined", "name": "Slow"}
    text = "x" * 2000
    for _ in range(3000):  # 6 MB, more than the buffers of both sockets hold
        send(ada, type="say", text=text)
        event = receive(ada)
        if event == {"type": "left", "name": "Slow"}:
            break
        assert event["text"] == text
    else:
        pytest.fail("it could stay")
    assert receive(ada)["text"] == text
    slow.close()


def test_a_client_that_is_gone_without_a_word_leaves(join):
    ada, _ = join("Ada")
    gone, _ = join("Gone")
    assert receive(ada) == {"type": "joined", "name": "Gone"}
    gone.socket.shutdown(socket.SHUT_RDWR)
    assert receive(ada) == {"type": "left", "name": "Gone"}
