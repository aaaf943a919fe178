"""The programs of docs/tokens.md do what it says, as a reader would copy them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest
from websockets.frames import Opcode

from browser import Browser
from processes import LOOP_OPTIONS
from raw import RawClient, frame

DOCUMENT = (Path(__file__).parents[2] / "docs" / "tokens.md").read_text()
OVER = (3000, "the session is over")


@pytest.fixture
def run(start_uwsgi, handler, tmp_path):
    """Start a uWSGI with a program: `run("cookies.py", *options, LASTS="1")`, with numbers in it replaced."""

    def start(name, *options, **numbers):
        (code,) = re.findall(rf"^```python\n(# {name}\n.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
        code, count = re.subn('"threads"', f'"{handler}"', code)
        assert count == 1
        for number, value in numbers.items():
            code, count = re.subn(rf"^{number} = \d+", f"{number} = {value}", code, flags=re.MULTILINE)
            assert count == 1
        program = tmp_path / name
        program.write_text(code)
        return start_uwsgi(program, *LOOP_OPTIONS[handler], *options)

    return start


def status(uwsgi, path, *headers):
    with RawClient(uwsgi.port, path, *headers) as client:
        return int(client.head.split()[1])


def ask(uwsgi, method, path, **headers):
    """The status and the body of a plain request."""
    connection = HTTPConnection("127.0.0.1", uwsgi.port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_session_of_a_cookie_ends_after_the_last_visit(run):
    uwsgi = run("cookies.py", LASTS=2)
    mine = "Cookie: a=b; session=3f9a"
    with RawClient(uwsgi.port, "/chat", mine) as client:
        begin = time.monotonic()
        assert client.recv().data == b"Hello Ada"
        assert status(uwsgi, "/chat") == 401
        assert status(uwsgi, "/chat", "Cookie: session=another") == 401
        assert status(uwsgi, "/chat", mine, "Origin: https://elsewhere.example") == 403
        time.sleep(max(0.0, begin + 1 - time.monotonic()))
        visited = time.monotonic()
        assert ask(uwsgi, "GET", "/", Cookie="session=3f9a")[0] == 200
        assert client.recv_close() == OVER
        assert time.monotonic() - visited > 1.9
    assert status(uwsgi, "/chat", mine) == 401


def test_a_ticket_is_good_for_one_handshake_in_any_worker(run):
    uwsgi = run("tickets.py", "--processes", "3")
    assert ask(uwsgi, "POST", "/ticket")[0] == 401
    assert ask(uwsgi, "POST", "/ticket", Authorization="Bearer another")[0] == 401
    for _ in range(5):
        code, ticket = ask(uwsgi, "POST", "/ticket", Authorization="Bearer a-long-token")
        assert (code, len(ticket)) == (200, 43)
        with RawClient(uwsgi.port, f"/chat?ticket={ticket}") as client:
            assert client.recv().data == b"Hello Ada"
        assert status(uwsgi, f"/chat?ticket={ticket}") == 403
    assert status(uwsgi, "/chat?ticket=another") == 403
    assert status(uwsgi, "/chat") == 403


def test_a_ticket_is_good_for_some_seconds(run):
    uwsgi = run("tickets.py", TICKET_LASTS=1)
    _, ticket = ask(uwsgi, "POST", "/ticket", Authorization="Bearer a-long-token")
    time.sleep(1.1)
    assert status(uwsgi, f"/chat?ticket={ticket}") == 403


def test_a_page_comes_back_with_another_ticket_when_its_session_is_over(run, tmp_path):
    uwsgi = run("tickets.py", LASTS=1)
    browser = Browser(tmp_path)
    try:
        page = browser.open(f"http://{uwsgi.address}/")
        log = "document.getElementById('log').textContent"
        page.wait_for(f"{log}.startsWith('Hello Ada\\nclosed with 3000\\nHello Ada\\n')")
        page.evaluate("fetch = async () => ({status: 401})")
        page.wait_for(f"{log}.endsWith('closed with 3000\\nlog in again\\n')")
    finally:
        browser.stop()


def test_neither_log_has_a_ticket_in_it(run):
    (log_format,) = re.findall(r"^log-format = (.*)$", DOCUMENT, re.MULTILINE)
    uwsgi = run("tickets.py", "--log-format", log_format)
    _, ticket = ask(uwsgi, "POST", "/ticket", Authorization="Bearer a-long-token")
    assert status(uwsgi, f"/chat?ticket={ticket}") == 101
    assert status(uwsgi, f"/chat?ticket={ticket}") == 403
    uwsgi.wait_for_output("GET /chat => 403")
    uwsgi.wait_for_output("GET /chat => 101")
    assert ticket not in uwsgi.output


def test_a_first_message_shows_a_ticket_or_the_connection_ends(run):
    uwsgi = run("first_message.py", PATIENCE=1)
    with RawClient(uwsgi.port, "/chat") as client, RawClient(uwsgi.port, "/chat") as silent:
        client.send(frame(Opcode.TEXT, b"a-ticket"))
        assert client.recv().data == b"Hello Ada"
        with RawClient(uwsgi.port, "/chat") as stranger:
            stranger.send(frame(Opcode.TEXT, b"a-ticket"))
            assert stranger.recv_close() == (3000, "no such ticket")
        assert silent.recv_close() == OVER
        time.sleep(1)
        client.send(frame(Opcode.TEXT, b"still there"))
        assert client.recv().data == b"Ada: still there"


def jwt(claims, key=b"a key of 32 bytes or more, which is secret", algorithm="HS256"):
    parts = [encoded(json.dumps(part).encode()) for part in ({"alg": algorithm, "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{encoded(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def encoded(part):
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def test_the_end_of_a_jwt_is_that_of_the_connection(run):
    uwsgi = run("jwt_until.py")
    token = jwt({"sub": "Ada", "exp": int(time.time()) + 2})
    with (
        RawClient(uwsgi.port, "/chat", f"Cookie: token={token}") as page,
        RawClient(uwsgi.port, "/chat", f"Authorization: Bearer {token}") as other,
    ):
        for client in (page, other):
            assert client.recv().data == b"Hello Ada"
            assert client.recv_close() == OVER
    far = int(time.time()) + 3600
    for refused in (
        token,
        jwt({"sub": "Ada", "exp": far}, key=b"another"),
        jwt({"sub": "Ada", "exp": far}, algorithm="none"),
        jwt({"sub": "Ada"}),
        jwt({"exp": far}),
        jwt({"sub": "Ada", "exp": None}),
        "a.b.c",
        "",
    ):
        assert status(uwsgi, "/chat", f"Authorization: Bearer {refused}") == 401
    assert status(uwsgi, "/chat") == 401
