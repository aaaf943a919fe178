"""`uwasp check`: what there is, what will bite, and why a handshake is refused."""

from __future__ import annotations

import ast
import os
import re
import signal
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from websockets.frames import Opcode
from websockets.server import ServerProtocol
from websockets.sync.client import unix_connect

from commands import is_alive, uwasp
from processes import LOOP_OPTIONS, BareUwsgi, debian_uwsgi, listening_socket, not_installed, uwsgi_program, wait_until
from test_dev import FLASK
from uwasp_cli.figures import read

SITE = """
from functools import partial

import uwasp


class Echo(uwasp.Server):
    max_queue = 5

    def on_message(self, message):
        self.ws.send(message)


class Members(uwasp.Server):
    @classmethod
    def authorize(cls, environ):
        raise uwasp.Refusal(401, "log in")


def converse(ws):
    for message in ws:
        ws.send(message)


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<p>a page"]


servers = [("/echo", Echo), ("/members", Members), ("/rooms/<name>", converse), ("/partial", partial(Echo))]
application = uwasp.WebSocketMiddleware(app, "threads", servers, max_message_size=1000, bus="redis://me:secret@host")
"""


SOCK = """
from uwasp_flask import Sock

app = create_app()


sock = Sock(app)


@sock.route("/rooms/<name>")
def room(ws, name):
    pass


class Games:
    @sock.route("/games")
    class Chess:
        def __init__(self, ws): ...
        def on_open(self): ...
        def on_message(self, message): ...
        def on_close(self): ...
"""


@pytest.fixture
def site(project):
    (project / "site.py").unlink(missing_ok=True)
    (project / "mysite.py").write_text(SITE)
    return project


def check(*arguments, code, **keywords) -> str:
    result = uwasp("check", *arguments, **keywords)
    assert result.stderr == ""
    assert result.returncode == code, result.stdout
    return result.stdout


def test_it_says_what_is_there(site):
    said = check("mysite:application", code=0, cwd=site)
    for line in (
        "handler: uwasp_threads.handler.ThreadHandler",
        "bus: redis://me:...@host",
        "options: max_message_size=1000",
        "path: /echo mysite.Echo, max_queue=5",
        "path: /members mysite.Members",
        "path: /rooms/<name> mysite.converse",
        "path: /partial mysite.Echo, max_queue=5",
    ):
        assert f"  {line}\n" in said
    assert said.startswith("mysite:application loads under uWSGI 2.")
    assert "in its loop for threads\n" in said
    assert "  C: uwasp-speedups is" in said
    assert "secret" not in said
    assert said.endswith("nothing bites\n")


@pytest.mark.parametrize(
    ("options", "bite"),
    [
        (["--listen", "100"], "the backlog is 100: after a reload, clients beyond that go without an answer; "),
        (["--max-fd", "512"], "a process may have 512 descriptors, of which each WebSocket needs one: add --max-fd "),
        (["--harakiri", "30"], "uWSGI's --harakiri kills a worker in which one HTTP request takes too long"),
        (["--processes", "3", "--cheaper", "1"], "uWSGI's --cheaper counts requests and sees no WebSockets"),
        (["--idle", "60"], "uWSGI's --idle counts requests and sees no WebSockets"),
        (["--http", "127.0.0.1:0"], "uWSGI's --http router forwards no WebSocket frames without --http-websockets"),
        (["--mount", "/a=a.py", "--mount", "/b=b"], "the application of a second --mount has an interpreter of its"),
        ([], "without a master, uWSGI does not reload"),
    ],
    ids=["listen", "descriptors", "harakiri", "cheaper", "idle", "http", "interpreters", "master"],
)
def test_it_says_what_will_bite(project, options, bite):
    sound = ["--threads", "2", "--listen", "2000", "--max-fd", "4000", "--binary-path", sys.executable]
    master = ["--master"] if options else []
    said = check("echo:application", "--", *sound, *master, *options, code=1, cwd=project)
    assert f"! {bite}" in said
    assert said.endswith("\n1 to look at\n")


def test_an_ini_is_checked_as_it_is(project):
    (project / "site.ini").write_text("[uwsgi]\nmaster = true\nthreads = 2\nlisten = 50\nmodule = echo:application\n")
    assert "! the backlog is 50" in check("echo:application", "--", "--ini", "site.ini", code=1, cwd=project)


def test_an_ini_that_logs_elsewhere_is_checked_too(project):
    ini = f"[uwsgi]\nmaster = true\nthreads = 2\nlisten = 50\nlogto = {project}/log\n"
    (project / "site.ini").write_text(ini)
    assert "! the backlog is 50" in check("echo:application", "--", "--ini", "site.ini", code=1, cwd=project)


LAZY = """
class Lazy:  # as Django's SimpleLazyObject
    @property
    def __class__(self):
        raise RuntimeError("looked up too early")

    def __call__(self):
        pass

lazy = Lazy()
"""


def test_a_lazy_object_is_not_looked_up(project):
    (project / "echo.py").write_text(f"{(project / 'echo.py').read_text()}{LAZY}")
    assert check("echo", code=0, cwd=project).endswith("nothing bites\n")


def test_nothing_is_left_of_what_the_application_starts_while_it_is_looked_at(project):
    text = (project / "echo.py").read_text()
    start = 'import subprocess\nopen("pid", "w").write(str(subprocess.Popen(["sleep", "600"]).pid))\n'
    (project / "echo.py").write_text(f"{text}{start}")
    check("echo:application", code=0, cwd=project)
    pid = int((project / "pid").read_text())
    try:
        wait_until(lambda: not is_alive(pid), "what the application has started to end", 5)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_routes_of_flask_are_told(project):
    if find_spec("flask") is None:
        not_installed("flask")
    (project / "app.py").write_text(f"{FLASK}{SOCK}")
    said = check(code=0, cwd=project)
    assert said.startswith("app:app loads under uWSGI 2.")
    assert "  route: /games app.Games.Chess\n  route: /rooms/<name> app.room\n" in said


URLS = """

from django.urls import include
from echo import Echo
from uwasp_django import websocket

@websocket
def whisper(ws, room):
    pass

rooms = [path("<slug:room>/", websocket(Echo)), path("<slug:room>/whisper/", whisper)]
urlpatterns += [path("rooms/", include(rooms))]
"""


def test_websockets_of_django_are_told_and_whose_rule_for_origins_holds(django_project):
    site = django_project / "mysite"
    with (site / "urls.py").open("a") as file:
        file.write(URLS)
    with (site / "wsgi.py").open("a") as file:
        file.write("from uwasp_django import WebSocketApplication\napplication = WebSocketApplication(application)\n")
    said = check(code=1, cwd=django_project)
    assert said.startswith("mysite.wsgi:application loads")
    assert "  handler: uwasp_threads.handler.ThreadHandler\n" in said
    assert "  options: as by default\n  origins: by Django's rule for forms: pages of the own host, and of CSRF" in said
    assert "  route: /rooms/<slug:room>/ echo.Echo\n  route: /rooms/<slug:room>/whisper/ mysite.urls.whisper\n" in said
    assert "! uwasp_django is not in INSTALLED_APPS, so manage.py check says nothing of WebSockets: add it\n" in said
    settings = site / "settings.py"
    settings.write_text(settings.read_text().replace("INSTALLED_APPS = [", "INSTALLED_APPS = ['uwasp_django',"))
    assert check(code=0, cwd=django_project).endswith("nothing bites\n")


def test_what_manage_py_check_finds_of_websockets_of_django_is_told(django_project):
    settings = django_project / "mysite" / "settings.py"
    settings.write_text(settings.read_text().replace("INSTALLED_APPS = [", "INSTALLED_APPS = ['uwasp_django',"))
    said = check(code=1, cwd=django_project)
    assert "! uwasp_django.W001: no WebSocket is in mysite.urls; Add one to its urlpatterns: path(" in said
    assert "/wsgi.py does not use WebSocketApplication, without which no WebSocket opens; application = " in said


SOCKETIO = """
import flask, flask_socketio, uwasp_socketio

app = flask.Flask(__name__)
socketio = flask_socketio.SocketIO(app)
uwasp_socketio.install(socketio)
"""


def test_a_server_of_socketio_looks_at_origins_itself(project):
    for package in ("flask_socketio", "uwasp_socketio"):
        if find_spec(package) is None:
            not_installed(package)
    (project / "app.py").write_text(SOCKETIO)
    said = check(code=0, cwd=project)
    assert "  origins: by Socket.IO's rule: cors_allowed_origins of its server\n" in said
    assert "allowed_origins=" not in said


def test_debians_uwsgi_is_asked_too(project):
    program = debian_uwsgi("python3")
    said = check("echo:application", "--uwsgi", program, code=0, cwd=project)
    assert f"under uWSGI 2.0.21 ({program})" in said


def test_an_application_without_websockets_is_told(project):
    (project / "plain.py").write_text("def application(environ, start_response):\n    return []\n")
    said = check("plain", code=1, cwd=project)
    assert "! there is no WebSocketMiddleware in it: it serves no WebSockets\n" in said


def test_one_that_does_not_load_is_one_line(project):
    (project / "echo.py").write_text("import uwasp\nuwasp.WebSocketMiddleware(print, servers=[('/x?', print)])\n")
    result = uwasp("check", "echo", cwd=project)
    assert (result.returncode, result.stderr.count("\n"), result.stdout) == (1, 1, "")
    assert result.stderr.startswith("uwasp: echo.py, line 2: ")


@pytest.fixture
def served(start_uwsgi, site):
    return start_uwsgi(site / "mysite.py", *LOOP_OPTIONS["threads"])


def test_a_handshake_is_tried(served):
    url = f"{served.url}/echo"
    assert check("--url", url, code=0) == f"{url} opens, and answers a ping\nnothing bites\n"
    own = f"http://{served.address}"
    assert f"{url} opens for a page of {own}, and " in check("--url", url, "--origin", own, code=0)


@pytest.mark.parametrize(
    ("path", "origin", "why"),
    [
        ("/echo", "https://evil.example", "403 Forbidden ('this origin may not open a WebSocket here"),
        ("/members", None, "401 Unauthorized ('log in'): authorize lets nobody in without a login"),
        ("/nothing", None, "404 Not Found ('there is no WebSocket at this path'): there is no WebSocket at this path"),
    ],
)
def test_a_refusal_is_explained(served, path, origin, why):
    origins = ["--origin", origin] if origin else []
    said = check("--url", f"{served.url}{path}", *origins, code=1)
    page = f" for a page of {origin}" if origin else ""
    assert f"! {served.url}{path} does not open{page}: {why}" in said


def close_at_once(listening):
    """Answer a handshake and close, in one write."""
    connection, _ = listening.accept()
    with connection:
        protocol = ServerProtocol()
        protocol.receive_data(connection.recv(2**16))
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))
        protocol.send_close(4000, "not today")
        connection.sendall(b"".join(protocol.data_to_send()))
        while connection.recv(2**16):
            pass


def check_one_that(answers):
    """What is said of a server which does that with its listening socket."""
    with listening_socket() as listening:
        thread = threading.Thread(target=answers, args=[listening], daemon=True)
        thread.start()
        said = check("--url", "ws://127.0.0.1:{1}/".format(*listening.getsockname()), code=1)
        thread.join(20)
    return said


def test_a_server_that_closes_at_once_is_told_of():
    said = check_one_that(close_at_once)
    assert "/ does not open: it was opened, and closed at once with 4000 'not today'" in said


def close_after_a_pong(listening, code):
    """Answer a handshake and a ping, say something, and close when the ping has been answered for a while."""
    connection, _ = listening.accept()
    with connection:
        protocol = ServerProtocol()
        protocol.receive_data(connection.recv(2**16))
        (request,) = protocol.events_received()
        protocol.send_response(protocol.accept(request))
        connection.sendall(b"".join(protocol.data_to_send()))
        while not any(frame.opcode is Opcode.PING for frame in protocol.events_received()):
            protocol.receive_data(connection.recv(2**16))
        protocol.send_text(b"good morning")
        connection.sendall(b"".join(protocol.data_to_send()))
        with suppress(TimeoutError):  # nothing comes: the client listens
            connection.settimeout(0.1)
            connection.recv(2**16)
        connection.settimeout(None)
        protocol.send_close(code, "")
        connection.sendall(b"".join(protocol.data_to_send()))
        while connection.recv(2**16):
            pass


@pytest.mark.parametrize("code", [1011, 1000])
def test_a_server_that_closes_after_the_answer_to_a_ping_is_told_of_unless_all_is_well(code):
    with listening_socket() as listening:
        thread = threading.Thread(target=close_after_a_pong, args=[listening, code], daemon=True)
        thread.start()
        said = check("--url", "ws://127.0.0.1:{1}/".format(*listening.getsockname()), code=int(code != 1000))
        thread.join(20)
    if code == 1011:
        assert "it was opened, and closed at once with 1011 '': an exception in the server, as in its on_open" in said


FAULTY = """
import uwasp


class Opens(uwasp.Server):
    def on_open(self):
        raise ValueError("not like this")

    def on_message(self, message):
        pass


class Begins(uwasp.Server):
    def __init__(self, ws):
        raise ValueError("nor like this")

    def on_message(self, message):
        pass


application = uwasp.WebSocketMiddleware(print, "threads", [("/opens", Opens), ("/begins", Begins)])
"""


@pytest.fixture
def faulty(start_uwsgi, project):
    (project / "faulty.py").write_text(FAULTY)
    return start_uwsgi(project / "faulty.py", *LOOP_OPTIONS["threads"])


def test_a_server_that_fails_when_it_is_opened_is_told_of(faulty):
    for _ in range(5):  # at times before the ping, at times after its answer
        said = check("--url", f"{faulty.url}/opens", code=1)
        assert "closed at once with 1011 'internal error': an exception in the server, as in its on_open: see" in said


def test_a_server_that_fails_when_it_is_made_is_told_of(faulty):
    said = check("--url", f"{faulty.url}/begins", code=1)
    assert "does not open: the server closed the connection without an answer: an exception in the server's " in said


def test_what_does_not_speak_http_is_told_of():
    assert "does not open: what answers there does not speak HTTP" in check_one_that(answer_otherwise)


def answer_otherwise(listening):
    connection, _ = listening.accept()
    with connection:
        connection.recv(2**16)
        connection.sendall(b"220 mail.example.org\r\n\r\n")


def test_a_page_in_the_place_of_a_websocket_is_explained(start_uwsgi, project):
    (project / "page.py").write_text(SITE.partition("servers =")[0] + "application = app\n")
    served = start_uwsgi(project / "page.py", *LOOP_OPTIONS["threads"])
    said = check("--url", f"{served.url}/echo", code=1)
    assert "does not open: 200 OK: it was answered with a page: no WebSocket is at this path, or a proxy" in said


def test_a_router_that_forwards_no_frames_is_explained(start_uwsgi, project):
    served = start_uwsgi(project / "echo.py", *LOOP_OPTIONS["threads"], kind="http")
    said = check("--url", f"{served.url}/echo", code=1)
    assert "the handshake was answered, and no frame after it: uWSGI's --http without --http-websockets" in said


def test_nobody_there_and_no_url_are_explained():
    with listening_socket() as free:
        port = free.getsockname()[1]
    assert "Connection refused" in check("--url", f"ws://127.0.0.1:{port}/", code=1)
    assert "expected ws://host/path or wss://host/path" in check("--url", "example.com/echo", code=1)


RUNNING = """
[uwsgi]
master = true
vacuum = true
{loop}
processes = 2
place = {folder}
socket = %(place)/uwsgi.sock
http-socket = %(place)/http.sock
stats = %(place)/stats
pidfile = %(place)/pid
pidfile2 = %(place)/pid2
logto = %(place)/log
master-fifo = %(place)/fifo
daemonize = %(place)/daemon
exec-pre-app = touch %(place)/hook
exec-as-user-atexit = touch %(place)/atexit
attach-daemon = touch %(place)/attached
module = echo:application
pythonpath = {project}
binary-path = {python}
listen = 1024
"""
"""What a service has that runs, and more; `daemonize` and the hooks are for the check alone."""


def state_of(folder) -> dict[str, object]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("loop", ["threads = 2", "gevent = 10"], ids=["threads", "gevent"])
@pytest.mark.parametrize("program", ["pyuwsgi", "debian"])
def test_a_service_that_runs_is_not_touched_by_a_check_of_its_ini(project, tmp_path, started, loop, program):
    path = uwsgi_program() if program == "pyuwsgi" else debian_uwsgi("python3", "gevent_python3")
    if "gevent" in loop:
        text = (project / "echo.py").read_text()
        (project / "echo.py").write_text(text.replace('"threads"', '"gevent"'))
    folder = tmp_path / "run"
    folder.mkdir()
    python = Path(sys.executable).with_name("python3")
    whole = RUNNING.format(loop=loop, folder=folder, project=project, python=python)
    if program == "debian":
        plugins = ["python3", "gevent_python3"][: 1 + ("gevent" in loop)]
        own = "".join(f"plugin = {plugin}\n" for plugin in plugins)
        whole = whole.replace("[uwsgi]\n", f"[uwsgi]\n{own}virtualenv = {sys.prefix}\n")
    (tmp_path / "site.ini").write_text(whole)
    calm = re.sub(r"^(daemonize|logto|exec|attach).*\n", "", whole, flags=re.MULTILINE)
    (tmp_path / "running.ini").write_text(calm)

    running = started(lambda log: BareUwsgi([str(path), "--ini", str(tmp_path / "running.ini")], log / "log"))
    running.wait_for_output("spawned uWSGI worker 2")
    wait_until((folder / "stats").exists, "the stats socket")
    before = state_of(folder)
    command = ["--uwsgi", path, "--", "--ini", tmp_path / "site.ini"]
    said = uwasp("check", "echo:application", *command, cwd=project)
    assert said.stderr == ""
    assert "  path: /echo echo.Echo\n" in said.stdout
    assert "in its loop for " + loop.partition(" ")[0] in said.stdout
    assert "backlog: 1024 connections" in said.stdout
    assert state_of(folder) == before
    with unix_connect(str(folder / "http.sock"), uri="ws://localhost/echo") as client:
        client.send("hello")
        assert client.recv(timeout=20) == "hello"
    assert read(str(folder / "stats")).uwsgi["pid"] == running.popen.pid


def test_variables_that_are_options_to_uwsgi_bind_nothing_and_are_looked_at(project, tmp_path):
    env = {**os.environ, "UWSGI_HTTP_SOCKET": f"{tmp_path}/bound", "UWSGI_PIDFILE": f"{tmp_path}/pid"}
    for rest in ([], ["--", "--master", "--listen", "50"]):
        uwasp("check", "echo:application", *rest, cwd=project, env={**env, "UWSGI_IDLE": "60"})
        assert not (tmp_path / "bound").exists()
        assert not (tmp_path / "pid").exists()
    said = uwasp("check", "echo:application", *rest, cwd=project, env={**env, "UWSGI_IDLE": "60"}).stdout
    assert "uWSGI's --idle counts requests" in said


def test_the_application_finds_in_uwsgis_options_what_is_left_undone(project, tmp_path):
    with (project / "echo.py").open("a") as file:
        file.write("import uwsgi\nopen('opt', 'w').write(repr(uwsgi.opt))\n")
    lines = ["[uwsgi]", "mine = 100%%", "for = a b", "socket = /nowhere/%(_)", "endfor =", "master = true"]
    lines += ["vacuum = true", "http-socket = /nowhere/b", "harakiri = 1"]
    lines += ["other = %(mine) of %(http-socket), %(harakiri)", ""]
    (tmp_path / "site.ini").write_text("\n".join(lines))
    check("echo:application", "--", "--ini", tmp_path / "site.ini", code=1, cwd=project)
    opt = ast.literal_eval((project / "opt").read_text())
    assert opt["mine"] == b"100%"
    assert opt["other"] == b"100% of /nowhere/b, 1"
    assert opt["vacuum"] is True
    assert opt["socket"] == b"/nowhere/b"  # as uWSGI itself has it


def test_a_socket_whose_folder_is_missing_is_named(project, tmp_path):
    sockets = [f"{tmp_path}/nowhere/uwsgi.sock", f"{tmp_path}/gone/stats", "/run/of-nobody-at-all/uwsgi.sock"]
    lines = "socket = {}\nstats = {}\nhttp-socket = {}\n".format(*sockets)
    (tmp_path / "site.ini").write_text(f"[uwsgi]\nmaster = true\nthreads = 2\n{lines}")
    said = check("echo:application", "--", "--ini", tmp_path / "site.ini", code=1, cwd=project)
    assert f"! socket = {sockets[0]}: there is no folder {tmp_path}/nowhere, and without it uWSGI" in said
    assert f"! stats = {sockets[1]}: there is no folder {tmp_path}/gone, " in said
    assert f"  http-socket: {sockets[2]}, in a folder to be made at a start; RuntimeDirectory= in a unit" in said
    assert "! http-socket" not in said


@pytest.mark.parametrize("mistake", ["chmod-socket = 66", "chdir = /nowhere", "plugin = nothing\nneed-app = 1"])
def test_an_ini_with_a_mistake_in_it_leaves_the_files_of_its_service_too(project, tmp_path, mistake):
    (tmp_path / "pid").write_text("1")
    sockets = f"pidfile = {tmp_path}/pid\nsocket = {tmp_path}/uwsgi.sock\nvacuum = true\n"
    hook = f"exec-as-user-atexit = touch {tmp_path}/hook\nenv = SECRET=hidden\n"
    (tmp_path / "site.ini").write_text(f"[uwsgi]\nmaster = true\nthreads = 2\n{sockets}{hook}{mistake}\n")
    result = uwasp("check", "echo:application", "--", "--ini", tmp_path / "site.ini", cwd=project)
    assert result.returncode == 1
    assert "hidden" not in result.stdout + result.stderr
    assert (tmp_path / "pid").exists()
    assert not (tmp_path / "hook").exists()


@pytest.mark.parametrize("option", [["--ini", "nothing.ini"], ["--no-such-option"]])
def test_options_that_uwsgi_does_not_take_are_told_with_its_words(project, option):
    result = uwasp("check", "echo:application", "--", *option, cwd=project)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"does not take {' '.join(option)}, and said:\n" in result.stderr
    assert option[-1].strip("-") in result.stderr.partition("said:")[2]
