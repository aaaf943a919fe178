"""The site of the documents is made without a warning, and can be read on a telephone and on a desk."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from browser import Browser
from processes import wait_until

REPOSITORY = Path(__file__).parents[2]
WIDTHS = {"telephone": (390, 844), "desk": (1280, 800)}
# What lies outside of the page, and is not in something that scrolls by itself.
TOO_WIDE = """
(() => {
  const isOpen = element => getComputedStyle(element).overflowX === "visible"
  const scrolls = element => element && (!isOpen(element) || scrolls(element.parentElement))
  return [...document.querySelectorAll("main *, article *")]
    .filter(element => element.getBoundingClientRect().right > innerWidth + 1 && !scrolls(element.parentElement))
    .map(element => element.outerHTML.slice(0, 100))
})()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-c", "docs"]
    command = [sys.executable, "-m", "sphinx", *options, ".", str(folder)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def url(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def browser(started):
    return started(Browser)


def test_every_document_and_every_public_name_is_in_it(site):
    import uwasp

    for document in (REPOSITORY / "docs").glob("*.md"):
        assert (site / "docs" / document.with_suffix(".html").name).exists()
    described = (site / "docs" / "api.html").read_text()
    assert [name for name in uwasp.__all__ if f'id="uwasp.{name}"' not in described] == []


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("page", ["index", "tutorial", "options", "troubleshooting", "performance", "api"])
def test_a_page_fits(browser, url, device, page):
    opened = browser.open(f"{url}/docs/{page}.html", *WIDTHS[device])
    assert opened.evaluate("document.querySelector('h1').textContent")
    assert opened.evaluate(TOO_WIDE) == []


def test_the_search_finds_an_option_where_it_is_explained(browser, url):
    opened = browser.open(f"{url}/search.html?q=shutdown_spread", *WIDTHS["desk"])
    found = "[...document.querySelectorAll('#search-results li a')].map(link => link.getAttribute('href'))"
    wait_until(lambda: any("docs/production.html" in link for link in opened.evaluate(found)), "what is searched for")
