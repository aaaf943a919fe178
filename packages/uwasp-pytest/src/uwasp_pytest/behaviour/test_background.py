"""Functions that each worker calls every so many seconds, and those that one worker of all calls."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import pytest
from websockets.frames import Opcode

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.parting import GOING_AWAY, is_gone
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until

SLACK = 2.0  # seconds, for a machine under load


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "every.py"


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
        return serve(*options, env=env, **keywords)

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


def test_what_runs_is_waited_for_at_a_stop_while_an_http_request_runs(work):
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
