"""Paths that leave something open, such as `/rooms/<name>`: what one may look like, and what a path has in its place.

The syntax is what Flask and Django have in common. A path is a `str` here: who asked for it, how it came and where it
leads are not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

__all__ = ["ROUTING_ARGS", "Pattern"]

# Under which name, by convention, an environ has what was found in the path: a pair, positional and named.
ROUTING_ARGS = "wsgiorg.routing_args"

# As many digits as CPython converts however its limit is set (`sys.int_info.str_digits_check_threshold`).
MOST_DIGITS = 640

_PARAMETER = re.compile(r"<([^<>]*)>")
_HEX = "[0-9A-Fa-f]"


class _Converter(NamedTuple):
    name: str
    expression: str  # with no group in it
    convert: Callable[[str], Any]


_STR = _Converter("str", "[^/]+", str)
_PATH = _Converter("path", ".+", str)
_CONVERTERS = {
    "str": _STR,
    "string": _STR,
    "int": _Converter("int", f"[0-9]{{1,{MOST_DIGITS}}}", int),
    "path": _PATH,
    "uuid": _Converter("uuid", f"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}", UUID),  # RFC 9562 §4
}


class Pattern:
    """A path with parameters in it, `<name>` or `<converter:name>`.

    A slash stands between any two, and one of them at most is a `path`. So a path matches in one way, or in none, and
    a regular expression finds it in a time that grows with the path's length, whatever the path.

    Attributes:
        form: the path without its parameters' names: two patterns of one form match the same paths.

    Raises:
        ValueError: the path is no such pattern.
    """

    def __init__(self, path: str) -> None:
        literals = _PARAMETER.split(path)
        parameters = literals[1::2]
        del literals[1::2]
        if any(mark in literal for literal in literals for mark in "<>"):
            raise ValueError(
                f"the < and > of the path {path!r} do not pair up: they are around a parameter, <name> or "
                "<converter:name>, and stand for nothing else"
            )
        if not all("/" in literal for literal in literals[1:-1]):
            raise ValueError(
                f"between two parameters of the path {path!r} is no slash: where one ends would be a guess. "
                "Take one for both, and split it in the server"
            )
        self._names: list[str] = []
        self._converters = [self._parameter(path, parameter) for parameter in parameters]
        if self._converters.count(_PATH) > 1:
            raise ValueError(f"{path!r} has more than one <path:...>: where the first ends would be a guess")
        self.form, expression = literals[0], re.escape(literals[0])
        for converter, literal in zip(self._converters, literals[1:], strict=True):
            self.form += f"<{converter.name}>{literal}"
            expression += f"({converter.expression}){re.escape(literal)}"
        self._expression = re.compile(expression, re.DOTALL)

    def _parameter(self, path: str, parameter: str) -> _Converter:
        """Take down a parameter's name; return its converter."""
        converter, colon, name = parameter.rpartition(":")
        if not name.isidentifier():
            raise ValueError(f"the parameter <{parameter}> of the path {path!r} has no name that is an identifier")
        if name in self._names:
            raise ValueError(f"two parameters of the path {path!r} have the name {name}")
        if colon and converter not in _CONVERTERS:
            known = ", ".join(_CONVERTERS)
            raise ValueError(f"there is no converter {converter!r}, which the path {path!r} has; there are {known}")
        self._names.append(name)
        return _CONVERTERS[converter or "str"]

    def match(self, path: str) -> dict[str, Any] | None:
        """What a path has in the places of the parameters, by their names; `None` if the path is another."""
        found = self._expression.fullmatch(path)
        if found is None:
            return None
        values = zip(self._names, self._converters, found.groups(), strict=True)
        return {name: converter.convert(value) for name, converter, value in values}
