"""uwasp.testing: a client of an application in this process; all but uWSGI is what it is in production."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from pathlib import Path

import pytest

import uwasp
from uwasp import Allowed, ConnectionClosed, Group, Refusal, Server, WebSocketMiddleware
from uwasp.testing import HandshakeRefused, ServerFailed, connect
from uwasp_asyncio import AsyncioHandler

KEPT_PAGE = [("Content-Type", "text/plain"), ("X-Kept", "yes")]


def page(environ, start_response):
    start_response("200 OK", KEPT_PAGE)
    return [b"a page at ", environ["PATH_INFO"].encode()]


class Room(Server):
    """Tells all that are in it what one of them says; notes what happens to it."""

    protocols = ("chat.v2", "chat.v1")

    @classmethod
    def authorize(cls, environ):
        if "HTTP_COOKIE" not in environ:
            raise Refusal(401, "log in first", [("WWW-Authenticate", "Basic")])
        return environ["HTTP_COOKIE"]

    def on_open(self):
        self.room = Group("room", self.ws.params["name"])
        self.room.add(self.ws)

    def on_message(self, message):
        if message == "raise":
            raise ValueError("raised in on_message")
        if message == "close":
            self.ws.close(4002, "closed by the server")
        elif message == "describe":
            ws = self.ws
            self.ws.send_json([ws.user, ws.path, ws.protocol, ws.params, ws.environ["QUERY_STRING"]])
        else:
            self.room.send(message)

    def on_close(self):
        ended.append((self.ws.path, self.ws.close_code, self.ws.close_reason))
        if self.ws.path == "/rooms/raise-in-close":
            raise KeyError("raised in on_close")


class Echo(Server):
    def on_open(self):
        if self.ws.environ["QUERY_STRING"] == "raise":
            raise RuntimeError("raised in on_open")

    def on_message(self, message):
        self.ws.send(message)


class Unmakeable(Server):
    def __init__(self, ws):
        raise RuntimeError("raised in __init__")


class Typed(Server[list]):
    codec = uwasp.JSON

    def on_open(self):
        self.ws.send_json("open")

    def on_message(self, message):
        self.ws.send_json(message[::-1])


ended: list[tuple[str, int, str]] = []


@pytest.fixture
def application(handler):
    ended.clear()
    servers = {"/rooms/<name>": Room, "/wörld": Echo, "/echo": Echo, "/unmakeable": Unmakeable, "/typed": Typed}
    return WebSocketMiddleware(page, handler, servers.items())


def test_messages_go_there_and_come_back_as_they_were_sent(application):
    with connect(application, "/echo") as ws:
        for message in ("text", "", "ü🐝", b"", b"\0\xff", b"x" * 70_000, "x" * 300_000):
            ws.send(message)
            assert ws.receive() == message
        ws.send(memoryview(b"bytes-like"))
        assert ws.receive() == b"bytes-like"
        assert (ws.closed, ws.close_code, ws.close_reason) == (False, None, "")


def test_json_goes_as_text(application):
    with connect(application, "/echo") as ws:
        ws.send_json({"name": "ü", "numbers": [1, 2.5, None]})
        assert ws.receive_json() == {"name": "ü", "numbers": [1, 2.5, None]}
        ws.send("no JSON")
        with pytest.raises(ValueError, match="Expecting value"):
            ws.receive_json()
        ws.send_json([1])
        assert json.loads(ws.receive()) == [1]


def test_a_codec_decodes_as_ever(application):
    with connect(application, "/typed") as ws:
        assert ws.receive_json() == "open"
        ws.send_json([1, 2])
        assert ws.receive_json() == [2, 1]
        ws.send("no JSON")
        with pytest.raises(ConnectionClosed):
            ws.receive()
        assert ws.close_code == 1007


def test_more_than_a_socket_holds_is_sent_and_received(application):
    with connect(application, "/echo") as ws:
        for number in range(300):
            ws.send(f"{number:04}" * 2_500)
        assert [ws.receive() for _ in range(300)] == [f"{number:04}" * 2_500 for number in range(300)]


def test_the_server_has_the_user_the_path_the_parameters_and_the_query_of_the_request(application):
    with connect(application, "/rooms/a%20b?token=c", user="ann", subprotocols=["chat.v1", "chat.v2"]) as ws:
        assert ws.protocol == "chat.v2"
        ws.send("describe")
        assert ws.receive_json() == ["ann", "/rooms/a b", "chat.v2", {"name": "a b"}, "token=c"]


def test_a_path_outside_ascii_is_found(application):
    with connect(application, "/wörld") as ws:
        assert ws.protocol is None
        ws.send("found")
        assert ws.receive() == "found"


def test_user_stands_for_what_authorize_returns(application):
    for user in ("ann", {"id": 7}, None):
        with connect(application, "/rooms/a", user=user) as ws:
            ws.send("describe")
            assert ws.receive_json()[0] == user
    with connect(application, "/rooms/a", user=Allowed("ann", until=2**35)) as ws:
        ws.send("describe")
        assert ws.receive_json()[0] == "ann"
    with pytest.raises(HandshakeRefused) as refused:
        connect(application, "/rooms/a", user=False)
    assert refused.value.status == 403


def test_without_user_authorize_is_asked(application):
    with connect(application, "/rooms/a", headers=[("Cookie", "a=1"), ("Cookie", "b=2")]) as ws:
        ws.send("describe")
        assert ws.receive_json()[0] == "a=1; b=2"
    with pytest.raises(HandshakeRefused) as refused:
        connect(application, "/rooms/a")
    assert (refused.value.status, refused.value.body) == (401, "log in first\n")
    assert ("WWW-Authenticate", "Basic") in refused.value.headers


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"application": "/echo"}, "application is a WSGI application, a callable, not '/echo'"),
        ({"subprotocols": "chat"}, r"subprotocols are several, such as \[\"chat\"\], not 'chat'"),
        ({"timeout": None}, "timeout is a number of seconds, not None"),
        ({"headers": {"X-Number": 1}}, r"headers are a dict, or pairs, of str, .*, not \('X-Number', 1\)"),
        ({"headers": ["Origin: http://localhost"]}, "headers are a dict, or pairs, of str, .*, not 'Origin: http"),
    ],
)
def test_what_a_client_cannot_be_opened_with_is_refused_in_words(application, given, said):
    with pytest.raises(TypeError, match=said):
        connect(**{"application": application, "path": "/echo", **given})


@pytest.mark.parametrize("path", ["echo", "ws://localhost/echo", ""])
def test_a_path_without_its_slash_is_no_path_that_nobody_has(application, path):
    with pytest.raises(ValueError, match="a path begins with a slash"):
        connect(application, path)


@pytest.mark.parametrize(
    ("path", "headers", "status", "body"),
    [
        ("/nowhere", {}, 404, "there is no WebSocket at this path"),
        ("/echo", {"Origin": "http://elsewhere.example"}, 403, "this origin may not open a WebSocket here"),
        ("/echo", {"Sec-WebSocket-Extensions": "?"}, 400, "malformed request for a WebSocket"),
        ("/echo", {"Host": ""}, 400, "one Host header"),
    ],
)
def test_a_refusal_is_an_exception_with_the_status_and_the_body(application, path, headers, status, body):
    with pytest.raises(HandshakeRefused, match=body) as refused:
        connect(application, path, headers=headers)
    assert refused.value.status == status
    assert body in refused.value.body


def test_a_page_of_the_same_host_may_connect(application):
    with connect(application, "/echo", headers={"Origin": "https://chat.example", "Host": "chat.example"}) as ws:
        ws.send("welcome")
        assert ws.receive() == "welcome"


def test_an_application_that_answers_with_a_page_has_no_websocket(handler):
    application = WebSocketMiddleware(page, handler)
    with pytest.raises(HandshakeRefused) as refused:
        connect(application, "/echo")
    assert (refused.value.status, refused.value.headers, refused.value.body) == (200, KEPT_PAGE, "a page at /echo")


def test_a_page_that_is_written_is_a_page_too_however_large():
    def application(environ, start_response):
        start_response("200 OK", [])(b"a" * 2**20)
        return [b" page"]

    with pytest.raises(HandshakeRefused) as refused:
        connect(application)
    assert refused.value.body == "a" * 2**20 + " page"


def test_an_application_that_answers_nothing_is_told_of():
    with pytest.raises(RuntimeError, match="the application has not called start_response for /echo"):
        connect(lambda environ, start_response: [], "/echo")


def test_what_the_application_raises_is_raised(application):
    with pytest.raises(RuntimeError, match="raised in __init__"):
        connect(application, "/unmakeable")


def test_nothing_is_left_open_where_the_application_raises():
    def application(environ, start_response):
        raise ValueError("raised in the application")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="raised in the application"):
            connect(application)
        gc.collect()
    assert not [warning for warning in caught if "unclosed <socket" in str(warning.message)]


def test_the_middlewares_around_are_on_the_way(application):
    def outer(environ, start_response):
        environ["HTTP_COOKIE"] = "from outside"

        def with_header(status, headers, exc_info=None):
            return start_response(status, [*headers, ("Set-Cookie", "seen=1")], exc_info)

        return application(environ, with_header)

    with connect(outer, "/rooms/a") as ws:
        assert ("Set-Cookie", "seen=1") in ws.headers
        ws.send("describe")
        assert ws.receive_json()[0] == "from outside"


def test_a_middleware_that_leaves_out_write_is_refused_as_on_uwsgi(application):
    def outer(environ, start_response):
        return application(environ, lambda status, headers: None)

    with pytest.raises(uwasp.ConfigurationError, match="not the write callable of PEP 3333"):
        connect(outer, "/echo")


def test_members_of_a_group_hear_each_other_as_soon_as_they_are_connected(application):
    with connect(application, "/rooms/a", user=1) as first, connect(application, "/rooms/a", user=2) as second:
        first.send("hello")
        assert (first.receive(), second.receive()) == ("hello", "hello")
        with connect(application, "/rooms/b", user=3) as other:
            second.send(b"again")
            assert (first.receive(), second.receive()) == (b"again", b"again")
            other.send("to myself")
            assert other.receive() == "to myself"
    assert len(ended) == 3


def test_the_test_itself_sends_to_a_group(application):
    with connect(application, "/rooms/a", user=1) as ws:
        room = Group("room", "a")
        room.send("from the test")
        assert ws.receive() == "from the test"
        assert [member.connections for member in ws.run(room.members)] == [1]
    assert room.members() == []


def test_what_is_no_message_is_not_sent(application):
    with connect(application, "/rooms/a", user=1) as ws:
        for wrong in (3, [1, 2], None):
            with pytest.raises(TypeError, match="a bytes-like object is required"):
                ws.send(wrong)
        ws.send("hello")
        assert ws.receive() == "hello"


def test_the_client_closes_and_the_server_has_been_told(application):
    with connect(application, "/rooms/a", user=1) as ws:
        ws.close(4001, "enough")
        assert ended == [("/rooms/a", 4001, "enough")]
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4001, "enough")
        with pytest.raises(ConnectionClosed, match="code 4001, reason 'enough'"):
            ws.send("too late")
    assert len(ended) == 1


def test_the_end_of_the_block_closes(application):
    with connect(application, "/rooms/a", user=1) as ws:
        pass
    assert ended == [("/rooms/a", 1000, "")]
    with pytest.raises(ConnectionClosed):
        ws.receive()


def test_the_server_closes(application):
    with connect(application, "/rooms/a", user=1) as ws:
        ws.send("first")
        ws.send("close")
        assert list(ws) == ["first"]
        assert (ws.closed, ws.close_code, ws.close_reason) == (True, 4002, "closed by the server")
    assert ended == [("/rooms/a", 4002, "closed by the server")]


def test_a_client_that_is_gone_without_a_word_is_1006(application):
    with connect(application, "/rooms/a", user=1) as ws:
        ws.terminate()
        assert ended == [("/rooms/a", 1006, "")]
        assert (ws.closed, ws.close_code) == (True, 1006)


def test_nothing_to_receive_is_a_timeout(application):
    with connect(application, "/echo", timeout=0.05) as ws:
        with pytest.raises(TimeoutError, match=r"waited 0.05 s for a message at /echo"):
            ws.receive()
        with pytest.raises(TimeoutError, match=r"waited 0 s"):
            ws.receive(timeout=0)
        ws.send("still there")
        assert ws.receive(5) == "still there"


def traceback_of(error):
    return "".join(traceback.format_exception(error))


def test_a_server_whose_init_does_not_call_that_of_server_is_told_so(handler, caplog):
    class Counts(Server):
        def __init__(self, ws):
            self.count = 0

        def on_message(self, message):
            self.ws.send(message)

    with connect(WebSocketMiddleware(page, handler, [("/counts", Counts)]), "/counts") as ws:
        ws.send("hello")
        with pytest.raises(ServerFailed):
            ws.receive()
    assert "(Counts.__init__ has not called super().__init__(ws), which sets self.ws)" in caplog.text


def test_a_failing_server_shows_its_traceback_at_the_next_call(application):
    with connect(application, "/rooms/a", user=1) as ws:
        ws.send("describe")
        assert ws.receive_json()[0] == 1
        ws.send("raise")
        with pytest.raises(ServerFailed, match="/rooms/a has raised ValueError: raised in on_message") as failed:
            ws.receive()
        shown = traceback_of(failed.value)
        assert 'raise ValueError("raised in on_message")' in shown
        assert shown.index("ValueError") < shown.index("direct cause") < shown.index("ServerFailed")
        assert ws.close_code == 1011
        with pytest.raises(ConnectionClosed):
            ws.receive()
    assert ended == [("/rooms/a", 1011, "internal error")]


def test_a_failing_server_shows_its_traceback_at_the_end_of_the_block(application):
    with pytest.raises(ServerFailed) as failed, connect(application, "/rooms/a", user=1) as ws:
        ws.send("raise")
    assert 'raise ValueError("raised in on_message")' in traceback_of(failed.value)


def test_a_failing_server_is_the_cause_of_what_the_test_raises_meanwhile(application):
    with (
        pytest.raises(AssertionError, match="something else") as raised,
        connect(application, "/rooms/raise-in-close", user=1),
    ):
        raise AssertionError("something else")
    assert 'raise KeyError("raised in on_close")' in traceback_of(raised.value)


def test_a_failing_on_open_shows_its_traceback(application):
    with connect(application, "/echo?raise") as ws, pytest.raises(ServerFailed) as failed:
        ws.send("anything")
    assert 'raise RuntimeError("raised in on_open")' in traceback_of(failed.value)


def test_a_failing_on_close_shows_its_traceback(application):
    ws = connect(application, "/rooms/raise-in-close", user=1)
    with pytest.raises(ServerFailed, match="raised in on_close"):
        ws.close()


def test_what_one_server_raises_is_not_told_to_anothers_client(application):
    with connect(application, "/rooms/a", user=1) as healthy:
        with pytest.raises(ServerFailed), connect(application, "/rooms/a", user=2) as failing:
            failing.send("raise")
        healthy.send("still here")
        assert healthy.receive() == "still here"


def test_no_clock_calls_what_every_is_above_and_the_test_does(application):
    calls = []

    @application.every(0.001)
    def tick(what="tick"):
        calls.append(threading.current_thread())
        Group("room", "a").send(what)
        return len(calls)

    with connect(application, "/rooms/a", user=1) as ws:
        assert ws.run(tick) == 1
        assert ws.receive() == "tick"
        assert ws.run(tick, "tock") == 2
        assert ws.receive() == "tock"
    assert len(calls) == 2


def test_what_is_run_raises_in_the_test(application):
    with connect(application, "/echo") as ws, pytest.raises(ZeroDivisionError):
        ws.run(lambda: 1 / 0)


def test_a_process_leaves_nothing_of_the_local_bus_behind():
    code = """
import uwasp, uwasp.testing
def room(ws):
    uwasp.Group("room").add(ws)
    for message in ws:
        uwasp.Group("room").send(message)
application = uwasp.WebSocketMiddleware(print, "threads", [("/room", room)])
with uwasp.testing.connect(application, "/room") as ws:
    ws.send("heard")
    print(ws.receive())
"""
    with tempfile.TemporaryDirectory(prefix="uwasp-") as folder:  # of pytest's, the path is too long for a socket
        env = {"TMPDIR": folder}
        run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert (run.stdout, run.stderr) == ("heard\n", "")
        assert [list(left.iterdir()) for left in Path(folder).iterdir()] == [[]]


# Functions


def echo(ws):
    for message in ws:
        if message == "raise":
            raise ValueError("raised in a function")
        ws.send(message)


async def async_echo(ws):
    async for message in ws:
        if message == "raise":
            raise ValueError("raised in a function")
        await ws.send(message)


def member(ws):
    room = Group("room", "functions")
    room.add(ws)
    for message in ws:
        room.send(message)


async def async_member(ws):
    from uwasp_asyncio import Group

    room = Group("room", "functions")
    await room.add(ws)
    async for message in ws:
        room.send(message)


def pushing(ws):
    ws.send("first")
    blocked.wait()


async def async_pushing(ws):
    import asyncio

    await ws.send("first")
    await asyncio.to_thread(blocked.wait)


blocked: threading.Event


@pytest.fixture
def functions(handler):
    global blocked
    kind = {"asyncio": (async_echo, async_member, async_pushing)}
    served = kind["asyncio"] if handler.runs == "coroutines" else (echo, member, pushing)
    waiter = handler.new_waiter
    blocked = threading.Event() if handler.runs == "coroutines" else waiter()
    yield WebSocketMiddleware(page, handler, zip(("/echo", "/member", "/pushing"), served, strict=True))
    blocked.set()


def test_a_function_converses(functions):
    with connect(functions, "/echo") as ws:
        ws.send("one")
        ws.send(b"two")
        assert (ws.receive(), ws.receive()) == ("one", b"two")


def test_functions_are_in_their_group_as_soon_as_they_receive(functions):
    with connect(functions, "/member") as first, connect(functions, "/member") as second:
        first.send("hello")
        assert (first.receive(), second.receive()) == ("hello", "hello")


def test_a_failing_function_shows_its_traceback(functions):
    with connect(functions, "/echo") as ws:
        ws.send("raise")
        with pytest.raises(ServerFailed) as failed:
            ws.receive()
        assert 'raise ValueError("raised in a function")' in traceback_of(failed.value)
        assert ws.close_code == 1011


def test_a_function_that_does_not_end_is_a_timeout_at_the_end(functions):
    ws = connect(functions, "/pushing", timeout=0.2)
    assert ws.receive() == "first"
    with pytest.raises(TimeoutError, match=r"waited 0.2 s for the server to end .* at /pushing") as raised:
        ws.close()
    assert ws.close_code == 1000
    assert re.search(r'; its server is here:\n  File ".*test_connect.py", line \d+, in \w*pushing\n', str(raised.value))


def test_a_timeout_says_where_a_function_receives_and_no_more(functions):
    with connect(functions, "/echo") as ws:
        with pytest.raises(TimeoutError, match="its server is here:") as raised:
            ws.receive(timeout=0.05)
        assert re.search(r"line \d+, in \w*echo\n    (async )?for message in ws:$", str(raised.value))


# What is particular about single handlers


def test_a_server_that_waits_in_on_open_can_be_waited_for_later(handler):
    if handler.__name__ not in ("GeventHandler", "ThreadHandler"):
        pytest.skip("nothing waits in on_open there")
    told = handler.new_waiter()

    class Waiting(Server):
        def on_open(self):
            told.wait()
            self.ws.send("told")

    application = WebSocketMiddleware(page, handler, [("/waiting", Waiting)])
    with pytest.raises(TimeoutError, match=r"on_open to return.*\(wait=False does not\)") as raised:
        connect(application, "/waiting", timeout=1)
    assert re.search(r"its server is here:\n.*, in on_open\n    told\.wait\(\)(\n|$)", str(raised.value))
    with connect(application, "/waiting", wait=False) as ws:
        told.set()
        assert ws.receive() == "told"


def test_events_of_async_def_run_and_fail_as_ever():
    class Async(Server):
        async def on_message(self, message):
            if message == "raise":
                raise ValueError("raised in async def")
            await self.ws.send(message)

    application = WebSocketMiddleware(page, "asyncio", [("/async", Async)])

    @application.every(1)
    async def tick():
        return "ticked"

    ws = connect(application, "/async")
    ws.send("echo")
    assert ws.receive() == "echo"
    assert ws.run(tick) == "ticked"
    ws.send("raise")
    with pytest.raises(ServerFailed) as failed:
        ws.receive()
    ws.close()
    assert 'raise ValueError("raised in async def")' in traceback_of(failed.value)


class OnTheLoopOfAsyncio(AsyncioHandler):
    new_event_loop = asyncio.SelectorEventLoop


@pytest.mark.parametrize("handler_class", ["asyncio", OnTheLoopOfAsyncio])
def test_a_timeout_says_what_a_task_awaits_or_what_holds_up_the_loop(handler_class):
    goes_on = threading.Event()

    class Waiting(Server):
        async def on_message(self, message):
            if message == "hold up":
                goes_on.wait(60)
            else:
                await self.somebody()

        async def somebody(self):
            while not goes_on.is_set():
                await asyncio.sleep(0.01)

    application = WebSocketMiddleware(page, handler_class, [("/waiting", Waiting)])

    @application.every(60)
    def tick():
        goes_on.wait(60)

    here = r"here:\n"
    with connect(application, "/waiting") as awaiting, connect(application, "/waiting", timeout=1) as holding_up:
        try:
            awaiting.send("await")
            with pytest.raises(TimeoutError, match=rf"its server is {here}.*, in on_message\n.*\n.*, in somebody\n"):
                awaiting.receive(timeout=1)
            with pytest.raises(TimeoutError, match=rf"tick at .* to return at /waiting; it is {here}.*, in tick\n"):
                holding_up.run(tick)
            holding_up.send("hold up")
            with pytest.raises(TimeoutError, match=rf"its server is {here}.*, in on_message\n    goes_on\.wait"):
                holding_up.receive(timeout=1)
        finally:
            goes_on.set()


@pytest.mark.parametrize("handler", ["asyncio", "gevent", "threads"])
def test_one_can_look_around_at_a_breakpoint(handler):
    code = f"""
import uwasp, uwasp.testing
class Stopped(uwasp.Server):
    def on_message(self, message):
        breakpoint()
        self.ws.send(message)
application = uwasp.WebSocketMiddleware(print, "{handler}", [("/stopped", Stopped)])
with uwasp.testing.connect(application, "/stopped", timeout=60) as ws:
    ws.send("hello")
    print("came back:", ws.receive())
"""
    answers = "p message.upper()\ncontinue\n"
    run = subprocess.run([sys.executable, "-c", code], input=answers, capture_output=True, text=True, check=True)
    assert "'HELLO'" in run.stdout
    assert run.stdout.endswith("came back: hello\n")


def test_greenlets_go_on_while_the_client_waits():
    import gevent

    def later(ws):
        for message in ws:
            gevent.sleep(0.01)
            ws.send(message)

    application = WebSocketMiddleware(page, "gevent", [("/later", later)])
    with connect(application, "/later") as ws:
        ticks = []
        ticking = gevent.spawn(lambda: [ticks.append(gevent.sleep(0.001)) for _ in range(5)])
        ws.send("now")
        assert ws.receive() == "now"
        assert len(ticks) == 5 or not ticking.dead


def test_gevent_that_has_patched_everything_is_waited_for_too():
    code = """
from gevent import monkey; monkey.patch_all()
import time, uwasp, uwasp.testing
def later(ws):
    for message in ws:
        time.sleep(0.01)
        ws.send(message)
application = uwasp.WebSocketMiddleware(print, "gevent", [("/later", later)])
with uwasp.testing.connect(application, "/later") as ws:
    ws.send("x" * 1_000_000)
    print(len(ws.receive()))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("1000000\n", "")


def test_a_handler_that_has_no_listener_says_so():
    class Nothing(uwasp.Handler):
        def handle(self, environ, protocol_name=None):
            return []

    application = WebSocketMiddleware(page, Nothing, [("/echo", Echo)])
    with pytest.raises(TypeError, match=r"Nothing has given the connection to no uwasp\.Listener"):
        connect(application, "/echo")


def test_an_application_with_a_router_of_its_own_is_tested_as_well(handler):
    def router(environ, start_response):
        params = {"name": environ["PATH_INFO"].strip("/")}
        return middleware.accept(environ, start_response, Room, params, [("Set-Cookie", "routed=1")])

    middleware = WebSocketMiddleware(router, handler)
    with connect(middleware, "/anywhere", user="ann") as ws:
        assert ("Set-Cookie", "routed=1") in ws.headers
        ws.send("describe")
        assert ws.receive_json()[3] == {"name": "anywhere"}
    with pytest.raises(HandshakeRefused) as refused:
        connect(middleware, "/anywhere")
    assert refused.value.status == 401
    assert ("Set-Cookie", "routed=1") in refused.value.headers


SENDS = """
import uwasp.testing
from uwasp import Group, WebSocketMiddleware
def page(environ, start_response):
    Group("room").send("hello")
    start_response("200 OK", [])
    return [b"sent"]
application = WebSocketMiddleware(page, "threads")
"""
ASKS = 'print(application({"SERVER_SOFTWARE": "%s", "PATH_INFO": "/"}, lambda *answer: None)[0].decode())'


@pytest.mark.parametrize(
    ("code", "is_warned"),
    [
        (ASKS % "WSGIServer/0.2 CPython/3.11.2", True),
        (ASKS % "Werkzeug/3.1.3", True),
        ((ASKS % "waitress").replace("{", '{"paste.testing": True, '), True),
        ("uwasp.testing.alone()\n" + ASKS % "waitress", False),
    ],
    ids=["wsgiref", "werkzeug", "webtest", "alone"],
)
def test_a_page_sends_to_a_group_where_the_application_is_only_tried(code, is_warned):
    run = subprocess.run([sys.executable, "-c", SENDS + code], capture_output=True, text=True, check=True)
    assert run.stdout == "sent\n"
    assert ("groups reach the WebSockets of this process alone" in run.stderr) is is_warned


def test_a_page_that_sends_to_a_group_under_another_server_is_told_that_nobody_would_hear_it():
    code = SENDS + ASKS % "waitress"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "nobody would hear what a group is sent here" in run.stderr
    assert "in a test, call uwasp.testing.alone()" in run.stderr
