"""Fixtures for the tests of the examples: each runs once for each handler, on a real uWSGI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browser import Browser, Page
from demo import EXAMPLES, Demo
from processes import LOOP_OPTIONS, Uwsgi, require_program
from redis_servers import RedisServer


@pytest.fixture(params=["gevent", "threads"])
def handler(request: pytest.FixtureRequest) -> str:
    """The name of a handler that runs functions, as the examples' servers are, which wait for a group; a test that uses
    it runs for each.
    """
    return str(request.param)


@pytest.fixture
def serve_example(start_uwsgi: Callable[..., Uwsgi], handler: str) -> Callable[..., Uwsgi]:
    """Start uWSGI with an example, by its path in `examples/`: `serve_example(path, *options of uWSGI)`."""

    def serve(path: str, *options: str) -> Uwsgi:
        return start_uwsgi(EXAMPLES / path, *LOOP_OPTIONS[handler], *options, env={"UWASP_HANDLER": handler})

    return serve


@pytest.fixture
def start_demo(started: Callable[..., Any], handler: str) -> Callable[..., Demo]:
    """Start the chat by `uwasp dev` with the handler of the test: `start_demo(*options, **keywords of Demo)`."""

    def start(*options: str, **keywords: Any) -> Demo:
        demo: Demo = started(lambda folder: Demo(folder, handler, *options, **keywords))
        return demo

    return start


@pytest.fixture
def start_instances(start_demo: Callable[..., Demo], redis: RedisServer) -> Callable[..., Demo]:
    """Start `examples/chat/instances.py`, as `start_demo` does, on a Redis of the test."""
    require_program("nginx", "/usr/sbin/nginx")
    return lambda *options, **keywords: start_demo("--redis", redis.url, *options, script="instances.py", **keywords)


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
