"""Who does not read, or does not keep up, is waited for by nobody else, and costs a bounded amount of memory."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time

import pytest
from websockets.sync.client import connect

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.inquiry import ask, figures, wait_until_it_stands_still
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until

LIMITS = APPLICATIONS / "limits.py"
WRITE_LIMIT = 2**17
BLOCK = 2**16 + 8  # the size of one message of `Talkative`
BLOCK_FRAME = BLOCK + 10
MAX_QUEUE = 8
READ = 2**16  # what a connection reads at once
MEGABYTE = 2**20
NUMBERED = 1024  # the size of one message to `Gate`


@pytest.fixture
def start(serve):
    def start(**options):
        return serve(application=LIMITS, middleware=options)

    return start


def check_echo(uwsgi):
    with connect(f"{uwsgi.url}/echo", proxy=None) as other:
        other.send("unharmed?")
        assert other.recv(10) == "unharmed?"


def read_exactly(client, size):
    data = bytearray(client.received[:size])
    del client.received[:size]
    while len(data) < size:
        part = client.socket.recv(min(2**20, size - len(data)))
        assert part
        data += part
    return bytes(data)


def numbered(number):
    """With a mask of zeros, since masking many in Python takes long."""
    return b"\x81\xfe" + NUMBERED.to_bytes(2, "big") + bytes(4) + f"{number:08}".ljust(NUMBERED).encode()


def send_numbered(client, count):
    """In a thread: as fast as the server reads."""
    data = b"".join(map(numbered, range(count)))
    thread = threading.Thread(target=client.socket.sendall, args=(data,))
    client.socket.settimeout(60)
    thread.start()
    return thread


@pytest.mark.usefixtures("may_wait")
def test_send_waits_for_a_client_that_does_not_read_and_nobody_else_does(start):
    uwsgi = start(write_limit=WRITE_LIMIT)
    before = figures(uwsgi.port)["memory"]
    count = 600
    with RawClient(uwsgi.port, "/talk?slow") as client:
        client.send(frame(1, str(count).encode()))
        wait_until(lambda: figures(uwsgi.port)["buffered"].get("slow", 0) >= WRITE_LIMIT, "the limit")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["sent"]["slow"])
        check_echo(uwsgi)
        found = figures(uwsgi.port)
        assert found["sent"]["slow"] < count
        assert WRITE_LIMIT <= found["buffered"]["slow"] == found["queued_out"] < WRITE_LIMIT + BLOCK_FRAME
        assert found["memory"] - before < 20 * MEGABYTE
        for number in range(count):
            assert read_exactly(client, BLOCK_FRAME)[10:18] == number.to_bytes(8, "big")
        wait_until(lambda: figures(uwsgi.port)["buffered"]["slow"] == 0, "nothing to be queued")


@pytest.mark.usefixtures("may_wait")
def test_a_client_that_does_not_read_is_cut_after_send_timeout(start):
    uwsgi = start(write_limit=WRITE_LIMIT, send_timeout=1)
    before = figures(uwsgi.port)["memory"]
    with RawClient(uwsgi.port, "/talk?slow") as client:
        client.send(frame(1, b"100000"))  # 6 GB
        uwsgi.wait_for_output("slow send raised 1006 the client did not read for 1 s")
        uwsgi.wait_for_output("slow on_close 1006 the client did not read for 1 s")
        assert "at /talk does not read: cut after 1 s" in uwsgi.output
        wait_until(lambda: figures(uwsgi.port)["open"] == 0, "the connection to be gone")
        found = figures(uwsgi.port)
        assert (found["queued_out"], found["closed"]) == (0, {"1006": 1})
        assert found["memory"] - before < 20 * MEGABYTE
        check_echo(uwsgi)


@pytest.mark.usefixtures("may_wait")
@pytest.mark.parametrize("end", ["closes", "resets", "is cut"])
def test_a_waiting_send_ends_with_its_connection(start, end):
    """Long before send_timeout."""
    uwsgi = start(write_limit=WRITE_LIMIT)
    with RawClient(uwsgi.port, "/talk?slow") as client:
        client.send(frame(1, b"100000"))
        wait_until(lambda: figures(uwsgi.port)["buffered"].get("slow", 0) >= WRITE_LIMIT, "the limit")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["sent"]["slow"])
        if end == "closes":
            client.send(frame(8, b"\x03\xe8"))
        elif end == "resets":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.socket.close()
        else:
            client.socket.shutdown(socket.SHUT_RDWR)
        uwsgi.wait_for_output(f"slow send raised {1000 if end == 'closes' else 1006}", timeout=10)
        uwsgi.wait_for_output("slow on_close")


def test_several_senders_wait_for_one_client(start):
    """In native threads, under gevent as well."""
    uwsgi = start(write_limit=WRITE_LIMIT)
    with RawClient(uwsgi.port, "/echo?slow") as client:
        client.send(frame(1, b"hello"))
        client.recv()  # `on_open` has been called
        for _ in range(4):
            ask(uwsgi.port, "fill/slow")
        wait_until(lambda: figures(uwsgi.port)["buffered"].get("slow", 0) >= WRITE_LIMIT, "the limit")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["messages_out"])
        before = figures(uwsgi.port)["messages_out"]
        read_exactly(client, 20 * MEGABYTE)
        assert figures(uwsgi.port)["messages_out"] > before
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["messages_out"])
        assert figures(uwsgi.port)["queued_out"] < WRITE_LIMIT + 4 * BLOCK_FRAME
        check_echo(uwsgi)
    uwsgi.wait_for_output("slow filled until 1006", 4)


def test_in_a_callback_of_the_hub_send_never_waits(start, waits):
    if waits != "gevent":
        pytest.skip("the hub is gevent's")
    uwsgi = start(write_limit=WRITE_LIMIT)
    with RawClient(uwsgi.port, "/talk?slow") as client:
        client.send(frame(1, b"600"))
        wait_until(lambda: figures(uwsgi.port)["buffered"].get("slow", 0) >= WRITE_LIMIT, "the limit")
        ask(uwsgi.port, "send/hub/slow")
        uwsgi.wait_for_output("hub: sent", timeout=10)
        check_echo(uwsgi)


@pytest.mark.usefixtures("may_wait")
@pytest.mark.parametrize("limit", ["messages", "bytes"])
def test_reading_pauses_while_the_server_does_not_keep_up_and_nothing_is_lost(start, limit):
    options = {"max_queue": MAX_QUEUE} if limit == "messages" else {"max_queue": 10**9, "max_queue_size": 2**17}
    most = MAX_QUEUE if limit == "messages" else 2**17 // NUMBERED
    uwsgi = start(**options)
    before = figures(uwsgi.port)["memory"]
    count = 30_000
    with RawClient(uwsgi.port, "/gate?shut") as client:
        sender = send_numbered(client, count)
        wait_until(lambda: figures(uwsgi.port)["queued_in"] >= MAX_QUEUE, "the queue to be full")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["bytes_in"])
        check_echo(uwsgi)
        found = figures(uwsgi.port)
        assert sender.is_alive()  # TCP has slowed it down
        assert found["queued_in"] <= (most if limit == "messages" else most + READ // NUMBERED)
        assert found["bytes_in"] < 2**17 + 3 * READ
        assert found["memory"] - before < 20 * MEGABYTE
        ask(uwsgi.port, "open/shut")
        sender.join(60)
        assert not sender.is_alive()
        client.send(frame(1, b"count"))
        assert client.recv().data == str(count).encode()


@pytest.mark.usefixtures("may_wait")
def test_a_ping_is_answered_while_the_server_is_busy_but_not_from_behind_a_full_queue(start):
    uwsgi = start(max_queue=MAX_QUEUE)
    with RawClient(uwsgi.port, "/gate?shut") as client:
        client.send(numbered(0))
        wait_until(lambda: figures(uwsgi.port)["messages_in"] > figures(uwsgi.port)["queued_in"], "it to be busy")
        client.send(frame(9, b"early"))
        assert client.recv().data == b"early"
        sender = send_numbered_from(client, 1, 20_000)
        wait_until(lambda: figures(uwsgi.port)["queued_in"] >= MAX_QUEUE, "the queue to be full")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["bytes_in"])
        assert select.select([client.socket], [], [], 0.3)[0] == []
        ask(uwsgi.port, "open/shut")
        sender.join(60)
        assert client.recv().data == b"late"


def send_numbered_from(client, first, count):
    data = b"".join(map(numbered, range(first, count))) + frame(9, b"late")
    thread = threading.Thread(target=client.socket.sendall, args=(data,))
    client.socket.settimeout(60)
    thread.start()
    return thread


@pytest.mark.parametrize("end", ["closes", "half-closes", "resets"])
def test_a_paused_connection_that_its_client_leaves_costs_no_processor_time(start, end):
    uwsgi = start(max_queue=MAX_QUEUE)
    with RawClient(uwsgi.port, "/gate?shut") as client:
        for number in range(0, 1000, 100):  # in pieces, so that several are read
            client.send(b"".join(map(numbered, range(number, number + 100))))
        wait_until(lambda: figures(uwsgi.port)["queued_in"] >= MAX_QUEUE, "the queue to be full")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["bytes_in"])
        if end == "half-closes":
            client.socket.shutdown(socket.SHUT_WR)
        elif end == "resets":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if end != "half-closes":
            client.socket.close()
        time.sleep(0.1)
        before = figures(uwsgi.port)["cpu"]
        time.sleep(1)
        assert figures(uwsgi.port)["cpu"] - before < 0.3
        ask(uwsgi.port, "open/shut")
        uwsgi.wait_for_output("shut on_close 1006")
        wait_until(lambda: figures(uwsgi.port)["open"] == 0, "the connection to be gone")
