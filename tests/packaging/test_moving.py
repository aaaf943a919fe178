"""The programs of the documents about moving: what was written runs on what it was for, what one writes runs on ours.

For its clients, each chat is the same before and after.
"""

from __future__ import annotations

import re
import sys
import urllib.request
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHeader, InvalidStatus
from websockets.sync.client import connect

from documents import code_block
from environments import REPOSITORY, Environment
from processes import LOOP_OPTIONS, Process, wait_until

FLASK_SOCK = REPOSITORY / "docs" / "moving-from-flask-sock.md"
FLASK_UWSGI_WEBSOCKET = REPOSITORY / "docs" / "moving-from-flask-uwsgi-websocket.md"
PEOPLE = ("ada", "bob", "eve", "kim")


def program(folder, code):
    path = folder / "program.py"
    path.write_text(code)
    return path


@pytest.fixture(params=["gevent", "threads"])
def serve(request, start_uwsgi, tmp_path):
    """Serve a program on uWASP: `serve(code, *options of uWSGI)`."""

    def start(code, *options):
        return start_uwsgi(program(tmp_path, code), *LOOP_OPTIONS[request.param], *options, "--callable", "app")

    return start


def cookie_for(name, host):
    with urllib.request.urlopen(f"http://{host}/names/{name}", b"", timeout=10) as response:
        return {"Cookie": response.headers["Set-Cookie"].split(";")[0]}


def talk(host, path, with_cookies):
    """People come; when they all hear the last one, each hears all that this one says, in order."""
    with ExitStack() as stack:
        clients = []
        for name in PEOPLE:
            url = f"ws://{host}{path.format(name=name)}"
            client = connect(url, additional_headers=cookie_for(name, host) if with_cookies else None)
            clients.append(stack.enter_context(client))
        speaker = clients[-1]
        for client in clients:
            while not hears(client, f"{PEOPLE[-1]}: hello"):
                speaker.send("hello")  # another worker learns of a member a moment later
        for number in range(100):
            speaker.send(str(number))
        for client in clients:
            heard = [as_text(client.recv(10))]
            while heard[-1] != f"{PEOPLE[-1]}: 99":
                heard.append(as_text(client.recv(10)))
            assert heard[-100:] == [f"{PEOPLE[-1]}: {number}" for number in range(100)]


def hears(client, text):
    """Whether the next message is there soon, and is that."""
    try:
        return as_text(client.recv(0.5)) == text
    except TimeoutError:
        return False


def as_text(message):
    return message if isinstance(message, str) else message.decode()


# flask-sock


@pytest.fixture
def flask_sock(started, tmp_path):
    """The host of `before.py`, served by Werkzeug."""
    path = program(tmp_path, code_block(FLASK_SOCK, "python", "# before.py"))
    command = [sys.executable, "-m", "flask", "--app", str(path), "run", "--port", "0"]
    process = started(lambda folder: Process(command, folder / "flask.log", cwd=folder))
    process.wait_for_output("Running on http://")
    return re.findall(r"Running on http://(\S+)", process.output)[0]


def with_our_imports():
    imports = code_block(FLASK_SOCK, "python", "from uwasp_flask import ConnectionClosed\n")
    theirs = "from flask_sock import Sock\nfrom simple_websocket import ConnectionClosed\n"
    before = code_block(FLASK_SOCK, "python", "# before.py")
    assert before.count(theirs) == 1
    return before.replace(theirs, imports)


def test_the_chat_that_was_written_for_flask_sock_runs_there(flask_sock):
    talk(flask_sock, "/rooms/blue", with_cookies=True)


def test_with_the_imports_changed_it_runs_here(serve):
    uwsgi = serve(with_our_imports())
    talk(uwsgi.address, "/rooms/blue", with_cookies=True)
    assert closed(uwsgi.address) == (1008, "who are you?")


def test_what_one_writes_in_place_of_it_runs_in_two_workers(serve):
    uwsgi = serve(code_block(FLASK_SOCK, "python", "# after.py"), "--processes", "2")
    talk(uwsgi.address, "/rooms/blue", with_cookies=True)
    with pytest.raises(InvalidStatus, match="401"):
        connect(f"{uwsgi.url}/rooms/blue")


def closed(host):
    """With which code and reason somebody without a name is closed."""
    with connect(f"ws://{host}/rooms/blue") as client:
        with pytest.raises(ConnectionClosed) as ended:
            client.recv(10)
        return ended.value.rcvd.code, ended.value.rcvd.reason


def test_flask_sock_is_as_the_document_says(flask_sock):
    """Where it differs from uWASP; that uWASP is as it says is for its own tests."""
    with connect(f"ws://{flask_sock}/rooms/blue", origin="https://elsewhere.example", proxy=None) as client:
        assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
    large = "x" * (2**20 + 1)
    with connect(
        f"ws://{flask_sock}/rooms/large", additional_headers=cookie_for("ada", flask_sock), max_size=None
    ) as client:
        client.send(large)
        assert client.recv(10) == f"ada: {large}"


# Flask-uWSGI-WebSocket


def test_what_one_writes_in_place_of_flask_uwsgi_websocket_runs_in_two_workers(serve):
    uwsgi = serve(code_block(FLASK_UWSGI_WEBSOCKET, "python", "# after.py"), "--processes", "2")
    assert people(uwsgi) == "0 here\n"
    talk(uwsgi.address, "/chat/{name}", with_cookies=False)
    with connect(f"{uwsgi.url}/chat/ada") as client:
        client.send("hello")
        assert client.recv(10) == "ada: hello"
        wait_until(lambda: people(uwsgi) == "1 here\n", "the others to be seen to be gone")


def people(uwsgi):
    with urllib.request.urlopen(f"http://{uwsgi.address}/", timeout=10) as response:
        return response.read().decode()


@pytest.mark.source_build
def test_the_chat_that_was_written_for_flask_uwsgi_websocket_runs_there(start_uwsgi, tmp_path):
    """With what it was made for; but for the Python, whose asyncio gets back what the unused part of it looks for."""
    environment = Environment(tmp_path / "environment")
    old = re.findall(r"Flask (1\S+) and Werkzeug (\S+),", FLASK_UWSGI_WEBSOCKET.read_text())[0]
    environment.install("--no-deps", "Flask-uWSGI-WebSocket==0.6.1")
    environment.install(
        f"flask=={old[0]}", f"werkzeug=={old[1]}", "jinja2<3", "markupsafe<2.1", "itsdangerous<2.1", "gevent"
    )
    code = "import asyncio, types\nasyncio.coroutine = types.coroutine\n"
    code += code_block(FLASK_UWSGI_WEBSOCKET, "python", "# before.py")
    options = ("--gevent", "20", "--virtualenv", str(environment.cwd), "--callable", "app")
    uwsgi = start_uwsgi(program(tmp_path, code), *options)
    assert people(uwsgi) == "0 here\n"
    talk(uwsgi.address, "/chat/{name}", with_cookies=False)
    with connect(f"{uwsgi.url}/chat/ada", origin="https://elsewhere.example") as client:
        client.send(b"binary")
        assert client.recv(10) == "ada: binary"  # as text
        assert people(uwsgi) == "1 here\n"
    with pytest.raises(InvalidHeader, match="multiple values: a, b"):
        connect(f"{uwsgi.url}/chat/bob", subprotocols=["a", "b"])
