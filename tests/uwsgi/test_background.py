"""Functions that each worker calls every so many seconds, and those that one worker of all calls."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.frames import Opcode

from processes import LOOP_OPTIONS, wait_until
from raw import RawClient, frame
from redis_servers import RedisServer

APPLICATION = Path(__file__).parent / "every.py"
GOING_AWAY = b"\x03\xe9"
SLACK = 2.0  # seconds, for a machine under load


@pytest.fixture
def temporary():
    """The folder for temporary files; not pytest's, which is too deep for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="uwasp-test-") as folder:
        yield Path(folder)


@pytest.fixture
def work(serve, temporary):
    """Start a uWSGI with these functions: `work("tick slow", *options of uWSGI)`."""

    def start(names, *options, **keywords):
        env = {"UWASP_WORK": names, "TMPDIR": str(temporary), **keywords.pop("env", {})}
        return serve(*options, application=APPLICATION, env=env, **keywords)

    return start


def notes(uwsgi, what):
    """The process and the rest of each note that begins so."""
    return [(int(pid), rest) for pid, rest in re.findall(rf"^work (\d+) {what}\b ?(.*)$", uwsgi.output, re.MULTILINE)]


def who(uwsgi, what):
    """The processes that have noted something so far."""
    return {pid for pid, _ in notes(uwsgi, what)}


def wait_for(uwsgi, what, count=1, of=None, timeout=20.0):
    """Wait until there are `count` further notes that begin so; of one process, if that is given."""

    def found():
        return len([pid for pid, _ in notes(uwsgi, what) if of in (None, pid)])

    before = found()
    try:
        wait_until(lambda: found() >= before + count, f"{count} more of {what!r}", timeout)
    except TimeoutError as error:
        raise AssertionError(f"{error}:\n{uwsgi.output}") from None


def wait_for_workers(uwsgi, what, number, others=()):
    """Wait until so many processes, beside others, have noted something."""
    try:
        wait_until(lambda: len(who(uwsgi, what) - set(others)) >= number, f"{number} with {what!r}", 20.0)
    except TimeoutError as error:
        raise AssertionError(f"{error}:\n{uwsgi.output}") from None
    return who(uwsgi, what) - set(others)


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


WAYS = {
    "as usual": ((), {}),
    "lazy apps": (("--lazy-apps",), {}),
    "without a master": ((), {"master": False, "wait": False}),
    "lazy apps without a master": (("--lazy-apps",), {"master": False, "wait": False}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_called_in_each_worker_again_and_again_though_nobody_comes(work, way):
    options, keywords = WAYS[way]
    uwsgi = work("tick", "--processes", "3", *options, **keywords)
    workers = wait_for_workers(uwsgi, "tick", 3)
    try:
        for worker in workers:
            wait_for(uwsgi, "tick", 3, of=worker)
        assert len(who(uwsgi, "tick")) == 3
    finally:
        if not keywords.get("master", True):
            for worker in workers:
                os.kill(worker, signal.SIGKILL)


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


def test_it_is_called_in_a_worker_that_cheaper_adds_and_no_longer_in_one_that_it_takes_away(work, temporary, handler):
    fifo = temporary / "fifo"
    manual = ("--cheaper", "1", "--cheaper-initial", "1", "--cheaper-algo", "manual", "--master-fifo", str(fifo))
    uwsgi = work("tick", "--processes", "2", *manual, wait=False)
    (first,) = wait_for_workers(uwsgi, "tick", 1)
    fifo.write_text("+")
    (second,) = wait_for_workers(uwsgi, "tick", 1, others=[first])
    wait_for(uwsgi, "tick", 3, of=second)
    if handler == "threads":  # have another thread than the main one wait for a request: only the main one is woken
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


def test_a_function_never_runs_beside_itself_and_what_it_misses_is_not_made_up_for(work):
    """It takes three and a half of its intervals, so it begins in every fourth."""
    uwsgi = work("slow tick")
    wait_for(uwsgi, "slow ends", 6)
    found = re.findall(r"^work \d+ slow (begins|ends) (\S+)$", uwsgi.output, re.MULTILINE)
    assert [what for what, _ in found] == (["begins", "ends"] * len(found))[: len(found)]
    begins = [float(when) for what, when in found if what == "begins"]
    between = sorted(after - before for before, after in pairwise(begins))
    assert 0.38 < between[len(between) // 2] < 0.52
    wait_for(uwsgi, "tick", 3)  # which did not wait for it


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
    """Each start is late by a little, which does not add up: the best of the last are as good as those of the first."""
    uwsgi = work("tick")
    wait_for(uwsgi, "tick", 150)
    times = [float(when) for _, when in notes(uwsgi, "tick")]
    first = min(times[:10], key=lambda when: (when - times[0] + 0.025) % 0.05)
    lateness = [(when - first + 0.025) % 0.05 - 0.025 for when in times]
    assert abs(min(lateness[-20:])) < 0.003


def test_what_it_raises_is_logged_and_it_goes_on(work):
    uwsgi = work("raising tick")
    wait_for(uwsgi, "raising", 3)
    wait_for(uwsgi, "leaving", 3)
    wait_for(uwsgi, "tick", 3)
    assert uwsgi.output.count("RuntimeError: raised in raising") >= 3
    assert "error in uwsgi_file_" in uwsgi.output
    assert len(who(uwsgi, "tick")) == 1


def test_what_runs_ends_before_the_clients_are_told_and_nothing_more_is_started(work):
    uwsgi = work("lasting tick", middleware={"shutdown_timeout": 10})
    wait_for(uwsgi, "lasting begins")
    with RawClient(uwsgi.port) as client:
        client.send(frame(Opcode.TEXT, b"hello"))
        assert client.recv().data == b"hello"
        (worker,) = who(uwsgi, "tick")
        wait_for(uwsgi, "lasting begins")
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert client.recv().data == GOING_AWAY
        done = re.findall(rf"^work {worker} (lasting \w+)", uwsgi.output, re.MULTILINE)
        assert done.count("lasting begins") == done.count("lasting ends")
        ticks = len([pid for pid, _ in notes(uwsgi, "tick") if pid == worker])
        client.send(frame(Opcode.CLOSE, GOING_AWAY))
    wait_until(lambda: is_gone(worker), "the worker's end", 20)
    assert len([pid for pid, _ in notes(uwsgi, "tick") if pid == worker]) == ticks
    assert len([pid for pid, _ in notes(uwsgi, "atexit") if pid == worker]) == 1
    wait_for_workers(uwsgi, "tick", 1, others=[worker])


ENDS = {"a reload": (signal.SIGHUP, True), "a stop": (signal.SIGINT, False), "SIGTERM": (signal.SIGTERM, False)}


@pytest.mark.parametrize("end", ENDS)
def test_a_worker_with_background_work_alone_ends_at_once(work, end):
    number, is_reload = ENDS[end]
    uwsgi = work("tick", "--processes", "2")
    workers = wait_for_workers(uwsgi, "tick", 2)
    begin = time.monotonic()
    uwsgi.popen.send_signal(number)
    wait_until(lambda: all(map(is_gone, workers)), "the workers' end", 20)
    assert time.monotonic() - begin < SLACK
    if is_reload:
        wait_for_workers(uwsgi, "tick", 2, others=workers)
    else:
        assert uwsgi.popen.wait(10) == 0
    assert who(uwsgi, "atexit") >= workers


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=["SIGHUP", "SIGINT"])
def test_what_hangs_is_named_and_not_waited_for_any_longer_than_shutdown_timeout(work, number):
    uwsgi = work("hanging tick", middleware={"shutdown_timeout": 0.5})
    wait_for(uwsgi, "hanging begins")
    (worker,) = wait_for_workers(uwsgi, "tick", 1)
    begin = time.monotonic()
    uwsgi.popen.send_signal(number)
    wait_until(lambda: is_gone(worker), "the worker's end", 20)
    assert 0.4 < time.monotonic() - begin < 0.5 + SLACK
    assert re.search(r"uwsgi_file_\S+\.hanging has run on for 0.5 s, and is not waited for any longer", uwsgi.output)
    assert not re.search(r"uwsgi_file_\S+\.tick has run on", uwsgi.output)


def test_what_runs_is_waited_for_at_a_stop_while_an_http_request_runs(work, handler):
    """Also without any WebSocket. With threads, uWSGI would end without a word to Python."""
    uwsgi = work("lasting", middleware={"shutdown_timeout": 10})
    (worker,) = wait_for_workers(uwsgi, "lasting begins", 1)
    with socket.create_connection(("127.0.0.1", uwsgi.port)) as asking:
        asking.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for_workers(uwsgi, "slow request", 1)
        wait_for(uwsgi, "lasting begins")
        uwsgi.popen.send_signal(signal.SIGINT)
        wait_until(lambda: is_gone(worker), "the worker's end", 20)
    assert len(notes(uwsgi, "lasting begins")) == len(notes(uwsgi, "lasting ends"))


def test_it_works_where_gevent_has_patched_the_standard_library(work, handler):
    if handler != "gevent":
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
def test_a_handler_that_runs_coroutines_has_async_def_and_def_called(start_uwsgi, temporary, name):
    env = {"UWASP_WORK": "coroutine tick", "UWASP_HANDLER": name, "TMPDIR": str(temporary)}
    uwsgi = start_uwsgi(APPLICATION, *LOOP_OPTIONS["threads"], "--processes", "2", env=env)
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


def test_a_coroutine_that_hangs_is_named_and_cancelled(start_uwsgi):
    options = {"UWASP_OPTIONS": json.dumps({"shutdown_timeout": 0.5})}
    env = {"UWASP_WORK": "hanging-coroutine", "UWASP_HANDLER": "asyncio", **options}
    uwsgi = start_uwsgi(APPLICATION, *LOOP_OPTIONS["asyncio"], env=env)
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
