"""The fixture `uwasp_server`: a real uWSGI for one test."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from uwasp import ConfigurationError, ConnectionClosed, testing
from uwasp.testing import HandshakeRefused
from uwasp_pytest import processes, serve
from uwasp_pytest.client import Client

pytest_plugins = ["pytester"]

APPLICATION = Path(__file__).parent / "application.py"

# A project of somebody's: what follows is written into `test_it.py`, beside the application.
IMPORTS = """
import os, signal, time
import pytest
"""


@pytest.fixture
def project(pytester):
    """Run pytest in a project with the application and these tests: `project(code, *arguments)`."""
    pytester.makepyfile(application=APPLICATION.read_text())

    def run(code, *arguments):
        pytester.makepyfile(test_it=IMPORTS + code)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=100)

    return run


def test_messages_go_through_a_real_uwsgi(uwasp_server):
    server = uwasp_server(APPLICATION)
    with server.connect("/rooms/a", subprotocols=["chat.v1"]) as first, server.connect("/rooms/a") as second:
        assert (first.protocol, second.protocol) == ("chat.v1", None)
        assert (first.receive(), second.receive()) == ("welcome", "welcome")
        first.send("hello")
        assert (first.receive(), second.receive()) == ("hello", "hello")
        for wrong in (3, [1, 2], None):
            with pytest.raises(TypeError, match="a bytes-like object is required"):
                second.send(wrong)
        second.send(b"\0binary")
        assert first.receive() == b"\0binary"
        first.send("pid")
        assert first.receive_json() == server.workers[1] != os.getpid()
    assert "GET /rooms/a" in server.output


def test_options_of_uwsgi_are_keywords_and_further_ones_are_arguments(uwasp_server):
    server = uwasp_server(APPLICATION, "--procname", "of-a-test", processes=2, gevent=10, env={"HANDLER": "gevent"})
    assert server.workers.keys() == {1, 2}
    assert Path(f"/proc/{server.popen.pid}/cmdline").read_bytes().count(b"--gevent\x0010\x00") == 1
    assert "cores: 10" in server.output
    with server.connect("/rooms/a") as client:
        assert client.receive() == "welcome"


@pytest.mark.parametrize(
    ("arguments", "options", "count"),
    [
        (["--processes=2"], {}, 2),
        ([], {"workers": 2}, 2),
        ([], {"processes": 2, "cheaper": 1}, 1),
        ([], {"processes": 3, "cheaper": 1, "cheaper_initial": 2}, 2),
    ],
    ids=["one word", "workers", "cheaper", "cheaper-initial"],
)
def test_all_workers_accept_however_uwsgi_is_told_of_them(uwasp_server, arguments, options, count):
    server = uwasp_server(APPLICATION, *arguments, **options)
    assert len(server.workers) == count
    server.reload()
    assert server.output.count(processes.ACCEPTING) == 2 * count


def test_a_project_beside_pythons_own_folders_is_found(uwasp_server, tmp_path, monkeypatch):
    """As /usr/src/app is for a Python in /usr."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path.parent))
    (tmp_path / "beside.py").write_text(APPLICATION.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    with uwasp_server("beside:application").connect("/rooms/a") as client:
        assert client.receive() == "welcome"


def test_http_goes_to_the_address(uwasp_server):
    server = uwasp_server(APPLICATION, threads=1)
    with urllib.request.urlopen(f"http://{server.address}/", timeout=10) as response:
        assert int(response.read()) == server.workers[1]


def test_a_refusal_is_that_of_uwasp_testing(uwasp_server):
    server = uwasp_server(APPLICATION)
    with pytest.raises(HandshakeRefused) as refused:
        server.connect("/rooms/a", headers={"X-Name": "mallory"})
    assert (refused.value.status, refused.value.body) == (403, "not you\n")
    with pytest.raises(HandshakeRefused, match="there is no WebSocket at this path") as refused:
        server.connect("/nowhere")
    assert refused.value.status == 404


def test_a_path_without_its_slash_is_refused(uwasp_server):
    with pytest.raises(ValueError, match=r"a path begins with a slash, as in .* not 'rooms/a'"):
        uwasp_server(APPLICATION).connect("rooms/a")


def test_the_end_of_a_connection_is_told_as_by_uwasp_testing(uwasp_server):
    server = uwasp_server(APPLICATION)
    with server.connect("/rooms/a") as client:
        client.send("close")
        assert client.receive() == "welcome"
        with pytest.raises(ConnectionClosed, match="code 4002, reason 'closed by the server'"):
            client.receive()
        assert (client.close_code, client.close_reason) == (4002, "closed by the server")
        with pytest.raises(ConnectionClosed):
            client.send("too late")
        assert client.closed
    with server.connect("/rooms/a") as client:
        assert client.receive() == "welcome"
        with pytest.raises(TimeoutError, match=r"^waited 0.05 s for a message at /rooms/a$"):
            client.receive(timeout=0.05)
        assert (client.close_code, client.closed) == (None, False)
        client.close(4001, "enough")
        assert (client.close_code, client.close_reason, client.closed) == (4001, "enough", True)


def test_a_client_that_is_gone_without_a_word_is_1006(uwasp_server):
    server = uwasp_server(APPLICATION)
    with server.connect("/rooms/a") as client:
        assert client.receive() == "welcome"
        client.terminate()
        assert (client.close_code, client.closed) == (1006, True)
        with pytest.raises(ConnectionClosed):
            client.send("too late")
    server.wait_for_output("closed with 1006")


def test_the_client_has_the_words_of_uwasp_testing_but_for_what_needs_its_process():
    words = {name for name in vars(testing.Client) if not name.startswith("_")} - {"run"}
    assert words <= set(vars(Client))


def test_a_reload_says_goodbye_and_all_workers_are_there_again(uwasp_server):
    server = uwasp_server(APPLICATION, processes=2)
    before = set(server.workers.values())
    with server.connect("/rooms/a") as client:
        assert client.receive() == "welcome"
        server.reload()
        assert list(client) == []
        assert client.close_code == 1001
    assert before.isdisjoint(server.workers.values())
    with server.connect("/rooms/a") as client:
        assert client.receive() == "welcome"


def test_a_killed_worker_is_1006_and_another_takes_its_place(uwasp_server):
    server = uwasp_server(APPLICATION, processes=2)
    clients = [server.connect("/rooms/a") for _ in range(10)]
    pids = []
    for client in clients:
        client.send("pid")
        assert client.receive() == "welcome"
        pids.append(client.receive_json())
    killed, other = server.workers[2], server.workers[1]
    server.kill_worker(2)
    assert server.workers[1] == other
    assert server.workers[2] != killed
    for client, pid in zip(clients, pids, strict=True):
        if pid == killed:
            assert list(client) == []
            assert client.close_code == 1006
        else:
            client.send("pid")
            assert client.receive_json() == other
        client.close()


def test_a_wider_fixture_has_a_server_too(tmp_path):
    with serve(APPLICATION, tmp_path) as server, server.connect("/rooms/a") as client:
        assert client.receive() == "welcome"
    assert server.popen.returncode == 0


def test_a_test_may_be_a_coroutine(project):
    result = project(
        """
from websockets.asyncio.client import connect

@pytest.mark.asyncio
async def test_converses(uwasp_server):
    server = uwasp_server("application:application")
    async with connect(f"{server.url}/rooms/a", proxy=None) as client:
        assert await client.recv() == "welcome"
        await client.send("hello")
        assert await client.recv() == "hello"
"""
    )
    result.assert_outcomes(passed=1)


def test_a_test_that_fails_has_the_log_of_its_time_in_its_report(project):
    result = project(
        """
def test_fails(uwasp_server):
    server = uwasp_server("application:application")
    with server.connect("/rooms/a") as client:
        client.send("raise")
        assert list(client) == ["welcome", "something"]

def test_passes(uwasp_server):
    uwasp_server("application:application")
"""
    )
    result.assert_outcomes(failed=1, passed=1)
    log = ["*log of the uWSGI with application:application*", "*ValueError: raised in on_message*"]
    result.stdout.fnmatch_lines(log)
    assert result.stdout.str().count("log of the uWSGI") == 1


def test_a_shared_server_shows_what_it_has_said_since_the_test_began(project):
    result = project(
        """
from uwasp_pytest import serve

@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serve("application:application", tmp_path_factory.mktemp("server")) as server:
        yield server

def test_first(server):
    with server.connect("/rooms/first"):
        pass
    server.wait_for_output("GET /rooms/first")

def test_second(server):
    with server.connect("/rooms/second"):
        pass
    server.wait_for_output("GET /rooms/second")
    assert False
"""
    )
    result.assert_outcomes(failed=1, passed=1)
    assert "GET /rooms/second" in result.stdout.str()
    assert "GET /rooms/first" not in result.stdout.str()


@pytest.mark.parametrize("application", ["application", testing.connect], ids=["a module alone", "an object"])
def test_what_uwsgi_cannot_load_is_refused_before_it_starts(uwasp_server, application):
    with pytest.raises(TypeError, match=r'a module and a name in it, as in "app:application", or the Path of a file'):
        uwasp_server(application)


def test_a_uwsgi_that_does_not_stop_fails_its_test(project):
    result = project(
        """
from uwasp_pytest import processes

def test_stops(uwasp_server, monkeypatch):
    monkeypatch.setattr(processes, "STOP_TIMEOUT", 1.0)
    server = uwasp_server("application:application")
    os.kill(server.popen.pid, signal.SIGSTOP)
    print("pid", server.popen.pid)
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*AssertionError: did not stop:*"])


def test_an_application_that_cannot_be_loaded_fails_its_test_with_the_reason(project):
    result = project(
        """
def test_starts(uwasp_server):
    uwasp_server("application:application", env={"HANDLER": "gevent"})
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: GeventHandler needs uWSGI's gevent loop: add --gevent N*"])


def test_it_works_under_xdist_each_with_a_port_of_its_own(project):
    result = project(
        """
@pytest.mark.parametrize("number", range(4))
def test_serves(uwasp_server, number):
    server = uwasp_server("application:application", processes=2)
    with server.connect(f"/rooms/a") as first, server.connect(f"/rooms/a") as second:
        assert (first.receive(), second.receive()) == ("welcome", "welcome")
        first.send(f"of {number}")
        assert second.receive() == f"of {number}"
    assert number != 3, os.environ["PYTEST_XDIST_WORKER"]
""",
        "-n",
        "2",
    )
    result.assert_outcomes(failed=1, passed=3)
    result.stdout.fnmatch_lines(["*log of the uWSGI with application:application*", "*GET /rooms/a*"])


def test_uwasp_testing_works_under_xdist_and_in_coroutines(project):
    result = project(
        """
from application import application
from uwasp.testing import connect

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(4))
async def test_converses(number):
    with connect(application, "/rooms/a") as first, connect(application, "/rooms/a") as second:
        first.send(f"of {number}")
        assert (second.receive(), second.receive()) == ("welcome", f"of {number}")
""",
        "-n",
        "2",
    )
    result.assert_outcomes(passed=4)


def test_without_a_uwsgi_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match="there is no uWSGI in this environment: pip install pyuwsgi"):
        processes.uwsgi_program()


def test_nothing_of_a_test_is_left_running(project):
    result = project(
        """
def test_it(uwasp_server):
    server = uwasp_server("application:application", processes=3)
    print("pids", server.popen.pid, *server.workers.values())
""",
        "-s",
    )
    result.assert_outcomes(passed=1)
    (line,) = (line for line in result.outlines if "pids" in line)
    pids = [int(word) for word in line.partition("pids")[2].split() if word.isdigit()]
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_the_first_example_of_the_document_is_a_test_that_passes(pytester):
    from documents import code_block

    document = Path(__file__).parents[2] / "docs" / "testing.md"
    pytester.makepyfile(test_echo=code_block(document, "python", "test_echo.py"))
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
