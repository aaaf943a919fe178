"""More than the worker can take: it refuses what is new, and serves what it has."""

from __future__ import annotations

import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import connect

from uwasp_pytest.behaviour import APPLICATIONS
from uwasp_pytest.behaviour.inquiry import ask, figures, wait_until_it_stands_still
from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import wait_until

MEGABYTE = 2**20
DESCRIPTORS = 64


@pytest.fixture(scope="module")
def application():
    return APPLICATIONS / "limits.py"


def open_or_not(port):
    """A client, and whether it was let in; its head tells why not."""
    client = RawClient(port)
    return client, client.head.startswith("HTTP/1.1 101")


def check_echo(client, text="unharmed?"):
    client.send(frame(1, text.encode()))
    assert client.recv().data == text.encode()


def is_served(port):
    """Whether a new client is let in. The descriptor of the request before may not have been closed yet."""
    client, is_open = open_or_not(port)
    with client:
        if is_open:
            check_echo(client)
    return is_open


def wait_until_served(uwsgi):
    try:
        wait_until(lambda: is_served(uwsgi.port), "a new one to be let in")
    except TimeoutError as error:
        (worker,) = Path(f"/proc/{uwsgi.popen.pid}/task/{uwsgi.popen.pid}/children").read_text().split()
        descriptors = [f"{path.name} {path.readlink()}" for path in Path(f"/proc/{worker}/fd").iterdir()]
        raise AssertionError(f"{error}; open are {descriptors}; the output is:\n{uwsgi.output}") from None


def test_beyond_max_connections_the_answer_is_503_until_there_is_room(serve):
    uwsgi = serve(middleware={"max_connections": 2})
    with RawClient(uwsgi.port) as first, RawClient(uwsgi.port) as second:
        refused, is_open = open_or_not(uwsgi.port)
        assert not is_open
        assert refused.head.startswith("HTTP/1.1 503 ")
        assert "Retry-After: 5" in refused.head.split("\r\n")
        refused.socket.close()
        assert figures(uwsgi.port)["refused"] == {"full": 1}
        assert "full, max_connections is 2, and 2 are open or being opened, on all paths of this worker" in uwsgi.output
        check_echo(first)
        check_echo(second)
        first.send(frame(8))
        first.recv_close()
        first.socket.close()
        wait_until(lambda: figures(uwsgi.port)["open"] == 1, "the first to be gone")
        with RawClient(uwsgi.port) as third:
            check_echo(third)
            check_echo(second)


def test_max_connections_holds_however_many_come_at_once(serve, waits):
    loop = ("--gevent", "50") if waits == "gevent" else ("--threads", "8")
    uwsgi = serve(middleware={"max_connections": 5}, loop=loop)
    with ThreadPoolExecutor(30) as pool:
        clients = list(pool.map(open_or_not, [uwsgi.port] * 30))
    try:
        inside = sum(is_open for _, is_open in clients)
        assert inside <= 5
        # The answer comes before the listener has it.
        wait_until(lambda: figures(uwsgi.port)["open"] == inside, "all that were let in to be open")
    finally:
        for client, _ in clients:
            client.socket.close()
    assert figures(uwsgi.port)["opened"] <= 5


def test_when_descriptors_run_out_new_ones_get_503_and_all_else_goes_on(serve):
    uwsgi = serve(env={"LIMITS_NOFILE": str(DESCRIPTORS)})
    with ExitStack() as clients:
        inside = []
        while True:
            client, is_open = open_or_not(uwsgi.port)
            clients.callback(client.socket.close)
            if not is_open:
                break
            inside.append(client)
        assert client.head.startswith("HTTP/1.1 503 ")
        assert "Retry-After: 5" in client.head.split("\r\n")
        assert 20 < len(inside) < DESCRIPTORS
        for one in inside:
            check_echo(one)
        found = figures(uwsgi.port)  # a plain request is served
        assert (found["open"], found["refused"]) == (len(inside), {"descriptors": 1})
        # More than one: the requests of the last ones may have been where others have no place, and the next is not.
        for one in inside[:5]:
            one.socket.close()
        wait_until_served(uwsgi)


def test_without_a_single_descriptor_the_open_ones_live_on_and_it_recovers(serve):
    uwsgi = serve(env={"LIMITS_NOFILE": str(DESCRIPTORS)})
    with RawClient(uwsgi.port) as inside:
        check_echo(inside)
        ask(uwsgi.port, "hold/2")  # the application takes all there are, for two seconds
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(open_or_not, uwsgi.port)
            for number in range(100):
                check_echo(inside, str(number))
            client, _ = waiting.result(20)  # it had to wait, or was refused with the last descriptor
            client.socket.close()
        wait_until_served(uwsgi)


def test_frames_that_come_byte_by_byte_hold_no_thread(serve):
    """More of them than the worker has threads or cores; what is begun takes up no turn of anybody else."""
    uwsgi = serve()
    text = frame(1, b"slowly")
    with ExitStack() as clients:
        slow = [clients.enter_context(RawClient(uwsgi.port)) for _ in range(50)]
        with RawClient(uwsgi.port) as other:
            for index in range(len(text)):
                for client in slow:
                    client.send(text[index : index + 1])
                check_echo(other, str(index))
        assert all(client.recv().data == b"slowly" for client in slow)


def flooded(port, data):
    """A client that sends `data` for as long as it is let, in a thread."""
    client = RawClient(port)

    def flood():
        try:
            client.send(data)
        except OSError:
            return  # it was cut, or has seen enough

    thread = threading.Thread(target=flood)
    client.socket.settimeout(30)
    thread.start()
    return client, thread


def check_others_are_served(uwsgi, before, thread):
    with connect(f"{uwsgi.url}/echo", proxy=None) as other:
        for number in range(20):
            other.send(str(number))
            assert other.recv(10) == str(number)
            assert figures(uwsgi.port)["memory"] - before < 30 * MEGABYTE
        thread.join(1)
        assert figures(uwsgi.port)["memory"] - before < 30 * MEGABYTE


def test_a_flood_of_pings_that_are_not_read_takes_bounded_memory(serve):
    uwsgi = serve(middleware={"write_limit": 2**17})
    before = figures(uwsgi.port)["memory"]
    client, thread = flooded(uwsgi.port, frame(9, b"x" * 125) * 200_000 + frame(9, b"the last"))
    check_others_are_served(uwsgi, before, thread)
    thread.join(30)
    assert not thread.is_alive()
    assert figures(uwsgi.port)["queued_out"] < 2**17 + 2**16
    assert figures(uwsgi.port)["memory"] - before < 30 * MEGABYTE
    while b"the last" not in client.received[-100:]:
        data = client.socket.recv(2**20)
        assert data
        client.received += data
    client.socket.close()


def test_a_flood_of_empty_fragments_ends_its_connection(serve):
    uwsgi = serve()
    before = figures(uwsgi.port)["memory"]
    client, thread = flooded(uwsgi.port, frame(1, b"a", fin=False) + frame(0, fin=False) * 1_000_000)
    check_others_are_served(uwsgi, before, thread)
    assert client.recv_close() == (1008, "message in more than 131072 fragments")
    thread.join(30)
    client.socket.close()


@pytest.mark.parametrize("reads", [True, False])
def test_a_flood_of_tiny_messages_takes_bounded_memory(serve, waits, reads):
    if waits == "never" and not reads:
        pytest.skip("`send` does not wait")
    uwsgi = serve(middleware={"write_limit": 2**17})
    before = figures(uwsgi.port)["memory"]
    text = b"x" if reads else b"x" * 125  # so that there are more answers than the buffers of the sockets hold
    count = 100_000
    client, thread = flooded(uwsgi.port, frame(1, text) * count)
    answers = (bytes((0x81, len(text))) + text) * count
    reader = threading.Thread(target=read_all, args=(client, len(answers)))
    if reads:
        reader.start()
    check_others_are_served(uwsgi, before, thread)
    if not reads:
        found = figures(uwsgi.port)
        assert found["queued_out"] < 2**17 + 2**16 + 2**10  # the limit, and what was kept back when it was reached
        reader.start()
    reader.join(60)
    assert client.received == answers
    thread.join()
    client.socket.close()


def read_all(client, size):
    while len(client.received) < size:
        data = client.socket.recv(2**20)
        if not data:
            return
        client.received += data


@pytest.mark.usefixtures("may_wait")
def test_small_frames_that_grow_when_they_are_decompressed_take_bounded_memory(serve):
    """A thousand bytes are a megabyte then; so few are read at once that not many are decompressed too early."""
    uwsgi = serve(middleware={"compression": "deflate"})
    before = figures(uwsgi.port)["memory"]
    bomb = frame(2, deflated(b"0" * MEGABYTE), rsv=0x40)
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
    with RawClient(uwsgi.port, "/gate?shut", offer) as client:
        client.send(bomb * 500)
        wait_until(lambda: figures(uwsgi.port)["queued_in"] >= 1, "something to be queued")
        wait_until_it_stands_still(lambda: figures(uwsgi.port)["bytes_in"])
        assert figures(uwsgi.port)["queued_in"] <= 6
        assert figures(uwsgi.port)["memory"] - before < 30 * MEGABYTE
        ask(uwsgi.port, "open/shut")
        wait_until(lambda: figures(uwsgi.port)["messages_in"] == 500, "all to be read")


def deflated(data):
    """By RFC 7692 section 7.2.1."""
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
