"""Socket.IO over several processes: what reaches whom, and what is refused when the application loads."""

from __future__ import annotations

from pathlib import Path

import pytest
from websockets.sync.client import connect

from documents import code_block
from processes import STOP_TIMEOUT
from redis_servers import free_port
from socketio_clients import BOTH, POLLING
from socketio_servers import APPLICATION, LOOP_OPTIONS, environment, get

DOCUMENT = Path(__file__).parents[2] / "docs" / "socketio.md"
WEBSOCKET_ALONE = {"transports": ["websocket"]}


@pytest.fixture
def serve(start_uwsgi, handler):
    """Start a uWSGI for one test: `serve(*options of uWSGI, server={...}, ...)`."""

    def start(*options, wait=True, **given):
        return start_uwsgi(APPLICATION, *LOOP_OPTIONS[handler], *options, env=environment(**given), wait=wait)

    return start


def refused(serve, *options, **given):
    """Start a uWSGI that does not get as far as a worker, and return what it says."""
    uwsgi = serve(*options, wait=False, **given)
    uwsgi.popen.wait(STOP_TIMEOUT)
    return uwsgi.output


def clients_in_two_processes(new_client, url, **keywords):
    """Two clients that have been welcomed by different processes."""
    by_process = {}
    for number in range(100):
        client = new_client()
        client.connect(url, query=f"page={number}", **keywords)
        by_process.setdefault(client.receive()[1]["pid"], client)
        if len(by_process) == 2:
            return by_process.values()
    raise AssertionError(f"all clients came to {by_process}")


def test_polling_in_several_processes_is_refused(serve):
    output = refused(serve, "--processes", "2")
    assert "uwasp.exceptions.ConfigurationError: uWSGI has 2 processes on one socket, and a client that polls" in output
    assert 'add transports=["websocket"] to the server and to the clients' in output


def test_polling_where_one_request_is_served_at_a_time_is_refused(start_uwsgi):
    uwsgi = start_uwsgi(APPLICATION, "--enable-threads", wait=False)
    uwsgi.popen.wait(STOP_TIMEOUT)
    assert "ConfigurationError: uWSGI serves one request at a time here, and a client" in uwsgi.output


def test_websockets_alone_need_one_thread_of_uwsgi(start_uwsgi, new_client):
    uwsgi = start_uwsgi(APPLICATION, "--enable-threads", env=environment(server=WEBSOCKET_ALONE))
    client = new_client()
    client.connect(f"http://{uwsgi.address}")
    assert client.receive()[0] == "welcome"
    assert client.call("echo", "hello") == "hello"


def test_several_processes_without_a_client_manager_are_warned_about(serve):
    uwsgi = serve("--processes", "2", server=WEBSOCKET_ALONE)
    uwsgi.wait_for_output("uWSGI has 2 processes, and the Socket.IO server has no client manager for several")
    assert "add message_queue=" in uwsgi.output


def test_a_client_manager_that_would_hold_up_gevent_is_refused(start_uwsgi):
    env = environment(server=WEBSOCKET_ALONE, redis="redis://127.0.0.1")
    uwsgi = start_uwsgi(APPLICATION, *LOOP_OPTIONS["gevent"], env=env, wait=False)
    uwsgi.popen.wait(STOP_TIMEOUT)
    output = uwsgi.output
    assert "ConfigurationError: RedisManager would hold up all greenlets while it waits: put from gevent" in output


def test_by_redis_what_is_emitted_comes_to_all_processes(serve, handler, new_client, redis):
    uwsgi = serve("--processes", "2", server=WEBSOCKET_ALONE, redis=redis.url, patch=handler == "gevent")
    assert "no client manager" not in uwsgi.output
    here, there = clients_in_two_processes(new_client, f"http://{uwsgi.address}")
    redis.wait_for_subscribers("flask-socketio", 2)
    for client in (here, there):
        assert client.call("join", "blue") == ["blue"]
    here.emit("say", "blue", "hello")
    assert there.receive() == ["said", "hello"]
    there.emit("to all", "bye")
    assert [client.receive() for client in (here, there)] == 2 * [["said", "bye"]]
    get(uwsgi, "/emit/blue/news")
    assert [client.receive() for client in (here, there)] == 2 * [["said", "news"]]


@pytest.mark.parametrize("transports", [BOTH, POLLING], ids=["upgrade", "polling"])
def test_a_proxy_that_keeps_a_client_at_one_process_lets_it_poll(serve, start_nginx, new_client, transports):
    first, second = (serve() for _ in range(2))
    nginx = start_nginx_as_documented(start_nginx, first.port, second.port)
    for client in clients_in_two_processes(new_client, nginx.url.replace("ws:", "http:"), transports=transports):
        assert [client.call("echo", number) for number in range(20)] == list(range(20))


def test_processes_with_a_socket_each_are_as_good(serve, start_nginx, new_client):
    port = free_port()
    sockets = ("--http-socket", f"127.0.0.1:{port}", "--map-socket", "0:1", "--map-socket", "1:2")
    uwsgi = serve("--processes", "2", *sockets)
    nginx = start_nginx_as_documented(start_nginx, uwsgi.port, port)
    for client in clients_in_two_processes(new_client, nginx.url.replace("ws:", "http:"), transports=BOTH):
        assert [client.call("echo", number) for number in range(20)] == list(range(20))


def start_nginx_as_documented(start_nginx, *ports):
    """The nginx of the document, which tells clients apart by what they ask for: here all have one address."""
    upstream = code_block(DOCUMENT, "nginx", "upstream")
    location = code_block(DOCUMENT, "nginx", "location").partition("{")[2].rpartition("}")[0]
    for number, port in enumerate(ports, 1):
        upstream = upstream.replace(f"127.0.0.1:800{number}", f"127.0.0.1:{port}")
    assert "$remote_addr" in upstream
    return start_nginx(location, http=upstream.replace("$remote_addr", "$arg_page"))


def test_install_is_called_once(start_uwsgi, handler, tmp_path):
    application = tmp_path / "twice.py"
    application.write_text(
        "import engineio\nimport uwasp_socketio\n"
        "server = engineio.Server(transports=['websocket'])\n"
        "uwasp_socketio.install(server)\nuwasp_socketio.install(server)\n"
    )
    uwsgi = start_uwsgi(application, *LOOP_OPTIONS[handler], wait=False)
    uwsgi.popen.wait(STOP_TIMEOUT)
    assert "RuntimeError: this server runs on uWASP already: call install once" in uwsgi.output


def test_a_handler_that_runs_coroutines_is_refused(start_uwsgi, tmp_path):
    application = tmp_path / "coroutines.py"
    application.write_text(
        "import engineio\nimport uwasp_socketio\nuwasp_socketio.install(engineio.Server(), handler_class='asyncio')\n"
    )
    uwsgi = start_uwsgi(application, "--threads", "2", wait=False)
    uwsgi.popen.wait(STOP_TIMEOUT)
    assert "Socket.IO's events are plain functions, and AsyncioHandler runs async def" in uwsgi.output


def test_a_server_of_python_engineio_needs_no_client_manager(start_uwsgi, handler, tmp_path):
    application = tmp_path / "engine.py"
    application.write_text(
        "import engineio\nimport uwasp_socketio\n"
        "server = engineio.Server(transports=['websocket'])\n"
        "uwasp_socketio.install(server)\n"
        "server.on('message', server.send)\n"
        "application = engineio.WSGIApp(server)\n"
    )
    uwsgi = start_uwsgi(application, *LOOP_OPTIONS[handler], "--processes", "2")
    with connect(f"{uwsgi.url}/engine.io/?EIO=4&transport=websocket") as client:
        client.send("4hello")
        assert [client.recv(10)[0], client.recv(10)] == ["0", "4hello"]
    assert "client manager" not in uwsgi.output
