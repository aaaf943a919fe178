"""Flask and Django, each with a WebSocket around it, on a real uWSGI."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import pytest
from websockets.sync.client import connect

from processes import not_installed

EXAMPLES = Path(__file__).parents[2] / "examples"
IN_ONE_PROCESS = """
from {example} import application
from uwasp.testing import connect
with connect(application, "/echo", headers={{"Origin": "http://localhost"}}) as ws:
    ws.send("hello")
    print(ws.receive())
"""


@pytest.fixture(params=["flask", "django"])
def example(request):
    if find_spec(request.param) is None:
        not_installed(request.param)
    return f"{request.param}_echo"


@pytest.fixture
def served(example, serve_example):
    return serve_example(f"{example}.py")


def test_the_framework_serves_its_pages(served):
    with urllib.request.urlopen(f"http://{served.address}/", timeout=20) as response:
        assert b"new Socket" in response.read()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{served.address}/nothing", timeout=20)


def test_the_websocket_beside_it_echoes(served):
    with connect(f"{served.url}/echo", proxy=None) as client:
        for message in ("hello", "ünïcödé", b"\0binary"):
            client.send(message)
            assert client.recv(timeout=20) == message


def test_the_page_gets_back_what_it_sends(served, open_page):
    page = open_page(f"http://{served.address}/")
    page.type("input", "from the page")
    page.press_enter()
    page.wait_for_text("pre", "from the page")


@pytest.mark.parametrize("handler", ["gevent", "threads"])
def test_it_is_tested_without_uwsgi(example, handler, monkeypatch):
    """In a process of its own, for Django is configured once in each."""
    monkeypatch.setenv("UWASP_HANDLER", handler)
    code = IN_ONE_PROCESS.format(example=example)
    run = subprocess.run([sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=True)
    assert run.stdout == "hello\n"
