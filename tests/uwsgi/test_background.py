"""Functions that each worker calls every so many seconds, whatever uWSGI does; and those that one of all calls."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from parting import is_gone
from processes import LOOP_OPTIONS, wait_until
from redis_servers import RedisServer
from uwasp_pytest.behaviour.test_background import *  # noqa: F403 - the tests, and their fixtures
from uwasp_pytest.behaviour.test_background import SLACK, notes, wait_for, wait_for_workers, who


def test_it_is_not_called_in_mules_and_spoolers(work, tmp_path):
    (tmp_path / "spool").mkdir()
    uwsgi = work("tick", "--processes", "2", "--mule", "--spooler", str(tmp_path / "spool"))
    workers = wait_for_workers(uwsgi, "tick", 2)
    wait_for(uwsgi, "tick", 20)
    spawned = {int(pid) for pid in re.findall(r"spawned uWSGI worker \d+ \(pid: (\d+)", uwsgi.output)}
    assert who(uwsgi, "tick") == workers == spawned


def test_it_is_called_in_a_worker_that_takes_the_place_of_one_that_was_killed(work):
    uwsgi = work("tick", "--processes", "2")
    workers = wait_for_workers(uwsgi, "tick", 2)
    os.kill(min(workers), signal.SIGKILL)
    (new,) = wait_for_workers(uwsgi, "tick", 1, others=workers)
    wait_for(uwsgi, "tick", 3, of=new)


def test_it_is_called_in_a_worker_that_cheaper_adds_and_no_longer_in_one_that_it_takes_away(work, temporary, waits):
    fifo = temporary / "fifo"
    manual = ("--cheaper", "1", "--cheaper-initial", "1", "--cheaper-algo", "manual", "--master-fifo", str(fifo))
    uwsgi = work("tick", "--processes", "2", *manual, wait=False)
    (first,) = wait_for_workers(uwsgi, "tick", 1)
    fifo.write_text("+")
    (second,) = wait_for_workers(uwsgi, "tick", 1, others=[first])
    wait_for(uwsgi, "tick", 3, of=second)
    if waits == "threads":  # have another thread than the main one wait for a request: only the main one is woken
        while not all("futex" in Path(f"/proc/{worker}/wchan").read_text() for worker in (first, second)):
            urlopen(f"http://{uwsgi.address}/", timeout=10).close()
    fifo.write_text("-")
    wait_until(lambda: len({pid for pid, _ in notes(uwsgi, "tick")[-40:]}) == 1, "one of them to have no work", 20)


@pytest.mark.parametrize("hook", ["uwsgidecorators-before", "uwsgidecorators-after", "own-hook"])
def test_it_is_called_whoever_else_has_a_hook_after_the_fork_and_so_is_theirs(work, hook):
    uwsgi = work(f"tick {hook}", "--processes", "2")
    wait_for_workers(uwsgi, "tick", 2)
    theirs = "own hook" if hook == "own-hook" else "postfork"
    assert who(uwsgi, theirs) == who(uwsgi, "tick")
    if hook != "own-hook":
        wait_for(uwsgi, "timer")
        wait_for(uwsgi, "tick", 3)


def test_it_is_not_called_before_the_application_is_loaded(work):
    uwsgi = work("tick slow-to-load", "--lazy-apps")
    wait_for_workers(uwsgi, "tick", 1)
    assert re.findall(r"^work \d+ (loaded|tick)", uwsgi.output, re.MULTILINE)[0] == "loaded"


def test_a_worker_that_was_stopped_does_not_make_up_for_what_it_has_missed(work):
    uwsgi = work("tick")
    (worker,) = wait_for_workers(uwsgi, "tick", 1)
    os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it to stop")
    time.sleep(1.0)  # 20 intervals
    before = len(notes(uwsgi, "tick"))
    begin = time.monotonic()
    os.kill(worker, signal.SIGCONT)
    wait_for(uwsgi, "tick", 4)
    ticks = [float(when) for _, when in notes(uwsgi, "tick")[before:]]
    assert len([tick for tick in ticks if tick < begin + 0.1]) <= 3


def test_its_times_do_not_drift(work):
    """Each start is late by a little, which does not add up: the middle of the last is as late as that of the first."""
    uwsgi = work("tick")
    wait_for(uwsgi, "tick", 150)
    times = [float(when) for _, when in notes(uwsgi, "tick")]
    assert abs(later(middle_of(times[-20:]), middle_of(times[:20]))) < 0.005


def middle_of(times):
    """The one in the middle of those that differ by whole periods, and by what each is late."""
    return min(times, key=lambda middle: sum(abs(later(when, middle)) for when in times))


def later(when, other):
    """By how much, in seconds, beside whole periods: at most half of one, as one that is very late looks early."""
    return (when - other + 0.025) % 0.05 - 0.025


def test_it_works_where_gevent_has_patched_the_standard_library(work, waits):
    if waits != "gevent":
        pytest.skip("a variant of gevent")
    uwsgi = work("tick once lasting", "--processes", "2", env={"UWASP_PATCH": "1"}, middleware={"shutdown_timeout": 9})
    workers = wait_for_workers(uwsgi, "tick", 2)
    wait_for_workers(uwsgi, "once", 1)
    wait_for(uwsgi, "lasting begins")
    uwsgi.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: all(map(is_gone, workers)), "the workers' end", 20)
    for worker in workers:
        ends = [pid for pid, _ in notes(uwsgi, "lasting ends")]
        assert ends.count(worker) == [pid for pid, _ in notes(uwsgi, "lasting begins")].count(worker)
    wait_for_workers(uwsgi, "once", 1, others=workers)


@pytest.mark.parametrize("name", ["coroutines", "asyncio"])
def test_a_handler_that_runs_coroutines_has_async_def_and_def_called(start_uwsgi, application, temporary, name):
    env = {"UWASP_WORK": "coroutine tick", "UWASP_HANDLER": name, "TMPDIR": str(temporary)}
    uwsgi = start_uwsgi(application, *LOOP_OPTIONS["threads"], "--processes", "2", env=env)
    workers = wait_for_workers(uwsgi, "tick", 2)
    for worker in workers:
        wait_for(uwsgi, "coroutine ends", 3, of=worker)
        wait_for(uwsgi, "cancelled coroutine", 3, of=worker)
        wait_for(uwsgi, "tick", 3, of=worker)
    wait_for(uwsgi, "once coroutine", 3)
    (holder,) = who(uwsgi, "once coroutine")
    for error in ("RuntimeError: raised in failing_coroutine", "CancelledError", "TypeError: it returned a coroutine"):
        uwsgi.wait_for_output(error, 3, timeout=10)
    os.kill(holder, signal.SIGKILL)
    wait_for_workers(uwsgi, "once coroutine", 1, others=[holder])
    before = who(uwsgi, "tick")
    uwsgi.popen.send_signal(signal.SIGHUP)
    wait_for_workers(uwsgi, "tick", 1, others=before)


def test_a_coroutine_that_hangs_is_named_and_cancelled(start_uwsgi, application):
    options = {"UWASP_OPTIONS": json.dumps({"shutdown_timeout": 0.5})}
    env = {"UWASP_WORK": "hanging-coroutine", "UWASP_HANDLER": "asyncio", **options}
    uwsgi = start_uwsgi(application, *LOOP_OPTIONS["asyncio"], env=env)
    (worker,) = wait_for_workers(uwsgi, "hanging coroutine begins", 1)
    uwsgi.popen.send_signal(signal.SIGINT)
    assert uwsgi.popen.wait(20) == 0
    assert who(uwsgi, "hanging coroutine ends") == {worker}
    assert re.search(r"\.hanging_coroutine has run on for 0.5 s, and is not waited for any longer", uwsgi.output)
    assert "error in" not in uwsgi.output


# Of one worker alone.


def test_once_is_one_worker_and_another_when_that_is_killed_though_a_child_of_it_lives_on(work):
    uwsgi = work("once tick", "--processes", "3")
    workers = wait_for_workers(uwsgi, "tick", 3)
    wait_for(uwsgi, "once", 10)
    (holder,) = who(uwsgi, "once")
    while not (children := Path(f"/proc/{holder}/task/{holder}/children").read_text().split()):
        urlopen(f"http://{uwsgi.address}/fork", timeout=10).close()  # whichever worker that comes to
    try:
        os.kill(holder, signal.SIGKILL)
        begin = time.monotonic()
        (next_one,) = wait_for_workers(uwsgi, "once", 1, others=[holder])
        assert time.monotonic() - begin < SLACK
        assert next_one in workers
        wait_for(uwsgi, "once", 10)
        assert who(uwsgi, "once") == {holder, next_one}
    finally:
        forked = [int(child) for child in children]
        for worker in workers - {holder}:
            forked += map(int, Path(f"/proc/{worker}/task/{worker}/children").read_text().split())
        for child in forked:
            os.kill(child, signal.SIGKILL)


def test_once_goes_on_in_the_workers_after_a_reload_and_nothing_is_left_of_it(work, temporary):
    uwsgi = work("once several tick", "--processes", "2")
    before = wait_for_workers(uwsgi, "tick", 2)
    wait_for(uwsgi, "once", 2)
    uwsgi.popen.send_signal(signal.SIGHUP)
    (new,) = wait_for_workers(uwsgi, "once", 1, others=before)
    wait_for(uwsgi, "once", 5, of=new)
    assert len(who(uwsgi, "once") - before) == 1
    for number in range(3):
        wait_for(uwsgi, f"several {number}", 2)
    assert uwsgi.stop() == 0
    assert list((temporary / f"uwasp-{os.geteuid()}").iterdir()) == []


def test_once_is_one_worker_of_all_instances_on_a_bus_that_is_named(work, temporary):
    bus = {"bus": f"local:{temporary}/bus"}
    one, other = (work("once tick", "--processes", "2", middleware=bus) for _ in range(2))
    wait_for_workers(one, "tick", 2)
    wait_for_workers(other, "tick", 2)
    first, second = (one, other) if who(one, "once") else (other, one)
    wait_for(first, "once", 10)
    assert len(who(first, "once")) == 1
    assert not who(second, "once")
    first.popen.send_signal(signal.SIGINT)
    wait_for_workers(second, "once", 1)
    wait_for(second, "once", 5)
    assert len(who(second, "once")) == 1


def test_once_by_redis_is_one_worker_of_all_instances_and_another_within_the_lease(work, tmp_path):
    redis = RedisServer(tmp_path)
    try:
        bus = {"bus": redis.url}
        instances = [work("once tick", "--processes", "2", middleware=bus) for _ in range(2)]
        wait_until(lambda: any(who(one, "once") for one in instances), "one to have it", 20)
        wait_for(instances[0], "tick", 40)
        (holder,) = set().union(*(who(one, "once") for one in instances))
        begin = time.monotonic()
        os.kill(holder, signal.SIGKILL)
        wait_until(lambda: len(set().union(*(who(one, "once") for one in instances))) == 2, "another", 20)
        assert time.monotonic() - begin < 15 + SLACK
    finally:
        for one in instances:
            one.stop()
        redis.stop()
