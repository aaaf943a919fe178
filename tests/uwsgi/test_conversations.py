"""A plain function is a server too: it receives when it wants, beside all else, until the connection ends."""

from __future__ import annotations

import re
import signal
import threading
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from processes import LOOP_OPTIONS, Uwsgi, wait_until
from raw import RawClient, frame

APPLICATION = Path(__file__).parent / "conversing.py"


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler], env={"UWASP_HANDLER": handler})
    yield uwsgi
    uwsgi.stop()


def closed(client):
    """The close code and reason, once the server has closed."""
    with pytest.raises(ConnectionClosed) as ended:
        client.recv(10)
    return ended.value.rcvd.code, ended.value.rcvd.reason


def get(uwsgi, path="/", timeout=10):
    return urllib.request.urlopen(f"http://{uwsgi.address}{path}", timeout=timeout).read()


def test_a_function_receives_until_the_client_closes(uwsgi):
    before = uwsgi.output.count("echo is over: 1000")
    with connect(f"{uwsgi.url}/echo") as client:
        for message in ("text", b"binary", "", "ü" * 100_000):
            client.send(message)
            assert client.recv(10) == message
    uwsgi.wait_for_output("echo is over: 1000", before + 1)


def test_many_messages_at_once_come_back_in_order(uwsgi):
    with connect(f"{uwsgi.url}/echo") as client:
        numbers = [str(number) for number in range(3_000)]
        for number in numbers:
            client.send(number)
        assert [client.recv(10) for _ in numbers] == numbers


def test_a_function_that_takes_its_time_for_each_message_need_not_wait_for_the_next(serve):
    """They have come already, and nothing else will for long."""
    uwsgi = serve(application=APPLICATION, middleware={"ping_interval": None})
    with RawClient(uwsgi.port, "/leisurely") as client:
        client.send(b"".join(frame(1, b"%d" % number) for number in range(20)))
        assert [bytes(client.recv().data) for _ in range(20)] == [b"%d" % number for number in range(20)]


def test_iteration_ends_whatever_the_close_code_and_when_the_client_is_lost(uwsgi):
    with connect(f"{uwsgi.url}/echo") as client:
        client.close(4321, "for a reason")
    uwsgi.wait_for_output("echo is over: 4321")
    with RawClient(uwsgi.port):
        pass
    uwsgi.wait_for_output("echo is over: 1006")


def test_a_partial_of_a_function_converses_too(uwsgi):
    with connect(f"{uwsgi.url}/greet") as client:
        client.send("ada")
        client.send("bob")
        assert client.recv(10) == "hello, ada, bob"
        assert closed(client) == (1000, "")


def test_receive_waits_no_longer_than_it_is_told_and_loses_nothing_by_that(uwsgi):
    with connect(f"{uwsgi.url}/patient") as client:
        client.send("0.01")
        assert client.recv(10) == "TimeoutError no message came within 0.01 s"
        client.send("0")
        assert client.recv(10) == "TimeoutError no message came within 0.0 s"
        client.send("-1")
        assert client.recv(10) == "TimeoutError no message came within -1.0 s"
        client.send("nan")
        assert client.recv(10) == "ValueError timeout is a number of seconds, or None, not nan"
        client.send("inf")
        client.send("that")
        assert client.recv(10) == "got that"
        client.send("60")
        client.send("this")
        assert client.recv(10) == "got this"


def test_to_return_closes_with_1000(uwsgi):
    with connect(f"{uwsgi.url}/closing") as client:
        client.send("return")
        assert closed(client) == (1000, "")


def test_what_a_function_raises_is_logged_and_closes_with_1011(uwsgi):
    for word, raised in (("raise", "RuntimeError: raised in a conversation"), ("exit", "SystemExit: 1")):
        with connect(f"{uwsgi.url}/closing") as client:
            client.send(word)
            assert closed(client) == (1011, "internal error")
        uwsgi.wait_for_output(raised)
    assert re.search(r"uwasp.server ERROR error in closing, closing connection \d+ of .* at /closing", uwsgi.output)
    assert get(uwsgi) == b"plain"


def test_connection_closed_out_of_a_function_is_its_ordinary_end(uwsgi):
    errors = uwsgi.output.count("ERROR")
    closings = uwsgi.output.count("at /closing is closed")
    with connect(f"{uwsgi.url}/closing") as client:
        client.send("receive")
    uwsgi.wait_for_output("at /closing is closed", closings + 1)
    assert uwsgi.output.count("ERROR") == errors


def test_a_function_that_closes_receives_nothing_more(uwsgi):
    with RawClient(uwsgi.port, "/closing") as client:
        client.send(frame(1, b"close") + frame(1, b"unseen"))
        assert client.recv().data == (4000).to_bytes(2, "big") + b"enough"
    uwsgi.wait_for_output("closing got 4000 enough")


def test_after_the_end_receive_says_so_each_time(uwsgi):
    with connect(f"{uwsgi.url}/closing") as client:
        client.send("late")
    uwsgi.wait_for_output("late got another ConnectionClosed")


def test_a_function_that_returns_a_server_is_told_the_remedy(uwsgi):
    with connect(f"{uwsgi.url}/closing") as client:
        client.send("server")
        assert closed(client) == (1011, "internal error")
    uwsgi.wait_for_output("closing returned a Server: a function is called with the open WebSocket, and converses")


def test_a_function_that_never_receives_ends_when_its_client_does(uwsgi):
    closings = uwsgi.output.count("at /ticking is closed")
    with connect(f"{uwsgi.url}/ticking") as client:
        assert client.recv(10) == "tick"
    uwsgi.wait_for_output("at /ticking is closed with 1000", closings + 1)


def test_a_function_has_what_a_class_has_as_attributes(uwsgi):
    with connect(f"{uwsgi.url}/guarded?ada", subprotocols=["chat.v1"]) as client:
        assert client.recv(10) == "ada chat.v1 10"
        client.send("x" * 11)
        assert closed(client)[0] == 1009
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{uwsgi.url}/guarded?stranger")
    assert refused.value.response.status_code == 401


def test_a_function_with_a_codec_receives_values_and_ends_where_there_is_none(uwsgi):
    with connect(f"{uwsgi.url}/adding") as client:
        client.send("[1, 2, 3]")
        assert client.recv(10) == "6"
        client.send("[1, 2,")
        assert closed(client)[0] == 1007
    uwsgi.wait_for_output("adding is over: 1007")
    assert re.search(r"uwasp.server INFO connection \d+ of .* sent what adding cannot decode", uwsgi.output)


def test_receive_is_refused_to_a_class_which_would_wait_for_itself(uwsgi):
    with connect(f"{uwsgi.url}/asking") as client:
        client.send("ask")
        assert client.recv(10) == (
            "RuntimeError Asking is given its messages by on_message; receive is for a server that is a function"
        )
        client.send("again")
        assert client.recv(10).startswith("RuntimeError")


def test_one_at_a_time_receives(uwsgi, handler):
    if handler == "asyncio":
        pytest.skip("a task receives, and no thread")
    with connect(f"{uwsgi.url}/two-threads") as client:
        assert client.recv(10).startswith("RuntimeError another one receives")
        client.send("one")
        assert client.recv(10) == "got ['one']"


def test_what_happens_in_groups_reaches_a_function_as_messages_alone(uwsgi):
    with connect(f"{uwsgi.url}/member") as one, connect(f"{uwsgi.url}/member") as other:
        assert (one.recv(10), other.recv(10)) == ("there", "there")
        one.send("notify")
        one.send("hello")
        assert (one.recv(10), other.recv(10)) == ("hello", "hello")


def test_what_a_function_has_not_received_is_bounded_and_slows_its_client(serve):
    uwsgi = serve(application=APPLICATION)
    message = "x" * 100_000
    sent = 0

    def flood():
        nonlocal sent
        for _ in range(1_000):
            client.send(message)
            sent += 1

    with connect(f"{uwsgi.url}/slow", compression=None) as client:
        flooding = threading.Thread(target=flood)
        flooding.start()
        before = -1
        while sent != before:  # it has come to a stop
            before = sent
            time.sleep(0.3)
        assert 0 < sent < 500
        get(uwsgi, "/go-on")
        assert [client.recv(10) for _ in range(1_000)] == ["100000"] * 1_000
        flooding.join(10)


def test_so_many_run_in_a_worker_and_further_ones_get_503_until_one_returns(serve):
    uwsgi = serve(application=APPLICATION, env={"UWASP_CONVERSATIONS": "2"})
    with connect(f"{uwsgi.url}/echo") as one, connect(f"{uwsgi.url}/echo"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{uwsgi.url}/echo")
        assert refused.value.response.status_code == 503
        assert "Few.max_conversations is 2, and so many run in this worker" in uwsgi.output
        with connect(f"{uwsgi.url}/asking"):  # what is no function has its place
            pass
        one.close()

        def has_room():
            try:
                with connect(f"{uwsgi.url}/echo"):
                    return True
            except InvalidStatus:
                return False

        wait_until(has_room, "room for another conversation")


def test_two_hundred_of_them_beside_four_threads_leave_plain_http_untouched(serve, handler):
    loop = ("--gevent", "4") if handler == "gevent" else ("--threads", "4")
    uwsgi = serve(application=APPLICATION, loop=loop)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/echo")) for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(str(number))
        assert [client.recv(10) for client in clients] == [str(number) for number in range(200)]
        for _ in range(20):
            assert get(uwsgi, timeout=5) == b"plain"


@pytest.mark.parametrize("way", ["stop", "reload"])
def test_a_stop_ends_conversations_with_1001(serve, way):
    uwsgi = serve(application=APPLICATION, middleware={"shutdown_timeout": 30})
    with connect(f"{uwsgi.url}/echo") as client, connect(f"{uwsgi.url}/patient") as other:
        client.send("x")
        assert client.recv(10) == "x"
        other.send("60")
        uwsgi.popen.send_signal(signal.SIGHUP if way == "reload" else signal.SIGTERM)
        assert closed(client) == (1001, "")
        assert closed(other) == (1001, "")
    uwsgi.wait_for_output("echo is over: 1001")
    assert "still running" not in uwsgi.output


def test_what_hangs_at_a_stop_is_named_in_the_log(serve, handler):
    uwsgi = serve(application=APPLICATION, middleware={"shutdown_timeout": 0.5})
    with connect(f"{uwsgi.url}/hanging"):
        uwsgi.stop(signal.SIGTERM)
    line = next(line for line in uwsgi.output.splitlines() if "still running" in line)
    assert re.search(r"still running: hanging for connection \d+ of 127.0.0.1 at /hanging", line)
    assert handler != "threads" or re.search(r"(conversing|waiting)\.py:\d+$", line)


def test_a_client_that_floods_a_function_holds_up_nobody(serve):
    uwsgi = serve(application=APPLICATION)
    done = threading.Event()

    def flood(client):
        while not done.is_set():
            client.send(b"x")

    with ExitStack() as stack:
        flooders = [stack.enter_context(connect(f"{uwsgi.url}/busy", compression=None)) for _ in range(6)]
        other = stack.enter_context(connect(f"{uwsgi.url}/busy"))
        threads = [threading.Thread(target=flood, args=(client,)) for client in flooders]
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                other.send("answer")
                assert other.recv(10) == "answered"
                assert get(uwsgi) == b"plain"
        finally:
            done.set()
            for thread in threads:
                thread.join()
