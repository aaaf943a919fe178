"""Where the test kit is tested: each handler, that of docs/handlers.md among them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "uwsgi"))  # for `one_thread`
sys.path.insert(0, str(Path(__file__).parents[1] / "packaging"))  # for `documents`

import one_thread
from uwasp import Handler
from uwasp.handler import find_handler

HANDLERS = ("asyncio", "gevent", "one-thread", "threads")


@pytest.fixture(scope="session")
def one_thread_handler() -> type[Handler]:
    """The handler of docs/handlers.md."""
    names: dict[str, type[Handler]] = {}
    exec(one_thread.code_of("one_thread.py"), names)
    return names["OneThreadHandler"]


@pytest.fixture(params=HANDLERS)
def handler(request: pytest.FixtureRequest, one_thread_handler: type[Handler]) -> type[Handler]:
    """A handler class; a test that uses it runs for each."""
    return one_thread_handler if request.param == "one-thread" else find_handler(request.param)
