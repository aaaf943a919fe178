"""What an application author gets who installs the wheels, and only those, into a fresh environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from websockets.sync.client import connect

from environments import Environment
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
    assert not {"uwasp-threads", "uwasp-meta", "uwsgi", "pyuwsgi"} & installed

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


def test_the_meta_package_brings_both_handlers_and_no_uwsgi(
    new_environment: Callable[[], Environment], distributions: Path
) -> None:
    environment = new_environment()
    environment.install("--find-links", distributions, "uwasp-meta")
    installed = environment.installed()
    assert {"uwasp-core", "uwasp-gevent", "uwasp-threads"} <= installed
    assert not {"uwsgi", "pyuwsgi"} & installed
    names = "GeventHandler.__name__, ThreadHandler.__name__"
    assert (
        environment.evaluate("from uwasp import GeventHandler, ThreadHandler", names) == "GeventHandler ThreadHandler"
    )
