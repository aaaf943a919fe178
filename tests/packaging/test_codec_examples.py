"""Each server of docs/messages.md does on a real uWSGI what the document says of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from documents import code_blocks
from environments import REPOSITORY
from processes import Uwsgi

SERVERS = {
    found[1]: code
    for code in code_blocks(REPOSITORY / "docs" / "messages.md", "python")
    for found in re.finditer(r"^class (\w+)\(Server\b", code, re.MULTILINE)
}

# What is sent, what comes back, and what closes the connection, with which code.
EXCHANGES = {
    "Chat": ("text", "TEXT", b"binary", 1003),
    "Score": ('{"goal": "blue"}', '{"scored":"blue"}', "goal!", 1007),
    "Game": ('{"piece": "queen", "square": "d1"}', '{"piece":"queen","square":"e5"}', '{"piece": 1}', 1007),
    "Talk": ('{"type": "join", "name": "Ada"}', '{"type":"say","text":"Hello Ada"}', '{"type": "leave"}', 1007),
    "Total": (b"[1, 2, 3]", '{"total":6}', "[1, 2", 1007),
    "Sensor": (msgpack.packb({"heat": 21.5}), msgpack.packb([{"heat": 21.5}, "noted"]), "text", 1007),
}


@pytest.fixture
def uwsgi(start_uwsgi: Callable[..., Uwsgi], tmp_path: Path) -> Uwsgi:
    """Serves each at a path of its name."""
    for name, code in SERVERS.items():
        (tmp_path / f"example_{name}.py").write_text(code)
    imports = "\n".join(f"from example_{name} import {name}" for name in SERVERS)
    servers = ", ".join(f'("/{name}", {name})' for name in SERVERS)
    application = tmp_path / "application.py"
    application.write_text(
        "import logging\n\nlogging.basicConfig(level='INFO')\nfrom uwasp import WebSocketMiddleware\n"
        f"{imports}\n\napplication = WebSocketMiddleware(print, 'threads', [{servers}])\n"
    )
    return start_uwsgi(application, "--threads", "2", "--pythonpath", str(tmp_path))


def test_each_example_answers_and_refuses(uwsgi: Uwsgi) -> None:
    assert SERVERS.keys() == EXCHANGES.keys()
    for name, (sent, answer, refused, code) in EXCHANGES.items():
        with connect(f"{uwsgi.url}/{name}") as client:
            client.send(sent)
            assert client.recv(10) == answer, name
            with suppress(ConnectionClosed):
                client.send(refused)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == code, name
    example = code_blocks(REPOSITORY / "docs" / "messages.md", "text")[0].strip()
    assert re.sub(r"^.* at /game", "", example) == " sent what Game cannot decode: " + said_of("Game", uwsgi)
    assert "Traceback" not in uwsgi.output


def said_of(name: str, uwsgi: Uwsgi) -> str:
    """What the log has of what its codec raised."""
    (said,) = re.findall(rf" sent what {name} cannot decode: (.*)$", uwsgi.output, re.MULTILINE)
    return str(said)
