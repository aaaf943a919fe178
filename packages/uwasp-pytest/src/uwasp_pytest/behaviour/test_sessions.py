"""Who may stay until a certain time is told when that is over, or asked for again."""

from __future__ import annotations

import json
import re
import time
from urllib.request import urlopen

import pytest
from websockets.frames import Opcode

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until

OVER = (3000, "the session is over")
SLACK = 2.0  # seconds, for a machine under load


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "sessions.py"


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


def asked(server, query):
    return re.findall(rf"^session asked {re.escape(query)} (.*)$", server.output, re.MULTILINE)


@pytest.mark.parametrize("kind", ["Closed", "ClosedByDatetime"])
def test_the_connection_is_closed_when_its_time_is_over_and_not_before(server, kind):
    begin = time.time()
    with Client(server.port, f"/{kind}?1&{kind}") as client:
        assert client.user() == "Ada Ada"
        assert client.recv_close() == OVER
        assert 0.9 < time.time() - begin < 1 + SLACK
    server.wait_for_output(f"session closed 1&{kind} 3000 the session is over")


def test_a_conversation_ends_when_its_time_is_over(server):
    with Client(server.port, "/talk?1") as client:
        client.send(frame(Opcode.TEXT, b"hello"))
        assert client.recv().data == b"Ada: hello"
        assert client.recv_close() == OVER
    server.wait_for_output("session talked until 3000")


def test_one_that_is_closed_before_is_closed_once(server):
    with Client(server.port, "/Closed?1&once") as client:
        client.send(frame(Opcode.CLOSE, b"\x03\xe8"))
        assert client.recv_close()[0] == 1000
    server.wait_for_output("session closed 1&once 1000")
    with Client(server.port, "/Closed?1.2&another") as client:  # until the time of the first is over
        assert client.recv_close() == OVER
    assert server.output.count("session closed 1&once") == 1


@pytest.mark.parametrize("seconds", [0, -3600, -1e12])
def test_a_time_in_the_past_refuses_the_handshake_with_401(server, seconds):
    with Client(server.port, f"/Closed?{seconds}") as client:
        assert status(client) == 401
        assert 'WWW-Authenticate: Bearer error="invalid_token"' in client.head.split("\r\n")
        assert b"the session is over" in client.received


def test_a_time_without_a_zone_lets_nobody_in_and_says_why(server):
    with pytest.raises(EOFError):
        Client(server.port, "/Naive?1")
    server.wait_for_output(
        "ValueError: until is a Unix time in seconds, or a datetime with a time zone; datetime.datetime("
    )


def test_a_time_far_away_is_one(server):
    with Client(server.port, f"/Closed?{86400 * 365}") as client:
        assert client.echoes()
    with Client(server.port, f"/Closed?{86400 * 365 * 1000}") as client:
        assert client.echoes()


def test_another_allowed_prolongs_and_the_user_is_as_it_says(server):
    begin = time.time()
    with Client(server.port, "/Prolongs?0.5") as client:
        assert client.user() == "Ada Ada"
        wait_until(lambda: client.user() == "Ada Ada 2", "the user to be another")
        wait_until(lambda: client.user() == "Ada Ada 3", "the user to be another")
        assert client.recv_close() == OVER
        assert 1.9 < time.time() - begin < 2 + SLACK
    assert len(asked(server, "0.5")) == 4


def test_another_value_lets_on_without_an_end(server):
    with Client(server.port, "/LetsOn?0.3") as client:
        wait_until(lambda: client.user() == "Ada Ada 2", "the user to be another")
        with Client(server.port, "/Closed?1&meanwhile") as other:
            assert other.recv_close() == OVER
        assert client.user() == "Ada Ada 2"
    assert len(asked(server, "0.3")) == 2


REFUSALS = {
    "Refuses": "is no longer allowed: 403",
    "ReturnsFalse": "is no longer allowed: 403",
    "IsOver": "is no longer allowed: it has returned an Allowed of which the time is over",
    "Raises": "error in Raises.authorize, asked again for connection",
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_closes_and_is_logged_by_its_kind(server, kind):
    before = server.output.count(REFUSALS[kind])
    with Client(server.port, f"/{kind}?0.3&{kind}") as client:
        assert client.echoes()
        assert client.recv_close() == OVER
    assert len(asked(server, f"0.3&{kind}")) == 2
    server.wait_for_output(REFUSALS[kind], before + 1)


def test_while_it_is_asked_again_nobody_waits(server):
    with Client(server.port, "/Slow?0.3") as client, Client(server.port, "/Echo") as other:
        server.wait_for_output("session asked 0.3 2")
        begin = time.monotonic()
        for _ in range(20):
            assert other.echoes()
            assert client.echoes()
        assert time.monotonic() - begin < 0.8
        wait_until(lambda: client.user() == "Ada Ada, after a while", "the answer")
    where = asked(server, "0.3")[-1]
    assert "uwasp-listener" not in where
    assert where.endswith("not in the hub")


def test_one_that_does_not_answer_is_closed_after_ten_seconds(server):
    begin = time.monotonic()
    with Client(server.port, "/Hangs?0.3") as client:
        client.socket.settimeout(20)
        assert client.recv_close() == OVER
    assert 9 < time.monotonic() - begin < 10.3 + SLACK
    server.wait_for_output("Hangs.authorize has not answered for 10.0 s, for connection ")


def test_the_code_is_in_the_figures(server):
    with Client(server.port, "/Closed?0.1&counted") as client:
        assert client.recv_close() == OVER
    with urlopen(f"http://{server.address}/", timeout=10) as response:
        assert json.load(response)["3000"] >= 1
