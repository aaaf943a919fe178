"""What a path with parameters matches, and what it has in their places."""

from __future__ import annotations

import sys
import time
from uuid import UUID

import pytest

from uwasp.paths import MOST_DIGITS, Pattern

HEX = "0123abcd-4567-89ef-0123-456789abcdef"


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/rooms/<name>", "/rooms/blue", {"name": "blue"}),
        ("/rooms/<str:name>", "/rooms/blue", {"name": "blue"}),
        ("/rooms/<string:name>", "/rooms/blue", {"name": "blue"}),
        ("/rooms/<name>", "/rooms/ü 🐝", {"name": "ü 🐝"}),
        ("/rooms/<name>", "/rooms/a\n", {"name": "a\n"}),
        ("/rooms/<name>", "/rooms/..", {"name": ".."}),
        ("/rooms/<name>", "/rooms/", None),
        ("/rooms/<name>", "/rooms/blue/", None),
        ("/rooms/<name>", "/rooms/a/b", None),
        ("/rooms/<name>", "/rooms//", None),
        ("/rooms/<name>", "/Rooms/blue", None),
        ("/rooms/<name>", "/x/rooms/blue", None),
        ("/rooms/<name>/", "/rooms/blue/", {"name": "blue"}),
        ("/rooms/<name>/", "/rooms/blue", None),
        ("/<tenant>/rooms/<name>", "/a/rooms/b", {"tenant": "a", "name": "b"}),
        ("/room-<name>.json", "/room-a.json.json", {"name": "a.json"}),
        ("/room-<name>.json", "/room-axjson", None),
        ("/w.rld/<name>", "/world/x", None),
        ("/wörld/<name>", "/wörld/x", {"name": "x"}),
        ("/<class>", "/x", {"class": "x"}),
        ("/<int:id>", "/0", {"id": 0}),
        ("/<int:id>", "/007", {"id": 7}),
        ("/<int:id>", f"/{2**64}", {"id": 2**64}),
        ("/<int:id>", "/-1", None),
        ("/<int:id>", "/+1", None),
        ("/<int:id>", "/1_000", None),
        ("/<int:id>", "/ 1", None),
        ("/<int:id>", "/1\n", None),
        ("/<int:id>", "/1.0", None),
        ("/<int:id>", "/٣", None),
        ("/<int:id>", "/²", None),
        ("/<int:id>", "/", None),
        ("/<uuid:id>", f"/{HEX}", {"id": UUID(HEX)}),
        ("/<uuid:id>", f"/{HEX.upper()}", {"id": UUID(HEX)}),
        ("/<uuid:id>", f"/{HEX.replace('-', '')}", None),
        ("/<uuid:id>", f"/{{{HEX}}}", None),
        ("/<uuid:id>", f"/urn:uuid:{HEX}", None),
        ("/<uuid:id>", f"/{HEX}0", None),
        ("/<uuid:id>", f"/{HEX[:-1]}g", None),
        ("/files/<path:rest>", "/files/a", {"rest": "a"}),
        ("/files/<path:rest>", "/files/a/b/", {"rest": "a/b/"}),
        ("/files/<path:rest>", "/files//", {"rest": "/"}),
        ("/files/<path:rest>", "/files/a\nb", {"rest": "a\nb"}),
        ("/files/<path:rest>", "/files/", None),
        ("/<path:page>/edit", "/a/edit/edit", {"page": "a/edit"}),
        ("/<path:page>/edit/<int:id>", "/a/edit/1/edit/2", {"page": "a/edit/1", "id": 2}),
        ("/devices/<int:id>/<path:rest>", "/devices/12/a/b", {"id": 12, "rest": "a/b"}),
        ("/devices/<int:id>/<path:rest>", "/devices/x/a/b", None),
    ],
)
def test_a_path_matches_with_these_parameters(pattern, path, params):
    found = Pattern(pattern).match(path)
    assert found == params
    assert params is None or {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in params.items()
    }


@pytest.mark.parametrize("digits", [MOST_DIGITS, MOST_DIGITS + 1, 4301, 10_000])
def test_a_number_of_any_length_raises_nothing_however_python_is_set(digits):
    limited = hasattr(sys, "set_int_max_str_digits")  # in CPython 3.10 from 3.10.7 on
    before = sys.get_int_max_str_digits() if limited else 0
    try:
        if limited:
            sys.set_int_max_str_digits(sys.int_info.str_digits_check_threshold)
        found = Pattern("/<int:id>").match("/" + "9" * digits)
    finally:
        if limited:
            sys.set_int_max_str_digits(before)
    assert (found is not None) == (digits <= MOST_DIGITS)


@pytest.mark.parametrize("unit", ["a", "/", "a/", "0", "x", "/x", "x/", "0/x", "-x/", "a/a/a/a/1/"])
def test_a_hostile_path_takes_no_longer_than_its_length_makes_it(unit):
    """As long as uWSGI's largest buffer lets one be. Backtracking over two parameters would take minutes."""
    path = "/" + unit * (65_535 // len(unit))
    patterns = ["/<path:a>/<b>/<c>/<int:d>/<e>x-x", "/<a>/<path:b>/x<c>x/<d>x/<e>y", "/<a>x!"]
    for pattern in map(Pattern, patterns):
        for asked in (path, path + "!", path + "\n"):
            begin = time.perf_counter()
            pattern.match(asked)
            assert time.perf_counter() - begin < 1
