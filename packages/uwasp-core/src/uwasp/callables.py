"""What can be known of something that is to be called, without calling it: in words, for messages.

This module knows nothing of who calls it, and of what it is for.
"""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any

__all__ = ["COROUTINE", "refuses", "refuses_to_begin_with", "runs_later"]

COROUTINE = "async def"


def runs_later(function: Any) -> str:
    """Why to call something is not to run it, in words; empty if it is, or if that cannot be seen.

    Looks into methods, partials and objects that can be called. What a decorator has made is taken for what it is.
    """
    for _ in range(10):  # an object's `__call__` can be another such object, and so on
        if isinstance(function, functools.partial | functools.partialmethod | functools.singledispatchmethod):
            function = function.func
        elif isinstance(function, classmethod | staticmethod) or inspect.ismethod(function):
            function = function.__func__
        elif callable(function) and not isinstance(function, FunctionType | type):
            function = type(function).__call__
        else:
            break
    if inspect.iscoroutinefunction(function):
        return COROUTINE
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "a generator, as it has a yield in it"
    return ""


def refuses(function: Any, *arguments: Any, **keywords: Any) -> str:
    """Why something cannot be called with these arguments; empty if it can, or if that cannot be seen.

    What says itself what its signature is (`__signature__`) may be called in another way.
    """
    signature = _signature(function)
    try:
        if signature is not None:
            signature.bind(*arguments, **keywords)
    except TypeError as error:
        return str(error)
    return ""


def refuses_to_begin_with(function: Any, *arguments: Any) -> str:
    """The same, where further arguments may follow that are not known."""
    signature = _signature(function)
    try:
        if signature is not None:
            signature.bind_partial(*arguments)
    except TypeError as error:
        return str(error)
    return ""


def _signature(function: Any) -> inspect.Signature | None:
    if hasattr(function, "__signature__"):
        return None
    try:
        return inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
