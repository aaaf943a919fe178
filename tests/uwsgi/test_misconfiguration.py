"""What cannot work is refused when the application is loaded, with the option that is missing; or with a 501."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from processes import (
    LOOP_OPTIONS,
    STOP_TIMEOUT,
    debian_uwsgi,
    listening_socket,
    not_installed,
    uwsgi_program,
)
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "application.py"
WITH_THREADS = {"threads": "ThreadHandler", "asyncio": "AsyncioHandler"}  # handlers that have threads of their own
NO_THREADS = "a handler without threads"


def refused(serve, *options, loop, **keywords):
    """Start a uWSGI that does not get as far as a worker, and return what it says."""
    uwsgi = serve(*options, loop=loop, wait=False, **keywords)
    uwsgi.popen.wait(STOP_TIMEOUT)
    return uwsgi.output


def test_the_gevent_handler_without_the_gevent_loop(serve, handler):
    if handler != "gevent":
        pytest.skip("the gevent handler's loop")
    output = refused(serve, loop=())
    assert "uwasp.exceptions.ConfigurationError: GeventHandler needs uWSGI's gevent loop: add --gevent N" in output


EARLY = """
from uwasp import Group, WebSocketMiddleware
application = WebSocketMiddleware(lambda environ, start_response: [], "threads")
Group("room").send("too early")
"""


def test_a_group_that_is_used_while_the_application_is_loaded(serve, handler, tmp_path):
    """The threads of its bus would be there when workers are forked."""
    if handler != "threads":
        pytest.skip("the bus is the same under each handler")
    (tmp_path / "early.py").write_text(EARLY)
    early = {"application": tmp_path / "early.py", "loop": ("--threads", "2")}
    output = refused(serve, "--need-app", **early)
    assert "uwasp.exceptions.ConfigurationError: a group is used, or a bus opened, while the application is" in output
    serve("--need-app", "--lazy-apps", **early)


EARLY_SPAWN = """
from uwasp import WebSocketMiddleware
def work():
    print("works", flush=True)
async def work_on_the_loop():
    work()
application = WebSocketMiddleware(lambda environ, start_response: [], "{handler}")
application.handler_class.spawn({work})
"""


def test_what_is_spawned_while_the_application_is_loaded(serve, handler, tmp_path):
    """No worker would have it."""
    work = "work_on_the_loop" if handler == "asyncio" else "work"
    (tmp_path / "early.py").write_text(EARLY_SPAWN.format(handler=handler, work=work))
    output = refused(serve, "--need-app", application=tmp_path / "early.py", loop=LOOP_OPTIONS[handler])
    assert "Handler.spawn is called while the application is loaded" in output
    assert "works" not in output
    lazy = serve("--need-app", "--lazy-apps", application=tmp_path / "early.py", loop=LOOP_OPTIONS[handler])
    lazy.wait_for_output("works")


@pytest.fixture(scope="module")
def uwsgi_with_threads_off(tmp_path_factory):
    """The last uWSGI whose default is to run no Python threads; Debian's is as old. From 2.0.27 on they always run."""
    if sys.version_info >= (3, 13):
        pytest.skip("pyuwsgi 2.0.26 has no wheel for this Python")
    folder = tmp_path_factory.mktemp("older")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "pyuwsgi==2.0.26"]
    subprocess.run(install, check=True)
    return folder


def test_a_handler_with_threads_where_uwsgi_runs_none(serve, handler, uwsgi_with_threads_off):
    if handler not in WITH_THREADS:
        pytest.skip(NO_THREADS)
    older = {
        "program": uwsgi_with_threads_off / "bin" / "uwsgi",
        "env": {"PYTHONPATH": str(uwsgi_with_threads_off), "UWASP_HANDLER": handler},
    }
    output = refused(serve, loop=(), **older)
    assert f"uwasp.exceptions.ConfigurationError: {WITH_THREADS[handler]} needs Python threads" in output
    assert "add --enable-threads" in output
    for option in ("--enable-threads",), ("--threads", "2"):
        with connect(f"{serve(loop=option, **older).url}/echo") as client:
            client.send("threads")
            assert client.recv(10) == "threads"


def test_on_the_loop_of_the_other_handler(serve, handler):
    if handler in WITH_THREADS:
        output = refused(serve, loop=("--gevent", "10"))
        assert f'{WITH_THREADS[handler]} is not for uWSGI\'s gevent loop: pass handler_class="gevent"' in output
    else:
        output = refused(serve, loop=("--threads", "2"))
        assert "GeventHandler needs uWSGI's gevent loop: add --gevent N" in output


def test_patched_threads_are_refused_by_a_handler_with_threads(serve, handler):
    if handler not in WITH_THREADS:
        pytest.skip(NO_THREADS)
    output = refused(serve, loop=("--threads", "2"), env={"UWASP_PATCH": "1"})
    assert f"{WITH_THREADS[handler]} needs real threads, which gevent.monkey has patched away" in output


# What runs requests in async cores; `None`: without a plugin that pyuwsgi has not.
ASYNC_CORES = {
    "alone": (None, ["--async", "4"]),
    "ugreen": (None, ["--async", "4", "--ugreen"]),
    "greenlet": ("greenlet_python3", ["--async", "4", "--greenlet"]),
    "asyncio": ("asyncio_python3", ["--asyncio", "4"]),
    "asyncio and greenlet": ("asyncio_python3", ["--plugin=greenlet_python3", "--asyncio", "4", "--greenlet"]),
}


@pytest.mark.parametrize("engine", ASYNC_CORES)
def test_async_cores_are_refused_by_a_handler_with_threads(serve, handler, engine):
    """Some end a worker without a word to it; under others threads starve."""
    if handler not in WITH_THREADS:
        pytest.skip(NO_THREADS)
    plugin, options = ASYNC_CORES[engine]
    keywords = {}
    if plugin is not None:
        plugins = ("python3", plugin)
        keywords = {"program": debian_uwsgi(*plugins), "plugins": plugins}
        options = [*options, "--virtualenv", sys.prefix]
    output = refused(serve, "--enable-threads", *options, loop=(), **keywords)
    assert f"uwasp.exceptions.ConfigurationError: {WITH_THREADS[handler]} is not for uWSGI's " in output
    assert ("asyncio loop" if "asyncio" in engine else "--async N") in output
    assert "take --threads N in its place" in output


def test_one_async_core_is_as_good_as_none(serve, handler):
    if handler not in WITH_THREADS:
        pytest.skip(NO_THREADS)
    with connect(f"{serve('--enable-threads', '--async', '1', loop=()).url}/echo") as client:
        client.send("threads")
        assert client.recv(10) == "threads"


def test_gevent_wait_for_hub_is_refused(serve, handler):
    """The hub watches our connections, so a worker that waited for it would never end."""
    if handler != "gevent":
        pytest.skip("the gevent loop's option")
    output = refused(serve, "--gevent-wait-for-hub", loop=("--gevent", "10"))
    assert "uwasp.exceptions.ConfigurationError: GeventHandler cannot work with --gevent-wait-for-hub" in output


def test_a_second_interpreter_is_refused(serve, handler):
    """uWSGI makes one for each application but the first."""
    loop = LOOP_OPTIONS[handler]
    output = refused(serve, "--mount", f"/second={APPLICATION}", loop=loop)
    if handler in WITH_THREADS:
        (error,) = re.findall(r"uwasp\.exceptions\.ConfigurationError: .*", output)
        assert "add --single-interpreter (single-interpreter = true in an ini file)" in error
    else:  # gevent cannot be imported there, and does not say why
        (warning,) = re.findall(r"uwasp\.preflight WARNING .*", output)
        assert "where neither gevent nor uWASP works: add --single-interpreter" in warning


def test_the_http_router_without_http_websockets_is_warned_about(serve):
    uwsgi = serve(kind="http")
    uwsgi.wait_for_output("uwasp.preflight WARNING")
    assert "without --http-websockets: clients would hang" in uwsgi.output


def test_http_websockets_is_not_warned_about(serve):
    uwsgi = serve("--http-websockets", kind="http")
    with connect(f"{uwsgi.url}/echo"):
        assert "WARNING" not in "".join(line for line in uwsgi.output.splitlines() if line.startswith("uwasp"))


# Options of uWSGI's, and what the warning about them has to say; nothing: there is none.
WARNED_ABOUT = {
    "harakiri": (["--harakiri", "60"], "add --harakiri-graceful-timeout N"),
    "harakiri with time": (["--harakiri", "60", "--harakiri-graceful-timeout", "5"], None),
    "harakiri with SIGINT": (
        ["--harakiri", "60", "--harakiri-graceful-timeout", "5", "--harakiri-graceful-signal", "2"],
        None,
    ),
    "harakiri with SIGHUP": (
        ["--harakiri", "60", "--harakiri-graceful-timeout", "5", "--harakiri-graceful-signal", "1"],
        "--harakiri-graceful-signal 1 does not end a worker at once",
    ),
    "idle": (["--idle", "60"], "--idle counts requests and sees no WebSockets"),
    "cheaper": (["--processes", "2", "--cheaper", "1"], "--cheaper counts requests and sees no WebSockets"),
    "nothing": ([], None),
}


@pytest.mark.parametrize("options", WARNED_ABOUT)
def test_what_ends_workers_without_regard_for_websockets_is_warned_about_once(serve, options):
    given, expected = WARNED_ABOUT[options]
    uwsgi = serve(*given, wait=False)
    uwsgi.wait_for_workers()
    warnings = [line for line in uwsgi.output.splitlines() if line.startswith("uwasp.preflight WARNING")]
    if expected is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert expected in warning


def test_pyuwsgi_that_would_not_find_itself_again_is_warned_about(serve):
    with uwsgi_program().open("rb") as program:
        if program.read(2) != b"#!" or sys.prefix == sys.base_prefix:
            pytest.skip("this uWSGI is a program of its own")
    uwsgi = serve(reloadable=False)
    assert f"a reload, and end: add --binary-path {sys.prefix}/bin/python3" in uwsgi.output


def test_http11_socket_under_gevent_is_warned_about(serve, handler):
    if handler != "gevent":
        pytest.skip("the gevent loop's fault")
    serve(kind="http11-socket").wait_for_output("uWSGI's gevent loop does not serve --http11-socket")


ASYNC = """
import os
import uwasp

class Chat(uwasp.Server):
    max_mesage_size = 100

    @classmethod
    {authorize} authorize(cls, environ):
        raise uwasp.Refusal

application = uwasp.WebSocketMiddleware(print, os.environ["UWASP_HANDLER"], [("/chat", Chat)])
"""


def test_a_server_that_would_let_everybody_in_does_not_start(serve, handler, tmp_path):
    application = tmp_path / "chat.py"
    application.write_text(ASYNC.format(authorize="async def"))
    output = refused(serve, loop=LOOP_OPTIONS[handler], application=application)
    assert "TypeError: Chat.authorize is async def: nothing of it would be run, and everybody let in." in output


def test_an_option_that_looks_misspelt_is_told_without_any_configuration_of_logging(serve, tmp_path):
    application = tmp_path / "chat.py"
    application.write_text(ASYNC.format(authorize="def"))
    uwsgi = serve(application=application)
    uwsgi.wait_for_output("Chat.max_mesage_size means nothing to uWASP: is it to be max_message_size?")


@pytest.mark.source_build
def test_an_upgrade_on_https_socket_is_refused_with_501(serve, tmp_path):
    """TLS ends inside the worker there: the descriptor carries ciphertext."""
    import ssl

    known = subprocess.run([uwsgi_program(), "--help"], capture_output=True, text=True, check=False)
    if "--https-socket" not in known.stdout + known.stderr:
        not_installed("a uWSGI built with OpenSSL")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with listening_socket() as listening:  # whose port is free once it is closed
        port = listening.getsockname()[1]
    uwsgi = serve("--https-socket", f"127.0.0.1:{port},{certificate},{key}")
    trusting = ssl.create_default_context(cafile=str(certificate))
    trusting.check_hostname = False
    with pytest.raises(InvalidStatus) as refusal:
        connect(f"wss://127.0.0.1:{port}/echo", ssl=trusting)
    assert refusal.value.response.status_code == 501
    assert b"use uWSGI's --https with --http-websockets" in refusal.value.response.body
    uwsgi.wait_for_output(
        "WebSocket refused to 127.0.0.1 at /echo: takeover, --https-socket ends TLS inside the worker"
    )
    with connect(f"{uwsgi.url}/echo") as client:  # the other socket of the same worker
        client.send("plain")
        assert client.recv(10) == "plain"
