"""The thread handler's threads: what happens when there are not as many as it wants."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import pytest

from processes import wait_until
from raw import RawClient, frame
from test_signals import get

APPLICATION = Path(__file__).parent / "background.py"
FAILED = "no further consumer thread can be started, going on with 1: can't start new thread"


def test_a_consumer_that_cannot_be_started_is_one_line_and_a_few_tries(start_uwsgi):
    """The one that there is goes on, and when threads are to be had again the others need not wait for it any more."""
    uwsgi = start_uwsgi(APPLICATION, "--threads", "2")
    with RawClient(uwsgi.port, "/parent") as blocking, RawClient(uwsgi.port, "/parent") as other:
        blocking.send(frame(1, b"hello"))
        assert blocking.recv().data == b"hello"
        urlopen(f"http://{uwsgi.address}/no-further-thread", timeout=10).close()
        blocking.send(frame(1, b"sleep"))
        time.sleep(0.1)
        other.send(frame(1, b"hello"))
        assert blocking.recv().data == b"slept"
        assert other.recv().data == b"hello"
        assert uwsgi.output.count(FAILED) == 1
        assert 2 <= uwsgi.output.count("no thread") <= 10
        assert "Traceback" not in uwsgi.output
        blocking.send(frame(1, b"sleep"))
        time.sleep(0.1)
        other.send(frame(1, b"hello"))
        uwsgi.wait_for_output("no thread", uwsgi.output.count("no thread") + 1)
        urlopen(f"http://{uwsgi.address}/threads-again", timeout=10).close()
        begin = time.monotonic()
        assert other.recv().data == b"hello"
        assert time.monotonic() - begin < 2
        uwsgi.wait_for_output("consumer threads can be started again")


def test_while_the_listener_cannot_be_started_the_answer_is_503(start_uwsgi):
    uwsgi = start_uwsgi(APPLICATION, "--threads", "2")
    get(uwsgi, "/no-further-thread")
    for _ in range(2):
        with RawClient(uwsgi.port, "/parent") as refused:
            assert refused.head.startswith("HTTP/1.1 503 ")
            assert "Retry-After: 5" in refused.head.split("\r\n")
    uwsgi.wait_for_output("at /parent: threads, the listener's thread: can't start new thread")
    assert "Traceback" not in uwsgi.output
    get(uwsgi, "/threads-again")
    with RawClient(uwsgi.port, "/parent") as client:
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"


def test_the_names_that_uwsgi_interns_for_each_request_outlive_it(start_uwsgi):
    """Else the interpreter makes its table of them anew every thousand requests, in whichever thread it happens, and
    the memory of that thread grows by a megabyte.
    """
    uwsgi = start_uwsgi(APPLICATION, "--threads", "2")

    def kept():
        with urlopen(f"http://{uwsgi.address}/kept", timeout=10) as response:
            return json.load(response)

    names = {"wsgi.input", "wsgi.file_wrapper", "wsgi.multiprocess", "uwsgi.version", "uwsgi.node"}
    assert not names <= set(kept()["names"])
    RawClient(uwsgi.port, "/parent").socket.close()
    wait_until(lambda: kept()["open"] == 0, "the connection to be gone")
    for _ in range(5):
        time.sleep(0.02)  # so long does its last reference live
        assert names <= set(kept()["names"])


@pytest.mark.parametrize(("flooders", "consumers"), [(6, 4), (50, 64)])
def test_clients_that_flood_starve_nobody(start_uwsgi, flooders, consumers):
    """Each has more work sent than this takes, and the others' messages come in between, slice by slice."""
    uwsgi = start_uwsgi(APPLICATION, "--threads", "4", "--disable-logging", env={"MAX_CONSUMERS": str(consumers)})
    work = frame(1, b"x") * (1_000_000 // flooders)
    with ExitStack() as stack:
        other = stack.enter_context(RawClient(uwsgi.port, "/parent"))
        clients = [stack.enter_context(RawClient(uwsgi.port, "/laborious")) for _ in range(flooders)]
        pool = stack.enter_context(ThreadPoolExecutor(flooders))
        stack.callback(lambda: [client.socket.shutdown(socket.SHUT_RDWR) for client in clients])
        for client in clients:
            client.socket.settimeout(60)
            pool.submit(client.send, work)

        def hello(client):
            client.send(frame(1, b"hello"))
            assert client.recv().data == b"hello"

        def a_new_one():
            with RawClient(uwsgi.port, "/parent") as client:
                hello(client)

        time.sleep(1)
        for ask in (lambda: hello(other), a_new_one, lambda: get(uwsgi, "/")):
            assert median(timed(ask) for _ in range(7)) < 0.5
        other.send(frame(1, b"threads"))
        threads = json.loads(other.recv().data)
        assert len([name for name in threads if name.startswith("uwasp-consumer-")]) < 20


def timed(action):
    begin = time.monotonic()
    action()
    return time.monotonic() - begin
