"""Groups when workers end and others begin: a reload, of all or one after the other, and a stop."""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from processes import wait_until
from talkers import get, in_each_worker
from test_senders import SENDERS

DEPLOYED = Path(__file__).parent / "deployed.py"
WORKERS = 3


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)])
def test_what_on_close_sends_while_its_worker_ends_arrives_in_others(serve, group, lazy):
    uwsgi = serve(*lazy, application=SENDERS)
    with ExitStack() as stack:
        members = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group, path="/leave")]
        for gone in members[:-1]:
            others = [one for one in members if one is not gone]
            os.kill(gone.worker, signal.SIGHUP)
            assert gone.closed()[0] == 1001
            said = [f"{gone.id} {number}" for number in range(10)]
            for member in others:
                assert [member.hear() for _ in range(10)] == said
            members.remove(gone)


def test_a_stop_takes_no_longer_than_without_groups(serve, handler, group):
    def seconds_to_stop(path):
        uwsgi = serve(application=SENDERS)
        with ExitStack() as stack:
            if path:
                for one in in_each_worker(WORKERS, uwsgi.url, group, path=path):
                    stack.enter_context(one)
            begin = time.monotonic()
            uwsgi.stop()
            return time.monotonic() - begin

    without = seconds_to_stop(None)
    assert seconds_to_stop("/talk") < without + 1.0


def test_workers_that_are_reloaded_one_after_the_other_hear_each_other_all_the_time(serve, group, tmp_path):
    touched = tmp_path / "touched"
    touched.touch()
    uwsgi = serve("--lazy-apps", f"--touch-chain-reload={touched}", application=SENDERS)
    with ExitStack() as stack:
        before = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group)]
        os.utime(touched, times=(time.time() + 10,) * 2)  # uWSGI sees full seconds
        uwsgi.wait_for_output("chain reloading complete", timeout=60)
        for member in before:
            assert member.closed()[0] == 1001
        after = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group, key="bob")]
        for member in after:
            wait_until(lambda member=member: ["bob", None, WORKERS] in member.members(), "all to be there", 10)
        after[0].do("send", "hello")
        assert [member.hear() for member in after] == ["hello"] * WORKERS


def test_two_releases_share_a_bus_while_one_takes_the_others_place(serve, group, tmp_path):
    later = tmp_path / "later"
    uwsgi = serve("--lazy-apps", application=DEPLOYED, env={"UWASP_NEXT": str(later)})
    with ExitStack() as stack:
        before = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group, key="before")]
        later.touch()
        first = before.pop()
        os.kill(first.worker, signal.SIGHUP)
        assert first.closed()[0] == 1001
        uwsgi.wait_for_output("the later release")
        everybody = [*before, *in_each_worker(WORKERS, uwsgi.url, group, key="after", info={"release": "later"})]
        for member in everybody[len(before) :]:
            stack.enter_context(member)
        (deployed,) = [one for one in everybody if one.worker not in {other.worker for other in before}]
        people = [["after", {"release": "later"}, WORKERS], ["before", None, WORKERS - 1]]
        for member in everybody:
            wait_until(lambda member=member: member.members() == people, "all to be there", 10)
        for sender in (deployed, before[0], deployed):
            sender.do("send", "not to one", [before[1].id, deployed.id])
            sender.do("send", "to everybody")
            sender.do("notify", ["data"])
            for member in everybody:
                if member not in (before[1], deployed):
                    assert member.hear() == "not to one"
                assert member.hear() == "to everybody"
                assert member.next("notified")["notified"] == ["data"]
        for member in everybody:
            member.do("stats")
            figures = member.next("stats")["stats"]
            assert (set(figures), figures["room"].get("missed", 0)) == ({"room"}, 0)
        deployed.do("close", 4001, "logged out", "before")
        assert [member.closed() for member in before] == [(4001, "logged out")] * len(before)
        everybody[-1].do("close", 4002, "the end")
        assert deployed.closed() == (4002, "the end")


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)])
def test_nothing_is_begun_before_a_group_is_used(serve, group, lazy):
    uwsgi = serve(*lazy, workers=1, application=SENDERS)
    worker = get(uwsgi.url, "/")

    def has():
        return set(os.listdir(f"/proc/{worker}/task")), set(os.listdir(f"/proc/{worker}/fd"))

    before = has()
    get(uwsgi.url, "/")
    assert has() == before
    get(uwsgi.url, "/send", group=group, text="to nobody")
    wait_until(lambda: len(has()[1] - before[1]) >= 4, "the bus to be opened")
    (thread,) = has()[0] - before[0]
    status = Path(f"/proc/{worker}/task/{thread}/status").read_text()
    blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
        assert blocked >> (number - 1) & 1, f"uWSGI's handler of signal {number} would hang in the bus's thread"
