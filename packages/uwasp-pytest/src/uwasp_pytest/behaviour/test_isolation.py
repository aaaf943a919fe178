"""One client's bytes never reach another, and one client's fault closes that client alone."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from websockets.sync.client import connect

from uwasp_pytest.behaviour.raw import RawClient, frame


def test_a_fragment_never_reaches_another_connection(server):
    """uWSGI's own parser has one buffer for fragments in a process: what A began came out at B."""
    with RawClient(server.port) as first, RawClient(server.port) as second:
        first.send(frame(1, b"secret of the first", fin=False))
        second.send(frame(1, b"of the second ", fin=False))
        second.send(frame(0, b"alone"))
        assert second.recv().data == b"of the second alone"
        first.send(frame(0, b" alone"))
        assert first.recv().data == b"secret of the first alone"


def test_half_a_frame_never_reaches_another_connection(server):
    whole = frame(2, bytes(range(256)) * 300)
    with RawClient(server.port) as first, RawClient(server.port) as second:
        first.send(whole[:40_000])
        second.send(whole[:13])
        second.send(whole[13:])
        first.send(whole[40_000:])
        assert first.recv().data == second.recv().data == bytes(range(256)) * 300


def test_a_continuation_of_nothing_closes_that_connection_alone(server):
    """It kills the worker that uses uWSGI's own parser, from any client."""
    with connect(f"{server.url}/echo") as other:
        with RawClient(server.port) as client:
            client.send(frame(0, b"continues nothing"))
            assert client.recv_close() == (1002, "continuation frame with nothing to continue")
            client.recv_end()
        other.send("unharmed")
        assert other.recv(10) == "unharmed"
    assert server.output.count("spawned uWSGI worker 1 ") == 1


WRONG = {
    "no mask": (b"\x81\x02hi", 1002),
    "reserved bit": (frame(1, b"hi", rsv=0x40), 1002),
    "reserved opcode": (frame(3, b"hi"), 1002),
    "reserved control opcode": (frame(0xB), 1002),
    "fragmented ping": (frame(9, b"hi", fin=False), 1002),
    "long ping": (frame(9, b"x" * 126), 1002),
    "new message in a message": (frame(1, b"a", fin=False) + frame(1, b"b"), 1002),
    "invalid text": (frame(1, b"\xff"), 1007),
    "invalid text in a fragment that is not the last": (frame(1, b"\xff", fin=False), 1007),
    "text that ends in a character": (frame(1, b"\xc3"), 1007),
    "too big": (b"\x82\xff" + (2**20 + 1).to_bytes(8, "big") + b"mask", 1009),
    "length over 63 bits": (b"\x82\xff" + b"\xff" * 8 + b"mask", 1002),
    "close with one byte": (frame(8, b"\x03"), 1002),
    "close with a code not to be sent": (frame(8, (1005).to_bytes(2, "big")), 1002),
    "close with an invalid reason": (frame(8, b"\x03\xe8\xff"), 1007),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "zeros": (b"\0" * 1000, 1002),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_frame_closes_that_connection_alone(server, what):
    data, code = WRONG[what]
    with connect(f"{server.url}/echo") as other, RawClient(server.port) as client:
        client.send(frame(1, b"before") + data + frame(1, b"never looked at"))
        assert client.recv().data == b"before"
        assert client.recv_close()[0] == code
        client.recv_end()
        other.send("unharmed")
        assert other.recv(10) == "unharmed"


def test_a_client_that_sends_on_after_its_fault_still_gets_the_reason(server):
    """What it sent is read to its end; closing over unread data would reset the connection, and lose the reason."""
    with RawClient(server.port) as client:
        client.send(b"\x82\xff" + (2**22).to_bytes(8, "big") + b"mask" + b"\0" * 2**22)
        assert client.recv_close() == (1009, "message of more than 1048576 bytes")
        client.recv_end()


def test_sending_to_a_client_that_is_gone_raises_no_sigpipe(serve, waits):
    """From a request's own thread: the signal would end the worker, or have uWSGI blame the request."""
    uwsgi = serve(loop=("--enable-threads",) if waits == "threads" else None)  # its main thread alone hears signals
    with connect(f"{uwsgi.url}/echo") as other:
        with RawClient(uwsgi.port, "/life?gone") as client:
            client.send(frame(1, b"are you there?"))
            client.recv()  # `on_open` has been called
            with urlopen(f"http://{uwsgi.address}/push-too-late/gone", timeout=10) as response:
                assert response.status == 200
            client.recv_end()
        uwsgi.wait_for_output("gone close 1006")
        other.send("unharmed")
        assert other.recv(10) == "unharmed"
    assert "SIGPIPE" not in uwsgi.output
    assert uwsgi.output.count("spawned uWSGI worker 1 ") == 1


@pytest.mark.parametrize("what", ["SystemExit", "KeyboardInterrupt", "GreenletExit"])
@pytest.mark.parametrize("event", ["on_open", "on_message", "on_close"])
def test_what_would_end_a_process_or_a_greenlet_ends_one_connection(server, waits, event, what):
    """gevent ends the process when `sys.exit()` is raised out of any of its greenlets."""
    if (waits, what) == ("never", "GreenletExit"):
        pytest.skip("it ends a greenlet, or a thread, of which there is but one")
    with connect(f"{server.url}/echo") as other:
        for _ in range(2):  # whoever called the first server may have ended, but not the last that could
            with RawClient(server.port, f"/raising?{event}={what}") as client:
                if event != "on_open":
                    client.send(frame(1, b"hello"))
                if event == "on_close":
                    assert client.recv().data == b"hello"
                    client.send(frame(8, b"\x03\xe8"))
                code = 1000 if event == "on_close" else 1011
                assert client.recv_close()[0] == code
                client.send(frame(8, code.to_bytes(2, "big")))
                client.recv_end()
            other.send("unharmed")
            assert other.recv(10) == "unharmed"
    server.wait_for_output(f"raising {event}={what} close {code}", 2)
    assert server.output.count("spawned uWSGI worker 1 ") == 1


def test_the_limits_are_options(serve):
    uwsgi = serve(middleware={"max_message_size": 100, "max_fragments": 3})
    with RawClient(uwsgi.port) as client:
        client.send(frame(1, b"x" * 100))
        assert client.recv().data == b"x" * 100
        client.send(frame(1, b"x" * 50, fin=False) + frame(0, b"x" * 51))
        assert client.recv_close() == (1009, "message of more than 100 bytes")
    with RawClient(uwsgi.port) as client:
        client.send(frame(1, b"a", fin=False) + frame(0, b"b", fin=False) + frame(0, b"c"))
        assert client.recv().data == b"abc"
        client.send(frame(1, b"a", fin=False) + frame(0, b"b", fin=False) * 3)
        assert client.recv_close() == (1008, "message in more than 3 fragments")
