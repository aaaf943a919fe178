"""Clients that send without end, or much at once, hold up neither other connections nor HTTP requests."""

from __future__ import annotations

import select
import selectors
import statistics
import threading
import time
from contextlib import ExitStack, contextmanager
from urllib.request import urlopen

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.inquiry import ask
from uwasp_pytest.behaviour.raw import RawClient, frame

LIMITS = APPLICATIONS / "limits.py"
PROMISED = 0.5  # seconds, on a machine that is not busy otherwise
MESSAGES = 4681
TINY = frame(1, b"x" * 8) * MESSAGES  # 64 KiB, each some work for its server
TURNS = 100
TURN = 0.025  # seconds, on the average
SEVERAL = 20
WORK = SEVERAL * MESSAGES * 25e-6  # seconds, as `Working` has it; and what uWASP does comes on top of that


@contextmanager
def flooding(clients):
    """Each client sends messages as fast as the server reads them."""
    position = dict.fromkeys(clients, 0)  # in TINY, of what is sent next
    with selectors.DefaultSelector() as writable:
        for client in clients:
            client.socket.setblocking(False)
            writable.register(client.socket, selectors.EVENT_WRITE, client)
        is_over = threading.Event()

        def flood():
            while not is_over.is_set():
                for key, _ in writable.select(0.1):
                    start = position[key.data]
                    position[key.data] = (start + key.data.socket.send(memoryview(TINY)[start:])) % len(TINY)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            yield
            assert thread.is_alive()
        finally:
            is_over.set()
            thread.join()


def assert_others_are_served(uwsgi, other):
    """They are, on the average: single answers may be late for what else runs on this machine."""
    echoes, pages = [], []
    for number in range(15):
        before = time.monotonic()
        other.send(frame(1, str(number).encode()))
        assert other.recv().data == str(number).encode()
        between = time.monotonic()
        with urlopen(f"http://{uwsgi.address}/", timeout=10) as response:
            response.read()
        echoes.append(between - before)
        pages.append(time.monotonic() - between)
    assert statistics.mean(echoes) < PROMISED
    assert statistics.mean(pages) < PROMISED


def test_many_that_flood_do_not_starve_the_others(serve):
    uwsgi = serve(application=LIMITS)
    with ExitStack() as stack:
        other = stack.enter_context(RawClient(uwsgi.port, "/echo?other"))
        flooders = [stack.enter_context(RawClient(uwsgi.port, f"/working?{number}")) for number in range(50)]
        stack.enter_context(flooding(flooders))
        assert_others_are_served(uwsgi, other)
        with RawClient(uwsgi.port, "/echo?new") as new:
            assert_others_are_served(uwsgi, new)


def test_one_that_floods_does_not_starve_the_others(serve):
    uwsgi = serve(application=LIMITS)
    with (
        RawClient(uwsgi.port, "/echo?other") as other,
        RawClient(uwsgi.port, "/working?0") as flooder,
        flooding([flooder]),
    ):
        assert_others_are_served(uwsgi, other)


def test_several_that_send_much_at_once_do_not_hold_the_others_up(serve):
    """The yardstick is their own work, which takes longer on a busy machine, as answers do: 20 answers meanwhile are
    one in a quarter of `PROMISED`. One connection after the other, there would be a few. HTTP has no part in it: when a
    thread of uWSGI has its turn beside one that computes, is for Python and a busy machine to say.
    """
    uwsgi = serve(application=LIMITS)
    with ExitStack() as stack:
        other = stack.enter_context(RawClient(uwsgi.port, "/echo?other"))
        clients = [stack.enter_context(RawClient(uwsgi.port, f"/working?{number}")) for number in range(SEVERAL)]
        for client in clients:
            client.send(TINY + frame(1, b"last"))
        answers = 0
        while not all_are_done(clients):
            other.send(frame(1, b"hello"))
            assert other.recv().data == b"hello"
            answers += 1
    assert answers > 4 * WORK / PROMISED


def test_a_flood_leaves_the_threads_of_the_application_their_turns(serve):
    """One sleeps for a millisecond again and again. It has its turn 5 ms later, as Python promises it, or some more."""
    uwsgi = serve(application=LIMITS)
    ask(uwsgi.port, "tick")
    with RawClient(uwsgi.port, "/working?0") as flooder, flooding([flooder]):
        before, begin = ask(uwsgi.port, "ticks"), time.monotonic()
        while ask(uwsgi.port, "ticks") - before < TURNS:
            assert time.monotonic() - begin < TURNS * TURN


def all_are_done(clients):
    return len(select.select([client.socket for client in clients], [], [], 0)[0]) == len(clients)
