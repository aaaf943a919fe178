"""Who may stay until a certain time is told when that is over, or asked for again."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.frames import Opcode

from one_thread import LOOP_OPTIONS
from processes import Uwsgi, wait_until
from raw import RawClient, frame

APPLICATION = Path(__file__).parent / "sessions.py"
OVER = (3000, "the session is over")
SLACK = 2.0  # seconds, for a machine under load


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": "{}"}
    process = Uwsgi(APPLICATION, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler], env=env)
    yield process
    process.stop()


class Client(RawClient):
    def user(self):
        """Whom its server takes it for: at first, and now."""
        self.send(frame(Opcode.TEXT, b"user"))
        return self.recv().data.decode()

    def echoes(self):
        self.send(frame(Opcode.TEXT, b"hello"))
        return self.recv().data == b"hello"


def status(client):
    return int(client.head.split()[1])


def asked(uwsgi, query):
    return re.findall(rf"^session asked {re.escape(query)} (.*)$", uwsgi.output, re.MULTILINE)


@pytest.mark.parametrize("server", ["Closed", "ClosedByDatetime"])
def test_the_connection_is_closed_when_its_time_is_over_and_not_before(uwsgi, server):
    begin = time.time()
    with Client(uwsgi.port, f"/{server}?1&{server}") as client:
        assert client.user() == "Ada Ada"
        assert client.recv_close() == OVER
        assert 0.9 < time.time() - begin < 1 + SLACK
    uwsgi.wait_for_output(f"session closed 1&{server} 3000 the session is over")


def test_a_conversation_ends_when_its_time_is_over(uwsgi):
    with Client(uwsgi.port, "/talk?1") as client:
        client.send(frame(Opcode.TEXT, b"hello"))
        assert client.recv().data == b"Ada: hello"
        assert client.recv_close() == OVER
    uwsgi.wait_for_output("session talked until 3000")


def test_one_that_is_closed_before_is_closed_once(uwsgi):
    with Client(uwsgi.port, "/Closed?1&once") as client:
        client.send(frame(Opcode.CLOSE, b"\x03\xe8"))
        assert client.recv_close()[0] == 1000
    uwsgi.wait_for_output("session closed 1&once 1000")
    with Client(uwsgi.port, "/Closed?1.2&another") as client:  # until the time of the first is over
        assert client.recv_close() == OVER
    assert uwsgi.output.count("session closed 1&once") == 1


@pytest.mark.parametrize("seconds", [0, -3600, -1e12])
def test_a_time_in_the_past_refuses_the_handshake_with_401(uwsgi, seconds):
    with Client(uwsgi.port, f"/Closed?{seconds}") as client:
        assert status(client) == 401
        assert 'WWW-Authenticate: Bearer error="invalid_token"' in client.head.split("\r\n")
        assert b"the session is over" in client.received


def test_a_time_without_a_zone_lets_nobody_in_and_says_why(uwsgi):
    with pytest.raises(EOFError):
        Client(uwsgi.port, "/Naive?1")
    uwsgi.wait_for_output(
        "ValueError: until is a Unix time in seconds, or a datetime with a time zone; datetime.datetime("
    )


def test_a_time_far_away_is_one(uwsgi):
    with Client(uwsgi.port, f"/Closed?{86400 * 365}") as client:
        assert client.echoes()
    with Client(uwsgi.port, f"/Closed?{86400 * 365 * 1000}") as client:
        assert client.echoes()


def test_another_allowed_prolongs_and_the_user_is_as_it_says(uwsgi):
    begin = time.time()
    with Client(uwsgi.port, "/Prolongs?0.5") as client:
        assert client.user() == "Ada Ada"
        wait_until(lambda: client.user() == "Ada Ada 2", "the user to be another")
        wait_until(lambda: client.user() == "Ada Ada 3", "the user to be another")
        assert client.recv_close() == OVER
        assert 1.9 < time.time() - begin < 2 + SLACK
    assert len(asked(uwsgi, "0.5")) == 4


def test_another_value_lets_on_without_an_end(uwsgi):
    with Client(uwsgi.port, "/LetsOn?0.3") as client:
        wait_until(lambda: client.user() == "Ada Ada 2", "the user to be another")
        with Client(uwsgi.port, "/Closed?1&meanwhile") as other:
            assert other.recv_close() == OVER
        assert client.user() == "Ada Ada 2"
    assert len(asked(uwsgi, "0.3")) == 2


REFUSALS = {
    "Refuses": "is no longer allowed: 403",
    "ReturnsFalse": "is no longer allowed: 403",
    "IsOver": "is no longer allowed: it has returned an Allowed of which the time is over",
    "Raises": "error in Raises.authorize, asked again for connection",
}


@pytest.mark.parametrize("server", REFUSALS)
def test_a_refusal_closes_and_is_logged_by_its_kind(uwsgi, server):
    before = uwsgi.output.count(REFUSALS[server])
    with Client(uwsgi.port, f"/{server}?0.3&{server}") as client:
        assert client.echoes()
        assert client.recv_close() == OVER
    assert len(asked(uwsgi, f"0.3&{server}")) == 2
    uwsgi.wait_for_output(REFUSALS[server], before + 1)


def test_while_it_is_asked_again_nobody_waits(uwsgi):
    with Client(uwsgi.port, "/Slow?0.3") as client, Client(uwsgi.port, "/Echo") as other:
        uwsgi.wait_for_output("session asked 0.3 2")
        begin = time.monotonic()
        for _ in range(20):
            assert other.echoes()
            assert client.echoes()
        assert time.monotonic() - begin < 0.8
        wait_until(lambda: client.user() == "Ada Ada, after a while", "the answer")
    where = asked(uwsgi, "0.3")[-1]
    assert "uwasp-listener" not in where
    assert where.endswith("not in the hub")


def test_one_that_does_not_answer_is_closed_after_ten_seconds(uwsgi):
    begin = time.monotonic()
    with Client(uwsgi.port, "/Hangs?0.3") as client:
        client.socket.settimeout(20)
        assert client.recv_close() == OVER
    assert 9 < time.monotonic() - begin < 10.3 + SLACK
    uwsgi.wait_for_output("Hangs.authorize has not answered for 10.0 s")


def test_the_code_is_in_the_figures(uwsgi):
    with Client(uwsgi.port, "/Closed?0.1&counted") as client:
        assert client.recv_close() == OVER
    with urlopen(f"http://{uwsgi.address}/", timeout=10) as response:
        assert json.load(response)["3000"] >= 1
