"""The thread handler's threads: what happens when there are not as many as it wants."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.request import urlopen

from processes import wait_until
from raw import RawClient, frame

APPLICATION = Path(__file__).parent / "background.py"
FAILED = "no further consumer thread can be started, going on with 1: can't start new thread"


def test_a_consumer_that_cannot_be_started_is_one_line_and_a_few_tries(start_uwsgi):
    """The one that there is goes on, and when threads are to be had again the others need not wait for it any more."""
    uwsgi = start_uwsgi(APPLICATION, "--threads", "2")
    with RawClient(uwsgi.port, "/parent") as blocking, RawClient(uwsgi.port, "/parent") as other:
        blocking.send(frame(1, b"hello"))
        assert blocking.recv().data == b"hello"
        urlopen(f"http://{uwsgi.address}/no-further-thread", timeout=10).close()
        blocking.send(frame(1, b"sleep"))
        time.sleep(0.1)
        other.send(frame(1, b"hello"))
        assert blocking.recv().data == b"slept"
        assert other.recv().data == b"hello"
        assert uwsgi.output.count(FAILED) == 1
        assert 2 <= uwsgi.output.count("no thread") <= 10
        assert "Traceback" not in uwsgi.output
        blocking.send(frame(1, b"sleep"))
        time.sleep(0.1)
        other.send(frame(1, b"hello"))
        uwsgi.wait_for_output("no thread", uwsgi.output.count("no thread") + 1)
        urlopen(f"http://{uwsgi.address}/threads-again", timeout=10).close()
        begin = time.monotonic()
        assert other.recv().data == b"hello"
        assert time.monotonic() - begin < 2
        uwsgi.wait_for_output("consumer threads can be started again")


def test_the_names_that_uwsgi_interns_for_each_request_outlive_it(start_uwsgi):
    """Else the interpreter makes its table of them anew every thousand requests, in whichever thread it happens, and
    the memory of that thread grows by a megabyte.
    """
    uwsgi = start_uwsgi(APPLICATION, "--threads", "2")

    def kept():
        with urlopen(f"http://{uwsgi.address}/kept", timeout=10) as response:
            return json.load(response)

    names = {"wsgi.input", "wsgi.file_wrapper", "wsgi.multiprocess", "uwsgi.version", "uwsgi.node"}
    assert not names <= set(kept()["names"])
    RawClient(uwsgi.port, "/parent").socket.close()
    wait_until(lambda: kept()["open"] == 0, "the connection to be gone")
    for _ in range(5):
        time.sleep(0.02)  # so long does its last reference live
        assert names <= set(kept()["names"])
