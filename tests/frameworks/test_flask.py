"""Flask's own: what belongs to a request is there in its conversation, and ends with it."""

from __future__ import annotations

import json
import signal
import socket
import struct
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from documents import code_block
from processes import LOOP_OPTIONS, Uwsgi, wait_until
from raw import request

DOCUMENT = Path(__file__).parents[2] / "docs" / "flask.md"
APPLICATION = Path(__file__).parent / "flask_application.py"


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler])
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def serve(start_uwsgi, handler):
    """Start a uWSGI for one test: `serve(*options of uWSGI, sock={...})`."""

    def start(*options, sock=None, **keywords):
        env = {"UWASP_OPTIONS": json.dumps(sock or {})}
        return start_uwsgi(APPLICATION, *LOOP_OPTIONS[handler], *options, env=env, **keywords)

    return start


def get(uwsgi, path, cookie=""):
    """An answer to an ordinary request, and its body."""
    asked = urllib.request.Request(f"http://{uwsgi.address}{path}", headers={"Cookie": cookie})
    response = urllib.request.urlopen(asked, timeout=10)
    return response, response.read().decode()


def cookie_of(headers):
    return "; ".join(f"{name}={morsel.value}" for name, morsel in SimpleCookie(headers["Set-Cookie"]).items())


def log_in(uwsgi, name):
    return cookie_of(get(uwsgi, f"/login/{name}")[0].headers)


def refused(url, **keywords):
    with pytest.raises(InvalidStatus) as error:
        connect(url, **keywords)
    return error.value.response


def closed(client):
    """The close code and reason, once the server has closed."""
    with pytest.raises(ConnectionClosed) as ended:
        client.recv(10)
    return ended.value.rcvd.code, ended.value.rcvd.reason


def ask(client, message="?"):
    client.send(message)
    return json.loads(client.recv(10))


def test_a_function_receives_and_sends_text_and_binary(uwsgi):
    with connect(f"{uwsgi.url}/echo") as client:
        for message in ("text", b"binary", "", "ü" * 100_000):
            client.send(message)
            assert client.recv(10) == message


def test_receive_returns_none_when_the_time_passes(uwsgi):
    with connect(f"{uwsgi.url}/patient") as client:
        assert client.recv(10) == "None"
        client.send("end")
        assert closed(client) == (1000, "")


def test_who_closes_says_why(uwsgi):
    with connect(f"{uwsgi.url}/close") as client:
        assert client.recv(10) == "5"
        assert closed(client) == (4321, "for a reason")


def test_what_is_neither_text_nor_binary_is_not_sent_and_the_error_says_what_is(uwsgi):
    with connect(f"{uwsgi.url}/sends") as client:
        for given in ("NoneType", "int", "dict", "list"):
            expected = f"a message is a str (sent as text) or bytes-like (sent as binary), not {given}"
            assert client.recv(10) == expected
        for given in (b"bytes", b"bytearray", b"memoryview", b"array"):
            assert client.recv(10) == given
        assert closed(client) == (1000, "")


def test_connection_closed_has_the_reason_and_the_message_of_the_client(uwsgi):
    with connect(f"{uwsgi.url}/codes") as client:
        client.close(4001, "enough")
    uwsgi.wait_for_output("closed with 4001 enough, connected: False")
    uwsgi.wait_for_output("closed already")


def test_the_conversation_has_the_context_of_its_request(uwsgi):
    cookie = log_in(uwsgi, "ada")
    with connect(f"{uwsgi.url}/context?test=has", additional_headers={"Cookie": cookie}) as client:
        get(uwsgi, "/page")
        told = ask(client)
        assert told.pop("number") > 0
        assert told == {
            "app": "flask_application",
            "path": "/context",
            "args": "has",
            "rule": "/context",
            "path_info": "/context",
            "color": "blue",
            "user": "ada",
            "seen": 1,
            "mine": "kept",
            "is_open": True,
            "body": "",
        }


def test_what_was_opened_before_the_handshake_is_open_in_the_conversation(uwsgi):
    with connect(f"{uwsgi.url}/early") as client:
        assert client.recv(10) == "True"


def test_what_is_in_g_lives_as_long_as_the_conversation_and_is_torn_down_once(uwsgi):
    with connect(f"{uwsgi.url}/context?test=once") as client:
        number = ask(client)["number"]
        get(uwsgi, "/page?test=between")
        uwsgi.wait_for_output("tear down /page between")
        assert ask(client)["number"] == number
        assert f"closed database {number} " not in uwsgi.output
        assert "tear down /context once" not in uwsgi.output
    uwsgi.wait_for_output(f"closed database {number} after NoneType\n")
    get(uwsgi, "/page?test=after")
    uwsgi.wait_for_output("tear down /page after")
    assert uwsgi.output.count("tear down /context once after NoneType") == 1
    assert uwsgi.output.count(f"closed database {number} ") == 1


def test_the_conversation_waits_until_the_request_has_left_its_context(uwsgi):
    with connect(f"{uwsgi.url}/lingers") as client:
        assert client.recv(10) == "/lingers"


def test_a_conversation_reads_nothing_of_the_requests_that_come_after_its_own(serve):
    uwsgi = serve()
    with connect(f"{uwsgi.url}/context") as client, ThreadPoolExecutor(2) as pool:
        ask(client)
        posts = [pool.submit(urllib.request.urlopen, f"http://{uwsgi.address}/holds", b"body", 20) for _ in range(2)]
        uwsgi.wait_for_output("held", 2)
        assert ask(client)["body"] == ""
        (uwsgi.log.parent / "may-read").touch()
        assert [post.result().read() for post in posts] == [b"body", b"body"]


def test_two_conversations_have_two_contexts(uwsgi):
    with connect(f"{uwsgi.url}/context?test=one") as one, connect(f"{uwsgi.url}/context?test=two") as two:
        told = [ask(client) for client in (one, two, one, two)]
    assert [each["args"] for each in told] == ["one", "two", "one", "two"]
    assert told[0]["number"] == told[2]["number"] != told[1]["number"] == told[3]["number"]


def test_after_a_websocket_an_ordinary_request_finds_nothing_of_it(uwsgi):
    """As many as there are threads, so that each has had one; under gevent they are greenlets of one thread."""
    with ExitStack() as stack:
        for _ in range(20):
            ask(stack.enter_context(connect(f"{uwsgi.url}/context")))
        pages = [json.loads(get(uwsgi, "/page")[1]) for _ in range(20)]
    pages += [json.loads(get(uwsgi, "/page")[1]) for _ in range(20)]
    assert pages == [{"seen": 1, "leaked": []}] * 40


def test_an_error_reaches_what_tears_down_and_who_listens_for_errors(uwsgi):
    with connect(f"{uwsgi.url}/context?test=fails") as client:
        number = ask(client)["number"]
        client.send("fail")
        assert closed(client) == (1011, "internal error")
    uwsgi.wait_for_output("tear down /context fails after ValueError")
    uwsgi.wait_for_output(f"closed database {number} after ValueError")
    uwsgi.wait_for_output("flask_application heard of the conversation failed")
    uwsgi.wait_for_output("error in context, closing connection")


def test_a_refused_handshake_is_torn_down_at_once(uwsgi):
    response = refused(f"{uwsgi.url}/context?test=refused", origin="https://elsewhere.example")
    assert response.status_code == 403
    assert response.headers["X-After-Request"] == "101"
    uwsgi.wait_for_output("tear down /context refused after NoneType")
    assert json.loads(get(uwsgi, "/page")[1]) == {"seen": 1, "leaked": []}


def test_a_reload_in_the_middle_closes_with_1001_and_tears_down(serve):
    uwsgi = serve()
    with connect(f"{uwsgi.url}/context?test=reload") as client:
        number = ask(client)["number"]
        uwsgi.popen.send_signal(signal.SIGHUP)
        assert closed(client) == (1001, "")
    uwsgi.wait_for_output(f"closed database {number} after NoneType")
    uwsgi.wait_for_output("tear down /context reload after NoneType")
    uwsgi.wait_for_workers(2)
    with connect(f"{uwsgi.url}/echo") as client:
        client.send("again")
        assert client.recv(10) == "again"


def test_with_several_workers_groups_have_the_members_of_all(serve):
    uwsgi = serve("--processes", "3")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/member")) for _ in range(12)]
        for client in clients:  # each is a member when its own message comes back
            client.send("here")
            while client.recv(10) != "here":
                pass
        clients[0].send("to all")
        for client in clients:
            while client.recv(10) != "to all":
                pass
        for client in clients:  # what nobody has read holds up the closing handshake of old clients
            client.send("leave")
            for _ in client:  # ends with the connection
                pass


def test_the_cookie_of_the_session_and_the_headers_of_after_request_come_with_the_101(uwsgi):
    with connect(f"{uwsgi.url}/cookie") as client:
        assert client.recv(10) == "1"
        headers = client.response.headers
    assert (headers["X-After-Request"], headers["X-This-Request"]) == ("101", "yes")
    assert headers.get_all("Upgrade") == ["websocket"]
    assert "Content-Type" not in headers
    with connect(f"{uwsgi.url}/cookie", additional_headers={"Cookie": cookie_of(headers)}) as client:
        assert client.recv(10) == "2"


def test_what_a_conversation_changes_in_the_session_is_not_saved(uwsgi):
    cookie = log_in(uwsgi, "ada")
    with connect(f"{uwsgi.url}/context", additional_headers={"Cookie": cookie}) as client:
        ask(client, "change")
        assert "Set-Cookie" not in client.response.headers
    assert json.loads(get(uwsgi, "/outside", cookie)[1]) == {"color": "blue", "changed": None}


def test_converters_and_blueprints_are_flask_s_own(uwsgi):
    with connect(f"{uwsgi.url}/rooms/blue/41") as client:
        assert client.recv(10) == "blue 42 of rooms"
    assert refused(f"{uwsgi.url}/rooms/blue/no-number").status_code == 404


def test_view_args_are_as_the_view_had_them(uwsgi):
    """A url_value_preprocessor may have taken something out."""
    with connect(f"{uwsgi.url}/de/page/7") as client:
        assert client.recv(10) == "de {'number': 7}"


def test_a_before_request_refuses_before_the_handshake(uwsgi):
    assert refused(f"{uwsgi.url}/rooms/closed/1").status_code == 401
    response = refused(f"{uwsgi.url}/echo?key=wrong")
    assert (response.status_code, response.body) == (403, b"<h1>that key does not fit</h1>")
    assert response.headers["X-Answered-By"] == "the error handler"


def test_decorators_refuse_before_the_handshake(uwsgi):
    assert refused(f"{uwsgi.url}/private").status_code == 401
    with connect(f"{uwsgi.url}/private", additional_headers={"Cookie": log_in(uwsgi, "ada")}) as client:
        assert client.recv(10) == "ada"


@pytest.mark.parametrize(("path", "status"), [("/late", "403 FORBIDDEN"), ("/later", "302 FOUND")])
def test_who_refuses_in_the_conversation_closes_with_1008(uwsgi, path, status):
    with connect(f"{uwsgi.url}{path}") as client:
        assert closed(client) == (1008, status)
    uwsgi.wait_for_output(f"{path[1:]} answered {status} when the WebSocket was open already")


def test_an_after_request_can_answer_with_something_else(uwsgi):
    response = refused(f"{uwsgi.url}/context?test=stream&instead=stream")
    assert (response.status_code, response.body) == (409, b"instead of /context of the application")
    uwsgi.wait_for_output("tear down /context stream after NoneType")
    assert "was created in a different Context" not in uwsgi.output
    assert refused(f"{uwsgi.url}/context?instead=status").status_code == 410


def test_who_asks_for_no_websocket_gets_400_as_from_flask(uwsgi):
    with pytest.raises(urllib.error.HTTPError, match="400"):
        get(uwsgi, "/echo")


def test_a_page_has_no_websocket(uwsgi):
    assert refused(f"{uwsgi.url}/page").status_code == 400
    assert refused(f"{uwsgi.url}/nothing").status_code == 404


def test_the_logger_of_flask_writes_where_the_worker_s_errors_go(uwsgi):
    with connect(f"{uwsgi.url}/says") as client:
        client.send("nobody")
        closed(client)
    uwsgi.wait_for_output("said to nobody")


def test_what_copies_the_context_has_a_g_of_its_own(uwsgi):
    with connect(f"{uwsgi.url}/copies?test=copies") as client:
        assert client.recv(10) == "/copies False"
        assert client.recv(10) == "/copies True"
        assert uwsgi.output.count("tear down /copies copies") == 1  # that of the copy
    uwsgi.wait_for_output("tear down /copies copies", 2)


def test_a_stream_with_context_leaves_the_context_as_it_was(uwsgi):
    with connect(f"{uwsgi.url}/streams?test=streams") as client:
        assert client.recv(10) == "/streams 1"
        assert client.recv(10) == "True"
    uwsgi.wait_for_output("tear down /streams streams after NoneType")


def test_a_function_has_the_attributes_of_a_conversation(uwsgi):
    with connect(f"{uwsgi.url}/talks", subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.recv(10) == "chat.v2"
        client.send("12345678901")
        assert closed(client)[0] == 1009


def test_the_options_of_the_configuration_hold(serve):
    uwsgi = serve(sock={"max_message_size": 10, "subprotocols": ["chat.v1"], "ping_interval": 0})
    for path in ("/echo", "/elsewhere"):
        with connect(f"{uwsgi.url}{path}", subprotocols=["chat.v1"]) as client:
            assert client.subprotocol == "chat.v1"
            client.send("12345678901")
            assert closed(client)[0] == 1009


def test_the_limit_of_connections_holds_for_functions_and_classes_together(serve):
    uwsgi = serve(sock={"max_connections": 2})
    with connect(f"{uwsgi.url}/echo"), connect(f"{uwsgi.url}/elsewhere"):
        assert refused(f"{uwsgi.url}/echo").status_code == 503


def test_an_option_that_there_is_not_is_refused_when_the_application_loads(serve):
    uwsgi = serve(sock={"receive_bytes": 4096}, wait=False)
    uwsgi.wait_for_output("TypeError: SOCK_SERVER_OPTIONS: receive_bytes is about how simple-websocket reads and waits")


def test_each_event_of_a_class_has_a_context_of_its_own(uwsgi):
    cookie = log_in(uwsgi, "ada")
    with connect(f"{uwsgi.url}/class/blue?test=class", additional_headers={"Cookie": cookie}) as client:
        opened = json.loads(client.recv(10))
        uwsgi.wait_for_output(f"closed database {opened['number']} after NoneType")
        get(uwsgi, "/page")
        asked = ask(client, "asked")
        uwsgi.wait_for_output(f"closed database {asked['number']} after NoneType")
        assert opened.pop("number") != asked.pop("number")
        assert (opened.pop("message"), asked.pop("message")) == ("opened", "asked")
        assert (opened.pop("mine"), asked.pop("mine")) == (True, False)
        assert opened == asked
        assert opened == {
            "path": "/class/blue",
            "args": {"name": "blue"},
            "params": {"name": "blue"},
            "user": "blue",
            "color": "blue",
        }
        uwsgi.wait_for_output("tear down /class/blue class", 3)  # of the handshake, too
    uwsgi.wait_for_output("/class/blue is over in flask_application")


def test_an_error_in_an_event_reaches_what_tears_down(uwsgi):
    with connect(f"{uwsgi.url}/class/red?test=failing") as client:
        client.recv(10)
        client.send("fail")
        assert closed(client) == (1011, "internal error")
    uwsgi.wait_for_output("tear down /class/red failing after ValueError")
    uwsgi.wait_for_output("flask_application heard of an event failed")


def test_an_event_that_finds_its_connection_closed_is_no_error(uwsgi):
    with connect(f"{uwsgi.url}/class/red?test=closing") as client:
        client.recv(10)
        client.send("close")
        assert closed(client)[0] == 4000
    uwsgi.wait_for_output("tear down /class/red closing after NoneType", 4)  # handshake, on_open, on_message, on_close
    assert "tear down /class/red closing after ConnectionClosed" not in uwsgi.output


def test_what_a_class_takes_holds(uwsgi):
    with connect(f"{uwsgi.url}/class/blue") as client:
        client.recv(10)
        client.send(b"binary, for a Server[str]")
        assert closed(client)[0] == 1003


def test_a_class_can_come_from_elsewhere(uwsgi):
    with connect(f"{uwsgi.url}/elsewhere") as client:
        client.send("hello")
        assert client.recv(10) == "elsewhere hello None"


def test_a_client_that_is_gone_before_its_handshake_is_answered_has_no_conversation(serve):
    uwsgi = serve()
    with socket.create_connection(("127.0.0.1", uwsgi.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        client.sendall(request("/gone?test=gone"))
        uwsgi.wait_for_output("/gone was asked for")
    (uwsgi.log.parent / "is-gone").touch()
    uwsgi.wait_for_output("tear down /gone gone after NoneType")
    wait_until(lambda: json.loads(get(uwsgi, "/left")[1]) == {"visits": 0, "contexts": 0}, "all to be gone")
    assert "a conversation with nobody" not in uwsgi.output


def test_nothing_is_left_of_requests_whose_websockets_are_closed(serve):
    uwsgi = serve()
    cookie = log_in(uwsgi, "ada")
    for path in ("/context", "/echo", "/class/blue", "/fails", "/late", "/elsewhere") * 3:
        with connect(f"{uwsgi.url}{path}", additional_headers={"Cookie": cookie}):
            pass
    refused(f"{uwsgi.url}/echo?key=wrong")
    refused(f"{uwsgi.url}/echo", origin="https://elsewhere.example")
    wait_until(lambda: json.loads(get(uwsgi, "/left")[1]) == {"visits": 0, "contexts": 0}, "all to be gone")


def test_the_program_of_the_document_runs(start_uwsgi, handler, tmp_path):
    program = tmp_path / "rooms.py"
    program.write_text(code_block(DOCUMENT, "python", "# rooms.py"))
    uwsgi = start_uwsgi(program, *LOOP_OPTIONS[handler], "--processes", "2", "--callable", "app")
    assert refused(f"{uwsgi.url}/rooms/blue").status_code == 401
    with ExitStack() as stack:
        clients = []
        for name in ("ada", "bob", "eve"):
            with urllib.request.urlopen(f"http://{uwsgi.address}/names/{name}", b"", timeout=10) as response:
                cookie = {"Cookie": cookie_of(response.headers)}
            clients.append(stack.enter_context(connect(f"{uwsgi.url}/rooms/blue", additional_headers=cookie)))
            clients[-1].send("here")
            assert clients[-1].recv(10) == f"{name}: here"
        clients[2].send("hello")
        for client in clients:
            while client.recv(10) != "eve: hello":
                pass


PROGRAM = """
import uwasp
from flask import Flask
from uwasp_flask import Sock


class FewThreads(uwasp.HANDLER):
    max_conversations = 1


app = application = Flask("program")
sock = Sock(app, handler_class=FewThreads)


@sock.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)


app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": 10}
"""


@pytest.fixture
def small(start_uwsgi, handler, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("HANDLER", {"threads": "ThreadHandler", "gevent": "GeventHandler"}[handler]))
    return start_uwsgi(program, *LOOP_OPTIONS[handler])


def test_the_handler_can_be_another_class(small):
    with connect(f"{small.url}/echo") as client:
        client.send("one")
        assert client.recv(10) == "one"
        assert refused(f"{small.url}/echo").status_code == 503


def test_an_option_that_is_set_later_holds_for_who_comes_then(small):
    with connect(f"{small.url}/echo") as client:
        client.send("12345678901")
        assert closed(client)[0] == 1009
