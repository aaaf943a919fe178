"""A silent connection is pinged; one that does not answer is closed; one that is only idle lives."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest
from websockets.frames import Close, Opcode

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until

TIMED_OUT = (1011, "keepalive ping timeout")

SILENT_CLIENT = """
import sys, time
from websockets.sync.client import connect
with connect(sys.argv[1]) as client:
    print(client.recv(), flush=True)
    time.sleep(10_000)
"""


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "production.py"


@pytest.fixture
def name(request):
    """What a connection of this test is called in the log."""
    return request.node.name.translate(str.maketrans("[]", "--"))


@pytest.fixture
def client_at(server, name):
    """Connect a client that answers nothing by itself: `client_at(path)`."""
    clients = []

    def connect_to(path):
        client = RawClient(server.port, f"{path}?{name}")
        clients.append(client)
        assert client.recv().opcode is Opcode.TEXT
        return client

    yield connect_to
    for client in clients:
        client.socket.close()


def says_something(client, seconds):
    return bool(client.received or select.select([client.socket], [], [], seconds)[0])


def test_a_client_that_answers_no_ping_is_closed_with_1011(server, name, client_at):
    begin = time.monotonic()
    client = client_at("/watchful")
    ping = client.recv()
    assert (ping.opcode, ping.data) == (Opcode.PING, b"")
    assert client.recv_close() == TIMED_OUT
    assert 0.6 <= time.monotonic() - begin < 3
    wait_until(lambda: f"{name} closed 1011 keepalive ping timeout" in server.output, "on_close")
    client.recv_end()  # it is cut after close_timeout: it did not answer that, either


def test_a_client_that_answers_pings_lives(client_at):
    client = client_at("/watchful")
    for _ in range(8):
        assert client.recv().opcode is Opcode.PING
        client.send(frame(Opcode.PONG))
    client.send(frame(Opcode.TEXT, b"hello"))
    while (received := client.recv()).opcode is Opcode.PING:
        client.send(frame(Opcode.PONG))
    assert received.data == b"hello"


@pytest.mark.parametrize("sign", [frame(Opcode.TEXT, b"x"), frame(Opcode.PING), b"x"], ids=["message", "ping", "part"])
def test_any_data_is_a_sign_of_life(client_at, sign):
    """Pongs are not asked for by what comes by itself: a part of a large message is enough."""
    client = client_at("/watchful")
    if sign == b"x":
        client.send(frame(Opcode.BINARY, b"x" * 1000)[:100])
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        client.send(sign)
        time.sleep(0.1)
    client.socket.setblocking(False)
    data = bytes(client.received)
    while select.select([client.socket], [], [], 0)[0]:
        data += client.socket.recv(65536)
    assert Close(*TIMED_OUT).serialize() not in data


def test_without_an_interval_nobody_is_pinged(client_at):
    assert not says_something(client_at("/unconcerned"), 1.5)


def test_without_a_timeout_no_answer_is_needed(client_at):
    client = client_at("/patient")
    assert client.recv().opcode is Opcode.PING
    assert not says_something(client, 1.5)
    client.send(frame(Opcode.TEXT, b"hello"))
    assert client.recv().data == b"hello"


def test_a_client_whose_host_is_gone_is_noticed(server, name):
    """Nothing comes from it, not even the end of its connection: a process that is stopped is as silent."""
    command = [sys.executable, "-c", SILENT_CLIENT, f"{server.url}/watchful?{name}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        try:
            client.stdout.readline()
            os.kill(client.pid, signal.SIGSTOP)
            wait_until(lambda: f"{name} closed 1011 keepalive ping timeout" in server.output, "on_close", 10)
        finally:
            client.kill()
