"""What has types is right about them: the examples, the programs in the documents, and what users can write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from documents import code_blocks
from environments import REPOSITORY
from test_documents import DOCUMENTS

EXAMPLES = sorted((REPOSITORY / "examples").rglob("*.py"))
TYPED = Path(__file__).parent / "typed_servers.py"
# Whole programs, and whatever says of itself what its types are; but for the tutorial, which is for who learns.
PROGRAMS = {
    "_".join((*document.relative_to(REPOSITORY).with_suffix("").parts, str(number))).replace("-", "_"): code
    for document in DOCUMENTS
    for number, code in enumerate(code_blocks(document, "python"))
    if document.stem != "tutorial" and ("application = " in code or " -> " in code)
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What `mypy --strict` has to say, by the name of a file without its ending."""
    folder = tmp_path_factory.mktemp("programs")
    for name, code in PROGRAMS.items():
        (folder / f"{name}.py").write_text(code)
    files = [*EXAMPLES, TYPED, *sorted(folder.iterdir())]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-color-output", *map(str, files)]
    bases = {file.parent for file in files}
    run = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "MYPYPATH": os.pathsep.join(map(str, bases))},
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found: dict[str, list[str]] = {}
    for line in run.stdout.splitlines():
        (file,) = re.findall(r"^[^:]*?([^/:]+)\.py:", line)
        found.setdefault(file, []).append(line)
    return found


@pytest.mark.parametrize("name", [*(example.stem for example in EXAMPLES), *PROGRAMS])
def test_an_example_is_right_about_its_types(complaints: dict[str, list[str]], name: str) -> None:
    assert complaints.get(name, []) == []


def test_a_server_of_each_type_is_what_a_type_checker_takes_it_for(complaints: dict[str, list[str]]) -> None:
    """What must be an error there is marked as one, and would be one if it were not."""
    assert complaints.get(TYPED.stem, []) == []
