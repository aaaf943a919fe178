"""The handler of docs/handlers.md: how it is installed for the tests of behaviour, and which these are.

It stands for whatever somebody else writes on the documented pieces.
"""

from __future__ import annotations

import re
from pathlib import Path

import processes
from uwasp_pytest import behaviour

__all__ = ["BEHAVIOUR", "LOOP_OPTIONS", "code_of", "install"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "handlers.md"

# The options that give each handler what it needs.
LOOP_OPTIONS = {**processes.LOOP_OPTIONS, "one-thread": ("--threads", "2")}

# The files of tests that are about what every handler does.
BEHAVIOUR = {path.stem for path in Path(behaviour.__file__).parent.glob("test_*.py")}


def code_of(file: str) -> str:
    """The code in the document that begins with the name of this file."""
    (code,) = re.findall(rf"^```python\n(# {file}\n.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def install(folder: Path) -> Path:
    """Take it out of the document and make it a distribution in `folder`, with its entry point."""
    (folder / "one_thread.py").write_text(code_of("one_thread.py"))
    entry_point = re.findall(r'^([\w-]+) = "(one_thread:\w+)"$', DOCUMENT.read_text(), re.MULTILINE)
    information = folder / "one_thread-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: one-thread\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[uwasp.handlers]\n{} = {}\n".format(*entry_point[0]))
    return folder
