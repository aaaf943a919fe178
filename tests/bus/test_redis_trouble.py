"""A bus on Redis when Redis is in trouble: nothing waits, nobody is lost, and what was lost is told."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest

from processes import wait_until
from processes_on_bus import Peer, Peers, talk
from redis_servers import RedisServer
from uwasp_redis import RedisTransport

# In seconds. Redis does nothing for so long in these tests, which is longer than a lease.
PAUSE = 16.0
# After how many seconds it is known that Redis does nothing: a heartbeat, and the patience with it.
NOTICED = 8.0
# The longest time between two attempts at a connection, and where the password is refused, with some for the machine.
BACK_AGAIN = 8.0
BACK_AGAIN_REFUSED = 14.0
OUT_OF_ORDER = "is out of order"
WORKS_AGAIN = "works again"


def said_once(peer: Peer, text: str) -> bool:
    return peer.output.count(text) == 1


def test_a_redis_that_is_absent_at_first_holds_up_nothing_and_is_found(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers]
) -> None:
    redis = new_redis(is_started=False)
    peers = peers_on(redis.url)
    a, b = peers.start(), peers.start()
    for peer in (a, b):
        peer.wait("ready")
        peer.open()
        begun = time.monotonic()
        peer.hear("talk")
        assert peer.answer("ask", "talk", "nobody", event="expected") == ["expected", "talk", -1]
        assert time.monotonic() - begun < 2
    time.sleep(4)  # long enough for several attempts
    for peer in (a, b):
        assert said_once(peer, OUT_OF_ORDER)
        assert "Traceback" not in peer.output
    redis.start()
    for peer in (a, b):
        peer.wait("missed", None, timeout=BACK_AGAIN)
    peers.acquainted(a, b)
    talk(a, b)
    for peer in (a, b):
        assert said_once(peer, WORKS_AGAIN)
        assert said_once(peer, OUT_OF_ORDER)


def test_a_channel_that_is_left_before_there_is_a_connection_is_not_heard(redis: RedisServer) -> None:
    heard: list[str] = []
    transport = RedisTransport(redis.url, b"by itself", Mock())
    for channel in ("left", "kept"):
        transport.subscribe(channel, partial(heard.append, channel))
    transport.unsubscribe("left")
    transport.open()
    try:
        wait_until(lambda: sorted(heard) == ["kept", "left"], "all that were to be heard", 10)
        assert redis.command("PUBSUB", "CHANNELS", "uwasp:g:*").split() == ["uwasp:g:kept"]
    finally:
        transport.close(1)


def test_attempts_at_a_connection_become_seldom_and_are_not_all_at_the_same_moments(
    peers_on: Callable[[str], Peers], tmp_path: Path
) -> None:
    """What listens here takes each connection, and ends it at once."""
    longest = [0.05 * 2**number for number in range(6)]  # between two attempts, in seconds
    waited = []
    for number in range(2):
        path = tmp_path / f"{number}.sock"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            listening.settimeout(20)
            peer = peers_on(f"redis+unix://{path}").start()
            peer.wait("ready")
            peer.open()
            times = []
            while len(times) <= len(longest):
                listening.accept()[0].close()
                times.append(time.monotonic())
        assert times[-1] - times[0] > 0.4 * sum(longest)
        waited += [(after - before) / most for (before, after), most in zip(pairwise(times), longest, strict=True)]
    # By chance alone none of them is shorter once in ten million times.
    assert min(waited) < 0.9


def test_a_redis_that_is_stopped_and_started_again_is_heard_again_and_nobody_is_gone(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    a, b = peers_on(redis.url).open(2)
    for peer in (a, b):
        peer.hear("talk", "quiet")
    talk(a, b)
    redis.stop()
    for peer in (a, b):
        wait_until(lambda peer=peer: OUT_OF_ORDER in peer.output, "the loss to be noticed")
        peer.hear("another")
        assert peer.answer("ask", "talk", "nobody", event="expected")[2] == -1
    a.publish("talk", "while it was stopped")
    time.sleep(PAUSE)
    a.signal(signal.SIGSTOP)  # so that the other is the first to hear again
    redis.start()
    b.wait("missed", None, timeout=BACK_AGAIN)
    a.signal(signal.SIGCONT)
    a.wait("missed", None, timeout=BACK_AGAIN)
    b.wait("received", "while it was stopped")
    talk(a, b)
    for channel in ("talk", "quiet", "another"):
        redis.wait_for_subscribers(f"uwasp:g:{channel}", 2)
    time.sleep(3)  # in which leases that had run on would end
    for peer in (a, b):
        assert len(peer.find("missed")) == 1
        assert not peer.find("gone")


@pytest.mark.parametrize("how", ["SIGSTOP", "CLIENT PAUSE"])
def test_a_redis_that_does_nothing_for_a_while_is_noticed_and_heard_again(
    redis: RedisServer, peers_on: Callable[[str], Peers], how: str
) -> None:
    a, b = peers_on(f"{redis.url}?bound=1000000").open(2)
    for peer in (a, b):
        peer.hear("talk", "flood")
    before = a.answer("memory")[1]
    begun = time.monotonic()
    if how == "SIGSTOP":
        redis.pause()
    else:
        redis.command("CLIENT", "PAUSE", str(int(PAUSE * 1000)), "ALL")
    # More than fits its bound, while nothing goes out: each is handed over at once.
    for _ in range(10):
        _, took, slowest, *_ = a.answer("burst", "flood", "a", 0, 5000, 1000)
        assert took < 3
        assert slowest < 1
    assert a.answer("memory")[1] - before < 30_000  # of the 50 MB
    for peer in (a, b):
        wait_until(lambda peer=peer: OUT_OF_ORDER in peer.output, "the trouble to be noticed", NOTICED)
        begun_to_ask = time.monotonic()
        assert peer.answer("ask", "talk", "nobody", event="expected")[2] == -1
        assert time.monotonic() - begun_to_ask < 1
    time.sleep(max(0.0, begun + PAUSE - time.monotonic()))
    redis.resume()
    for peer in (a, b):
        peer.wait("missed", None, timeout=BACK_AGAIN)
    talk(a, b)
    time.sleep(3)  # in which leases that had run on would end
    for peer in (a, b):
        assert not peer.find("gone")


def test_a_redis_that_accepts_and_does_not_answer_holds_up_nothing(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    redis.pause()
    (a,) = [peers_on(redis.url).start()]
    a.wait("ready")
    a.open()
    begun = time.monotonic()
    a.hear("talk")
    assert a.answer("ask", "talk", "nobody", event="expected")[2] == -1
    assert time.monotonic() - begun < 3
    redis.resume()
    a.wait("missed", None, timeout=BACK_AGAIN)
    assert a.answer("ask", "talk", "nobody", event="expected")[2] == 0


def test_a_redis_that_is_busy_with_a_script_does_not_refuse_us_for_ever(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers]
) -> None:
    redis = new_redis("lua-time-limit 100")
    a, b = peers_on(redis.url).open(2)
    for peer in (a, b):
        peer.hear("talk")
    script = subprocess.Popen(["redis-cli", *redis.arguments, "EVAL", "while true do end", "0"])
    try:
        for peer in (a, b):
            wait_until(lambda peer=peer: OUT_OF_ORDER in peer.output, "the trouble to be noticed", NOTICED)
            assert "BUSY" in peer.output
        redis.command("SCRIPT", "KILL")
    finally:
        script.kill()
        script.wait()
    for peer in (a, b):
        peer.wait("missed", None, timeout=BACK_AGAIN)
        assert "refuses us" not in peer.output
    talk(a, b)


def test_a_refused_password_is_said_without_it_and_tried_again_slowly(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers]
) -> None:
    redis = new_redis("requirepass another")
    redis.arguments = (*redis.arguments, "--no-auth-warning", "-a", "another")
    peer = peers_on(redis.url.replace("//", "//:s%C3%A9cret%2F@")).start()
    peer.wait("ready")
    peer.open()
    peer.hear("talk")
    wait_until(lambda: "refuses us" in peer.output, "the refusal to be said")
    time.sleep(3)
    assert re.findall(r"cmdstat_auth:.*failed_calls=(\d+)", redis.command("INFO", "commandstats")) == ["1"]
    assert said_once(peer, "refuses us")
    redis.command("CONFIG", "SET", "requirepass", "sécret/")
    peer.wait("missed", None, timeout=BACK_AGAIN_REFUSED)
    assert "cret" not in peer.output
    assert "Traceback" not in peer.output


def test_a_password_that_is_missing_is_said(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers]
) -> None:
    redis = new_redis("requirepass secret")
    peer = peers_on(redis.url).start()
    peer.wait("ready")
    peer.open()
    wait_until(lambda: "refuses us" in peer.output, "the refusal to be said")
    assert "NOAUTH" in peer.output


def test_who_is_evicted_for_reading_too_slowly_is_told_what_it_missed(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers]
) -> None:
    redis = new_redis("client-output-buffer-limit pubsub 4mb 4mb 10")
    a, b, c = peers_on(redis.url).open(3)
    for peer in (a, b, c):
        peer.hear("talk", "flood")
    b.signal(signal.SIGSTOP)
    first = 0
    while "overcoming of output buffer limits" not in redis.process.output:
        a.burst("flood", "a", first, 100, 10_000)
        first += 100
        a.wait("burst", count=first // 100)
        time.sleep(0.05)
        assert first < 20_000
    b.signal(signal.SIGCONT)
    b.wait("missed", None, timeout=BACK_AGAIN)
    talk(a, b, c)
    assert not c.find("missed")
    assert not a.find("gone")
    _, counted, in_order = c.answer("counted")
    assert (counted, in_order) == (first, True)
    assert b.answer("counted")[2]


def test_a_process_that_was_stopped_takes_nobody_for_gone(redis: RedisServer, peers_on: Callable[[str], Peers]) -> None:
    a, b, c = peers_on(redis.url).open(3)
    for peer in (a, b, c):
        peer.hear("talk")
    b.signal(signal.SIGSTOP)
    a.wait("gone", b.id)
    b.signal(signal.SIGCONT)
    a.wait("appeared", b.id, count=2)
    talk(a, b, c)
    assert not b.find("gone")
    assert not c.find("gone", a.id)


def test_what_was_on_its_way_when_a_connection_broke_is_not_sent_again_but_told(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    a, b = peers_on(redis.url).open(2)
    b.hear("flood", "talk")
    a.hear("talk")
    a.pace("flood", "a", 4.0, 0, 200)
    for _ in range(6):
        time.sleep(0.5)
        # That of a: it hears one channel less.
        clients = redis.command("CLIENT", "LIST").splitlines()
        (of_a,) = (re.findall(r"^id=(\d+) ", client)[0] for client in clients if " sub=3 " in client)
        redis.command("CLIENT", "KILL", "ID", of_a)
        redis.wait_for_subscribers("uwasp:g:talk", 2)
    _, sent = a.wait("paced")
    talk(a, b)
    _, counted, in_order = b.answer("counted")
    assert in_order  # which says, too, that none came twice
    assert counted <= sent
    assert (counted == sent) or b.find("missed", "flood")
    assert not b.find("missed", None)
    assert a.find("missed", None)
    assert not b.find("gone")


def test_messages_that_follow_each_other_go_together(redis: RedisServer, peers_on: Callable[[str], Peers]) -> None:
    a, b = peers_on(redis.url).open(2)
    b.hear("flood", "talk")
    a.hear("talk")
    redis.command("CONFIG", "RESETSTAT")
    a.burst("flood", "a", 0, 5000, 100)
    a.wait("burst")
    talk(a, b)
    assert b.answer("counted") == ["counted", 5000, True]
    (calls,) = re.findall(r"cmdstat_publish:calls=(\d+)", redis.command("INFO", "commandstats"))
    assert int(calls) < 500


def test_what_finds_no_place_is_told_to_those_who_would_have_heard_it(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    a, b, c = peers_on(f"{redis.url}?bound=65536").open(3)
    b.hear("flood", "end")
    c.hear("end")
    a.burst("flood", "a", 0, 20_000, 1000)
    a.wait("burst")
    b.wait("missed", "flood")
    a.publish("end", "end")
    for peer in (b, c):
        peer.wait("received", "end")
    _, counted, in_order = b.answer("counted")
    assert in_order
    assert counted < 20_000
    assert not b.find("missed", None)
    assert not c.find("missed")


def test_of_what_finds_no_place_on_very_many_channels_all_are_told(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    a, b = peers_on(f"{redis.url}?bound=65536").open(2)
    b.hear("channel 1999")
    redis.pause()
    a.answer("pace", "filling", "a", 1.0, 0, 1000, event="paced")  # more than is on its way at once
    for number in range(2000):
        a.publish(f"channel {number}", "text")
    a.answer("memory")  # by now it has done all that
    redis.resume()
    b.wait("missed", None)
    assert OUT_OF_ORDER not in a.output + b.output


def test_malformed_things_on_our_channels_are_counted_and_said_once_and_harm_nothing(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    a, b = peers_on(redis.url).open(2)
    b.hear("talk")
    a.hear("talk")
    stranger = b"stranger"
    things = [b"", b"m", b"text", b"\0" * 100, b"M" + stranger + b"\0\0\0\1x", b"m" + stranger + b"\0\0\0\5text"]
    things += [b"m" + stranger + b"\0\0", b"m" + stranger + b"\xff\xff\xff\xff", b"x" * (2**24 + 100)]
    for thing in things:
        redis.command("PUBLISH", "uwasp:g:talk", stdin=thing)
        redis.command("PUBLISH", f"uwasp:p:{b.id}", stdin=thing)
        redis.command("PUBLISH", "uwasp:all", stdin=thing)
    talk(a, b)
    assert b.answer("attribute", "malformed") == ["attribute", "malformed", 3 * len(things)]
    assert said_once(b, "none of ours")
    for peer in (a, b):
        assert not peer.find("missed")
        assert not peer.find("appeared", stranger.hex())
        assert "Traceback" not in peer.output


def test_a_newer_kind_of_thing_is_passed_over(redis: RedisServer, peers_on: Callable[[str], Peers]) -> None:
    a, b = peers_on(redis.url).open(2)
    a.hear("talk")
    b.hear("talk")
    redis.command("PUBLISH", "uwasp:all", stdin=b"n" + bytes.fromhex(a.id) + b"of the next release")
    talk(a, b)
    assert not b.find("missed")


def test_a_hub_that_is_held_does_not_make_its_process_gone(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    pytest.importorskip("gevent")
    peers = peers_on(redis.url)
    (a,) = peers.open(1)
    (b,) = peers.open(1, UWASP_PATCH="1")
    peers.acquainted(a, b)
    b.hear("talk")
    b.hold(15.0)
    a.publish("talk", "while it is held")
    b.wait("received", "while it is held", timeout=3)
    b.wait("held")
    assert not a.find("gone")


def test_a_close_without_redis_takes_no_longer_than_it_was_given(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers]
) -> None:
    redis = new_redis(is_started=False)
    peers = peers_on(redis.url)
    a, b = peers.start(), peers.start()
    for peer in (a, b):
        peer.wait("ready")
        peer.open()
    b.hear("talk")
    a.publish("talk", "unsent")
    assert 0.9 < a.answer("close", 1.0, event="closed")[1] < 2
    assert "1 messages unsent" in a.output
    assert b.answer("close", 5.0, event="closed")[1] < 1  # for it has nothing to send


def test_a_close_waits_for_a_connection_that_is_being_made(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    peers = peers_on(redis.url)
    (a,) = peers.open(1)
    a.hear("talk")
    redis.pause()
    script = peers.start()
    script.wait("ready")
    script.open()
    script.publish("talk", "of a script")
    script.close(8.0)
    time.sleep(1)
    redis.resume()
    script.wait("closed")
    a.wait("received", "of a script")
