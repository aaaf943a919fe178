"""Groups of several uWSGIs that have a Redis in common, while it is well, and while it is in any kind of trouble."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from processes import LOOP_OPTIONS, Uwsgi, wait_until
from redis_servers import RedisSentinel, RedisServer
from talkers import Talker, get, in_each_worker

pytest.importorskip("uwasp_redis")

APPLICATION = Path(__file__).parent / "application.py"
LOOPS = {
    "threads": ("threads", {}),
    "gevent": ("gevent", {}),
    "gevent, patched": ("gevent", {"UWASP_PATCH": "1"}),
}
# In seconds. What does not wait for Redis takes at most so long on a loaded machine; a first `add`, which may wait
# for a second, so long.
AT_ONCE, FIRST_ADD = 1.0, 3.0
# Until the trouble is known, and until it is known to be over: of a refused password we look after more seldom.
NOTICED, BACK_AGAIN = 10.0, 20.0
# Redis does nothing for so long, which is longer than a lease.
PAUSE = 14.0
OUT_OF_ORDER, REFUSES, WORKS_AGAIN = "is out of order", "refuses us", "works again"


@pytest.fixture
def serve_on(start_uwsgi: Callable[..., Uwsgi]) -> Callable[..., Uwsgi]:
    """Start a uWSGI of so many workers: `serve_on(url of the bus, loop, *options of uWSGI, workers=1)`."""

    def start(url: str, loop: str, *options: str, workers: int = 1) -> Uwsgi:
        handler, env = LOOPS[loop]
        env = {**env, "UWASP_HANDLER": handler, "UWASP_BUS": url}
        return start_uwsgi(APPLICATION, "--processes", str(workers), *LOOP_OPTIONS[handler], *options, env=env)

    return start


@dataclass
class Trouble:
    """What can be wrong with a Redis, and how it is put right.

    Args:
        url: of the bus.
        begin, end: have it begin, and end.
        said: in the log, once, by each process.
    """

    url: str
    begin: Callable[[], Any]
    end: Callable[[], Any]
    said: str = OUT_OF_ORDER


@pytest.fixture
def trouble(name: str, request: pytest.FixtureRequest) -> Trouble:
    """The one of that name."""
    if name == "a failover to a replica":
        master, _, sentinel = request.getfixturevalue("watched")
        return failover(master, sentinel)
    redis: RedisServer = request.getfixturevalue("redis")
    if name == "a stop and a start":
        return Trouble(redis.url, redis.stop, redis.start)
    if name == "SIGSTOP":
        return Trouble(redis.url, redis.pause, lambda: (time.sleep(PAUSE), redis.resume()))
    if name == "CLIENT PAUSE":
        milliseconds = str(int(PAUSE * 1000))
        return Trouble(redis.url, lambda: redis.command("CLIENT", "PAUSE", milliseconds, "ALL"), lambda: None)
    assert name == "another password"
    return Trouble(redis.url, lambda: change_password(redis), lambda: restore_password(redis), REFUSES)


def failover(master: RedisServer, sentinel: RedisSentinel) -> Trouble:
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/mymaster"
    return Trouble(url, master.stop, lambda: None)


def change_password(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "requirepass", "another")
    redis.arguments = (*redis.arguments, "--no-auth-warning", "-a", "another")
    for kind in ("pubsub", "normal"):
        redis.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


def restore_password(redis: RedisServer) -> None:
    redis.command("CONFIG", "SET", "requirepass", "")
    redis.arguments = redis.arguments[:2]


def keys(members: list[Any]) -> list[str]:
    return [key for key, *_ in members]


def said_once(uwsgi: Uwsgi, *texts: str) -> bool:
    return all(uwsgi.output.count(text) == 1 for text in texts)


@pytest.mark.parametrize(
    ("name", "loop"),
    [
        *(("a stop and a start", loop) for loop in LOOPS),
        ("SIGSTOP", "threads"),
        ("SIGSTOP", "gevent, patched"),
        ("CLIENT PAUSE", "gevent"),
        ("another password", "threads"),
        ("another password", "gevent, patched"),
        ("a failover to a replica", "gevent"),
        ("a failover to a replica", "threads"),
    ],
)
def test_no_connection_is_lost_nobody_waits_and_all_is_right_again_after(
    trouble: Trouble, serve_on: Callable[..., Uwsgi], group: str, loop: str
) -> None:
    uwsgis = [serve_on(trouble.url, loop) for _ in range(2)]
    with ExitStack() as stack:

        def join(uwsgi: Uwsgi, key: str) -> Talker:
            return stack.enter_context(Talker(uwsgi.url, group, key=key))

        alice, bob, carol = join(uwsgis[0], "alice"), join(uwsgis[0], "bob"), join(uwsgis[1], "carol")
        leaver = Talker(uwsgis[1].url, group, key="leaver")
        for member in (alice, bob, carol):
            wait_until(lambda member=member: len(member.members()) == 4, "all to be known")
        carol.do("send", "before")
        assert [member.hear() for member in (alice, bob, carol)] == ["before"] * 3

        trouble.begin()
        begun = time.monotonic()
        alice.do("send", "within a worker")  # also before anybody has noticed
        assert [member.hear(AT_ONCE) for member in (alice, bob)] == ["within a worker"] * 2
        other = stack.enter_context(Talker(uwsgis[0].url, f"{group}:other"))
        assert time.monotonic() - begun < AT_ONCE + FIRST_ADD
        for uwsgi in uwsgis:
            wait_until(lambda uwsgi=uwsgi: trouble.said in uwsgi.output, "the trouble to be noticed", NOTICED)
        begun = time.monotonic()
        get(uwsgis[0].url, "/send", group=group, text="from a view")
        assert [member.hear(AT_ONCE) for member in (alice, bob)] == ["from a view"] * 2
        leaver.__exit__()
        dave = join(uwsgis[1], "dave")
        assert "dave" in keys(dave.members())
        assert time.monotonic() - begun < 3 * AT_ONCE
        trouble.end()

        for member in (alice, bob, carol, dave, other):
            member.next("missed", BACK_AGAIN)
        everybody = ["alice", "bob", "carol", "dave"]
        for member in (alice, carol, dave):
            wait_until(lambda member=member: keys(member.members()) == everybody, "all to be known again")
        for sender in (alice, carol):
            sender.do("send", f"after, by {sender.id}")
            for member in (alice, bob, carol, dave):
                while member.hear() != f"after, by {sender.id}":  # what was kept meanwhile comes before
                    pass
    for uwsgi in uwsgis:
        assert said_once(uwsgi, trouble.said, WORKS_AGAIN)
        assert "Traceback" not in uwsgi.output


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["", "lazy-apps"])
def test_an_application_loads_without_redis_and_goes_on_by_itself_once_there_is_one(
    new_redis: Callable[..., RedisServer],
    serve_on: Callable[..., Uwsgi],
    group: str,
    loop: str,
    lazy: tuple[str, ...],
) -> None:
    redis = new_redis(is_started=False)
    uwsgis = [serve_on(redis.url, loop, *lazy) for _ in range(2)]
    with ExitStack() as stack:
        begun = time.monotonic()
        alice, bob = (stack.enter_context(Talker(uwsgis[0].url, group, key=key)) for key in ("alice", "bob"))
        carol = stack.enter_context(Talker(uwsgis[1].url, group, key="carol"))
        alice.do("send", "within a worker")
        assert [member.hear() for member in (alice, bob)] == ["within a worker"] * 2
        assert time.monotonic() - begun < 3 * AT_ONCE
        for uwsgi in uwsgis:
            uwsgi.wait_for_output(OUT_OF_ORDER)
        redis.start()
        for member in (alice, bob, carol):
            member.next("missed", BACK_AGAIN)
        for member in (alice, carol):
            wait_until(lambda member=member: keys(member.members()) == ["alice", "bob", "carol"], "all to be known")
        carol.do("send", "between them")
        for member in (alice, bob, carol):
            while member.hear() != "between them":
                pass
    for uwsgi in uwsgis:
        assert said_once(uwsgi, OUT_OF_ORDER, WORKS_AGAIN)
        assert "Traceback" not in uwsgi.output


@pytest.mark.parametrize("loop", LOOPS)
def test_a_worker_that_redis_evicts_keeps_its_connections_and_tells_them(
    new_redis: Callable[..., RedisServer], serve_on: Callable[..., Uwsgi], group: str, loop: str
) -> None:
    redis = new_redis("client-output-buffer-limit pubsub 2mb 2mb 10")
    uwsgis = [serve_on(redis.url, loop) for _ in range(2)]
    with Talker(uwsgis[0].url, group) as alice, Talker(uwsgis[1].url, group) as bob:
        uwsgis[1].popen.send_signal(0)
        os.kill(bob.worker, signal.SIGSTOP)
        try:
            while "overcoming of output buffer limits" not in redis.process.output:
                alice.do("send_many", 100, 10_000)
                for _ in range(100):
                    alice.hear()
        finally:
            os.kill(bob.worker, signal.SIGCONT)
        bob.next("missed", BACK_AGAIN)
        wait_until(lambda: len(bob.members()) == len(alice.members()) == 2, "both to be known again")
        for sender in (alice, bob):
            sender.do("send", f"after, by {sender.id}")
            for member in (alice, bob):
                while member.hear() != f"after, by {sender.id}":
                    pass
    assert said_once(uwsgis[1], OUT_OF_ORDER, WORKS_AGAIN)
    assert OUT_OF_ORDER not in uwsgis[0].output


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["", "lazy-apps"])
def test_workers_of_two_uwsgis_and_a_script_are_one_by_a_connection_each_to_redis(
    redis: RedisServer, serve_on: Callable[..., Uwsgi], group: str, loop: str, lazy: tuple[str, ...]
) -> None:
    uwsgis = [serve_on(redis.url, loop, *lazy, workers=2) for _ in range(2)]
    with ExitStack() as stack:
        members = []
        for uwsgi in uwsgis:
            members += [stack.enter_context(one) for one in in_each_worker(2, uwsgi.url, group, key="alice")]
        for member in members:
            wait_until(lambda member=member: member.members() == [["alice", None, 4]], "all to be known")
        subscribers = f"uwasp:g:{group.replace(':', '/')}"
        redis.wait_for_subscribers(subscribers, 4)
        clients = redis.command("CLIENT", "LIST").splitlines()
        assert sum(" sub=3 " in client for client in clients) == 4  # of the group, of all, and of its own
        members[0].do("send_many", 500, 100)
        for member in members:
            assert [int(member.hear()) for _ in range(500)] == list(range(500))
        members[0].do("send", "not to one elsewhere", members[2].id)
        members[0].do("notify", {"drop": "cache"})
        members[0].do("send", "to everybody")
        for number, member in enumerate(members):
            heard = ["to everybody"] if number == 2 else ["not to one elsewhere", "to everybody"]
            assert [member.hear() for _ in heard] == heard
            assert member.next("notified")["notified"] == {"drop": "cache"}
        script = (
            "import sys, uwasp\n"
            "with uwasp.open_bus(sys.argv[1]) as bus:\n"
            "    group = bus.group(*sys.argv[2].split(':'))\n"
            "    print([[one.key, one.connections] for one in group.members()])\n"
            "    group.send('from a script')\n"
            "    group.close(4001, 'logged out', key='alice')\n"
        )
        said = subprocess.run([sys.executable, "-c", script, redis.url, group], capture_output=True, text=True)
        assert (said.stdout, said.stderr) == ("[['alice', 4]]\n", "")
        assert [member.hear() for member in members] == ["from a script"] * 4
        assert [member.closed() for member in members] == [(4001, "logged out")] * 4
        redis.wait_for_subscribers(subscribers, 0)
