"""Presence: who is in a group, in all workers, and who came and left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack

from processes import wait_until
from talkers import Talker, in_each_worker

WORKERS = 3
GONE_WITHIN = 2.0  # seconds
BATCH = 1.0  # seconds in which changes are told; a loaded machine is slow


def test_everybody_sees_everybody_at_once(url, group):
    with ExitStack() as stack:
        tabs = [stack.enter_context(one) for one in in_each_worker(WORKERS, url, group, key="alice", info={"n": 1})]
        bob = stack.enter_context(Talker(url, group, key="bob"))
        everybody = [["alice", {"n": 1}, WORKERS], ["bob", None, 1]]
        assert [key for key, *_ in bob.members()] == ["alice", "bob"]
        wait_until(lambda: bob.members() == everybody, "those to have left who were one too many in their worker")
        for tab in tabs:
            wait_until(lambda tab=tab: tab.members() == everybody, "all to be known")


def test_servers_are_told_who_came_and_who_left(url, group):
    with Talker(url, group, "/watch", key="alice") as alice:
        assert alice.next("left")["joined"] == [["alice", None, 1]]
        with Talker(url, group, key="bob", info="Bob"):
            assert alice.next("left") == {"joined": [["bob", "Bob", 1]], "left": []}
        assert alice.next("left") == {"joined": [], "left": [["bob", "Bob", 0]]}


def test_two_tabs_are_one_who_leaves_with_the_last(url, group):
    with Talker(url, group, "/watch", key="alice") as alice, Talker(url, group, key="bob") as first:
        joined = []
        while len(joined) < 2:
            joined += alice.next("left")["joined"]
        with Talker(url, group, key="bob"):
            wait_until(lambda: ["bob", None, 2] in alice.members(), "the second tab")
        wait_until(lambda: ["bob", None, 1] in alice.members(), "the second tab's end")
        first.do("add", "another info", "bob")
        assert alice.next("left") == {"joined": [["bob", "another info", 1]], "left": []}


def test_many_who_join_together_are_told_together(url, group):
    count = 60
    with ExitStack() as stack:
        watcher = stack.enter_context(Talker(url, group, "/watch", key="watcher"))
        for number in range(count):
            stack.enter_context(Talker(url, group, key=f"guest {number}"))
        told = []
        while sum(len(each["joined"]) for each in told) < count + 1:
            told.append(watcher.next("left"))
        assert len(told) < count


def test_a_member_has_left_before_its_on_close(serve, group):
    uwsgi = serve(workers=1)
    with Talker(uwsgi.url, group):
        pass
    uwsgi.wait_for_output("with 0 in room")


def test_a_worker_that_is_killed_takes_its_members_with_it(serve, group):
    with_master = serve()
    with ExitStack() as stack:
        members = [stack.enter_context(one) for one in in_each_worker(WORKERS, with_master.url, group, path="/watch")]
        others = members[1:]
        for member in others:
            wait_until(lambda member=member: len(member.members()) == WORKERS, "all to be known")
        os.kill(members[0].worker, signal.SIGKILL)
        killed = time.monotonic()
        for member in others:
            wait_until(lambda member=member: len(member.members()) == WORKERS - 1, "the dead to be gone", 10)
        assert time.monotonic() - killed < GONE_WITHIN + BATCH
        others[0].do("send", "we go on")
        assert [member.hear() for member in others] == ["we go on"] * (WORKERS - 1)


def test_a_worker_that_is_killed_is_gone_though_a_child_has_its_sockets(serve, group):
    uwsgi = serve()
    with ExitStack() as stack:
        members = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group)]
        for member in members:
            wait_until(lambda member=member: len(member.members()) == WORKERS, "all to be known")
        members[0].do("fork_and_die")
        killed = time.monotonic()
        for member in members[1:]:
            wait_until(lambda member=member: len(member.members()) == WORKERS - 1, "the dead to be gone", 10)
        assert time.monotonic() - killed < GONE_WITHIN + BATCH


def test_after_a_reload_nobody_is_there_twice_or_still(serve, group):
    uwsgi = serve()
    with ExitStack() as stack:
        before = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group, key="alice")]
        os.kill(uwsgi.popen.pid, signal.SIGHUP)
        for member in before:
            assert member.closed()[0] == 1001
        uwsgi.wait_for_output("a worker accepts", 2 * WORKERS)
        after = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group, key="bob")]
        for member in after:
            wait_until(lambda member=member: member.members() == [["bob", None, WORKERS]], "only bob to be there", 10)
        after[0].do("send", "hello again")
        assert [member.hear() for member in after] == ["hello again"] * WORKERS


def test_a_worker_that_was_stopped_for_long_is_there_again_when_it_goes_on(serve, group):
    uwsgi = serve()
    with ExitStack() as stack:
        members = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group)]
        others = members[1:]
        for member in members:
            wait_until(lambda member=member: len(member.members()) == WORKERS, "all to be known")
        os.kill(members[0].worker, signal.SIGSTOP)
        try:
            for member in others:
                wait_until(lambda member=member: len(member.members()) == WORKERS - 1, "it to be taken for gone", 10)
        finally:
            os.kill(members[0].worker, signal.SIGCONT)
        for member in members:
            wait_until(lambda member=member: len(member.members()) == WORKERS, "all to be there again", 10)
