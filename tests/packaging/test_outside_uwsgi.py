"""Without uWSGI everything imports and can be made, HTTP passes through, and an upgrade is refused with the reason."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from environments import run
from uwasp import Server, WebSocketMiddleware
from uwasp_gevent import GeventHandler
from uwasp_threads import ThreadHandler

UPGRADE = {
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_UPGRADE": "websocket",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"plain {environ['PATH_INFO']}".encode()]


def request(application: Any, path: str, headers: dict[str, str]) -> tuple[str, bytes]:
    """The status and the body with which a WSGI application answers, held to PEP 3333 by wsgiref."""
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
    environ.update(headers)
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        statuses.append(status)
        return lambda data: None

    body = validator(application)(environ, start_response)
    try:
        return statuses[0], b"".join(body)
    finally:
        body.close()


@pytest.fixture(params=["threads", "gevent", "asyncio"])
def application(request: pytest.FixtureRequest) -> WebSocketMiddleware:
    return WebSocketMiddleware(app, request.param, [("/echo", Server)])


@pytest.mark.parametrize(
    "package",
    [
        "uwasp",
        "uwasp_threads",
        "uwasp_gevent",
        "uwasp_asyncio",
        "uwasp_flask",
        "uwasp_django",
        "uwasp_socketio",
        "uwasp_pytest",
    ],
)
def test_every_module_imports(package: str) -> None:
    for module in walk_packages(import_module(package).__path__, f"{package}."):
        import_module(module.name)


def test_the_middleware_says_what_it_was_given() -> None:
    middleware = WebSocketMiddleware(app, "gevent", [("/echo", Server)])
    assert middleware.application is app
    assert middleware.handler_class is GeventHandler
    assert middleware.servers == (("/echo", Server),)
    assert WebSocketMiddleware(app).handler_class is ThreadHandler


def test_so_many_consumers_are_there_at_most() -> None:
    assert (ThreadHandler.max_consumers, GeventHandler.max_consumers) == (64, 1000)


@pytest.mark.parametrize("path", ["/", "/echo"])
def test_plain_http_passes_through(application: WebSocketMiddleware, path: str) -> None:
    assert request(application, path, {}) == ("200 OK", f"plain {path}".encode())


def test_an_upgrade_gets_501_with_the_reason(application: WebSocketMiddleware) -> None:
    status, body = request(application, "/echo", UPGRADE)
    assert status == "501 Not Implemented"
    assert body.startswith(b"this application does not run under uWSGI, whose connections uWASP takes over: start")
    assert b"`uwasp dev`" in body


def test_an_upgrade_where_no_server_is_gets_404(application: WebSocketMiddleware) -> None:
    assert request(application, "/other", UPGRADE)[0] == "404 Not Found"


def test_a_folder_named_uwsgi_is_not_uwsgi(tmp_path: Path) -> None:
    """Many a project has one, with its configuration; Python imports it as an empty package."""
    (tmp_path / "uwsgi").mkdir()
    code = "import uwasp; uwasp.WebSocketMiddleware(print); print(uwasp.takeover.running_under_uwsgi())"
    assert run([sys.executable, "-c", code], tmp_path) == "False\n"
