"""One to many: what a group is sent reaches all of its members, in whichever worker they are."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from processes import wait_until
from talkers import Talker, get, in_each_worker

WORKERS = 3


@pytest.fixture
def members(url, group):
    """One in each worker."""
    with ExitStack() as stack:
        yield [stack.enter_context(talker) for talker in in_each_worker(WORKERS, url, group)]


def test_every_member_in_every_worker_gets_each_message_once(members):
    for number, sender in enumerate(members):
        sender.do("send", f"message {number}")
        assert [member.hear() for member in members] == [f"message {number}"] * WORKERS


def test_what_one_worker_sends_arrives_in_order(members):
    members[0].do("send_many", 2000, 100)
    for member in members:
        assert [int(member.hear()) for _ in range(2000)] == list(range(2000))


def test_who_is_excluded_does_not_get_it(members):
    members[0].do("send", "to the others", "me")
    members[0].do("send", "to everybody")
    assert members[0].hears_nothing_before("to everybody")
    assert [member.hear() for member in members[1:]] == ["to the others"] * (WORKERS - 1)


def test_a_member_in_another_worker_is_excluded_by_its_id(url, members, group):
    members[0].do("send", "to the others", members[1].id)
    members[0].do("send", "not to 0 and 2", [members[0].id, members[2].id])
    members[0].do("send", "to everybody", "nobody's id")
    assert [members[0].hear() for _ in range(2)] == ["to the others", "to everybody"]
    assert [members[1].hear() for _ in range(2)] == ["not to 0 and 2", "to everybody"]
    assert [members[2].hear() for _ in range(2)] == ["to the others", "to everybody"]


def test_what_is_sent_once_on_open_has_returned_is_heard(url, group):
    """Each joins a group that its worker does not hear yet, and somebody in another sends at once."""
    with ExitStack() as stack:
        for number in range(20):
            one = stack.enter_context(Talker(url, f"{group}:{number}"))
            other = stack.enter_context(Talker(url, f"{group}:{number}"))
            one.do("send", "welcome")
            assert other.hear() == "welcome"
            other.do("send", "thank you")
            assert [one.hear(), one.hear()] == ["welcome", "thank you"]


def test_a_group_is_not_sent_what_is_for_another(url, group):
    with Talker(url, f"{group}:a") as a, Talker(url, f"{group}:a/b") as b, Talker(url, f"{group}:a%2Fb") as c:
        for talker, text in ((a, "for a"), (b, "for a/b"), (c, "for a%2Fb")):
            talker.do("send", text)
        for talker, text in ((a, "for a"), (b, "for a/b"), (c, "for a%2Fb")):
            assert talker.hear() == text
            talker.do("send", "end")
            assert talker.hears_nothing_before("end")


def test_who_has_left_gets_nothing(members):
    members[0].do("remove")
    members[0].next("removed")
    members[1].do("send", "to those who stayed")
    assert members[1].hear() == "to those who stayed"
    members[0].do("add", None)
    members[0].do("members")
    assert members[0].next("members")["count"] == WORKERS
    members[1].do("send", "to everybody")
    assert members[0].hears_nothing_before("to everybody")


def test_a_view_sends_from_whichever_worker_it_is_in(url, members, group):
    for number in range(10):
        get(url, "/send", group=group, text=f"from a view, {number}")
        for member in members:
            assert member.hear() == f"from a view, {number}"


def test_a_worker_without_any_websocket_sends_and_sees_who_is_there(serve, group):
    uwsgi = serve(workers=2)
    with Talker(uwsgi.url, group, key="alice") as alice:
        workers = []

        def both_have_sent():
            workers.append(get(uwsgi.url, "/send", group=group, text=str(len(workers))))
            return {alice.worker} < set(workers)

        wait_until(both_have_sent, "a view to run in the other worker")
        sent = len(workers)
        assert sorted(int(alice.hear()) for _ in range(sent)) == list(range(sent))  # two senders have no order
        for _ in range(40):
            assert get(uwsgi.url, "/members", group=group) == [["alice", None, 1]]
        assert get(uwsgi.url, "/members", group="nobody's") == []


def test_servers_are_notified_each_with_data_of_its_own(url, members, group):
    members[0].do("notify", {"drop": "cache"})
    for member in members:
        assert member.next("notified") == {"notified": {"drop": "cache"}, "group": group.split(":")}
    get(url, "/notify", group=group, data='["from", "outside"]')
    for member in members:
        assert member.next("notified")["notified"] == ["from", "outside"]


def test_a_user_is_logged_out_everywhere(url, group):
    with ExitStack() as stack:
        tabs = [stack.enter_context(one) for one in in_each_worker(WORKERS, url, group, key="alice")]
        other = stack.enter_context(Talker(url, group, key="bob"))
        get(url, "/close", group=group, code="4001", reason="logged out", key="alice")
        assert [tab.closed() for tab in tabs] == [(4001, "logged out")] * WORKERS
        wait_until(lambda: other.members() == [["bob", None, 1]], "bob to be alone")


def test_a_group_is_closed(url, members, group):
    members[1].do("close", 4002, "the room is closed")
    assert [member.closed() for member in members] == [(4002, "the room is closed")] * WORKERS


def test_a_message_is_compressed_for_nobody_and_disturbs_no_compression(serve, group):
    from websockets.sync.client import connect

    uwsgi = serve(middleware={"compression": "deflate"})
    with ExitStack() as stack:
        members = [stack.enter_context(connect(f"{uwsgi.url}/talk?group={group}")) for _ in range(4)]
        for member in members:
            assert "joined" in str(member.recv())
        text = "a text that is long enough to be compressed, " * 100
        for member in members:
            for _ in range(3):
                member.send('["members"]')
                assert "members" in str(member.recv(10))  # compressed, with what went before as its context
                member.send(f'["send", "{text}"]')
                assert [one.recv(10) for one in members] == [text] * 4


def test_the_figures_are_by_the_first_part_of_the_name(members):
    members[0].do("send", "one more")
    assert members[0].hear() == "one more"
    members[0].do("stats")
    figures = members[0].next("stats")["stats"]
    assert set(figures) <= {"room"}
    assert figures["room"]["groups"] >= 1
    assert figures["room"]["sent"] >= 1
