"""The thread handler's threads: what happens when there are not as many as it wants."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.request import urlopen

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
