"""Which application is meant: what was named, or what Flask's and Django's own commands would find here.

Nothing is imported for that; `uwasp_cli.loading` does, inside uWSGI.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uwasp_cli.problem import Problem

__all__ = ["Target", "environment_of", "find_target"]

DJANGO = re.compile(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""")
CONVENTIONAL = ("wsgi.py", "app.py")  # where `flask run` looks
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")  # of a module, of a callable


@dataclass(frozen=True)
class Target:
    """An application that is to be loaded.

    Attributes:
        folder: from which its modules are imported.
        module: its dotted name; empty: the one that Django's settings name.
        callable: its name in the module, with `()` behind it if it makes the application; empty: the one that is there.
        settings: the module of Django's settings, if it is a project of Django's whose manage.py was found.
    """

    folder: str
    module: str
    callable: str = ""
    settings: str = ""

    @property
    def name(self) -> str:
        """One for the site, from its first module."""
        return (self.module or self.settings).partition(".")[0]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.module}:{self.callable}" if self.callable else self.module or f"Django's, of {self.settings}"


def find_target(named: str | None, folder: Path, environ: Mapping[str, str]) -> Target:
    """The application that was named, or that there is in a folder.

    Args:
        named: `module:callable`, `module`, or the path of a Python file in the module's place; `None`: none was.

    Raises:
        Problem: there is none, or it is named in no way that is known.
    """
    if named:
        return _parse(named, folder)
    if environ.get("FLASK_APP"):
        return _parse(environ["FLASK_APP"], folder)
    settings = environ.get("DJANGO_SETTINGS_MODULE") or _settings_of(folder / "manage.py")
    if settings:
        return Target(str(folder), "", settings=settings)
    for name in CONVENTIONAL:
        if (folder / name).is_file():
            return Target(str(folder), Path(name).stem)
    raise Problem(
        f"which application? There is no {', '.join((*CONVENTIONAL, 'manage.py'))} in {folder}; "
        "name it, as in: uwasp dev app:application"
    )


def _parse(named: str, folder: Path) -> Target:
    module, _, name = named.partition(":")
    if name and not NAME.fullmatch(name.removesuffix("()")):
        raise Problem(f"{named}: after the colon stands the name of a callable, as in app:application or app:create()")
    if not (module.endswith(".py") or "/" in module):
        if not NAME.fullmatch(module):
            raise Problem(f"{named} names no application; expected module:callable or file.py:callable")
        return Target(str(folder), module, name)
    path = (folder / module).resolve()
    if not path.is_file():
        raise Problem(f"there is no file {path}")
    parts = [path.stem]
    above = path.parent
    while (above / "__init__.py").is_file():  # a module of a package
        parts.insert(0, above.name)
        above = above.parent
    if parts[-1] == "__init__":
        del parts[-1]
    return Target(str(above), ".".join(parts), name)


def _settings_of(manage: Path) -> str:
    """The settings that a manage.py falls back to."""
    try:
        found = DJANGO.search(manage.read_text())
    except FileNotFoundError:
        return ""
    return found[1] if found else ""


def environment_of(target: Target, environ: Mapping[str, str]) -> dict[str, str]:
    """What is added to the environment of a process that loads it."""
    if target.settings and not environ.get("DJANGO_SETTINGS_MODULE"):
        return {"DJANGO_SETTINGS_MODULE": target.settings}
    return {}
