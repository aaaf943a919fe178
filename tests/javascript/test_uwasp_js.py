"""uwasp.js as docs/browser.md says: when it comes back, what it keeps, when it is over."""

from __future__ import annotations

import json
import re

import pytest

from processes import listening_socket

# Notes all that a socket tells.
WATCH = """
globalThis.watch = (url, options) => {
  const socket = new Socket(typeof url === "string" ? `ws://${host}${url}` : url, options);
  const seen = { socket, opens: 0, messages: [], closes: [], states: [], drops: [] };
  socket.on("open", () => seen.opens++);
  socket.on("message", ({ data }) => seen.messages.push(data));
  socket.on("close", ({ code, reason, wasClean, delay }) => {
    seen.closes.push({ code, reason, wasClean, delay, state: socket.state });
  });
  socket.on("state", ({ state }) => seen.states.push(state));
  socket.on("drop", ({ data }) => seen.drops.push(data));
  return seen;
};
"""


@pytest.fixture
def run(runtime):
    """Evaluate JavaScript: `run(statements, expression)`."""
    runtime.evaluate(WATCH)
    return lambda code, expression="0": runtime.evaluate(f"{code}; {expression}")


@pytest.fixture
def opened(run, runtime):
    """Have `w` be a socket that is open: `opened(options in JavaScript)`."""

    def open_one(options="{}"):
        run(f"globalThis.w = watch('/told', {options})")
        runtime.wait_for("w.messages.length === 1")

    return open_one


def test_it_opens_says_so_and_talks(run, runtime):
    options = "{protocols: ['other', 'told.v1'], binaryType: 'arraybuffer'}"
    assert run(f"globalThis.w = watch('/told?ada', {options})", "w.socket.state") == "connecting"
    runtime.wait_for("w.messages.length === 1")
    assert run("", "[w.socket.state, w.socket.protocol, w.states, w.opens]") == ["open", "told.v1", ["open"], 1]
    assert re.fullmatch(r"process \d+ ada", run("", "w.messages[0]"))
    sent = run("", "[w.socket.send('ü'), w.socket.send(new Uint8Array([1, 2])), w.socket.send(new Blob(['3']))]")
    assert sent == [True, True, True]
    runtime.wait_for("w.messages.length === 4")
    assert run("", "w.messages[1]") == "ü"
    assert run("", "w.messages.slice(2).map((data) => [...new Uint8Array(data)])") == [[1, 2], [51]]


def test_what_was_sent_before_it_is_open_goes_out_in_order_after_what_open_sends(run, runtime):
    run(
        "globalThis.w = watch('/told', {binaryType: 'arraybuffer'});"
        "w.socket.on('open', () => w.socket.send('who I am'));"
        "const bytes = new Uint8Array([7]);"
        "w.socket.send('first'); w.socket.send(bytes); w.socket.send('third'); bytes[0] = 8;"
        "globalThis.kept = w.socket.bufferedAmount"
    )
    assert run("", "kept") == 11
    runtime.wait_for("w.messages.length === 5")
    told = "w.messages.slice(1).map((data) => typeof data === 'string' ? data : new Uint8Array(data)[0])"
    assert run("", told) == ["who I am", "first", 7, "third"]
    assert run("", "[w.socket.bufferedAmount, w.drops]") == [0, []]


# The close code and reason that the server gives, and from when to when the client comes back, in ms.
COMES_BACK = [
    (1001, "", 0, 2000),
    (1001, "reconnect in 1 s", 1000, 3000),
    (1001, "a new version: reconnect in 0 to 1 s, please", 0, 1000),
    (1001, "reconnect in 1234567 s", 0, 2000),  # too many digits
    (1012, "", 5000, 30_000),
    (1013, "", 5000, 30_000),
    (1012, "reconnect in 60 to 120 s", 60_000, 120_000),
    (4000, "reconnect in 999999 s", 999_999_000, 1_000_001_000),
    (1011, "", 0, 500),
    (1014, "", 0, 500),
    (3008, "", 0, 500),
    (4000, "", 0, 500),
]


def closed_with(run, runtime, code, reason, options="{}", count=1):
    """How long new sockets say that they wait after their connections' end, and their state then."""
    told = json.dumps(f"close {code} {reason}")
    run(f"globalThis.all = Array.from({{length: {count}}}, () => watch('/told', {options}))")
    run(f"all.forEach((w) => w.socket.send({told}))")
    runtime.wait_for("all.every((w) => w.closes.length)")
    closes = run("all.forEach((w) => w.socket.close())", "all.map((w) => w.closes[0])")
    assert [(close["code"], close["reason"], close["wasClean"]) for close in closes] == [(code, reason, True)] * count
    assert len({close["state"] for close in closes}) == 1
    return [close["delay"] for close in closes], closes[0]["state"]


@pytest.mark.parametrize(("code", "reason", "least", "most"), COMES_BACK)
def test_it_comes_back_within_the_time_of_its_code_or_reason(run, runtime, code, reason, least, most):
    delays, state = closed_with(run, runtime, code, reason, count=10)
    assert state == "waiting"
    assert least <= min(delays) < max(delays) <= most
    assert max(delays) - min(delays) > (most - least) / 10  # each has a time of its own


def test_after_that_time_it_is_back(run, runtime, opened):
    opened()
    for number, reason in enumerate(("", "reconnect in 1 s", "reconnect in 0 to 1 s"), 2):
        run(f"w.socket.send('close 1001 {reason}')")
        runtime.wait_for(f"w.messages.length === {number}")
    assert run("", "w.states") == ["open", *["waiting", "connecting", "open"] * 3]
    assert run("", "w.opens") == 4


def test_a_connection_that_is_lost_comes_back(run, runtime, opened):
    opened("{firstDelay: 10}")
    run("w.socket.send('cut')")
    runtime.wait_for("w.messages.length === 2")
    told = run("", "w.closes.map(({code, wasClean, delay, state}) => [code, wasClean, delay <= 10, state])")
    assert told == [[1006, False, True, "waiting"]]


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 3003])
def test_it_gives_up_on_a_code_after_which_the_same_would_happen(run, runtime, code):
    assert code in run("", "GIVE_UP_ON")
    assert closed_with(run, runtime, code, "reconnect in 1 s") == ([None], "closed")


def test_it_gives_up_on_codes_of_ones_own_and_on_none_that_one_leaves_out(run, runtime):
    options = "{giveUpOn: [...GIVE_UP_ON, 4001]}"
    assert closed_with(run, runtime, 4001, "", options) == ([None], "closed")
    assert closed_with(run, runtime, 4000, "", options)[1] == "waiting"
    assert closed_with(run, runtime, 1000, "", "{giveUpOn: [4001]}")[1] == "waiting"


def test_a_failure_has_it_wait_longer_each_time_up_to_a_bound_and_give_up_after_as_many_as_one_likes(run, runtime):
    run("globalThis.w = watch('/told?refuse', {firstDelay: 4, longestDelay: 20, maxFailures: 6})")
    runtime.wait_for("w.socket.state === 'closed'")
    closes = run("", "w.closes")
    assert {close["code"] for close in closes} == {1006}
    *delays, last = (close["delay"] for close in closes)
    assert last is None
    assert [delay <= most for delay, most in zip(delays, (4, 8, 16, 20, 20), strict=True)] == [True] * 5


def test_a_connection_that_has_lived_for_5_s_ends_a_row_of_failures(run, runtime):
    run(
        "globalThis.all = Array.from({length: 8}, () => {"
        "  let failures = 0;"
        "  return watch(() => failures++ < 10 ? Promise.reject('not yet') : `ws://${host}/told`, {firstDelay: 1});"
        "});"
        "all.forEach((w) => w.socket.on('open', () => { w.openedAt = performance.now() }))"
    )
    runtime.wait_for("all.every((w) => w.messages.length)")
    run("all.slice(4).forEach((w) => w.socket.send('cut'))")
    runtime.wait_for("all.every((w) => performance.now() - w.openedAt > 5100)")
    run("all.slice(0, 4).forEach((w) => w.socket.send('cut'))")
    runtime.wait_for("all.every((w) => w.closes.length > 10)")
    delays = run("all.forEach((w) => w.socket.close())", "all.map((w) => w.closes[10].delay)")
    assert max(delays[:4]) <= 1
    assert 1 < max(delays[4:]) <= 1024


def test_the_bound_of_the_random_time_is_what_doubles(run, runtime):
    """Of 40 that have failed three times each, one at least waits longer than any could after the second time."""
    run(
        "globalThis.all = Array.from({length: 40}, () => watch(() => Promise.reject('no ticket'), "
        "{firstDelay: 10, maxFailures: 4}))"
    )
    runtime.wait_for("all.every((w) => w.socket.state === 'closed')")
    for failures, most in enumerate((10, 20, 40)):
        delays = run("", f"all.map((w) => w.closes[{failures}].delay)")
        assert most / 2 < max(delays) <= most
        assert min(delays) < most / 2


def test_a_url_can_be_asked_for_each_time(run, runtime):
    run(
        "globalThis.tickets = 0;"
        "globalThis.w = watch(async () => `http://${host}/told?ticket-${++tickets}`);"
        "w.socket.on('message', () => w.socket.send('close 1001 reconnect in 0 to 0 s'))"
    )
    runtime.wait_for("w.messages.length >= 3")
    run("w.socket.close()")
    assert [message.split()[-1] for message in run("", "w.messages")][:3] == ["ticket-1", "ticket-2", "ticket-3"]


def test_a_url_that_cannot_be_had_is_a_failed_attempt(run, runtime):
    run("globalThis.w = watch(() => { throw new Error('no ticket') }, {firstDelay: 1, maxFailures: 2})")
    runtime.wait_for("w.socket.state === 'closed'")
    assert [(close["code"], close["reason"]) for close in run("", "w.closes")] == [(1006, "Error: no ticket")] * 2


def test_a_url_that_does_not_come_in_time_is_a_failed_attempt_and_opens_nothing_when_it_comes(run, runtime):
    run(
        "globalThis.answers = [];"
        "globalThis.w = watch(() => new Promise((resolve) => answers.push(resolve)),"
        " {connectTimeout: 50, firstDelay: 1, maxFailures: 2})"
    )
    runtime.wait_for("w.socket.state === 'closed'")
    told = run("", "w.closes.map(({code, reason}) => [code, reason])")
    assert told == [[1006, "Error: no URL within 50 ms"]] * 2
    assert run("", "answers.length") == 2
    run("answers.forEach((resolve) => resolve(`http://${host}/told`)); globalThis.other = watch('/told')")
    runtime.wait_for("other.messages.length === 1")
    assert run("other.socket.close()", "[w.opens, w.closes.length, w.socket.state]") == [0, 2, "closed"]


def test_a_url_that_comes_in_time_is_not_given_up_for_the_time_that_the_handshake_takes(run, runtime):
    with listening_socket() as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        run(f"globalThis.w = watch(async () => '{url}', {{connectTimeout: 50, maxFailures: 1}})")
        runtime.wait_for("w.socket.state === 'closed'")
    assert run("", "w.closes.map(({code, reason}) => [code, reason])") == [[1006, ""]]


def test_a_url_that_is_none_is_a_failed_attempt(run, runtime):
    run("globalThis.w = watch(async () => 'http://[', {firstDelay: 1, maxFailures: 2})")
    runtime.wait_for("w.socket.state === 'closed'")
    told = run("", "w.closes.map(({code, reason}) => [code, reason])")
    assert [(code, "URL" in reason) for code, reason in told] == [(1006, True)] * 2
    assert runtime.errors() == []


def test_a_handshake_without_an_answer_is_a_failed_attempt(run, runtime):
    with listening_socket() as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/"
        run(f"globalThis.w = watch(() => '{url}', {{connectTimeout: 50, maxFailures: 1}})")
        runtime.wait_for("w.socket.state === 'closed'")
    assert run("", "w.closes.map(({code, delay}) => [code, delay])") == [[1006, None]]


def test_what_is_over_the_bound_is_dropped_and_told(run, runtime):
    run(
        "globalThis.w = watch('/told', {maxQueue: 3, maxQueueSize: 10});"
        "globalThis.sent = ['12345', 'üü', '!!', '!', 'one too many'].map((data) => w.socket.send(data))"
    )
    assert run("", "[sent, w.drops]") == [[True, True, False, True, False], ["!!", "one too many"]]
    runtime.wait_for("w.messages.length === 4")
    assert run("", "w.messages.slice(1)") == ["12345", "üü", "!"]


def test_what_is_kept_when_it_is_over_is_dropped_and_told(run, runtime, opened):
    opened()
    run("w.socket.send('close 1001 reconnect in 100 s')")
    runtime.wait_for("w.socket.state === 'waiting'")
    run("w.socket.send('kept'); w.socket.send('kept, too')")
    assert run("w.socket.close()", "[w.drops, w.socket.bufferedAmount]") == [["kept", "kept, too"], 0]
    assert run("", "[w.socket.send('too late'), w.drops.length, w.socket.state]") == [False, 3, "closed"]


def test_who_closes_it_does_so_for_good(run, runtime, opened, uwsgi):
    opened()
    run("w.socket.close(4321, 'ünough')")
    assert run("", "w.socket.state") == "closed"
    uwsgi.wait_for_output("ended with 4321 ünough")
    runtime.wait_for("w.closes.length === 1")
    assert run("", "[w.closes[0].code, w.closes[0].delay]") == [4321, None]
    with pytest.raises(RuntimeError, match="InvalidAccessError"):
        run("globalThis.w = watch('/told'); w.socket.close(1002)")
    assert run("", "w.socket.state") != "closed"  # nothing has happened
    run("w.socket.close()")


def test_who_closes_it_as_soon_as_it_waits_is_not_told_of_another_attempt(run, runtime, opened):
    opened()
    run("w.socket.on('state', ({ state }) => { if (state === 'waiting') w.socket.close() })")
    run("w.socket.send('close 1001 ')")
    runtime.wait_for("w.closes.length === 1")
    assert run("", "[w.closes[0].code, w.closes[0].delay, w.socket.state]") == [1001, None, "closed"]


def test_who_closes_it_before_it_is_open_never_sees_it_open(run, runtime):
    run("globalThis.w = watch(() => new Promise((resolve) => { globalThis.ready = resolve })); w.socket.close()")
    run("ready(`ws://${host}/told`); globalThis.x = watch('/told')")
    runtime.wait_for("x.messages.length === 1")
    assert run("", "[w.opens, w.socket.state]") == [0, "closed"]


def test_a_listener_that_fails_is_reported_and_keeps_nobody_from_hearing(run, runtime):
    run(
        "globalThis.w = watch('/told'); globalThis.heard = 0;"
        "w.socket.on('message', () => { throw new Error('in the listener') });"
        "globalThis.end = w.socket.on('message', () => heard++);"
        "w.socket.send('second')"
    )
    runtime.wait_for("heard === 2")
    assert len([error for error in runtime.errors() if "in the listener" in error]) == 2
    run("end(); w.socket.send('third')")
    runtime.wait_for("w.messages.length === 3")
    assert run("", "heard") == 2


def test_what_cannot_be_a_url_is_an_error_at_once(run):
    with pytest.raises(RuntimeError, match="URL"):
        run("new Socket('http://[')")
