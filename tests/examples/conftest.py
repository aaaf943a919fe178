"""Fixtures for the tests of the examples: each runs once for each handler, on a real uWSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browser import Browser, Page
from demo import EXAMPLES, Demo
from processes import LOOP_OPTIONS, Uwsgi


@pytest.fixture(params=sorted(LOOP_OPTIONS))
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a handler; a test that uses it runs for each."""
    return str(request.param)


@pytest.fixture
def serve_example(start_uwsgi: Callable[..., Uwsgi], handler: str) -> Callable[[str], Uwsgi]:
    """Start uWSGI with an example, by its path in `examples/`."""

    def serve(path: str) -> Uwsgi:
        return start_uwsgi(EXAMPLES / path, *LOOP_OPTIONS[handler], env={"UWASP_HANDLER": handler})

    return serve


@pytest.fixture
def start_demo(started: Callable[..., Any], handler: str) -> Callable[..., Demo]:
    """Start `examples/chat/run.py` with the handler of the test."""

    def start(**keywords: Any) -> Demo:
        demo: Demo = started(lambda folder: Demo(folder, handler, **keywords))
        return demo

    return start


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests of a module: its start is what takes time."""
    chromium = Browser(tmp_path_factory.mktemp("browser"))
    yield chromium
    chromium.stop()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a tab; it is closed after the test."""
    pages: list[Page] = []

    def open_page(url: str, **keywords: Any) -> Page:
        page = browser.open(url, **keywords)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
