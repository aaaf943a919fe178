"""A stop ends the worker in its main thread, whatever other threads the application has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from http.client import RemoteDisconnected
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.frames import Opcode

from parting import GOING_AWAY, SLACK, part, wait_for_the_end
from processes import wait_until
from raw import RawClient, frame

APPLICATION = Path(__file__).parent / "background.py"
ONE_CORE = ("--enable-threads",)


@pytest.fixture
def serve_background(start_uwsgi):
    """Start a uWSGI with the application `background.py`, and return it and its worker's process."""

    def start(*options):
        uwsgi = start_uwsgi(APPLICATION, *(options or ONE_CORE))
        (worker,) = Path(f"/proc/{uwsgi.popen.pid}/task/{uwsgi.popen.pid}/children").read_text().split()
        return uwsgi, int(worker)

    return start


def get(uwsgi, path):
    with urlopen(f"http://{uwsgi.address}{path}", timeout=10) as response:
        response.read()


def signals(pid, task, which):
    """A set of signals of one thread, as /proc has it: SigBlk, SigPnd."""
    status = Path(f"/proc/{pid}/task/{task}/status").read_text()
    bits = int(re.search(rf"^{which}:\s*(\w+)", status, re.MULTILINE)[1], 16)
    return {number for number in signal.valid_signals() if bits >> (number - 1) & 1}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_never_ends_the_worker_in_a_thread_of_the_application(serve_background, number):
    """Which would wait for that thread to end, for ever. Here it alone hears, as it may when the main thread is just
    being interrupted.
    """
    uwsgi, worker = serve_background()
    with RawClient(uwsgi.port, "/parent") as client:
        get(uwsgi, "/background")
        get(uwsgi, "/deaf")
        os.kill(worker, number)
        assert part(client) == GOING_AWAY
        wait_until(lambda: number in signals(worker, worker, "SigPnd"), "the signal to wait for the main thread", 5)
        begin = time.monotonic()
        with pytest.raises((RemoteDisconnected, ConnectionResetError)):
            get(uwsgi, "/hear")
        wait_for_the_end(worker)
        assert time.monotonic() - begin < SLACK


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_stop_does_not_disturb_the_first(serve_background, number):
    """A terminal sends SIGINT to all processes of a group, and then uWSGI's master sends another to its workers."""
    uwsgi, worker = serve_background()
    with RawClient(uwsgi.port, "/parent") as client:
        get(uwsgi, "/background")
        uwsgi.wait_for_output("GET /background")  # uWSGI is done with it; else it would leave its atexit out
        os.kill(worker, number)
        assert part(client) == GOING_AWAY
        uwsgi.wait_for_output("begin of the application's own atexit")
        time.sleep(0.2)  # that it is held back again cannot be seen
        begin = time.monotonic()
        os.kill(worker, number)
        wait_for_the_end(worker)
        assert time.monotonic() - begin < 1 + SLACK
    assert uwsgi.output.count("end of the application's own atexit") == 1


def ask(client, message):
    client.send(frame(Opcode.TEXT, message))
    return client.recv().data.decode()


@pytest.mark.parametrize("options", [ONE_CORE, ("--threads", "4")], ids=["one core", "four"])
def test_a_program_that_a_server_starts_ends_by_sigterm(serve_background, options):
    """It inherits the mask of the consumer's thread."""
    uwsgi, _ = serve_background(*options)
    with RawClient(uwsgi.port, "/parent") as client:
        child = int(ask(client, b"start"))
        assert signals(child, child, "SigBlk") == {signal.SIGHUP}
        assert ask(client, b"terminate") == str(-signal.SIGTERM)


def test_consumers_hear_what_the_main_thread_hears_and_the_listener_nothing(serve_background):
    uwsgi, worker = serve_background()
    get(uwsgi, "/deaf-to-usr1")
    with RawClient(uwsgi.port, "/parent") as client:
        # Each names itself when it begins.
        wait_until(lambda: "uwasp-stop" in json.loads(ask(client, b"threads")), "its threads")
        threads = json.loads(ask(client, b"threads"))
    main = signals(worker, worker, "SigBlk")
    assert main == {signal.SIGUSR1}
    assert signals(worker, threads["uwasp-consumer-1"], "SigBlk") == main | {signal.SIGHUP}
    for name in ("uwasp-listener", "uwasp-stop"):
        assert {signal.SIGHUP, signal.SIGINT, signal.SIGTERM} < signals(worker, threads[name], "SigBlk")


def test_the_thread_handler_spawns_a_thread(serve_background):
    uwsgi, _ = serve_background()
    with RawClient(uwsgi.port, "/parent") as client:
        assert ask(client, b"spawn") == "spawned"


def test_a_stop_is_held_back_from_when_the_goodbye_is_arranged_on():
    """Not only from when the thread that waits for it has begun: the first client may be there before."""
    program = """
import os, signal
from uwasp import takeover
from uwasp.goodbye import _hear_stops

takeover.running_under_uwsgi = lambda: True  # as far as it is asked here
takeover.forgets_at_reloads = lambda: False
starting = []
_hear_stops(starting.append)
os.kill(os.getpid(), signal.SIGTERM)
print("alive, with a thread to start:", len(starting))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "alive, with a thread to start: 1\n")
