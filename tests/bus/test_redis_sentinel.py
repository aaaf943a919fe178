"""A bus on a Redis whose master the sentinels choose: it is found, and a failover is followed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from processes import wait_until
from processes_on_bus import Peers, talk
from redis_servers import RedisSentinel, RedisServer

# After how many seconds a process knows that its master is one no longer: a heartbeat, with some for the machine.
NOTICED = 8.0


@pytest.mark.parametrize("how", ["the master is killed", "the sentinel changes them"])
def test_a_failover_to_a_replica_is_followed(
    watched: tuple[RedisServer, RedisServer, RedisSentinel], peers_on: Callable[[str], Peers], how: str
) -> None:
    master, replica, sentinel = watched
    a, b = peers_on(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/mymaster").open(2)
    for peer in (a, b):
        peer.hear("talk")
    talk(a, b)
    if how == "the master is killed":
        master.stop()
    else:
        sentinel.command("SENTINEL", "FAILOVER", "mymaster")
    wait_until(lambda: sentinel.master_port() == replica.port, "the failover")
    for peer in (a, b):
        peer.wait("missed", None, timeout=40)
    talk(a, b)
    replica.wait_for_subscribers("uwasp:g:talk", 2)
    for peer in (a, b):
        assert not peer.find("gone")
        assert peer.output.count("is out of order") == 1


def test_a_master_that_is_one_no_longer_is_left_though_it_answers(
    watched: tuple[RedisServer, RedisServer, RedisSentinel], peers_on: Callable[[str], Peers]
) -> None:
    master, _, sentinel = watched
    (a,) = peers_on(f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster").open(1)
    a.hear("talk")
    other = sentinel.folder.parent / "other"
    other.mkdir()
    elsewhere = RedisServer(other)
    try:
        master.command("REPLICAOF", "127.0.0.1", str(elsewhere.port))  # which leaves its connections as they are
        wait_until(lambda: "it is the master no longer" in a.output, "that to be noticed", NOTICED)
    finally:
        elsewhere.stop()
