"""Socket.IO's own, with its clients: what python-socketio and Flask-SocketIO promise holds on uWASP."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

from processes import Uwsgi
from socketio_clients import BOTH, POLLING, WEBSOCKET
from socketio_servers import APPLICATION, LOOP_OPTIONS, get


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler])
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def connect(uwsgi, new_client):
    """Connect a client: `connect(**keywords of Client.connect)`. The first that it hears is not left to it."""

    def make(**keywords):
        client = new_client()
        client.connect(f"http://{uwsgi.address}", **keywords)
        assert client.receive()[0] == "welcome"
        return client

    return make


ways = pytest.mark.parametrize("transports", [WEBSOCKET, BOTH, POLLING], ids=["websocket", "upgrade", "polling"])


@ways
def test_an_event_is_acknowledged_with_what_its_handler_returns(connect, transports):
    client = connect(transports=transports)
    assert client.call("echo", {"text": "Grüße", "list": [1, None]}) == {"text": "Grüße", "list": [1, None]}
    assert client.call("echo", "one", 2) == ["one", 2]


@ways
def test_binary_events_come_back_binary(connect, transports):
    client = connect(transports=transports)
    everything = bytes(range(256))
    assert client.call("echo", everything, "and text") == [everything, "and text"]
    client.emit("back", everything)
    assert client.receive() == ["back", everything]


@ways
def test_a_client_acknowledges_what_it_is_sent(connect, uwsgi, transports):
    connect(transports=transports).emit("ask", f"over {transports}")
    uwsgi.wait_for_output(f"answered: yes: over {transports}")


@ways
def test_what_is_emitted_to_a_room_comes_to_those_who_are_in_it(connect, transports):
    inside, speaker, outside = (connect(transports=transports) for _ in range(3))
    assert inside.call("join", "blue") == ["blue"]
    assert speaker.call("join", "blue") == ["blue"]
    speaker.emit("say", "blue", "hello")
    speaker.emit("to all", "bye")
    assert inside.receive() == ["said", "hello"]
    assert [client.receive() for client in (inside, speaker, outside)] == 3 * [["said", "bye"]]
    assert inside.call("leave", "blue") is True
    speaker.emit("say", "blue", "hello again")
    speaker.emit("to all", "the end")
    assert inside.receive() == ["said", "the end"]


@ways
def test_a_namespace_has_its_own_connection_and_events(connect, transports):
    assert connect(transports=transports, namespace="/chat").call("echo", "hello") == "/chat: hello"


@ways
def test_the_session_is_that_of_the_page_and_lasts_from_event_to_event(connect, uwsgi, transports):
    response = get(uwsgi, "/login/ada")[0]
    cookie = "; ".join(
        f"{name}={morsel.value}" for name, morsel in SimpleCookie(response.headers["Set-Cookie"]).items()
    )
    client = connect(transports=transports, cookie=cookie, query="page=7")
    get(uwsgi, "/pid")  # uWSGI has another request in the environ now
    assert client.call("remember", 5) is True
    assert client.call("recall") == ["ada", 5, "7"]
    assert connect(transports=transports).call("recall") == [None, None, None]


@ways
def test_a_view_emits(connect, uwsgi, transports):
    client = connect(transports=transports)
    assert client.call("join", f"of {transports[0]}") == [f"of {transports[0]}"]
    get(uwsgi, f"/emit/of%20{transports[0]}/news")
    assert client.receive() == ["said", "news"]


@ways
def test_a_background_task_sleeps_and_emits(connect, transports):
    client = connect(transports=transports)
    client.emit("count", 3)
    assert [client.receive() for _ in range(3)] == [["counted", number] for number in range(3)]


@ways
def test_a_fault_in_a_handler_ends_no_connection(connect, uwsgi, transports):
    client = connect(transports=transports)
    client.emit("raise")
    uwsgi.wait_for_output("LookupError: a fault of the application")
    assert client.call("echo", "still there") == "still there"


def test_a_connection_that_a_handler_refuses_learns_why(new_client, uwsgi):
    client = new_client()
    client.start(f"http://{uwsgi.address}", WEBSOCKET, "socket.io", "/", {"token": "wrong"}, "", "")
    assert client.state() == ("connect_error", "not with this token")


def test_a_server_of_python_socketio_has_its_environ_and_its_sessions(new_client, uwsgi):
    client = new_client()
    client.connect(f"http://{uwsgi.address}", path="plain", query="page=8")
    get(uwsgi, "/pid")
    first, second = client.call("query")
    assert "page=8" in first
    assert first == second
    assert client.call("echo", {"a": 1}) == {"a": 1}


def test_hundreds_of_events_and_a_large_one_are_answered(connect):
    client = connect()
    for number in range(300):
        client.emit("back", number)
    assert sorted(client.receive()[1] for _ in range(300)) == list(range(300))
    large = "x" * 900_000
    assert client.call("echo", large) == large
