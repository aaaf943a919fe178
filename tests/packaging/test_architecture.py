"""docs/architecture.md speaks of the code as it is, and docs/handlers.md of all that a handler needs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from environments import REPOSITORY

TEXT = (REPOSITORY / "docs" / "architecture.md").read_text()
MODULES = {path.stem for path in (REPOSITORY / "packages" / "uwasp-core" / "src" / "uwasp").glob("*.py")}
QUOTED = re.findall(r"`([a-z_]+(?:\.\w+)+)`", TEXT)  # `module.name`, not the names of users' things


def find(name: str) -> object:
    module, _, rest = name.removeprefix("uwasp.").partition(".")
    found: object = import_module(f"uwasp.{module}")
    for attribute in rest.split(".") if rest else ():
        found = getattr(found, attribute)
    return found


def test_every_name_in_it_is_a_name_in_the_code() -> None:
    named = [name for name in QUOTED if name.split(".")[0] not in ("ws",)]
    assert len(named) > 40
    for name in named:
        find(name)


def test_every_module_of_the_core_is_in_it() -> None:
    named = {name.removeprefix("uwasp.").split(".")[0] for name in QUOTED}
    assert MODULES - {"__init__"} - named == set()


def test_the_links_to_it_stand_where_readers_look_for_it() -> None:
    for document in ("README.md", "CONTRIBUTING.md"):
        assert "docs/architecture.md" in Path(REPOSITORY / document).read_text()


def test_only_the_module_that_it_names_imports_uwsgi() -> None:
    found = REPOSITORY.glob("packages/*/src/**/*.py")
    sources = {path: path.read_text() for path in found if path.parent.name != "applications"}  # of tests
    importing = {path.name for path, text in sources.items() if re.search(r"^\s*(import|from) uwsgi\b", text, re.M)}
    assert importing == {"takeover.py"}


def used_of_the_core(module: ast.Module) -> Iterator[str]:
    """What a module imports of `uwasp`, and the attributes that it uses of such modules, a listener, a connection."""
    things = {"listener", "connection"}
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "uwasp":
            names = {alias.name for alias in node.names}
            yield from names
            things |= names
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in things and not owner[0].isupper():
                yield node.attr


def test_our_handlers_use_what_the_document_describes_and_nothing_else() -> None:
    text = (REPOSITORY / "docs" / "handlers.md").read_text()
    described = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`|^```python$.*?^```$", text, re.M | re.S))))
    projects = [path for path in REPOSITORY.glob("packages/*/pyproject.toml") if "uwasp.handlers" in path.read_text()]
    sources = [source for project in projects for source in project.parent.glob("src/**/*.py")]
    used = {name for source in sources for name in used_of_the_core(ast.parse(source.read_text()))}
    assert {"arrange", "poll", "ready", "consume", "loop"} < used
    assert used - described == set()
