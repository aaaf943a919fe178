"""What a connection keeps of its request's environ."""

from __future__ import annotations

import sys
import threading
from io import BytesIO

from uwasp import WebSocket, websocket


def environ(**further):
    return {
        "PATH_INFO": "/echo",
        "wsgi.input": BytesIO(),
        "wsgi.version": (1, 0),
        "HTTP_HOST": "".join(["ex", "ample"]),
    } | further


def test_it_is_the_requests_less_its_streams():
    ws = WebSocket(environ(HTTP_COOKIE="a=b"), "/echo")
    assert ws.environ == {"PATH_INFO": "/echo", "wsgi.version": (1, 0), "HTTP_HOST": "example", "HTTP_COOKIE": "a=b"}


def test_it_is_one_dict_from_the_first_time_that_somebody_asks_on():
    ws = WebSocket(environ(), "/echo")
    ws.environ["a framework's"] = 1
    assert ws.environ.pop("a framework's") == 1
    assert ws.environ == {"PATH_INFO": "/echo", "wsgi.version": (1, 0), "HTTP_HOST": "example"}


def test_several_threads_that_ask_at_once_get_the_same():
    def ask():
        barrier.wait()
        found.append(ws.environ)

    for _ in range(200):
        ws, barrier, found = WebSocket(environ(), "/echo"), threading.Barrier(4), []
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(each is ws.environ for each in found)
        assert len(found) == 4


def test_until_then_it_takes_half_the_memory_and_its_names_none():
    """For what a browser sends through a proxy: some thirty names."""
    sent = {f"HTTP_X_{number}": "value" for number in range(30)}
    one, other = WebSocket(environ(**sent), "/echo"), WebSocket(environ(**sent), "/echo")
    assert one._environ.names is other._environ.names
    kept = sys.getsizeof(one._environ) + sys.getsizeof(one._environ.values)
    assert kept < sys.getsizeof(one.environ) / 2


def test_connections_have_in_common_what_is_the_same():
    one, other = WebSocket(environ(), "/echo"), WebSocket(environ(), "/echo")
    assert one.environ is not other.environ
    assert one.environ["HTTP_HOST"] is other.environ["HTTP_HOST"]


def test_what_clients_choose_is_not_kept_for_ever():
    for number in range(10_000):
        name, value = f"HTTP_X_{number}", str(number) * 100
        assert WebSocket(environ(**{name: value}), "/echo").environ[name] == value
    assert len(websocket._shared) < 2000
    assert len(websocket._layouts) < 100
    assert max(map(len, websocket._shared)) < 1000
