"""What a browser has that Node.js has not, and many sockets of many pages while a uWSGI is reloaded again and again."""

from __future__ import annotations

import signal

import pytest

from documents import code_block
from environments import REPOSITORY
from processes import ACCEPTING, LOOP_OPTIONS
from runtimes import SCRIPT, Chromium

DOCUMENT = REPOSITORY / "docs" / "browser.md"
PAGES, SOCKETS, RELOADS = 4, 50, 2  # Chromium has at most 255 WebSockets

# Each sends its numbers, ten a second, and notes what it was told, and which ones were kept meanwhile.
MEMBERS = """
globalThis.members = Array.from({ length: COUNT }, () => {
  const member = { socket: new Socket("/told", { maxQueue: 10_000 }), next: 0, process: "" };
  Object.assign(member, { kept: [], received: [], delays: [] });
  member.socket.on("message", ({ data }) => {
    if (data.startsWith("process ")) member.process = data;
    else member.received.push(Number(data));
  });
  member.socket.on("close", ({ code, delay }) => member.delays.push([code, delay]));
  member.socket.on("drop", () => { throw new Error("dropped") });
  member.say = () => {
    const isOpen = member.socket.state === "open";
    if (member.socket.send(String(member.next)) && !isOpen) member.kept.push(member.next);
    member.next++;
  };
  return member;
});
globalThis.talking = setInterval(() => members.forEach((member) => member.say()), 100);
0
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    chromium = Chromium(tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.end()


@pytest.fixture
def open_pages(chromium):
    opened = []

    def open_pages(host, count):
        for _ in range(count):
            page = chromium.browser.open(f"http://{host}/")
            opened.append(page)
            page.call("Network.disable")  # it would tell of every frame
            page.evaluate("import('/uwasp.js').then((module) => void Object.assign(globalThis, module))")
        return opened

    yield open_pages
    for page in opened:
        page.close()


def test_all_come_back_from_a_storm_of_reloads_and_nothing_that_was_kept_is_lost(serve, open_pages):
    uwsgi = serve("--processes", "2")
    pages = open_pages(uwsgi.address, PAGES)
    for page in pages:
        page.evaluate(MEMBERS.replace("COUNT", str(SOCKETS)))
    before = everybody_is_open(pages, set())
    for number in range(RELOADS):
        uwsgi.popen.send_signal(signal.SIGHUP)
        uwsgi.wait_for_output(ACCEPTING, 2 * (number + 2))
        after = everybody_is_open(pages, before)
        before |= after
    for page in pages:
        page.evaluate("clearInterval(talking); members.forEach((member) => member.say())")
        page.wait_for("members.every(({ received, next }) => received.at(-1) === next - 1)")
    members = [member for page in pages for member in page.evaluate("members.map(({ socket, ...rest }) => rest)")]
    assert len(members) == PAGES * SOCKETS
    for member in members:
        assert sorted(set(member["received"])) == member["received"]  # in order, and once
        assert set(member["kept"]) <= set(member["received"])
    assert sum(len(member["kept"]) for member in members) > PAGES * SOCKETS * RELOADS
    assert [page.errors for page in pages] == [[]] * PAGES
    told = [[delay for code, delay in member["delays"] if code == 1001] for member in members]
    assert min(map(len, told)) == RELOADS  # who is back at once may find a worker that ends, and is told once more
    delays = [delay for each in told for delay in each]
    assert len(delays) < 1.5 * PAGES * SOCKETS * RELOADS
    assert 0 <= min(delays) < 200
    assert 1800 < max(delays) <= 2000


def everybody_is_open(pages, elsewhere_than):
    """Wait until all are open, in other processes than these, and what was kept has come; return in which processes."""
    unwanted = str(sorted(elsewhere_than))
    for page in pages:
        page.wait_for(
            f"members.every(({{ socket, process, kept, received }}) => socket.state === 'open' && process && "
            f"!{unwanted}.includes(process) && (!kept.length || received.at(-1) >= kept.at(-1)))"
        )
    return {process for page in pages for process in page.evaluate("members.map(({ process }) => process)")}


def test_when_the_network_is_back_it_tries_at_once(serve, open_pages):
    uwsgi = serve()
    (page,) = open_pages(uwsgi.address, 1)
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.enable")
    page.call("Network.emulateNetworkConditions", {"offline": True, **network})
    page.evaluate("globalThis.socket = new Socket('/told', {firstDelay: 1e9, longestDelay: 1e9}); 0")
    page.wait_for("socket.state === 'waiting'")
    page.call("Network.emulateNetworkConditions", {"offline": False, **network})
    page.wait_for("socket.state === 'open'")


# What the page shows of its state, one after the other: it may be in one for less than a test looks.
OBSERVED = """
globalThis.observed = [];
globalThis.observer?.disconnect();
globalThis.observer = new MutationObserver(() => observed.push(document.querySelector("output").value));
observer.observe(document.querySelector("output"), {childList: true, characterData: true, subtree: true});
0
"""


def test_the_program_of_the_document_serves_a_page_that_comes_back(start_uwsgi, tmp_path, open_pages):
    (tmp_path / "uwasp.js").write_bytes(SCRIPT.read_bytes())
    program = tmp_path / "page.py"
    program.write_text(code_block(DOCUMENT, "python", "# page.py"))
    uwsgi = start_uwsgi(program, *LOOP_OPTIONS["threads"])
    (page,) = open_pages(uwsgi.address, 1)
    for reloads, text in enumerate(("hello", "here again"), 1):
        page.wait_for("document.querySelector('output').value === 'open'")
        page.type("input", text)
        page.press_enter()
        page.wait_for_text("pre", text)
        page.evaluate(OBSERVED)
        uwsgi.popen.send_signal(signal.SIGHUP)
        page.wait_for("observed.includes('waiting')")
        uwsgi.wait_for_output(ACCEPTING, reloads + 1)
    assert [error for error in page.errors if "404" not in error] == []  # it has no icon
