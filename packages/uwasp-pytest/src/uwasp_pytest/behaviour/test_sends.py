"""A message can be sent from anywhere in the worker, or there is a clear error."""

from __future__ import annotations

import re
import signal

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.inquiry import ask
from uwasp_pytest.processes import wait_until

LIMITS = APPLICATIONS / "limits.py"
EVERYWHERE = ["request", "thread", "signal"]
GEVENT = ["threadpool", "greenlet", "hub"]


@pytest.mark.parametrize("patched", ["", "1"], ids=["unpatched", "patched"])
def test_a_message_goes_out_from_anywhere(serve, waits, patched):
    if patched and waits != "gevent":
        pytest.skip("threads are not to be patched")
    uwsgi = serve(application=LIMITS, env={"UWASP_PATCH": patched})
    with connect(f"{uwsgi.url}/echo?anywhere", proxy=None) as client:
        client.send("hello")
        assert client.recv(10) == "hello"  # `on_open` has been called
        for place in EVERYWHERE + (GEVENT if waits == "gevent" else []):
            ask(uwsgi.port, f"send/{place}/anywhere")
            assert client.recv(10) == place
            uwsgi.wait_for_output(f"{place}: sent")


def test_a_message_goes_out_from_a_timer_of_uwsgi(serve):
    uwsgi = serve(application=LIMITS, env={"LIMITS_TIMER": "1"})
    with connect(f"{uwsgi.url}/echo?anywhere", proxy=None) as client:
        assert [client.recv(10) for _ in range(2)] == ["timer", "timer"]


@pytest.mark.parametrize("hook", ["uwsgi.atexit", "atexit"])
def test_in_an_exit_function_the_connections_are_closed(serve, waits, hook):
    if (waits, hook) == ("gevent", "atexit"):
        pytest.skip("uWSGI's gevent loop ends its worker without Python's exit functions")
    uwsgi = serve(application=LIMITS)
    with connect(f"{uwsgi.url}/echo?anywhere", proxy=None) as client:
        client.send("hello")
        assert client.recv(10) == "hello"
        uwsgi.popen.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == 1001
    wait_until(lambda: uwsgi.popen.poll() is not None, "the end")
    assert re.search(rf" {hook}: ConnectionClosed connection \d+ is closed \(code 1001\)", uwsgi.output)


@pytest.mark.parametrize("place", ["request", "thread", "threadpool"])
def test_sending_on_a_closed_connection_says_so_wherever_it_is(serve, waits, place):
    if place in GEVENT and waits != "gevent":
        pytest.skip("a place of gevent's")
    uwsgi = serve(application=LIMITS)
    with connect(f"{uwsgi.url}/echo?anywhere", proxy=None) as client:
        client.close(4000, "bye")
    uwsgi.wait_for_output("anywhere on_close 4000 bye")
    ask(uwsgi.port, f"send/{place}/anywhere")
    uwsgi.wait_for_output(f"{place}: ConnectionClosed connection 1 is closed (code 4000, reason 'bye')")
