"""Flask and Django, each with a WebSocket around it, on a real uWSGI."""

from __future__ import annotations

import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest
from websockets.sync.client import connect

from processes import not_installed


@pytest.fixture(params=["flask", "django"])
def served(request, serve_example):
    if find_spec(request.param) is None:
        not_installed(request.param)
    return serve_example(f"{request.param}_echo.py")


def test_the_framework_serves_its_pages(served):
    with urllib.request.urlopen(f"http://{served.address}/", timeout=20) as response:
        assert b"new WebSocket" in response.read()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{served.address}/nothing", timeout=20)


def test_the_websocket_beside_it_echoes(served):
    with connect(f"{served.url}/echo", proxy=None) as client:
        for message in ("hello", "ünïcödé", b"\0binary"):
            client.send(message)
            assert client.recv(timeout=20) == message


def test_the_page_gets_back_what_it_sends(served, open_page):
    page = open_page(f"http://{served.address}/")
    page.wait_for("socket.readyState === WebSocket.OPEN")
    page.type("input", "from the page")
    page.press_enter()
    page.wait_for_text("pre", "from the page")
