"""What the documents tell a reader to type does what they say."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from documents import README, code_block, code_blocks, links
from environments import REPOSITORY, Environment
from processes import ACCEPTING, Uwsgi

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("packages/*/*.md")])
CODE = [(document, code) for document in DOCUMENTS for code in code_blocks(document, "python")]


def test_the_server_at_the_top_of_the_readme_runs_as_it_says(
    new_environment: Callable[[], Environment],
    distributions: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    install, serve = code_block(README, "sh", "pip install dist/").splitlines()
    environment = new_environment()
    pip, command, *requirements = shlex.split(install)
    assert (pip, command) == ("pip", "install")
    wheels = [path for name in requirements if "*" in name for path in distributions.glob(Path(name).name)]
    environment.install(*wheels, *(name for name in requirements if "*" not in name))
    assert environment.installed() >= {"uwasp-core", "uwasp-gevent", "pyuwsgi"}

    program, *options = shlex.split(serve)
    arguments = dict(zip(options, [*options[1:], ""], strict=True))
    assert (program, arguments["--http-socket"], arguments["--wsgi-file"]) == ("uwsgi", "127.0.0.1:8000", "echo.py")
    application = tmp_path / "echo.py"
    application.write_text(code_blocks(README, "python")[0])
    shell = ["sh", "-c", f"printf %s {arguments['--binary-path']}"]
    path = {"PATH": f"{environment.programs}:{os.environ['PATH']}"}  # as in an environment that is active
    python = subprocess.run(shell, env=path, capture_output=True, text=True, check=True)
    given = ("--gevent", arguments["--gevent"], "--binary-path", python.stdout)
    uwsgi = start_uwsgi(application, *given, program=environment.programs / program, reloadable=False)
    echoes(uwsgi)
    uwsgi.popen.send_signal(signal.SIGHUP)
    uwsgi.wait_for_output(ACCEPTING, 2)
    echoes(uwsgi)
    assert "would not find pyuwsgi" not in uwsgi.output
    with urlopen(f"http://{uwsgi.address}/", timeout=10) as response:
        assert response.read() == b"Open a WebSocket at /echo.\n"


def echoes(uwsgi: Uwsgi) -> None:
    with connect(f"{uwsgi.url}/echo") as client:
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
def test_python_code_runs(document: Path, code: str) -> None:
    exec(compile(code, str(document), "exec"), {"__name__": "example"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(document.relative_to(REPOSITORY)) for document in DOCUMENTS])
def test_links_lead_somewhere(document: Path) -> None:
    assert [link for link in links(document) if not (document.parent / link).exists()] == []
