"""What the documents tell a reader to type does what they say."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from commands import Command
from documents import README, code_block, code_blocks, links
from environments import REPOSITORY, Environment
from processes import Uwsgi

FOLDERS = (".", "docs", "packages/*", "examples/*")
DOCUMENTS = sorted(document for folder in FOLDERS for document in REPOSITORY.glob(f"{folder}/*.md"))
# What was written before somebody moved is run by test_moving.py, with the library for which it was written. What
# begins with the name of a file in a folder belongs to a project of Django's, and other tests make that run. And the
# tutorial's test is run in its place, by test_tutorial.py.
CODE = [
    (document, code)
    for document in DOCUMENTS
    for code in code_blocks(document, "python")
    if not re.match(r"# before\.py\n|# \w+/\w+\.py|# test_chat\.py", code)
]


@pytest.mark.parametrize("document", [README, REPOSITORY / "packages" / "uwasp-cli" / "README.md"], ids=["top", "cli"])
def test_the_server_at_the_top_of_a_readme_runs_as_it_says(
    document: Path,
    new_environment: Callable[[], Environment],
    distributions: Path,
    started: Callable[..., Any],
    tmp_path: Path,
) -> None:
    install = re.findall(r"^pip install (.*uwasp-meta pyuwsgi)$", document.read_text(), re.MULTILINE)[0]
    environment = new_environment()
    environment.install("--find-links", distributions, *install.removeprefix("--find-links dist ").split())
    default = {"uwasp-core", "uwasp-gevent", "uwasp-threads", "uwasp-cli", "uwasp-speedups"}
    assert environment.installed() >= {*default, "pyuwsgi"}

    assert code_block(document, "sh", "uwasp dev").splitlines()[-1] == "uwasp dev echo:application"
    application = tmp_path / "echo.py"
    application.write_text(code_blocks(document, "python")[0])
    command = [str(environment.programs / "uwasp"), "dev", "echo:application", "--port", "0"]
    dev: Command = started(lambda folder: Command(command, folder, cwd=tmp_path))
    echoes(dev.url)
    application.write_text(f"{application.read_text()}# saved\n")
    dev.wait_for_output("uwasp: reloaded")
    echoes(dev.url)
    with urlopen(dev.url, timeout=20) as response:
        assert response.status == 200


def echoes(url: str) -> None:
    with connect(f"{url}echo".replace("http", "ws"), proxy=None) as client:
        client.send("text")
        assert client.recv(10) == "text"
        client.send(b"binary")
        assert client.recv(10) == b"binary"


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document.name for document in DOCUMENTS])
def test_every_command_that_starts_a_uwsgi_survives_a_reload(document: Path) -> None:
    """Of pyuwsgi's that is; Debian's is named by its plugins."""
    for code in code_blocks(document, "sh"):
        for command in code.replace("\\\n", " ").splitlines():
            if command.startswith("uwsgi ") and "--master" in command and "--plugin" not in command:
                assert '--binary-path "$(command -v python3)"' in command


ECHO = """
from uwasp import Server, WebSocketMiddleware

application = WebSocketMiddleware(print, "threads", [("/echo", Server)])
"""
UWSGI_DATE = r"\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]"


def test_the_configuration_of_logging_matches_uwsgis_own_lines(
    start_uwsgi: Callable[..., Uwsgi], tmp_path: Path
) -> None:
    recipe = code_block(REPOSITORY / "docs" / "production.md", "python", "logging.basicConfig")
    application = tmp_path / "echo.py"
    application.write_text(recipe + ECHO)
    uwsgi = start_uwsgi(application, "--threads", "2")
    with connect(f"{uwsgi.url}/echo"):
        uwsgi.wait_for_output("is open")
        uwsgi.wait_for_output("GET /echo =>")
    (theirs,) = re.findall(rf"^\[pid: (\d+)\|app: .*{UWSGI_DATE} GET /echo =>", uwsgi.output, re.MULTILINE)
    (ours,) = re.findall(
        rf"^\[pid: (\d+)\] {UWSGI_DATE} INFO uwasp.connection: connection 1 of 127.0.0.1 at /echo is open$",
        uwsgi.output,
        re.MULTILINE,
    )
    assert theirs[0] == ours[0]
    times = [datetime.strptime(date, "%a %b %d %H:%M:%S %Y") for _, date in (theirs, ours)]
    assert abs(times[0] - times[1]) < timedelta(seconds=10)


def test_ci_runs_the_tests_by_the_command_of_the_readme() -> None:
    command = code_block(README, "sh", "hatch run test").strip()
    assert (REPOSITORY / ".ci" / "run").read_text().splitlines()[-1] == command


@pytest.mark.parametrize(("document", "code"), CODE, ids=[document.name for document, _ in CODE])
def test_python_code_runs(document: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)  # Pyramid looks there for who calls it
    exec(compile(code, str(document), "exec"), vars(example))


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(document.relative_to(REPOSITORY)) for document in DOCUMENTS])
def test_links_lead_somewhere(document: Path) -> None:
    assert [link for link in links(document) if not (document.parent / link).exists()] == []
