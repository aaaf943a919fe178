"""The programs of docs/socketio.md and docs/moving-from-flask-socketio.md, run as they say."""

from __future__ import annotations

from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from documents import code_block, code_blocks
from socketio_clients import BOTH
from socketio_servers import get

DOCS = Path(__file__).parents[2] / "docs"
SOCKETIO = DOCS / "socketio.md"
MOVING = DOCS / "moving-from-flask-socketio.md"


@pytest.fixture
def run(start_uwsgi, tmp_path):
    """Run a program by its command in the document: `run(document, "rooms.py", "--threads", "4")`."""

    def start(document, name, *options, replace=("", ""), **keywords):
        module = name.removesuffix(".py")
        if options:
            assert any(
                line.startswith("uwsgi ") and " ".join(options) in line and line.endswith(f" --module {module}:app")
                for block in code_blocks(document, "sh")
                for line in block.splitlines()
            )
        application = tmp_path / name
        application.write_text(code_block(document, "python", f"# {name}").replace(*replace))
        return start_uwsgi(application, *(options or ("--threads", "4")), "--callable", "app", **keywords)

    return start


def test_rooms_and_a_page_that_says_something(run, new_client):
    uwsgi = run(SOCKETIO, "rooms.py", "--threads", "4")
    ada, bob = new_client(), new_client()
    for client, name in ((ada, "ada"), (bob, "bob")):
        client.connect(f"http://{uwsgi.address}", query=f"name={name}")
        client.call("join", "blue")
    assert [ada.receive() for _ in range(2)] == [["said", "ada is here"], ["said", "bob is here"]]
    assert bob.receive() == ["said", "bob is here"]
    assert ada.call("say", "blue", "hello") == "done"
    get(uwsgi, "/say/blue/news")
    assert [bob.receive() for _ in range(2)] == [["said", "hello"], ["said", "news"]]


def test_a_server_of_python_socketio(run, new_client):
    uwsgi = run(SOCKETIO, "events.py")
    client = new_client()
    client.connect(f"http://{uwsgi.address}")
    assert client.call("echo", "hello") == "hello"


def test_several_processes_with_websockets_alone_and_redis(run, new_client, redis):
    replace = ("redis://127.0.0.1:6379", redis.url)
    uwsgi = run(SOCKETIO, "many.py", "--processes", "4", "--threads", "4", replace=replace)
    assert "client manager" not in uwsgi.output
    new_client().connect(f"http://{uwsgi.address}")


def test_a_program_that_has_moved_from_flask_socketio(run, new_client):
    uwsgi = run(MOVING, "votes.py", "--gevent", "100")
    response = get(uwsgi, "/login/ada")[0]
    cookie = "; ".join(
        f"{name}={morsel.value}" for name, morsel in SimpleCookie(response.headers["Set-Cookie"]).items()
    )
    ada, bob = new_client(), new_client()
    ada.connect(f"http://{uwsgi.address}", BOTH, cookie=cookie)
    bob.connect(f"http://{uwsgi.address}", BOTH)
    assert [client.receive() for client in (ada, bob)] == 2 * [["votes", {}]]
    assert ada.call("vote", "yes") == "thank you, ada"
    assert [client.receive() for client in (ada, bob)] == 2 * [["votes", {"yes": 1}]]
    assert bob.call("vote", "no") == "thank you, whoever you are"
    assert [client.receive() for client in (ada, bob)] == 2 * [["votes", {"yes": 1, "no": 1}]]
