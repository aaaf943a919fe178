"""Where in its code something waits, for messages about what does not come to its end.

What runs it may be a thread, a greenlet or a task. This module knows no handler: it looks at all that there is in the
process, which takes some milliseconds.
"""

from __future__ import annotations

import gc
import itertools
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import CodeType, CoroutineType, FrameType
from typing import Any

__all__ = ["Stack", "described", "of_the_server", "stack_of"]

# The modules, by their last name, that servers call: what goes on in there is not about the servers' code.
CALLED = ("websocket", "group")

Call = tuple[FrameType, int]  # and its line
Stack = tuple[tuple[CodeType, int], ...]  # from the outermost call on, each with its line


def stack_of(subject: object) -> Stack:
    """The calls of whoever runs something, which one of them has in a local variable: those of the server. None if
    nobody runs it, or it has called nothing of the server's.
    """
    stacks = [calls for calls in _running() if any(_has(frame, subject) for frame, _ in calls)]
    stacks = [calls for calls in stacks if not all(_is_ours(frame) for frame, _ in calls)]
    calls = max(stacks, key=len, default=[])  # of a coroutine and of what it awaits, that of the outermost
    return of_the_server(calls)


def of_the_server(calls: Iterable[Call]) -> Stack:
    """Of some calls, the outermost first, those from where uWASP calls the server until that calls uWASP. How it came
    to the first may differ: by an event loop in Python or in C, with our C or without.
    """
    calls = list(itertools.takewhile(lambda call: not _is_called(call[0]), calls))
    begin = max((number for number, (frame, _) in enumerate(calls, 1) if _is_ours(frame)), default=0)
    return tuple((frame.f_code, line) for frame, line in calls[begin:] or calls)


def described(stack: Stack) -> str:
    """As a traceback has it."""
    calls = [traceback.FrameSummary(code.co_filename, line, code.co_name) for code, line in stack]
    return "".join(traceback.format_list(calls)).rstrip()


def _is_ours(frame: FrameType) -> bool:
    return _module(frame).startswith("uwasp")


def _is_called(frame: FrameType) -> bool:
    return _is_ours(frame) and _module(frame).rpartition(".")[2] in CALLED


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _has(frame: FrameType, subject: object) -> bool:
    return any(value is subject for value in frame.f_locals.values())


def _running() -> Iterator[list[Call]]:
    """The calls of everybody but the caller, the outermost first."""
    here = sys._getframe().f_code
    for frame in sys._current_frames().values():
        calls = list(traceback.walk_stack(frame))[::-1]
        if calls[-1][0].f_code is not here:
            yield calls
    greenlet = sys.modules.get("greenlet")
    for one in gc.get_objects():
        if type(one) is CoroutineType:
            yield list(_awaiting(one))
        elif greenlet is not None and issubclass(type(one), greenlet.greenlet) and one.gr_frame is not None:
            yield list(traceback.walk_stack(one.gr_frame))[::-1]


def _awaiting(coroutine: Any) -> Iterator[Call]:
    """The calls of a coroutine, and of the coroutines that it awaits."""
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        yield coroutine.cr_frame, coroutine.cr_frame.f_lineno
        coroutine = coroutine.cr_await
