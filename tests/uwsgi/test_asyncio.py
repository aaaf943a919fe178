"""What is about the event loop and coroutines alone, and so is put to the asyncio handler alone."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from inquiry import ask, wait_until_it_stands_still
from processes import Uwsgi, wait_until
from raw import RawClient, frame
from test_fairness import PROMISED, flooding

COROUTINES = Path(__file__).parent / "coroutines.py"
LOOPS = {"uvloop": ("", "uvloop"), "asyncio": ("asyncio", "asyncio.unix_events")}
BLOCKS = 300

needs_python_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio has it from Python 3.11 on")


@pytest.fixture(params=["asyncio"], scope="module")
def handler(request):
    return request.param


@pytest.fixture(params=LOOPS, scope="module")
def loop(request):
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    return request.param


@pytest.fixture(scope="module")
def server(loop, tmp_path_factory):
    """A uWSGI that the tests of this module share, on each kind of loop."""
    env = {"UWASP_LOOP": LOOPS[loop][0]}
    uwsgi = Uwsgi(COROUTINES, tmp_path_factory.mktemp("uwsgi"), "--threads", "2", env=env)
    yield uwsgi
    uwsgi.stop()
    for trouble in ("never awaited", "was destroyed"):
        assert trouble not in uwsgi.output


def obey(server, name="somebody"):
    return connect(f"{server.url}/obey?{name}", max_size=None, compression=None)


def left(server):
    """What is there of connections, in figures."""
    return ask(server.port, "left")["left"]


def said(client, *words):
    for word in words:
        client.send(word)
    return [client.recv(10) for _ in words]


def test_the_loop_is_uvloops_where_it_is_installed(server, loop):
    with obey(server) as client:
        assert said(client, "loop") == [f"{LOOPS[loop][1]} uwasp-loop"]


def test_functions_that_never_wait_are_events_too(server):
    with connect(f"{server.url}/plain") as client:
        assert client.recv(10) == "open"
        assert said(client, "a") == ["a"]
        client.send("number")  # what it returns is nothing to be awaited
        assert said(client, "b") == ["b"]
    server.wait_for_output("plain closed")


def test_events_of_one_connection_wait_for_each_other_and_others_go_on(server):
    with obey(server) as client, obey(server) as other:
        client.send("sleep 0.5")
        client.send("say after it")
        assert said(other, "say meanwhile") == ["meanwhile"]
        assert [client.recv(10), client.recv(10)] == ["slept 0.5", "after it"]


def test_many_that_wait_at_once_wait_together(server):
    with ExitStack() as stack:
        clients = [stack.enter_context(obey(server)) for _ in range(100)]
        for client in clients:
            client.send("sleep 1")
            client.send("say done")
        assert [[client.recv(20), client.recv(5)] for client in clients] == [["slept 1", "done"]] * 100


def test_the_current_task_is_the_same_before_and_after_waiting(server):
    with obey(server) as client:
        assert said(client, "same_task", "same_task") == ["True", "True"]


@needs_python_3_11
def test_timeouts_end_what_takes_too_long_and_nothing_else(server):
    with obey(server) as client:
        assert said(client, "timeout 0.01", "timeout 0", "sleep 0.05") == [
            "passed passed",
            "passed passed",
            "slept 0.05",
        ]


@needs_python_3_11
def test_task_groups_end_together(server):
    with obey(server, "ada") as client:
        assert said(client, "group_of_tasks", "say unharmed") == ["ada ada ada LookupError", "unharmed"]


def test_wait_for_ends_what_takes_too_long(server):
    with obey(server) as client:
        assert said(client, "wait_for 0.01", "say unharmed") == ["passed", "unharmed"]


def test_each_connection_has_a_context_of_its_own(server):
    """From its first event to its last; the request's is none of it."""
    with obey(server, "ada") as ada, obey(server, "bob") as bob:
        for _ in range(2):
            for client, name in (ada, "ada"), (bob, "bob"):
                assert json.loads(said(client, "whose")[0]) == ["nobody's", name, name, name]
    server.wait_for_output("ada closed 1000 as ada")
    server.wait_for_output("bob closed 1000 as bob")


@pytest.mark.parametrize("word", ["cancel_me", "cancel_me_later", "await_what_is_cancelled"])
def test_an_event_that_is_cancelled_closes_its_connection_alone(server, word):
    with obey(server, "other") as other:
        for _ in range(3):
            with obey(server, word) as client:
                client.send(word)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(10)
                assert closed.value.rcvd.code == 1011
            assert said(other, "say unharmed", "sleep 0.02") == ["unharmed", "slept 0.02"]
    server.wait_for_output(f"{word} closed 1011", 3)


@pytest.mark.parametrize("path", ["/obey", "/converse"])
@pytest.mark.parametrize("word", ["exit_generator", "exit_generator_later"])
def test_a_generator_exit_closes_its_connection_alone(server, path, word):
    with obey(server, "other") as other, connect(f"{server.url}{path}?exits") as client:
        client.send(word)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(10)
        assert closed.value.rcvd.code == 1011
        assert said(other, "say unharmed", "sleep 0.02") == ["unharmed", "slept 0.02"]
    wait_until(lambda: left(server)["running"] == 0, "the function to be over")


def test_to_cancel_an_event_that_waits_for_nothing_meets_nobody_else(server):
    with obey(server, "other") as other, obey(server) as client:
        for _ in range(10):
            client.send("cancel_me_now")
            other.send("sleep 0.02")
            client.send("say still there")
            assert other.recv(10) == "slept 0.02"
            assert client.recv(10) == "still there"


def test_to_cancel_every_task_ends_no_consumer_for_good(server):
    with obey(server) as client:
        said(client, "sleep 0.01")
        assert said(client, "cancel_all") == ["cancelled all"]
        assert said(client, "sleep 0.01", "say again") == ["slept 0.01", "again"]


def test_an_exit_out_of_a_task_ends_neither_the_loop_nor_the_process(server):
    with obey(server) as client:
        client.send("exit")
        assert said(client, "say still there", "sleep 0.01") == ["still there", "slept 0.01"]
        server.wait_for_output("SystemExit: out of a task")


def test_an_idle_connection_costs_no_task(server):
    with ExitStack() as stack:
        clients = [stack.enter_context(obey(server)) for _ in range(100)]
        for client in clients:
            said(client, "say hello")
        assert int(said(clients[0], "tasks")[0]) <= 20


def test_a_send_that_nobody_awaits_loses_nothing_and_one_that_is_awaited_waits(serve):
    uwsgi = serve(application=COROUTINES, middleware={"send_timeout": None, "write_limit": 2**18})
    with RawClient(uwsgi.port, "/obey?flooded") as client:
        client.send(frame(1, b"flood %d" % BLOCKS))
        wait_until(lambda: ask(uwsgi.port, "found").get("queued", 0) > 2**22, "all to be queued")
        assert [client.recv().data[:8] for _ in range(BLOCKS)] == [n.to_bytes(8, "big") for n in range(BLOCKS)]
    with RawClient(uwsgi.port, "/obey?filled") as client, obey(uwsgi) as other:
        client.send(frame(1, b"fill %d" % BLOCKS))
        wait_until(lambda: ask(uwsgi.port, "found").get("filled", 0) > 0, "the first to be sent")
        assert said(other, "say meanwhile", "sleep 0.3") == ["meanwhile", "slept 0.3"]
        assert ask(uwsgi.port, "found")["filled"] < BLOCKS - 1
        assert [client.recv().data[:8] for _ in range(BLOCKS)] == [n.to_bytes(8, "big") for n in range(BLOCKS)]
        wait_until(lambda: ask(uwsgi.port, "found")["filled"] == BLOCKS - 1, "all to be sent")
    assert "never awaited" not in uwsgi.output


def test_what_a_send_returns_may_be_made_a_task(serve):
    uwsgi = serve(application=COROUTINES, middleware={"write_limit": 2**18})
    with RawClient(uwsgi.port, "/obey?ada") as client:
        client.send(frame(1, b"send_in_tasks %d" % BLOCKS))
        wait_until(lambda: "waiting" in ask(uwsgi.port, "found"), "a task to wait for room")
        assert ask(uwsgi.port, "found")["waiting"]
        received = [client.recv().data for _ in range(4 + BLOCKS)]
    assert [data for data in received if len(data) < 100] == [b"hello", b"0", b"1", b"None True"]


def test_whoever_waits_for_room_is_told_that_the_connection_is_closed(serve):
    uwsgi = serve(application=COROUTINES, middleware={"send_timeout": 0.3, "write_limit": 2**18})
    with RawClient(uwsgi.port, "/obey?slow") as client:
        client.send(frame(1, b"fill 10000"))
        uwsgi.wait_for_output("slow: ConnectionClosed 1006")
        uwsgi.wait_for_output("slow closed 1006")
    assert "does not read: cut after 0.3 s" in uwsgi.output


def test_a_view_sends_at_once(server):
    with obey(server, "pushed-to") as client:
        said(client, "say hello")
        ask(server.port, "push/pushed-to/100")
        assert [client.recv(10) for _ in range(100)] == [f"pushed {number}" for number in range(100)]
        client.send("ping")
        assert said(client, "say after the ping") == ["after the ping"]


def test_another_thread_that_sends_waits_for_room(serve):
    uwsgi = serve(application=COROUTINES, middleware={"write_limit": 2**18})

    def sent():
        return ask(uwsgi.port, "found").get("sent by a view", 0)

    with RawClient(uwsgi.port, "/obey?filled") as client, ThreadPoolExecutor() as pool:
        client.send(frame(1, b"say hello"))
        assert client.recv().data == b"hello"
        view = pool.submit(ask, uwsgi.port, f"fill/filled/{BLOCKS}")
        wait_until(sent, "the first to be sent")
        wait_until_it_stands_still(sent)
        assert sent() < BLOCKS - 1
        assert [client.recv().data[:8] for _ in range(BLOCKS)] == [n.to_bytes(8, "big") for n in range(BLOCKS)]
        assert view.result(20)["sent by a view"] == BLOCKS - 1


def test_floods_starve_neither_others_nor_the_tasks_of_the_application(serve):
    uwsgi = serve(application=COROUTINES)
    with ExitStack() as stack:
        other = stack.enter_context(obey(uwsgi))
        clients = [stack.enter_context(RawClient(uwsgi.port, "/working")) for _ in range(20)]
        stack.enter_context(flooding(clients))
        ask(uwsgi.port, "measure")
        assert said(other, "say meanwhile", "sleep 0.01") == ["meanwhile", "slept 0.01"]
        wait_until(lambda: "late" in ask(uwsgi.port, "found"), "the task to have measured")
        assert ask(uwsgi.port, "found")["late"] < PROMISED


@pytest.mark.parametrize("word", ["block", "block_later"])
def test_in_debug_mode_a_server_that_blocks_the_loop_is_named(server, word):
    with obey(server, word) as client:
        assert said(client, "debug 0.2") == ["debugging"]
        assert said(client, f"{word} 0.3") == ["blocked"]
        server.wait_for_output("uwasp.asyncio WARNING Obedient held up the event loop for 0.3")
        (line,) = [line for line in server.output.splitlines() if "Obedient held up" in line][-1:]
        assert "s, for connection " in line
        assert line.endswith("at /obey")


def test_a_function_has_a_task_and_a_context_of_its_own(server):
    with connect(f"{server.url}/converse?ada") as ada, connect(f"{server.url}/converse?bob") as bob:
        assert said(ada, "whose", "hello") == ["ada", "hello"]
        assert said(bob, "whose", "hello") == ["bob", "hello"]
    server.wait_for_output("ada is over")
    server.wait_for_output("bob is over")


def test_a_function_that_is_cancelled_before_it_begins_is_over_then(server):
    with obey(server) as canceller:
        assert said(canceller, "cancel_beginners") == ["cancelling"]
        with connect(f"{server.url}/converse") as client:
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(10)
            assert closed.value.rcvd.code == 1011
    wait_until(lambda: left(server)["running"] == 0, "the function to be over")


ENDS = ["receive", "close_by_thread", "exit_generator", "patience", ""]  # the last: the client is gone


def test_of_functions_that_come_and_go_nothing_is_left(serve):
    uwsgi = serve(application=COROUTINES, middleware={"close_timeout": 1})

    def come_and_go(times):
        for number in range(times):
            with RawClient(uwsgi.port, "/converse?goes") as client:
                client.send(frame(1, b"hello"))
                assert client.recv().data == b"hello"
                if word := ENDS[number % len(ENDS)]:
                    client.send(frame(1, word.encode()))
                    if word == "patience":
                        assert client.recv().data == b"no longer"
                    if word not in ("close_by_thread", "exit_generator"):
                        client.send(frame(8, b"\x03\xe8"))
                    assert client.recv().opcode == 8

    come_and_go(10)
    wait_until(lambda: left(uwsgi)["open"] == left(uwsgi)["running"] == 0, "all to be over")
    ask(uwsgi.port, "collect")
    before = left(uwsgi)
    come_and_go(200)

    def more():
        """Than before, when an answer to a plain request may have had a descriptor still."""
        return {what: number for what, number in left(uwsgi).items() if number > before[what]}

    try:
        wait_until(lambda: not more(), "nothing to be left", 10)
    except TimeoutError:
        assert not more()


def test_a_receive_that_is_cancelled_loses_no_message(server):
    with connect(f"{server.url}/converse") as client:
        assert said(client, "timeout") == ["passed"]
        assert said(client, "a", "b") == ["then a", "b"]


def test_one_task_at_a_time_receives(server):
    with connect(f"{server.url}/converse") as client:
        assert said(client, "two")[0].startswith("RuntimeError another one receives")
        assert said(client, "a") == ["first a"]
        assert said(client, "iterate") == ["TypeError receiving waits: async for message in ws"]


def test_a_function_that_hangs_at_the_end_is_named_and_cancelled(serve):
    uwsgi = serve(application=COROUTINES, middleware={"shutdown_timeout": 0.5})
    with connect(f"{uwsgi.url}/converse?hanging") as client:
        assert said(client, "hang") == ["hanging"]
        uwsgi.popen.send_signal(signal.SIGINT)
        assert uwsgi.popen.wait(20) == 0
    assert "still running: converse for connection 1 " in uwsgi.output
    assert "the function was cancelled" in uwsgi.output
    assert "error in converse" not in uwsgi.output


def test_what_is_spawned_runs_on_the_loop_or_in_a_thread_of_its_own(server):
    with obey(server) as client:
        client.send("spawn")
        assert {client.recv(10), client.recv(10)} == {"a task in uwasp-loop", "a call in uwasp-spawned-"}


def test_a_failure_of_what_was_spawned_is_logged_and_ends_nothing(server):
    with obey(server) as client:
        client.send("spawn_failing")
        server.wait_for_output("uwasp.asyncio ERROR error in <bound method Obedient.fail")
        assert said(client, "say still there") == ["still there"]


def test_at_the_end_what_was_spawned_is_cancelled_and_what_hangs_is_named(serve):
    uwsgi = serve(application=COROUTINES, middleware={"shutdown_timeout": 0.5})
    with obey(uwsgi, "hanging") as hanging, obey(uwsgi, "other") as other:
        assert said(hanging, "hang") == ["hanging"]
        other.send("spawn_forever")
        other.send("spawn_stubborn")
        said(other, "say hello")
        uwsgi.popen.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed) as closed:
            other.recv(10)
        assert closed.value.rcvd.code == 1001
        assert uwsgi.popen.wait(20) == 0
    assert "other closed 1001" in uwsgi.output
    assert "the spawned one was cancelled" in uwsgi.output
    named = [line for line in uwsgi.output.splitlines() if "does not wait for what hangs" in line]
    assert len(named) == 2
    assert "Obedient of connection" in named[0]
    assert "Obedient.stubborn" in named[1]


def test_groups_are_asked_without_holding_up_the_loop(serve):
    """By a worker that has no member of its own, so that it has to wait for the other."""
    uwsgi = serve("--processes", "2", application=COROUTINES)
    with ExitStack() as stack:
        clients = {}
        while len(clients) < 2:
            client = stack.enter_context(obey(uwsgi))
            clients.setdefault(json.loads(said(client, "members none")[0])[0], client)
        (here, member), (there, other) = clients.items()
        assert said(member, "join lobby") == [str(here)]
        assert json.loads(said(other, "members lobby")[0]) == [there, 1, 1]
        assert said(other, "ordinary_members lobby") in (["0"], ["1"])  # the answer may come at once
        uwsgi.wait_for_output("on the event loop, uwasp.Group cannot wait until other processes have answered")
        assert said(member, "ordinary_members lobby") == ["1"]
        said(other, "ordinary_members lobby")
        assert uwsgi.output.count("uwasp.Group cannot wait") == 1
        assert re.search(r"the methods of uwasp_asyncio.Group, in \S+/coroutines.py:\d+\n", uwsgi.output)
        other.send("to_group lobby")
        assert member.recv(10) == "to all"


def test_while_the_loops_thread_cannot_be_started_the_answer_is_503(serve, tmp_path):
    application = tmp_path / "no_thread.py"
    application.write_text(NO_THREAD.format(folder=os.fspath(tmp_path)))
    uwsgi = serve(application=application)
    with RawClient(uwsgi.port) as refused:
        assert refused.head.startswith("HTTP/1.1 503 ")
    uwsgi.wait_for_output("at /echo: threads, the loop's thread: can't start new thread")
    (tmp_path / "threads again").touch()
    with RawClient(uwsgi.port) as client:
        client.send(frame(1, b"hello"))
        assert client.recv().data == b"hello"


NO_THREAD = """
import os, threading
from uwasp import WebSocketMiddleware
from uwasp_asyncio import Server

start = threading.Thread.start


def start_or_fail(thread):
    if not os.path.exists("{folder}/threads again"):
        raise RuntimeError("can't start new thread")
    start(thread)


threading.Thread.start = start_or_fail


class Echo(Server):
    async def on_message(self, message):
        await self.ws.send(message)


application = WebSocketMiddleware(print, "asyncio", [("/echo", Echo)])
"""
