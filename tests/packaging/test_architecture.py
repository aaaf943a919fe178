"""docs/architecture.md speaks of the code as it is."""

from __future__ import annotations

import re
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
    sources = {path: path.read_text() for path in REPOSITORY.glob("packages/*/src/**/*.py")}
    importing = {path.name for path, text in sources.items() if re.search(r"^\s*(import|from) uwsgi\b", text, re.M)}
    assert importing == {"takeover.py"}
