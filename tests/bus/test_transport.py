"""What every transport does, whatever it carries a bus with: several real processes, one transport in each."""

from __future__ import annotations

import signal
import time

import pytest

from processes import wait_until
from processes_on_bus import Kind, Peer, Peers
from uwasp import ConfigurationError
from uwasp.transport import find_transport


def test_what_is_published_reaches_those_that_are_subscribed_and_nobody_else(peers: Peers) -> None:
    a, b, c, d = peers.open(4)
    for subscriber in (a, b, c):
        subscriber.hear("news")
    d.hear("other")
    a.publish("news", "to b and c")
    a.tell_all("end")
    for other in (b, c, d):
        other.wait("received", "end")
    assert [other.received for other in (b, c, d)] == [["to b and c", "end"], ["to b and c", "end"], ["end"]]


def test_a_process_is_told_nothing_or_its_own_of_what_it_publishes_itself(peers: Peers) -> None:
    a, b = peers.open(2)
    a.hear("news")
    a.publish("news", "own")
    a.tell_all("own too")
    b.tell(a.id, "end")
    a.wait("received", "end")
    assert set(a.received) <= {"own", "own too", "end"}


@pytest.mark.parametrize("channel", ["a b\nc", "ünï/☃%2F:*?[", "c" * 1000])
def test_a_channel_has_any_name(peers: Peers, channel: str) -> None:
    a, b = peers.open(2)
    b.hear(channel)
    a.publish(channel, "text")
    b.wait("received", "text")


def test_messages_of_each_process_arrive_in_order_and_once(peers: Peers) -> None:
    a, b, c = peers.open(3)
    c.hear("one", "two")
    a.pace("one", "a", 0.5, 0.0002, 50)
    b.pace("two", "b", 0.5, 0, 2000)
    sent = a.wait("paced")[1] + b.wait("paced")[1]
    a.tell(c.id, "end of a")
    b.tell(c.id, "end of b")
    c.wait("received", "end of a")
    c.wait("received", "end of b")
    _, counted, in_order = c.answer("counted")
    assert in_order
    assert counted == sent or c.find("missed")


def test_what_is_published_told_and_asked_is_one_order(peers: Peers) -> None:
    a, b = peers.open(2)
    b.hear("news")
    for number in range(50):
        a.publish("news", f"{number} published")
        a.tell(b.id, f"{number} told")
        a.tell_all(f"{number} told to all")
        a.ask("news", f"{number} asked")
    b.wait("received", count=200)
    kinds = ("published", "told", "told to all", "asked")
    assert b.received == [f"{number} {what}" for number in range(50) for what in kinds]


def test_all_that_is_published_once_a_channel_is_heard_arrives(peers: Peers) -> None:
    a, b, c = peers.open(3)
    for number in range(100):
        c.hear(f"channel {number}")
        a.publish(f"channel {number}", f"{number} of a")
        b.publish(f"channel {number}", f"{number} of b")
    c.wait("received", count=200)
    assert sorted(c.received) == sorted(f"{number} of {sender}" for number in range(100) for sender in "ab")
    assert not c.find("missed")


def test_a_channel_is_heard_where_nobody_else_is(peers: Peers) -> None:
    (a,) = peers.open(1)
    a.hear("news")


def test_each_call_of_subscribe_is_answered(peers: Peers) -> None:
    a, b = peers.open(2)
    a.subscribe("news")
    a.subscribe("news")
    a.wait("heard", "news", count=2)
    b.publish("news", "once")
    b.tell(a.id, "end")
    a.wait("received", "end")
    assert a.received == ["once", "end"]


def test_a_channel_that_is_left_is_heard_no_longer_until_it_is_subscribed_to_again(peers: Peers) -> None:
    a, b = peers.open(2)
    b.hear("news", "other")
    b.unsubscribe("news")
    b.hear("another")  # so that the other has learned of it
    a.publish("news", "not heard")
    a.publish("other", "heard")
    b.wait("received", "heard")
    b.hear("news")
    a.publish("news", "heard again")
    b.wait("received", "heard again")
    assert b.received == ["heard", "heard again"]


def test_one_process_is_told_alone(peers: Peers) -> None:
    a, b, c = peers.open(3)
    a.tell(b.id, "to b")
    a.tell("00" * 8, "to nobody")
    a.tell_all("end")
    b.wait("received", "end")
    c.wait("received", "end")
    assert (b.received, c.received) == (["to b", "end"], ["end"])


def test_who_asks_learns_how_many_others_it_went_to(peers: Peers) -> None:
    a, b, c, _d = peers.open(4)
    b.hear("news")
    c.hear("news")
    assert a.answer("ask", "nobody's", "?", event="expected") == ["expected", "nobody's", 0]
    assert a.answer("ask", "news", "?", event="expected") == ["expected", "news", 2]
    b.wait("received", "?")
    c.wait("received", "?")


def test_a_process_that_has_just_begun_asks_all_that_are_there(peers: Peers) -> None:
    for peer in peers.open(3):
        peer.hear("news")
    late = peers.start()
    late.open()
    assert late.answer("ask", "news", "?", event="expected") == ["expected", "news", 3]


def test_a_process_that_publishes_as_soon_as_it_has_begun_and_closes_is_heard(peers: Peers) -> None:
    a, b = peers.open(2)
    a.hear("news")
    b.hear("news")
    for number in range(5):
        script = peers.start()
        script.open()
        script.publish("news", str(number))
        script.close(5.0)
        assert script.wait("closed")[1] < 3
    for peer in (a, b):
        peer.wait("received", count=5)
        assert peer.received == ["0", "1", "2", "3", "4"]


def test_a_message_of_the_largest_size_arrives_and_a_larger_one_is_refused(peers: Peers, kind: Kind) -> None:
    largest = find_transport(kind.url).max_message_size
    a, b = peers.open(2)
    b.hear("news")
    a.publish_large("news", largest)
    b.wait("received", f"{largest} characters of {{'x'}}")


def test_a_process_that_closes_is_gone_at_once_and_one_that_comes_has_appeared(peers: Peers) -> None:
    a, b = peers.open(2)
    b.close(5.0)
    begun = time.monotonic()
    a.wait("gone", b.id)
    assert time.monotonic() - begun < 1
    c = peers.start()
    c.open()
    peers.acquainted(a, c)


def test_a_process_that_is_killed_is_gone_within_the_time_that_was_promised(peers: Peers, kind: Kind) -> None:
    a, b, c = peers.open(3)
    c.hear("news")
    c.kill()
    begun = time.monotonic()
    for other in (a, b):
        other.wait("gone", c.id)
    assert time.monotonic() - begun < kind.gone_within
    assert a.answer("ask", "news", "?", event="expected")[2] == 0


def test_a_process_that_is_killed_and_not_reaped_is_gone_though_a_child_holds_its_sockets(
    peers: Peers, kind: Kind
) -> None:
    a, b, c = peers.open(3)
    c.answer("fork", "past python", event="forked")
    c.signal(signal.SIGKILL)  # its parent does not wait for it, so its pid is still there
    begun = time.monotonic()
    for other in (a, b):
        other.wait("gone", c.id)
    assert time.monotonic() - begun < kind.gone_within


@pytest.mark.parametrize("how", ["python", "past python"])
def test_a_process_that_is_killed_is_gone_though_a_child_holds_its_sockets(peers: Peers, kind: Kind, how: str) -> None:
    a, b, c = peers.open(3)
    c.answer("fork", how, event="forked")
    c.kill()
    begun = time.monotonic()
    for other in (a, b):
        other.wait("gone", c.id)
    assert time.monotonic() - begun < kind.gone_within
    late = peers.start()  # and those that come later are not held up by what is left
    late.open()
    peers.acquainted(a, b, late)
    begun = time.monotonic()
    late.hear("news")
    assert time.monotonic() - begun < 2.5
    assert not late.find("appeared", c.id)


def test_a_child_of_a_process_does_not_speak_for_it_nor_end_it(peers: Peers) -> None:
    a, b = peers.open(2)
    a.hear("news")
    b.hear("news")
    b.answer("use_in_child", "news", "of the child", event="child ended")
    b.publish("news", "of the parent")
    a.wait("received", "of the parent")
    a.publish("news", "to the parent")
    b.wait("received", "to the parent")
    late = peers.start()
    late.open()
    peers.acquainted(a, b, late)
    assert not a.find("gone")
    assert a.received == ["of the parent"]


def test_a_process_that_was_stopped_is_gone_and_appears_again_and_hears_again(peers: Peers, kind: Kind) -> None:
    a, b, c = peers.open(3)
    for peer in (a, b, c):
        peer.hear("news")
    c.signal(signal.SIGSTOP)
    a.wait("gone", c.id, timeout=kind.gone_within + 15)
    b.wait("gone", c.id, timeout=kind.gone_within + 15)
    a.publish("news", "while it was stopped")
    b.wait("received", "while it was stopped")
    c.signal(signal.SIGCONT)
    a.wait("appeared", c.id, count=2)
    b.wait("appeared", c.id, count=2)
    a.publish("news", "after")
    b.wait("received", "after")
    c.wait("received", "after")
    c.publish("news", "of c")
    a.wait("received", "of c")
    assert not a.find("gone", b.id)
    assert not b.find("gone", a.id)
    # What it did not get, it is told to have missed.
    assert c.received == ["while it was stopped", "after"] or c.find("missed")


def test_what_a_receiver_raises_is_logged_and_ends_nothing(peers: Peers) -> None:
    a, b = peers.open(2)
    b.hear("news")
    a.publish("news", "raise")
    a.publish("news", "after")
    b.wait("received", "after")
    assert "raised in received" in b.output


def test_a_process_whose_standard_library_gevent_has_patched_is_a_peer_like_any(peers: Peers) -> None:
    pytest.importorskip("gevent")
    a, b = peers.open(2)
    c, d = peers.open(2, UWASP_PATCH="1")
    peers.acquainted(a, b, c, d)
    for peer in (a, c):
        peer.hear("news")
    b.publish("news", "of b")
    d.publish("news", "of d")
    for peer in (a, c):
        peer.wait("received", "of b")
        peer.wait("received", "of d")
    d.close(5.0)
    a.wait("gone", d.id)
    c.wait("gone", d.id)


def holders(peers: list[Peer], name: str) -> list[Peer]:
    """Those that hold a name."""
    return [peer for peer in peers if peer.answer("holds", name)[2]]


def test_a_name_that_several_claim_is_held_by_one(peers: Peers) -> None:
    all_of_them = peers.open(3)
    for peer in all_of_them:
        peer.claim("a name")
        peer.claim("another ☃/%")
    for name in ("a name", "another ☃/%"):
        wait_until(lambda: holders(all_of_them, name), f"one to hold {name!r}")  # noqa: B023
        (holder,) = holders(all_of_them, name)
        for _ in range(20):
            assert holders(all_of_them, name) == [holder]


def test_a_name_is_held_by_nobody_who_has_not_claimed_it(peers: Peers) -> None:
    a, b = peers.open(2)
    a.claim("a name")
    wait_until(lambda: holders([a], "a name"), "it to hold it")
    assert not holders([a, b], "another")
    assert not holders([b], "a name")


def test_the_name_of_one_that_parts_is_soon_anothers(peers: Peers) -> None:
    a, b = peers.open(2)
    a.claim("a name")
    wait_until(lambda: holders([a], "a name"), "it to hold it")
    b.claim("a name")
    assert not holders([b], "a name")
    a.answer("close", 5.0, event="closed")
    begun = time.monotonic()
    wait_until(lambda: holders([b], "a name"), "the other to hold it")
    assert time.monotonic() - begun < 5
    assert not holders([a], "a name")


def test_the_name_of_one_that_is_killed_is_anothers_though_a_child_of_it_lives_on(peers: Peers) -> None:
    a, b = peers.open(2)
    a.claim("a name")
    wait_until(lambda: holders([a], "a name"), "it to hold it")
    b.claim("a name")
    a.answer("fork", "past Python's hooks", event="forked")
    assert not holders([b], "a name")
    a.kill()
    begun = time.monotonic()
    wait_until(lambda: holders([b], "a name"), "the other to hold it")
    assert time.monotonic() - begun < peers.kind.gone_within


def test_a_name_is_held_for_longer_than_a_lease(peers: Peers) -> None:
    a, b = peers.open(2)
    a.claim("a name")
    wait_until(lambda: holders([a], "a name"), "it to hold it")
    b.claim("a name")
    ends = time.monotonic() + 1.5 * peers.kind.gone_within
    while time.monotonic() < ends:
        assert holders([a, b], "a name") == [a]
        time.sleep(0.2)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel"])
def test_a_bus_that_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr("uwasp.transport.entry_points", lambda group: ())
    with pytest.raises(ConfigurationError, match=r"installed: none\); try: pip install uwasp-redis$"):
        find_transport(f"{scheme}://host/name")


def test_a_scheme_that_nobody_knows_lists_what_is_installed() -> None:
    with pytest.raises(ConfigurationError, match=r"no bus for carrier-pigeon: is installed \(installed: 'local'.*\)$"):
        find_transport("carrier-pigeon://host")
