"""Who follows docs/tutorial.md has what it says, at each step."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import connect

from commands import UWASP, Command, port_of, uwasp
from processes import BareUwsgi

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    for name, code in FILES.items():
        (folder / name).write_text(code)
    return folder


@pytest.fixture
def dev(started, project):
    """Start `uwasp dev` with what the tutorial gives it."""

    def start(application, *options):
        command = [*UWASP, "dev", application, "--port", "0", *options]
        assert " ".join(["uwasp", "dev", application, *options]) in TUTORIAL.read_text()
        return started(lambda folder: Command(command, folder, cwd=project))

    return start


def heard(client, name):
    """The next message of that kind."""
    while name not in (message := json.loads(client.recv(10))):
        continue
    return message[name]


def test_what_one_types_comes_back_and_after_a_save_in_capitals(dev, project):
    server = dev("echo:application")
    with connect(f"ws://127.0.0.1:{server.port}/echo") as client:
        client.send("hello")
        assert client.recv(10) == "hello"
        code = FILES["echo.py"].replace("self.ws.send(message)", "self.ws.send(message.upper())")
        (project / "echo.py").write_text(code)
        for _ in client:  # ends when it is told to go
            pass
        assert client.close_code == 1001
    server.wait_for_output("uwasp: reloaded")
    with connect(f"ws://127.0.0.1:{server.port}/echo") as client:
        client.send("hello")
        assert client.recv(10) == "HELLO"


def test_a_room_holds_together_over_two_workers(dev):
    server = dev("rooms:application", "--processes", "2")
    with ExitStack() as stack:
        url = f"ws://127.0.0.1:{server.port}/rooms"
        clients = [stack.enter_context(connect(f"{url}/kitchen")) for _ in range(6)]
        elsewhere = stack.enter_context(connect(f"{url}/cellar"))
        for client in clients:  # each is a member when its own message comes back
            client.send("here")
            while client.recv(10) != "here":
                continue
        clients[0].send("dinner")
        for client in clients:
            while client.recv(10) != "dinner":
                continue
        elsewhere.send("nobody else")
        assert elsewhere.recv(10) == "nobody else"


def test_the_chat_in_production_says_who_is_there_and_what_they_say(started, project):
    assert "uwasp run chat:application --bind 127.0.0.1:8000 --processes 4 --show\n" in TUTORIAL.read_text()
    command = [*UWASP, "run", "chat:application", "--bind", "127.0.0.1:0", "--processes", "4"]
    server = started(lambda folder: BareUwsgi([*command, "--stats", f"{folder}/stats"], folder / "log", cwd=project))
    server.wait_for_output("spawned uWSGI worker 4")
    url = f"ws://127.0.0.1:{port_of(server)}/rooms/kitchen"
    with connect(f"{url}?name=Ada") as ada, connect(f"{url}?name=Bob") as bob:
        while heard(ada, "here") != ["Ada", "Bob"]:
            continue
        while heard(bob, "here") != ["Ada", "Bob"]:
            continue
        bob.send(json.dumps("hello"))
        assert heard(ada, "text") == heard(bob, "text") == "Bob: hello"
        bob.close()
        while heard(ada, "here") != ["Ada"]:
            continue
    for client in (f"{url}", f"{url}?name="):
        with pytest.raises(Exception, match="HTTP 400"):
            connect(client)


def test_its_test_passes(project):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_chat.py"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("form", ["ini", "systemd", "nginx"])
def test_its_files_are_written(project, form):
    (line,) = re.findall(rf"^uwasp (config chat:application --for {form}.*?) > ", TUTORIAL.read_text(), re.MULTILINE)
    written = uwasp(*line.split(), cwd=project)
    told = [line for line in written.stderr.splitlines() if "www-data may not enter" not in line]  # a folder of tests
    assert (written.returncode, told) == (0, [])
    assert "chat" in written.stdout
