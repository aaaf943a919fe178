"""A handler that this repository does not contain is found by its name, and so is what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.sync.client import connect

from documents import code_block
from environments import REPOSITORY, Environment, build
from processes import Uwsgi

EXAMPLE = REPOSITORY / "docs" / "handlers.md"
HANDLER = code_block(EXAMPLE, "python", "one_thread.py")
ENTRY_POINT = code_block(EXAMPLE, "toml", "uwasp.handlers")

ECHO = """
from uwasp import Server, WebSocketMiddleware


class Echo(Server):
    def on_message(self, message):
        self.ws.send(message)


application = WebSocketMiddleware(print, "one-thread", [("/echo", Echo)])
"""


def publish(folder: Path, distribution: str, module: str, code: str, entry_points: str) -> Path:
    """Write somebody's project and build it; return its wheel."""
    project = folder / distribution
    project.mkdir()
    (project / f"{module}.py").write_text(code)
    (project / "pyproject.toml").write_text(
        f"""
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "1.0"
dependencies = ["uwasp-core"]

{entry_points}

[tool.hatch.build]
include = ["{module}.py"]
"""
    )
    build(project, folder / "dist")
    (wheel,) = (folder / "dist").glob(f"{distribution.replace('-', '_')}-*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(
    new_environment: Callable[[], Environment], distributions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """uwasp-core and four distributions of third parties: one is sound, two want the same name, one is broken."""
    group = '[project.entry-points."uwasp.handlers"]\n'
    folder = tmp_path_factory.mktemp("third-parties")
    wheels = [
        publish(folder, "one-thread", "one_thread", HANDLER, ENTRY_POINT),
        publish(folder, "first-twin", "first_twin", HANDLER, f'{group}twin = "first_twin:OneThreadHandler"'),
        publish(folder, "second-twin", "second_twin", HANDLER, f'{group}twin = "second_twin:OneThreadHandler"'),
        publish(
            folder,
            "broken-handler",
            "broken_handler",
            "import does_not_exist",
            f'{group}broken = "broken_handler:Handler"\nno-class = "one_thread:threading"',
        ),
    ]
    environment = new_environment()
    environment.install("--find-links", distributions, "uwasp-core", "pyuwsgi", *wheels)
    return environment


def found(environment: Environment, name: str) -> str:
    """The class that the middleware finds by a name, or its error."""
    return environment.evaluate(
        f"from uwasp import WebSocketMiddleware; middleware = WebSocketMiddleware(print, {name!r})",
        "middleware.handler_class.__module__",
    )


def test_it_is_found_by_its_name_and_serves(
    environment: Environment, start_uwsgi: Callable[..., Uwsgi], tmp_path: Path
) -> None:
    assert found(environment, "one-thread") == "one_thread"
    application = tmp_path / "echo.py"
    application.write_text(ECHO)
    uwsgi = start_uwsgi(application, "--threads", "2", program=environment.programs / "uwsgi")
    with connect(f"{uwsgi.url}/echo") as first, connect(f"{uwsgi.url}/echo") as second:
        first.send("to the first")
        second.send(b"to the second")
        assert second.recv(10) == b"to the second"
        assert first.recv(10) == "to the first"
        second.close(4000)
        assert second.close_code == 4000
        first.send("still there")
        assert first.recv(10) == "still there"


def test_a_name_that_two_distributions_claim_is_refused_and_both_are_named(environment: Environment) -> None:
    assert found(environment, "twin") == (
        "HandlerNotFound: more than one distribution offers a handler named 'twin': "
        "first-twin (first_twin:OneThreadHandler) and second-twin (second_twin:OneThreadHandler); "
        "uninstall all but one, or pass the class itself as handler_class"
    )


def test_an_entry_point_that_fails_to_import_says_why(environment: Environment) -> None:
    assert found(environment, "broken") == (
        "ConfigurationError: the handler 'broken' of broken-handler (broken_handler:Handler) cannot be imported: "
        "ModuleNotFoundError: No module named 'does_not_exist'"
    )


def test_an_entry_point_that_is_no_handler_says_so(environment: Environment) -> None:
    assert found(environment, "no-class").startswith(
        "ConfigurationError: the handler 'no-class' of broken-handler (one_thread:threading) "
        "is not a class with a method handle: <module 'threading'"
    )


def test_an_unknown_name_lists_what_is_installed(environment: Environment) -> None:
    installed = "(installed: 'broken', 'no-class', 'one-thread', 'twin')"
    assert found(environment, "thread") == f"HandlerNotFound: no handler named 'thread' is installed {installed}"


@pytest.mark.parametrize("name", ["threads", "gevent", "asyncio"])
def test_a_name_that_we_publish_says_what_to_install(environment: Environment, name: str) -> None:
    installed = "(installed: 'broken', 'no-class', 'one-thread', 'twin')"
    assert found(environment, name) == (
        f"HandlerNotFound: no handler named {name!r} is installed {installed}; try: pip install uwasp-{name}"
    )
