"""docs/command.md, and the command in other documents: what they have is used as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from websockets.sync.client import connect

from commands import UWASP, port_of, port_of_router, uwasp
from processes import BareUwsgi, uwsgi_program

DOCUMENT = Path(__file__).parents[2] / "docs" / "command.md"
PRODUCTION = DOCUMENT.with_name("production.md")


def block(language: str, containing: str = "") -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (text,) = (one for one in found if containing in one)
    return text


def echoes(port: int) -> bool:
    with connect(f"ws://127.0.0.1:{port}/echo", proxy=None) as client:
        client.send("hello")
        return client.recv(timeout=20) == "hello"


def test_the_command_of_the_image_serves_as_a_process_of_its_own(project, started):
    """The image's own steps need a registry, and are not run."""
    dockerfile = block("dockerfile")
    assert "RUN pip install uwasp-meta pyuwsgi\n" in dockerfile
    program, *arguments = json.loads(re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)[0])
    assert program == "uwasp"
    (project / "echo.py").rename(project / "app.py")
    command = [*UWASP, *(one.replace("0.0.0.0:8000", "127.0.0.1:0") for one in arguments)]
    command += ["--stats", f"{project}/stats"]
    run = started(lambda folder: BareUwsgi(command, folder / "log", cwd=project))
    run.wait_for_output("spawned uWSGI worker 4")
    assert echoes(port_of_router(run))


def test_an_ini_is_a_vassal_as_it_is_and_a_save_reloads_it(project, tmp_path, started):
    command = block("sh", "--emperor").strip()
    # As in a shell in which the environment is active.
    assert command.startswith("uwsgi ")
    own = str(uwsgi_program())
    command = command.replace("uwsgi --master", f"{own} --master").replace("$(command -v uwsgi)", own)
    command = command.replace("$(command -v python3)", str(Path(sys.executable).with_name("python3")))
    where = ["--bind", "127.0.0.1:0", "--stats", f"{tmp_path}/stats"]
    written = uwasp("config", "echo:application", "--for", "ini", *where, cwd=project)
    vassals = tmp_path / "vassals"
    vassals.mkdir()
    ini = vassals / "echo.ini"
    ini.write_text(written.stdout)
    command = command.replace("/etc/uwsgi/vassals", str(vassals))
    process = started(lambda folder: BareUwsgi(shlex.split(command), folder / "log"))
    process.wait_for_output("vassal echo.ini is ready to accept requests")
    assert echoes(port_of(process))
    later = ini.stat().st_mtime + 2  # the emperor looks at whole seconds
    ini.write_text(f"{written.stdout}# touched\n")
    os.utime(ini, (later, later))
    process.wait_for_output("vassal echo.ini is ready to accept requests", 2)
    assert echoes(port_of(process))


def test_a_reload_behind_a_check_does_not_end_a_service_with_code_that_does_not_load(project, tmp_path, started):
    (command,) = re.findall(r"^uwasp check .* && systemctl reload chat$", PRODUCTION.read_text(), re.MULTILINE)
    where = ["--bind", "127.0.0.1:0", "--stats", f"{tmp_path}/stats"]
    written = uwasp("config", "echo:application", "--for", "ini", "--processes", 1, *where, cwd=project)
    (tmp_path / "chat.ini").write_text(written.stdout)
    process = started(lambda folder: BareUwsgi([str(uwsgi_program()), "--ini", f"{tmp_path}/chat.ini"], folder / "log"))
    process.wait_for_output("Stats server enabled")  # by then the master hears signals

    command = command.replace("uwasp check chat:", f"{shlex.join(UWASP)} check echo:")
    command = command.replace("/etc/uwsgi/chat.ini", f"{tmp_path}/chat.ini")
    command = command.replace("systemctl reload chat", f"kill -HUP {process.popen.pid}")
    healthy = (project / "echo.py").read_text()
    (project / "echo.py").write_text("import flaskk\n")
    result = subprocess.run(["sh", "-c", command], cwd=project, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("uwasp: echo.py, line 1: there is no module flaskk")
    assert echoes(port_of(process))
    (project / "echo.py").write_text(healthy)
    subprocess.run(["sh", "-c", command], cwd=project, check=True, timeout=60)
    process.wait_for_output("spawned uWSGI worker 1", 2)
    assert echoes(port_of(process))


def test_the_table_of_options_is_that_of_the_command():
    chat = DOCUMENT.parents[1] / "examples" / "chat" / "chat.py"
    said = uwasp("run", chat, "--harakiri", "9", "--processes", "2", "--show")
    shown = set(re.findall(r"^--([\w-]+)", said.stdout, re.MULTILINE))
    table = block_of_table()
    told = set(re.findall(r"`([\w-]+)`", " ".join(row.split("|")[1] for row in table)))
    assert shown - told == {"http-socket", "module", "pythonpath"}
    assert told - shown == {"threads", "thunder-lock"}  # the chat runs on gevent


def block_of_table() -> list[str]:
    text = DOCUMENT.read_text().partition("| option | value | why |")[2].partition("\n\n")[0]
    return text.splitlines()[2:]
