"""Places for connections: one count, from the taking of one to the end of its connection."""

from __future__ import annotations

import errno
import os

import pytest

from takeovers import ENVIRON, SocketPair
from uwasp import Handler, Listener, Server, WebSocketMiddleware, admission, stats


class InTurn(Handler):
    """One listener for all; whoever wants to see something polls it. `in_handle` is called once it has a connection."""

    listener: Listener
    in_handle = staticmethod(lambda: None)

    def handle(self, environ, protocol_name=None):
        self.listener.add(self.ws, self.server)
        in_handle, type(self).in_handle = self.in_handle, staticmethod(lambda: None)
        in_handle()
        return []


class Worker:
    """A middleware with its own handler class, asked from sockets pairs."""

    def __init__(self, server_class=Server, **options):
        self.handler = type("OwnInTurn", (InTurn,), {"listener": Listener()})
        self.middleware = WebSocketMiddleware(print, self.handler, [("/echo", server_class)], **options)
        self.pairs = []

    def ask(self, **replaced):
        """The status of another handshake. Methods of its takeover can be replaced."""
        pair = SocketPair()
        vars(pair).update(replaced)
        self.middleware.takeover = pair
        self.pairs.append(pair)
        statuses = []
        list(self.middleware(dict(ENVIRON), lambda status, headers: statuses.append(status[:3])))
        return statuses[-1]

    def run(self):
        """Have all done that is due."""
        self.handler.listener.poll(0)
        while self.handler.listener.ready:
            self.handler.listener.ready.popleft().consume()


@pytest.fixture
def new_worker(monkeypatch):
    """Makes workers, in which no place is taken, whatever other tests have left open."""
    monkeypatch.setattr(admission, "_places", 0)
    workers = []

    def new(*arguments, **options):
        workers.append(Worker(*arguments, **options))
        return workers[-1]

    yield new
    for worker in workers:
        for pair in worker.pairs:
            pair.client.close()
            pair.own.close()
        for _ in range(3):
            worker.run()
    assert (admission._places, admission.accepting()) == (0, 0)


def test_a_connection_is_counted_once_while_its_request_is_still_under_way(new_worker):
    """The window between the listener's having it and the request's end, opened as wide as can be."""
    worker = new_worker(max_connections=2)
    seen = []

    def in_handle():
        seen.append((admission.accepting(), stats()["open"]))
        seen.append(worker.ask())
        seen.append(worker.ask())

    worker.handler.in_handle = staticmethod(in_handle)
    before = stats()["open"]
    assert worker.ask() == "101"
    assert seen == [(1, before + 1), "101", "503"]
    assert (admission.accepting(), stats()["open"]) == (0, before + 2)


def test_a_place_is_free_as_soon_as_its_connection_is_not_counted_as_open(new_worker):
    worker = new_worker(max_connections=1)
    assert [worker.ask(), worker.ask()] == ["101", "503"]
    forget = worker.handler.listener.forget
    seen = []

    def forget_and_look(connection):
        forget(connection)
        seen.append(admission._places)

    worker.handler.listener.forget = forget_and_look
    places = admission._places
    worker.pairs[0].client.close()
    worker.run()
    assert seen == [places - 1]
    assert worker.ask() == "101"


def gone(*_):
    raise BrokenPipeError("gone")


def no_descriptor(*_):
    raise OSError(24, os.strerror(24))


def fault(*_):
    raise RuntimeError("raised")


def test_what_comes_to_nothing_gives_its_place_back(new_worker):
    faulty = type("Faulty", (Server,), {"__init__": lambda self, ws: fault()})
    with pytest.raises(RuntimeError):
        new_worker(faulty, max_connections=1).ask()
    worker = new_worker(max_connections=1)
    assert worker.ask(duplicate=no_descriptor) == "503"
    with pytest.raises(RuntimeError):
        worker.ask(duplicate=fault)
    with pytest.raises(RuntimeError):
        worker.ask(release=fault)
    with pytest.raises(IndexError):  # it was not answered
        worker.ask(release=gone)
    worker.handler.in_handle = staticmethod(fault)
    with pytest.raises(RuntimeError):
        worker.ask()
    assert worker.ask() == "503"  # the listener has it already, and closes it as any other
    worker.pairs[-2].client.close()
    worker.run()
    worker.run()
    assert worker.ask() == "101"


def test_what_a_server_has_to_wait_for_while_it_is_made_is_no_lack_of_threads(new_worker):
    """EAGAIN is also what a socket says that has nothing to read: that is the server's own fault, and is raised."""

    class Reading(Server):
        def __init__(self, ws):
            raise BlockingIOError(errno.EAGAIN, "nothing to read")

    class Opening(Server):
        def __init__(self, ws):
            raise OSError(errno.EMFILE, "none left")

    with pytest.raises(BlockingIOError, match="nothing to read"):
        new_worker(Reading).ask()
    assert new_worker(Opening).ask() == "503"


@pytest.mark.parametrize("where", ["authorize", "__init__"])
@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt])
def test_a_server_that_would_have_python_exit_is_answered_with_500(new_worker, caplog, where, raised):
    """A thread of uWSGI's that exits leaves the client without an answer."""

    class Exiting(Server):
        def __init__(self, ws):
            super().__init__(ws)
            if where == "__init__":
                raise raised

        @classmethod
        def authorize(cls, environ):
            if where == "authorize":
                raise raised

    worker = new_worker(Exiting)
    assert worker.ask() == "500"
    assert f"at /echo: authorize, {raised.__name__} was raised, which ends nothing but this request" in caplog.text
    assert admission._places == 0
