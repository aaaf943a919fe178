"""Messages go there and come back, whatever their kind and size."""

from __future__ import annotations

import pytest
from websockets.sync.client import connect

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.inquiry import figures

LIMITS = APPLICATIONS / "limits.py"


@pytest.fixture(scope="module")
def echo(server):
    with connect(f"{server.url}/echo", max_size=None) as client:
        yield client


@pytest.mark.parametrize("unit", ["a", "ü", "🐝", b"\0", b"\xff"])
@pytest.mark.parametrize("size", [0, 1, 31, 125, 126, 16_000, 65_535, 65_536, 200_000])
def test_a_message_comes_back_as_it_was_sent(echo, unit, size):
    echo.send(unit * size)
    assert echo.recv(10) == unit * size


def test_fragments_come_back_as_one_message(echo):
    echo.send(["frag", "", "men", "ts ", "ü"])
    assert echo.recv(10) == "fragments ü"
    echo.send([b"\0", b"\1" * 70_000])
    assert echo.recv(10) == b"\0" + b"\1" * 70_000


def test_many_messages_in_flight_come_back_in_order(echo):
    for number in range(2_000):
        echo.send(str(number))
    assert [echo.recv(10) for _ in range(2_000)] == [str(number) for number in range(2_000)]


def test_a_ping_is_answered_with_its_payload(echo):
    assert echo.ping(b"payload").wait(10)


def test_a_path_outside_ascii_is_matched(server):
    with connect(f"{server.url}/w%C3%B6rld") as client:
        client.send("found")
        assert client.recv(10) == "found"


def test_a_message_of_16_mib_in_pieces_takes_time_linear_in_its_size(serve):
    """It takes the worker some twice the processor time of eight messages of an eighth, which are as many pieces to
    read. Were a message's time the square of its size, it would take eight times theirs and more.
    """
    uwsgi = serve(application=LIMITS, middleware={"max_message_size": 2**24})
    with connect(f"{uwsgi.url}/echo", max_size=None, compression=None) as client:

        def seconds(messages: int) -> float:
            size = 2**24 // messages
            best = float("inf")
            for _ in range(3):
                before = figures(uwsgi.port)["cpu"]
                for _ in range(messages):
                    client.send([b"x" * 4096] * (size // 4096))
                assert [len(client.recv(60)) for _ in range(messages)] == [size] * messages
                best = min(best, figures(uwsgi.port)["cpu"] - before)
            return best

        assert seconds(1) < 5 * seconds(8)
