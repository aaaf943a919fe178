"""The application's own router decides, and hands a request over: the rest holds as ever."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from websockets.exceptions import InvalidMessage, InvalidStatus
from websockets.sync.client import connect

from processes import LOOP_OPTIONS, Uwsgi

APPLICATION = Path(__file__).parent / "accepting.py"


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    uwsgi = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler], env={"UWASP_HANDLER": handler})
    yield uwsgi
    uwsgi.stop()


def refused(url, **keywords):
    with pytest.raises(InvalidStatus) as error:
        connect(url, **keywords)
    return error.value.response


def test_a_server_class_gets_what_the_router_has_found(uwsgi):
    with connect(f"{uwsgi.url}/rooms/blue") as client:
        assert client.recv(10) == "user of blue at /rooms/blue with {'name': 'blue'}"
        client.send("hello")
        assert client.recv(10) == "hello"


def test_further_headers_go_out_with_the_101_and_with_a_refusal(uwsgi):
    with connect(f"{uwsgi.url}/rooms/blue") as client:
        assert client.response.headers["Set-Cookie"] == "session=1; Path=/"
    response = refused(f"{uwsgi.url}/rooms/closed")
    assert response.status_code == 401
    assert response.headers["Set-Cookie"] == "session=1; Path=/"
    assert response.headers["WWW-Authenticate"] == "Basic"


def test_the_origin_and_the_limits_hold_as_ever(serve):
    uwsgi = serve(application=APPLICATION, middleware={"max_connections": 1})
    assert refused(f"{uwsgi.url}/rooms/blue", origin="https://elsewhere.example").status_code == 403
    with connect(f"{uwsgi.url}/rooms/blue"):
        assert refused(f"{uwsgi.url}/rooms/green").status_code == 503


def test_a_function_converses(uwsgi):
    with connect(f"{uwsgi.url}/echo") as client:
        client.send("hello")
        assert client.recv(10) == "hello"


def test_who_asks_for_no_websocket_is_told_that_there_is_nothing_else(uwsgi):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"http://{uwsgi.address}/echo", timeout=10)
    assert (error.value.code, error.value.headers["Upgrade"]) == (426, "websocket")
    assert urllib.request.urlopen(f"http://{uwsgi.address}/page", timeout=10).read() == b"plain"


def test_a_header_of_the_handshake_is_not_for_the_router_to_set(uwsgi):
    with pytest.raises(InvalidMessage):
        connect(f"{uwsgi.url}/wrong")
    uwsgi.wait_for_output("ValueError: Upgrade is set by uWASP")


def test_a_path_that_is_not_utf_8_has_no_websocket(uwsgi):
    assert refused(f"{uwsgi.url}/rooms/%FF").status_code == 404


def test_a_websocket_that_the_router_does_not_know_gets_the_application_s_answer(uwsgi):
    assert refused(f"{uwsgi.url}/page").status_code == 200


ELSEWHERE = "refused with RuntimeError: accept is called once for a request, in uWSGI's thread or greenlet of that"


def test_accept_is_for_the_thread_of_the_request_while_that_lasts(uwsgi):
    """Else uWSGI would crash, or answer another request."""
    before = uwsgi.output.count(ELSEWHERE)
    assert refused(f"{uwsgi.url}/thread").status_code == 200
    uwsgi.wait_for_output(ELSEWHERE, before + 2)
    with connect(f"{uwsgi.url}/echo") as client:
        client.send("hello")
        assert client.recv(10) == "hello"
    assert "Respawned" not in uwsgi.output


def test_accept_is_called_once_for_a_request(uwsgi):
    before = uwsgi.output.count(ELSEWHERE)
    with connect(f"{uwsgi.url}/twice") as client:
        uwsgi.wait_for_output(ELSEWHERE, before + 1)
        assert client.recv(10) == "user of blue at /twice with {'name': 'blue'}"
        client.send("unharmed")
        assert client.recv(10) == "unharmed"


def test_an_object_that_makes_servers_need_not_have_a_hash(uwsgi):
    with connect(f"{uwsgi.url}/maker") as client:
        client.send("hello")
        assert client.recv(10) == "hello"


def test_a_method_converses_that_has_conversation_above_it(uwsgi):
    with connect(f"{uwsgi.url}/talker", subprotocols=["talk"]) as client:
        client.send("ada")
        assert client.recv(10) == "hello, ada, by talk"
