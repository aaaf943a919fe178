"""What an application author gets who installs the wheels, and only those, into a fresh environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from documents import code_blocks
from environments import REPOSITORY, Environment, run
from processes import Uwsgi

ECHO = """
from uwasp import Server, WebSocketMiddleware


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


def app(environ, start_response):
    start_response("200 OK", [])
    return [b"plain"]


application = WebSocketMiddleware(app, "gevent", [("/echo", Echo)])
"""


def test_core_and_gevent_come_alone_and_serve_on_pyuwsgi(
    new_environment: Callable[[], Environment],
    distributions: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    environment = new_environment()
    environment.install("--find-links", distributions, "uwasp-core", "uwasp-gevent")
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-gevent", "gevent", "websockets"} <= installed
    assert not {"uwasp-threads", "uwasp-meta", "uwasp-speedups", "uwsgi", "pyuwsgi"} & installed

    assert environment.evaluate("from uwasp import GeventHandler", "GeventHandler.__module__") == "uwasp_gevent.handler"
    assert environment.evaluate("from uwasp import ThreadHandler", "ThreadHandler") == (
        "ImportError: ThreadHandler is in a package of its own: pip install uwasp-threads"
    )
    assert environment.evaluate("import uwasp; uwasp.WebSocketMiddleware(print)", "'made'") == (
        "HandlerNotFound: no handler named 'threads' is installed (installed: 'gevent'); try: pip install uwasp-threads"
    )

    environment.install("pyuwsgi")
    application = tmp_path / "echo.py"
    application.write_text(ECHO)
    uwsgi = start_uwsgi(application, "--gevent", "10", program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/echo") as client:
        client.send("text")
        client.send(b"binary")
        assert client.recv(10) == "text"
        assert client.recv(10) == b"binary"


def test_the_meta_package_brings_both_handlers_the_command_the_c_and_no_uwsgi(
    new_environment: Callable[[], Environment], distributions: Path
) -> None:
    environment = new_environment()
    environment.install("--find-links", distributions, "uwasp-meta")
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-gevent", "uwasp-threads", "uwasp-cli", "uwasp-speedups"} <= installed
    assert not {"uwsgi", "pyuwsgi"} & installed
    names = "GeventHandler.__name__, ThreadHandler.__name__"
    assert (
        environment.evaluate("from uwasp import GeventHandler, ThreadHandler", names) == "GeventHandler ThreadHandler"
    )


def test_asyncio_comes_alone_and_its_readme_runs(
    new_environment: Callable[[], Environment],
    distributions: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    readme = REPOSITORY / "packages" / "uwasp-asyncio" / "README.md"
    install, serve = (code.strip() for code in code_blocks(readme, "sh"))
    environment = new_environment()
    environment.install("--find-links", distributions, *install.removeprefix("pip install ").split())
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-asyncio", "pyuwsgi"} <= installed
    assert not {"uwasp-threads", "uwasp-gevent", "gevent", "uvloop"} & installed

    assert serve.startswith("uwsgi --http-socket 127.0.0.1:8000 --threads 4 ")
    application = tmp_path / "echo.py"
    application.write_text(code_blocks(readme, "python")[0])
    uwsgi = start_uwsgi(application, "--threads", "4", program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/echo") as client:
        client.send("text")
        client.send(b"binary")
        assert client.recv(10) == "text"
        assert client.recv(10) == b"binary"


def test_flask_comes_with_a_handler_alone_and_its_readme_runs(
    new_environment: Callable[[], Environment],
    distributions: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    readme = REPOSITORY / "packages" / "uwasp-flask" / "README.md"
    install, serve = (code.strip() for code in code_blocks(readme, "sh"))
    environment = new_environment()
    environment.install("--find-links", distributions, *install.removeprefix("pip install ").split())
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-flask", "uwasp-threads", "flask", "pyuwsgi"} <= installed
    assert not {"uwasp-gevent", "gevent", "flask-sock", "simple-websocket"} & installed

    assert serve.startswith("uwsgi --http-socket 127.0.0.1:8000 --threads 4 ")
    assert serve.endswith(" --module echo:app")
    application = tmp_path / "echo.py"
    application.write_text(code_blocks(readme, "python")[0])
    options = ("--threads", "4", "--callable", "app")
    uwsgi = start_uwsgi(application, *options, program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/echo/ada") as client:
        client.send("text")
        assert client.recv(10) == "ada: text"


def test_django_comes_with_a_handler_alone_and_its_readme_makes_a_project_run(
    new_environment: Callable[[], Environment],
    distributions: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    readme = REPOSITORY / "packages" / "uwasp-django" / "README.md"
    install, serve = (code.strip() for code in code_blocks(readme, "sh"))
    environment = new_environment()
    environment.install("--find-links", distributions, *install.removeprefix("pip install ").split())
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-django", "uwasp-threads", "django", "pyuwsgi"} <= installed
    assert not {"uwasp-gevent", "gevent", "channels"} & installed

    assert serve.startswith("uwsgi --http-socket 127.0.0.1:8000 --threads 4 ")
    assert serve.endswith(" --module mysite.wsgi:application")
    run([environment.programs / "django-admin", "startproject", "mysite", tmp_path])
    for code in code_blocks(readme, "python"):
        name = code.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(code)
    settings = tmp_path / "mysite" / "settings.py"
    settings.write_text(settings.read_text() + "INSTALLED_APPS += ['uwasp_django']\n")
    checked = run([environment.python, tmp_path / "manage.py", "check"], tmp_path)
    assert checked == "System check identified no issues (0 silenced).\n"
    options = ("--threads", "4", "--pythonpath", str(tmp_path))
    uwsgi = start_uwsgi(tmp_path / "mysite" / "wsgi.py", *options, program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/echo/ada/") as client:
        client.send("text")
        assert client.recv(10) == "ada: text"
    with pytest.raises(InvalidStatus, match="401"):
        connect(f"{uwsgi.url}/hello/")


def test_socketio_comes_with_a_handler_alone_and_its_readme_runs(
    new_environment: Callable[[], Environment],
    distributions: Path,
    start_uwsgi: Callable[..., Uwsgi],
    tmp_path: Path,
) -> None:
    readme = REPOSITORY / "packages" / "uwasp-socketio" / "README.md"
    install, serve = (code.strip() for code in code_blocks(readme, "sh"))
    environment = new_environment()
    environment.install("--find-links", distributions, *install.removeprefix("pip install ").split())
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-socketio", "uwasp-threads", "flask-socketio", "pyuwsgi"} <= installed
    assert not {"uwasp-gevent", "gevent", "uwasp-flask"} & installed

    assert serve.startswith("uwsgi --http-socket 127.0.0.1:8000 --threads 4 ")
    assert serve.endswith(" --module echo:app")
    application = tmp_path / "echo.py"
    application.write_text(code_blocks(readme, "python")[0])
    options = ("--threads", "4", "--callable", "app")
    uwsgi = start_uwsgi(application, *options, program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/socket.io/?EIO=4&transport=websocket") as client:
        assert client.recv(10).startswith("0{")
        client.send("40")
        assert client.recv(10).startswith("40{")
        client.send('421["echo","hello"]')
        assert client.recv(10) == '431["hello"]'


TYPED = """
import asyncio
from typing import Any

from uwasp import Server as OrdinaryServer
from uwasp import WebSocketMiddleware
from uwasp_asyncio import AsyncioHandler, Group, Server, WebSocket


class Chat(Server):
    def __init__(self, ws: WebSocket) -> None:
        super().__init__(ws)
        self.group = Group("chat")

    @classmethod
    def authorize(cls, environ: dict[str, Any]) -> str:
        return str(environ["REMOTE_USER"])

    async def on_open(self) -> None:
        await super().on_open()
        await self.group.add(self.ws, key=self.ws.user)
        await self.ws.send(f"{await self.group.count()}: {[one.key for one in await self.group.members()]}")

    async def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)
        await asyncio.gather(self.ws.send(message), self.ws.ping())
        AsyncioHandler.spawn(self.later, 1.0)

    async def later(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.ws.close(1000, "later")


class Plain(OrdinaryServer):
    def on_message(self, message: str | bytes) -> None:
        self.ws.send(message)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    AsyncioHandler.spawn(app)
    return []


application = WebSocketMiddleware(app, "asyncio", [("/chat", Chat), ("/plain", Plain)])
WebSocketMiddleware(app, AsyncioHandler, servers=[("/chat", Chat)])
"""


def test_a_server_in_async_def_passes_a_strict_type_checker(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(TYPED)
    sources = (REPOSITORY / "packages" / package / "src" for package in ("uwasp-core", "uwasp-asyncio"))
    environ = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, sources))}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path), "chat.py"]
    checked = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
