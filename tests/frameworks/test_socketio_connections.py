"""The connections beneath Socket.IO: packets of Engine.IO, byte by byte where a client misbehaves, and how they end."""

from __future__ import annotations

import http.client
import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from inspect import signature

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from processes import ACCEPTING, Uwsgi, wait_until
from socketio_clients import BOTH, POLLING, WEBSOCKET
from socketio_servers import APPLICATION, LOOP_OPTIONS, environment, figures

ENGINE = "/engine.io/?EIO=4"
FLASK = "/socket.io/?EIO=4"


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler])
    yield uwsgi
    uwsgi.stop()


@pytest.fixture
def serve(start_uwsgi, handler):
    """Start a uWSGI for one test: `serve(*options of uWSGI, server={...}, ...)`."""

    def start(*options, wait=True, **given):
        return start_uwsgi(APPLICATION, *LOOP_OPTIONS[handler], *options, env=environment(**given), wait=wait)

    return start


@contextmanager
def opened(uwsgi, path=ENGINE, **keywords):
    """A WebSocket, of which the first packet is there."""
    with connect(f"{uwsgi.url}{path}&transport=websocket", **keywords) as client:
        assert client.recv(10).startswith("0{")
        yield client


def closed(client):
    """The close code and reason, once the server has closed."""
    with pytest.raises(ConnectionClosed) as ended:
        client.recv(10)
    return ended.value.rcvd.code, ended.value.rcvd.reason


def answer(uwsgi, method, path, body=None, **headers):
    """The status and the body of an answer to a request of HTTP."""
    asked = http.client.HTTPConnection(uwsgi.address, timeout=10)
    asked.request(method, path, body, headers)
    response = asked.getresponse()
    return response.status, response.read().decode()


def polling(uwsgi, path=ENGINE):
    """The name of a session that polls."""
    status, packet = answer(uwsgi, "GET", f"{path}&transport=polling")
    assert status == 200
    return json.loads(packet[1:])["sid"]


def next_message(client):
    """The next that is more than what ends a poll."""
    while (packet := client.recv(10)) == "6":
        pass
    return packet


@contextmanager
def joined(uwsgi, room, **keywords):
    """A client of Flask-SocketIO in a room, in the packets of Socket.IO's protocol."""
    with opened(uwsgi, FLASK, **keywords) as client:
        client.send("40")
        assert [packet[:3] for packet in sorted((client.recv(10), client.recv(10)))] == ["40{", "42["]
        client.send(f'420["join","{room}"]')
        assert client.recv(10) == f'430[["{room}"]]'
        yield client


def test_a_server_of_python_engineio_alone(uwsgi):
    with connect(f"{uwsgi.url}{ENGINE}&transport=websocket") as client:
        session = json.loads(client.recv(10)[1:])
        assert (session["upgrades"], session["maxPayload"]) == ([], 1_000_000)
        for message in ("4text", b"binary", "4", "4ü"):
            client.send(message)
            assert client.recv(10) == message


def test_engine_io_refuses_before_the_handshake(uwsgi):
    with pytest.raises(InvalidStatus) as error:
        connect(f"{uwsgi.url}{ENGINE}&transport=websocket&refuse")
    assert error.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as error:
        connect(f"{uwsgi.url}{ENGINE}&transport=websocket", origin="http://elsewhere")
    assert error.value.response.status_code == 400
    assert error.value.response.body == b'"Not an accepted origin."'


def test_the_origins_are_those_of_the_socket_io_server(serve):
    uwsgi = serve(server={"cors_allowed_origins": ["http://page"]})
    with opened(uwsgi, origin="http://page"):
        pass
    with pytest.raises(InvalidStatus):
        connect(f"{uwsgi.url}{ENGINE}&transport=websocket", origin=f"http://{uwsgi.address}")


@pytest.mark.parametrize("path", [ENGINE, FLASK])
def test_a_handshake_that_is_none_leaves_no_session(uwsgi, path):
    before = figures(uwsgi)["sockets"]
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    status, body = answer(uwsgi, "GET", f"{path}&transport=websocket", None, **headers)
    assert (status, "Sec-WebSocket-Key" in body) == (400, True)
    assert figures(uwsgi)["sockets"] == before


def test_no_session_is_left_of_connections_that_have_ended(serve):
    uwsgi = serve()
    with ExitStack() as clients:
        for _ in range(10):
            clients.enter_context(opened(uwsgi))
        assert figures(uwsgi)["sockets"]["engine"] == 10
    wait_until(lambda: figures(uwsgi)["sockets"]["engine"] == 0, "the sessions to end")
    assert figures(uwsgi)["open"] == 0


def test_the_server_learns_why_a_connection_has_ended(serve):
    uwsgi = serve()
    with opened(uwsgi) as client:
        client.send("1")
        assert closed(client) == (1000, "")
    uwsgi.wait_for_output("engine disconnected: client disconnect")
    with opened(uwsgi) as client, opened(uwsgi) as other:
        client.send("4who")
        other.send(f"4close {client.recv(10)[1:]}")
        assert client.recv(10) == "1"
        assert closed(client) == (1000, "")
    uwsgi.wait_for_output("engine disconnected: server disconnect")
    uwsgi.wait_for_output("engine disconnected: transport close")  # that of the other
    with opened(uwsgi) as client:
        client.socket.shutdown(socket.SHUT_RDWR)
        uwsgi.wait_for_output("engine disconnected: transport close", 2)


def test_a_client_that_does_not_answer_pings_is_disconnected_and_one_that_does_is_not(serve):
    uwsgi = serve(server={"ping_interval": 0.2, "ping_timeout": 0.5})
    with opened(uwsgi) as silent, opened(uwsgi) as alive:
        for _ in range(8):
            assert alive.recv(10) == "2"
            alive.send("3")
        assert silent.recv(10) == "2"
        assert closed(silent) == (1000, "")
        uwsgi.wait_for_output("engine disconnected: ping timeout")
        alive.send("4still there")
        assert "4still there" in (alive.recv(10), alive.recv(10))


def test_pings_and_the_size_of_messages_are_those_of_the_socket_io_server(serve):
    uwsgi = serve(server={"max_http_buffer_size": 1000})
    with opened(uwsgi) as client, opened(uwsgi) as other:
        assert figures(uwsgi)["options"] == [[None, 1000], [None, 1000]]
        client.send("4" + 999 * "x")
        assert client.recv(10) == "4" + 999 * "x"
        client.send("4" + 1000 * "x")
        assert closed(client)[0] == 1009
        other.send("4still there")
        assert other.recv(10) == "4still there"


@pytest.mark.parametrize("packet", ["", "x", "4" + 100_000 * "["], ids=["empty", "no-packet", "nested"])
def test_what_is_no_packet_closes_its_connection_alone(uwsgi, packet):
    with opened(uwsgi) as client, opened(uwsgi) as other:
        client.send(packet)
        assert closed(client) == (1002, "no packet of Engine.IO")
        other.send("4still there")
        assert other.recv(10) == "4still there"


def test_a_packet_that_is_not_for_a_server_is_passed_over(uwsgi):
    with opened(uwsgi) as client:
        client.send("0{}")
        client.send("4still there")
        assert client.recv(10) == "4still there"


def test_a_session_that_polls_is_upgraded_once(uwsgi):
    sid = polling(uwsgi)
    url = f"{uwsgi.url}{ENGINE}&transport=websocket&sid={sid}"
    with connect(url) as first, connect(url) as second, ThreadPoolExecutor() as pool:
        poll = pool.submit(answer, uwsgi, "GET", f"{ENGINE}&transport=polling&sid={sid}")
        for client in (first, second):
            client.send("2probe")
            assert client.recv(10) == "3probe"
        assert poll.result(10) == (200, "6")
        first.send("5")
        first.send("4over the first")
        assert next_message(first) == "4over the first"
        second.send("5")
        assert closed(second) == (1002, "another WebSocket has been faster")
        assert answer(uwsgi, "POST", f"{ENGINE}&transport=polling&sid={sid}", "")[0] == 400  # whose body nobody reads
        first.send("4still there")
        assert first.recv(10) == "4still there"


def test_an_upgrade_that_fails_leaves_the_session_polling(uwsgi):
    sid = polling(uwsgi)
    with connect(f"{uwsgi.url}{ENGINE}&transport=websocket&sid={sid}") as client:
        client.send("4too early")
        assert closed(client) == (1002, "not the packet that an upgrade has here")
    with connect(f"{uwsgi.url}{ENGINE}&transport=websocket&sid={sid}") as client:
        client.send("2probe")
        assert client.recv(10) == "3probe"
    assert answer(uwsgi, "POST", f"{ENGINE}&transport=polling&sid={sid}", "4over polls")[0] == 200
    polls = ""
    while "4over polls" not in polls:  # what ends the poll of an upgrade comes before
        polls += answer(uwsgi, "GET", f"{ENGINE}&transport=polling&sid={sid}")[1]


def test_what_is_sent_while_a_session_is_upgraded_comes_after_it(uwsgi):
    sid = polling(uwsgi)
    with connect(f"{uwsgi.url}{ENGINE}&transport=websocket&sid={sid}") as client:
        client.send("2probe")
        assert client.recv(10) == "3probe"
        for number in range(20):
            assert answer(uwsgi, "POST", f"{ENGINE}&transport=polling&sid={sid}", f"4{number}")[0] == 200
        client.send("5")
        assert [next_message(client) for _ in range(20)] == [f"4{number}" for number in range(20)]


def test_a_websocket_that_never_upgrades_ends_with_its_session(uwsgi):
    sid = polling(uwsgi)
    with connect(f"{uwsgi.url}{ENGINE}&transport=websocket&sid={sid}") as client:
        client.send("2probe")
        assert client.recv(10) == "3probe"
        assert answer(uwsgi, "POST", f"{ENGINE}&transport=polling&sid={sid}", "1")[0] == 200
        assert closed(client) == (1000, "")


def test_a_poll_waits_for_two_seconds_at_most(uwsgi):
    sid = polling(uwsgi)
    assert answer(uwsgi, "GET", f"{ENGINE}&transport=polling&sid={sid}") == (200, "6")
    assert answer(uwsgi, "POST", f"{ENGINE}&transport=polling&sid={sid}", "4hello")[0] == 200
    assert answer(uwsgi, "GET", f"{ENGINE}&transport=polling&sid={sid}") == (200, "4hello")


def test_an_unknown_session_is_refused_with_what_it_may_be(uwsgi):
    status, body = answer(uwsgi, "GET", f"{ENGINE}&transport=polling&sid=unknown")
    assert status == 400
    assert "this process has no session of that name" in body
    assert "all requests of a client have to come to one process" in body


def test_polling_is_refused_with_words_where_the_server_has_none(serve):
    uwsgi = serve(server={"transports": ["websocket"]})
    status, body = answer(uwsgi, "GET", f"{FLASK}&transport=polling")
    assert status == 400
    assert 'say transports: ["websocket"] to the client' in json.loads(body)
    uwsgi.wait_for_output("a client that polls got 400: this server has no polling, only WebSockets")
    with opened(uwsgi, FLASK):
        pass


def test_an_idle_connection_costs_no_thread(serve, handler):
    uwsgi = serve(server={"ping_interval": 600})
    with ExitStack() as clients:
        for _ in range(60):
            clients.enter_context(joined(uwsgi, "idle"))
        # Those that have handled the events may be there still.
        wait_until(lambda: len(figures(uwsgi)["threads"]) < 30, "fewer threads than connections")
        assert figures(uwsgi)["open"] == 60
    assert figures(uwsgi)["async_mode"] == {"threads": "threading", "gevent": "gevent"}[handler]


reads_little = pytest.mark.skipif(
    "max_queue" not in signature(ClientConnection).parameters, reason="before websockets 14 it reads all it can"
)


@reads_little
def test_a_client_that_does_not_read_holds_nobody_up_and_gets_all_in_the_end(serve):
    uwsgi = serve()
    with joined(uwsgi, "flood", max_queue=1) as slow, joined(uwsgi, "flood") as quick:
        quick.send('421["flood","flood",200]')
        received = [quick.recv(10) for _ in range(201)]
        assert received.count("431[200]") == 1
        assert {len(packet) for packet in received} == {len("431[200]"), 100_000 + len('42["said",""]')}
        assert [len(slow.recv(10)) for _ in range(200)] == 200 * [100_000 + len('42["said",""]')]
        slow.send('422["echo","still there"]')
        assert slow.recv(10) == '432["still there"]'


@reads_little
def test_a_client_that_reads_nothing_for_long_is_cut(serve):
    uwsgi = serve(install={"send_timeout": 0.5})
    with joined(uwsgi, "flood", max_queue=1), joined(uwsgi, "flood") as quick:
        quick.send('421["flood","flood",200]')
        for _ in range(201):
            quick.recv(10)
        uwsgi.wait_for_output("does not read: cut after 0.5 s")
        uwsgi.wait_for_output("disconnected: transport close")


def test_messages_are_compressed_if_uwasp_is_told_so(serve):
    uwsgi = serve(install={"compression": "deflate"})
    with opened(uwsgi) as client:
        assert client.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        client.send("4" + 1000 * "much of the same ")
        assert client.recv(10) == "4" + 1000 * "much of the same "


def test_a_stop_is_a_goodbye(serve):
    uwsgi = serve()
    with opened(uwsgi) as client, ThreadPoolExecutor() as pool:
        ending = pool.submit(closed, client)
        uwsgi.stop()
        assert ending.result(10)[0] == 1001
    assert "engine disconnected: transport close" in uwsgi.output


@pytest.mark.parametrize("transports", [WEBSOCKET, BOTH, POLLING], ids=["websocket", "upgrade", "polling"])
def test_clients_come_back_after_a_reload(serve, new_client, transports):
    uwsgi = serve()
    client = new_client()
    client.connect(f"http://{uwsgi.address}", transports)
    before = client.receive()[1]["pid"]
    uwsgi.popen.send_signal(signal.SIGHUP)
    uwsgi.wait_for_output(ACCEPTING, 2)
    states = []
    while "connect" not in states:
        states.append(client.state()[0])
    assert states[0] == "disconnect"
    assert client.receive()[1]["pid"] != before
    assert client.call("echo", "back") == "back"
