"""Every way to put uWSGI behind a port that uWASP promises to work with, seen from an independent client."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

PROXY = """
    proxy_pass http://{target};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_set_header Host $http_host;
"""
UWSGI = """
    uwsgi_pass {target};
    include /etc/nginx/uwsgi_params;
"""


def speaks_websocket_and_http(url):
    """Echoes with several connections, in turn and at once, and serves plain HTTP beside them."""
    with connect(f"{url}/echo") as first, connect(f"{url}/echo") as second:
        for client in (first, second):
            client.send("text")
            client.send(b"binary")
        for client in (second, first):
            assert client.recv(10) == "text"
            assert client.recv(10) == b"binary"
        with urlopen(f"{url.replace('ws://', 'http://')}/page", timeout=10) as response:
            assert response.read() == b"GET /page"
        message = "x" * 500_000
        first.send(message)
        assert first.recv(10) == message
    with connect(f"{url}/echo") as third:
        third.send("again")
        assert third.recv(10) == "again"
        third.close(4000, "bye")
    assert third.close_code == 4000


@pytest.mark.parametrize("options", [(), ("--processes", "2"), ("--lazy-apps",), ("--lazy-apps", "--processes", "2")])
def test_http_socket(serve, options):
    speaks_websocket_and_http(serve(*options).url)


def test_http_socket_without_master(serve):
    speaks_websocket_and_http(serve(master=False).url)


def test_http11_socket_with_threads(serve, handler):
    if handler != "threads":
        pytest.skip("uWSGI's gevent loop does not serve --http11-socket, with or without uWASP")
    speaks_websocket_and_http(serve(kind="http11-socket").url)


def test_http_router_with_http_websockets(serve):
    speaks_websocket_and_http(serve("--http-websockets", kind="http").url)


def test_nginx_with_uwsgi_pass(serve, start_nginx):
    uwsgi = serve(kind="socket")
    speaks_websocket_and_http(start_nginx(UWSGI.format(target=uwsgi.address)).url)


def test_nginx_with_uwsgi_pass_to_a_unix_socket(serve, start_nginx):
    uwsgi = serve(kind="socket", unix=True)
    speaks_websocket_and_http(start_nginx(UWSGI.format(target=f"unix:{uwsgi.path}")).url)


def test_nginx_with_proxy_pass(serve, start_nginx):
    uwsgi = serve()
    speaks_websocket_and_http(start_nginx(PROXY.format(target=uwsgi.address)).url)


def test_nginx_with_proxy_pass_to_a_unix_socket(serve, start_nginx):
    uwsgi = serve(unix=True)
    speaks_websocket_and_http(start_nginx(PROXY.format(target=f"unix:{uwsgi.path}")).url)


def test_a_monkey_patched_application(serve, handler):
    if handler != "gevent":
        pytest.skip("the thread handler refuses patched threads")
    speaks_websocket_and_http(serve(env={"UWASP_PATCH": "1"}).url)


def test_the_log_of_uwsgi_shows_101(serve):
    uwsgi = serve()
    with connect(f"{uwsgi.url}/echo"):
        uwsgi.wait_for_output("GET /echo => generated 0 bytes")
    assert "(HTTP/1.1 101)" in uwsgi.output
