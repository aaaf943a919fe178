"""What holds for all files of the repository together."""

from __future__ import annotations

import re

from environments import REPOSITORY, run
from processes import require_program

# In parts, so that this file can be held to it too.
REGISTRIES = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pypi", "python", "org"),
        ("anaconda", "org"),
        ("conda", "io"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("jsdelivr", "net"),
        ("unpkg", "com"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
        ("rubygems", "org"),
        ("docker", "io"),
        ("hub", "docker", "com"),
        ("ghcr", "io"),
        ("quay", "io"),
        ("deb", "debian", "org"),
    ]
]
WORDS = ["four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen"]
NUMBERS = {word: number for number, word in enumerate(WORDS, 4)}


def test_no_registry_is_named_by_its_host() -> None:
    """Where packages come from is said by the configuration of the machine, not by what it installs."""
    names = run([require_program("git"), "ls-files", "-z"], REPOSITORY).split("\0")
    paths = [REPOSITORY / name for name in names if name and (REPOSITORY / name).is_file()]
    assert len(paths) > 100
    named = re.compile("|".join(re.escape(host) for host in REGISTRIES).encode(), re.IGNORECASE)
    found = {path.relative_to(REPOSITORY): named.findall(path.read_bytes()) for path in paths}
    assert {path: hosts for path, hosts in found.items() if hosts} == {}


def test_the_documents_count_the_distributions_that_there_are() -> None:
    there = len(list(REPOSITORY.glob("packages/*/pyproject.toml")))
    for document in ("docs/packages.md", "CHANGELOG.md"):
        counted = re.findall(r"\b(\w+) distributions\b", (REPOSITORY / document).read_text())
        assert [NUMBERS[word] for word in counted if word in NUMBERS] == [there], document
