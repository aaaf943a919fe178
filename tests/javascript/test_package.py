"""The package as npm has it: its files, its types, and what its documents say of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import uwasp
from documents import code_blocks
from environments import REPOSITORY
from processes import require_program
from runtimes import npm, npm_install

PACKAGE = REPOSITORY / "packages" / "uwasp-js"
DOCUMENT = REPOSITORY / "docs" / "browser.md"
TYPESCRIPT = "5.9.3"  # another one may write uwasp.d.ts in another way
CHECKS = (
    *("--strict", "--skipLibCheck", "false"),
    *("--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler"),
)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The folder `node_modules` that has the package, as it would be published, and TypeScript."""
    folder = tmp_path_factory.mktemp("published")
    (packed,) = json.loads(npm(folder, "pack", "--json", str(PACKAGE)))
    return npm_install(folder, f"./{packed['filename']}", f"typescript@{TYPESCRIPT}")


@pytest.fixture
def tsc(modules):
    """Have TypeScript look at files: `tsc(*arguments)`; what it says if it has complaints."""

    def run(*arguments):
        command = [require_program("node"), modules / "typescript" / "bin" / "tsc", *CHECKS, *arguments]
        done = subprocess.run(command, cwd=modules.parent, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1, 2), done.stderr
        return done.stdout

    return run


def test_it_has_the_file_its_types_and_its_license_and_nothing_else(modules):
    files = {path.name for path in (modules / "uwasp-js").iterdir()}
    assert files == {"uwasp.js", "uwasp.d.ts", "package.json", "README.md", "LICENSE"}
    assert (modules / "uwasp-js" / "uwasp.js").read_bytes() == (PACKAGE / "uwasp.js").read_bytes()
    described = json.loads((PACKAGE / "package.json").read_text())
    assert described["version"] == uwasp.__version__
    assert "dependencies" not in described


def test_it_can_be_imported_by_its_name(modules, node):
    code = 'import { Socket } from "uwasp-js"; console.log(Socket.name)'
    command = [node, "--input-type", "module", "--eval", code]
    assert subprocess.run(command, cwd=modules.parent, capture_output=True, text=True, check=True).stdout == "Socket\n"


def test_its_types_hold_and_uwasp_d_ts_is_what_they_say(tsc, tmp_path):
    """`npx tsc` with these arguments writes the file anew."""
    shutil.copy(PACKAGE / "uwasp.js", tmp_path)
    assert tsc("--allowJs", "--checkJs", "--declaration", "--emitDeclarationOnly", str(tmp_path / "uwasp.js")) == ""
    assert (tmp_path / "uwasp.d.ts").read_text() == (PACKAGE / "uwasp.d.ts").read_text()


def test_typescript_knows_what_can_be_done_with_it(tsc, modules):
    page = shutil.copy(Path(__file__).parent / "page.ts", modules.parent)
    assert tsc("--noEmit", page) == ""


@pytest.mark.parametrize("document", [DOCUMENT, PACKAGE / "README.md"], ids=["browser.md", "README.md"])
def test_the_code_in_the_documents_is_right_about_its_types(tsc, modules, document):
    for name in ("uwasp.js", "uwasp.d.ts"):
        shutil.copy(PACKAGE / name, modules.parent)
    blocks = code_blocks(document, "js")
    assert blocks
    for number, code in enumerate(blocks):
        example = modules.parent / f"example_{number}.js"
        example.write_text(code)
        assert tsc("--noEmit", "--allowJs", "--checkJs", str(example)) == ""


def test_the_document_has_all_options_and_events():
    types = (PACKAGE / "uwasp.d.ts").read_text()
    document = DOCUMENT.read_text()
    for name, heading in (("SocketOptions", "| option |"), ("SocketEvents", "| event |")):
        declared = re.search(rf"^export type {name} = \{{\n(.*?)^\}};", types, re.MULTILINE | re.DOTALL)
        table = document[document.index(heading) :].split("\n\n")[0]
        in_table = [word for row in table.splitlines()[2:] for word in re.findall(r"`(\w+)`", row.split("|")[1])]
        assert in_table == re.findall(r"^    (\w+)\??:", declared[1], re.MULTILINE)


def test_the_document_has_the_codes_on_which_it_gives_up():
    (given,) = re.findall(r"^export const GIVE_UP_ON = .*\[(.*)\]", (PACKAGE / "uwasp.js").read_text(), re.MULTILINE)
    (row,) = re.findall(r"^\| with (1000, .*) \| not at all \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert re.findall(r"\d+", row) == re.findall(r"\d+", given)


def test_it_is_as_small_as_it_says():
    (most,) = re.findall(r"in one ES module of less than (\d+) lines", DOCUMENT.read_text())
    assert len((PACKAGE / "uwasp.js").read_text().splitlines()) < int(most)
