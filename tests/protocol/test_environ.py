"""What a connection keeps of its request's environ."""

from __future__ import annotations

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


def test_connections_have_in_common_what_is_the_same():
    one, other = WebSocket(environ(), "/echo"), WebSocket(environ(), "/echo")
    assert one.environ is not other.environ
    assert one.environ["HTTP_HOST"] is other.environ["HTTP_HOST"]


def test_what_clients_choose_is_not_kept_for_ever():
    for number in range(10_000):
        name, value = f"HTTP_X_{number}", str(number) * 100
        assert WebSocket(environ(**{name: value}), "/echo").environ[name] == value
    assert len(websocket._shared) < 2000
    assert max(map(len, websocket._shared)) < 1000
