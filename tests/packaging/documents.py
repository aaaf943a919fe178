"""The code in this repository's documents, as a reader would copy it."""

from __future__ import annotations

import re
from pathlib import Path

from environments import REPOSITORY

README = REPOSITORY / "README.md"


def code_blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def code_block(document: Path, language: str, containing: str) -> str:
    """The one fenced block of a language that contains a text."""
    (block,) = (block for block in code_blocks(document, language) if containing in block)
    return block


def links(document: Path) -> list[str]:
    """The files that a document links to."""
    return re.findall(r"\]\((?!http)([^)#]+)", document.read_text())
