"""`uwasp dev`: what it serves and says, that it comes back at each save, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from commands import UWASP, Command, hears_signals, is_alive, uwasp
from processes import Process, debian_uwsgi, listening_socket, not_installed, wait_until


def body(process) -> str:
    with urlopen(process.url, timeout=20) as response:
        return response.read().decode()


def echoes(process, path="echo"):
    with connect(f"{process.url}{path}".replace("http", "ws"), proxy=None) as client:
        client.send("hello")
        return client.recv(timeout=20) == "hello"


def is_loading(pid: int) -> bool:
    """Whether it is the uWSGI that serves, and not one that was asked what it can do."""
    try:
        return b"uwasp_cli.development" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_one_line_says_where_it_serves_and_messages_are_lines_that_one_reads(start_dev):
    dev = start_dev("echo:application")
    assert dev.output == f"open http://127.0.0.1:{dev.port}/  (Ctrl-C stops it)\n"
    assert body(dev) == "the first"
    assert echoes(dev)
    dev.wait_for_output("is closed")
    said = dev.output
    time = r"\d\d:\d\d:\d\d"
    assert re.search(rf"^{time} GET / 200 in \d+ ms$", said, re.MULTILINE)
    assert re.search(rf"^{time} INFO uwasp.connection: connection 1 of 127.0.0.1 at /echo is open$", said, re.MULTILINE)


def test_the_loop_is_the_one_that_the_applications_handler_wants(start_dev, project):
    rewrite(project / "echo.py", '"threads"', '"gevent"')
    rewrite(project / "echo.py", 'b"the first"', "__import__('uwsgi').loop")
    assert body(start_dev("echo.py")) == "gevent"


def test_a_handler_that_is_named_is_in_the_environment(start_dev, project):
    rewrite(project / "echo.py", '"threads"', '__import__("os").environ["UWASP_HANDLER"]')
    assert echoes(start_dev("echo", "--handler", "gevent"))


@pytest.mark.parametrize("command", [["check"], ["run"], ["dev", "--port", "0"]], ids=["check", "run", "dev"])
def test_a_handler_that_is_not_installed_is_one_line_with_those_that_are(project, command):
    said = one_line(uwasp(*command, "echo", "--handler", "eventlet", cwd=project))
    installed = r"([\w-]+ or )*threads( or [\w-]+)*"
    assert re.fullmatch(rf"uwasp: --handler eventlet: no such handler is installed; there is {installed}\n?", said)


def test_a_save_serves_the_new_code_and_tells_the_clients_of_the_old(start_dev, project):
    dev = start_dev("echo.py")
    with connect(f"{dev.url}echo".replace("http", "ws"), proxy=None) as client:
        rewrite(project / "echo.py", "the first", "the second")
        with pytest.raises(ConnectionClosed, match="1001"):
            client.recv(timeout=20)
    dev.wait_for_output("uwasp: echo.py has changed\n")
    dev.wait_for_output("uwasp: reloaded\n")
    assert body(dev) == "the second"


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("def (", "echo.py, line 16: SyntaxError: "),
        ("import nothing_like_it", "echo.py, line 16: there is no module nothing_like_it; if it is a package"),
        ("raise ValueError('no\\nway')", "echo.py, line 16: ValueError: no way\n"),
        ("raise SystemExit(3)", "echo.py, line 16: SystemExit: 3\n"),
        ("application = None", "echo:application is no WSGI application, but None\n"),
    ],
    ids=["syntax", "import", "exception", "exit", "nothing"],
)
def test_what_was_there_goes_on_while_the_application_cannot_be_loaded(start_dev, project, mistake, said):
    dev = start_dev("echo:application")
    healthy = (project / "echo.py").read_text()
    with connect(f"{dev.url}echo".replace("http", "ws"), proxy=None) as client:
        (project / "echo.py").write_text(f"{healthy}{mistake}\n")
        dev.wait_for_output("what was there before goes on; the next save tries again")
        assert said in dev.output
        client.send("still there")
        assert client.recv(timeout=20) == "still there"
    assert body(dev) == "the first"
    (project / "echo.py").write_text(healthy.replace("the first", "the second"))
    dev.wait_for_output("uwasp: reloaded")
    assert body(dev) == "the second"


def test_a_handler_may_change_at_a_save(start_dev, project):
    dev = start_dev("echo.py")
    rewrite(project / "echo.py", '"threads"', '"gevent"')
    dev.wait_for_output("uwasp: reloaded")
    assert echoes(dev)


def test_a_module_in_a_folder_below_a_new_one_and_a_variable_are_seen(start_dev, project):
    rewrite(project / "echo.py", 'b"the first"', "__import__('os').environ['GREETING'].encode()")
    (project / ".env").write_text("export GREETING='good morning'  # all\n\nOTHER=1\n")
    dev = start_dev("echo.py", "--env-file", ".env")
    assert body(dev) == "good morning"
    (project / ".env").write_text("GREETING good evening\n")
    dev.wait_for_output("uwasp: not reloaded: .env, line 1: expected NAME=value, not 'GREETING good evening'")
    (project / ".env").write_text("GREETING=good evening\n")
    dev.wait_for_output("uwasp: reloaded")
    assert body(dev) == "good evening"
    (project / "below").mkdir()
    (project / "below" / "module.py").write_text("")
    dev.wait_for_output(f"uwasp: {Path('below', 'module.py')} has changed\n")
    dev.wait_for_output("uwasp: reloaded", 2)


def test_a_template_is_seen_and_what_an_editor_leaves_beside_it_is_not(start_dev, project):
    if find_spec("flask") is None:
        not_installed("flask")
    rule = 'app.add_url_rule("/page", "page", lambda: render_template("a/page.html"))'
    (project / "app.py").write_text(f"{FLASK}\nfrom flask import render_template\napp = create_app()\n{rule}\n")
    templates = project / "templates" / "a"
    templates.mkdir(parents=True)
    (templates / "page.html").write_text("the first")
    (project / "page.html").write_text("no template")

    def page():
        with urlopen(f"{dev.url}page", timeout=20) as response:
            return response.read().decode()

    dev = start_dev()
    assert page() == "the first"
    for left in (project / "page.html", templates / ".page.html.swp", templates / "page.html~"):
        left.write_text("not to be seen")
    (templates / "page.html").write_text("the second")
    dev.wait_for_output("uwasp: reloaded")
    assert page() == "the second"
    changed = re.findall(r"^uwasp: (.*) has changed$", dev.output, re.MULTILINE)
    assert changed == [str(Path("templates", "a", "page.html"))]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_it_quietly_and_leaves_nothing_running(start_dev, number):
    dev = start_dev("echo.py", "--processes", "2")
    said = dev.output
    wait_until(lambda: len(dev.processes()) == 3, "both workers")
    with connect(f"{dev.url}echo".replace("http", "ws"), proxy=None):
        assert dev.stop(number) == 0
    assert dev.left == []
    assert "Traceback" not in dev.output
    assert dev.output.startswith(said)


@pytest.mark.parametrize("streams", ["| true", "2>&1 | head -1"])
def test_where_nobody_reads_any_more_it_ends_quietly_and_leaves_nothing_running(project, started, streams):
    command = shlex.join([*UWASP, "dev", "echo.py", "--port", "0"])
    dev = started(lambda folder: Command(["bash", "-c", f"{command} {streams}"], folder, project, wait=False))
    seen: set[int] = set()
    if "head" in streams:
        dev.wait_for_output("open http://")

    def has_ended() -> bool:
        seen.update(dev.processes())
        if "head" in streams:
            with suppress(OSError):  # it ends
                body(dev)  # which is a line that nobody reads
        return dev.popen.poll() is not None

    wait_until(has_ended, "it to end")
    wait_until(lambda: not any(map(is_alive, seen)), "all that it has started to end")
    assert seen
    assert "Traceback" not in dev.output
    assert "BrokenPipe" not in dev.output


@pytest.mark.parametrize("command", ["check echo.py", "run echo.py --show", "config echo.py --for ini"])
def test_what_is_said_once_ends_quietly_too(project, started, command):
    command = f"{shlex.join([*UWASP])} {command} | true"
    process = started(lambda folder: Process(["bash", "-c", command], folder / "log", cwd=project))
    assert process.popen.wait(timeout=20) == 0
    assert process.output == ""


def test_ctrl_c_stops_it_before_it_is_ready(start_dev):
    dev = start_dev("echo.py", wait=False)
    wait_until(lambda: any(map(is_loading, dev.processes())), "uWSGI")
    assert dev.stop(signal.SIGINT) == 0
    assert "Traceback" not in dev.output
    assert dev.left == []


def test_it_says_which_worker_was_killed_and_goes_on(start_dev):
    dev = start_dev("echo.py", "--processes", "2")
    wait_until(lambda: len(dev.processes()) == 3, "both workers")
    _, worker, other = dev.processes()
    os.kill(worker, signal.SIGKILL)
    dev.wait_for_output("Respawned uWSGI worker")
    wait_until(lambda: len(dev.processes()) == 3, "the new worker")
    assert other in dev.processes()
    # A stop is lost on a worker that has not put in uWSGI's handlers yet, the last of which is that of SIGUSR2.
    wait_until(lambda: all(map(hears_signals, dev.processes()[1:])), "the new worker to be ready")


def test_it_ends_and_says_so_when_uwsgi_does(start_dev):
    dev = start_dev("echo.py")
    started = dev.processes()
    os.kill(started[0], signal.SIGKILL)
    assert dev.popen.wait(timeout=20) == 1
    assert dev.output.endswith("uwasp: uWSGI ended by itself, with code -9\n")
    wait_until(lambda: not any(map(is_alive, started)), "uWSGI's workers to end with their master")


def test_the_port_is_free_again_at_once(start_dev):
    first = start_dev("echo.py")
    with socket.create_connection(("127.0.0.1", first.port)):
        assert first.stop() == 0
    assert start_dev("echo.py", port=first.port).port == first.port


def one_line(result) -> str:
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_a_taken_port_is_one_line(project):
    with listening_socket() as taken:
        port = taken.getsockname()[1]
        result = uwasp("dev", "echo.py", "--port", port, cwd=project)
    assert one_line(result) == f"uwasp: port {port} on 127.0.0.1 is taken; choose another with --port"


def test_an_address_of_another_machine_is_one_line(project):
    result = uwasp("dev", "echo.py", "--host", "192.0.2.1", "--port", 0, cwd=project)  # RFC 5737: nobody's
    assert one_line(result).startswith("uwasp: cannot listen on 192.0.2.1:0: ")


@pytest.mark.parametrize(
    ("code", "named", "said"),
    [
        ("", "nothing_there", "there is no module nothing_there in "),
        ("", "nothing.py", "there is no file "),
        ("", "echo:nothing", "echo has no nothing"),
        ("import flaskk", "echo", "echo.py, line 1: there is no module flaskk; if it is a package that is not "),
        ("x = = 1", "echo", "echo.py, line 1: SyntaxError: invalid syntax"),
        ("import uwasp\nuwasp.WebSocketMiddleware(print, 'eventlet')", "echo", "no handler named 'eventlet' is inst"),
        ("", "echo", "echo has no application or app, no single Flask application, and no create_app or make_app"),
        ("def create_app(debug=False): pass", "echo:create_app", "create_app is a function that makes an application"),
        ("def app(scope, receive, send): pass", "echo:app", "echo:app is no WSGI application: it takes (scope, "),
        ("PAGE = 1000 * 'x'", "echo:PAGE", f"echo:PAGE is no WSGI application, but '{59 * 'x'}...\n"),
        ("", "echo:app lication", "echo:app lication: after the colon stands the name of a callable"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_one_line(project, code, named, said):
    (project / "echo.py").write_text(code)
    assert f"{one_line(uwasp('dev', named, '--port', 0, cwd=project))}\n".startswith(f"uwasp: {said}")


@pytest.mark.parametrize("command", [["check"], ["run"], ["dev", "--port", "0"]], ids=["check", "run", "dev"])
def test_a_factory_in_the_place_of_an_application_is_told_how_to_be_named(project, command):
    (project / "echo.py").write_text("def create_app():\n    pass\n")
    assert one_line(uwasp(*command, "echo:create_app", cwd=project)).endswith(": write echo:create_app()")


DECORATED = """
from functools import wraps


def responder(view):  # as Werkzeug's Request.application
    @wraps(view)
    def application(*args):
        return view(args[0])(*args)

    return application


@responder
def application(request):
    return app
"""


@pytest.mark.parametrize("arguments", ["environ, start_response", "environ, start, more=None", "*args", "*a, **k"])
def test_a_function_that_can_be_an_application_is_taken_for_one(project, arguments):
    code = f"def app({arguments}):\n    return [b'plain']\n"
    (project / "echo.py").write_text(f"{code}{DECORATED}")
    for name in ("app", "application"):
        check = uwasp("check", f"echo:{name}", cwd=project)
        assert check.stderr == ""
        assert check.stdout.startswith(f"echo:{name} loads under uWSGI")


def test_a_line_of_a_file_of_variables_that_is_none_is_named(project):
    (project / "variables").write_text("# all\nNAME value\n")
    said = one_line(uwasp("dev", "echo.py", "--env-file", "variables", cwd=project))
    assert said == "uwasp: variables, line 2: expected NAME=value, not 'NAME value'"


def test_a_missing_uwsgi_is_named(project, tmp_path):
    assert one_line(uwasp("dev", "echo.py", "--uwsgi", "nothing", cwd=project)) == "uwasp: there is no program nothing"
    python = tmp_path / "python"  # without uWSGI beside it
    program = f"import sys; sys.executable = {str(python)!r}; from uwasp_cli.command import main; sys.exit(main())"
    env = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = Process([sys.executable, "-c", program, "dev", "echo.py"], tmp_path / "log", env, cwd=project)
    assert result.popen.wait(timeout=20) == 1
    assert result.output == "uwasp: uWSGI is not installed; try: pip install pyuwsgi\n"


def test_what_stands_behind_two_hyphens_goes_to_uwsgi(start_dev):
    dev = start_dev("echo.py", "--", "--add-header", "X-Test: passed on")
    with urlopen(dev.url, timeout=20) as response:
        assert response.headers["X-Test"] == "passed on"


FLASK = """
from flask import Flask


def create_app():
    flask = Flask(__name__)
    flask.add_url_rule("/", view_func=lambda: "from Flask")
    return flask
"""


@pytest.mark.parametrize(
    ("name", "code", "variable"),
    [
        ("app.py", "site = create_app()", None),
        ("wsgi.py", "app = create_app()", None),
        ("app.py", "", None),
        ("mysite.py", "", "mysite:create_app()"),
        ("mysite.py", "app = create_app()", "mysite.py"),
    ],
    ids=["the only one", "wsgi.py", "a factory", "FLASK_APP with a factory", "FLASK_APP with a file"],
)
def test_an_application_of_flask_is_found_as_flask_run_finds_it(start_dev, project, name, code, variable):
    if find_spec("flask") is None:
        not_installed("flask")
    (project / name).write_text(f"{FLASK}\n{code}\n")
    dev = start_dev(env={"FLASK_APP": variable} if variable else None)
    assert body(dev) == "from Flask"


def test_a_middleware_around_an_application_of_flask_goes_first(start_dev, project):
    if find_spec("flask") is None:
        not_installed("flask")
    text = (project / "echo.py").read_text()
    (project / "app.py").write_text(f"{text}{FLASK}\napp = create_app()\n".replace("application =", "around ="))
    assert echoes(start_dev())


LOGS = """
import logging

app = create_app()
app.logger.info("too low for a logger of Flask's, and said by nobody")
logging.getLogger("site.high").addHandler(logging.StreamHandler())
logging.getLogger("site.high").handlers[0].setLevel(logging.ERROR)


@app.get("/log")
def log():
    app.logger.warning("of Flask's own")
    logging.getLogger("site.high.below").error("of a handler's")
    logging.getLogger("site.high.below").warning("too low for the handler")
    logging.getLogger("site").info("of no handler's")
    return "logged"
"""


def test_what_the_application_logs_is_written_once(start_dev, project):
    if find_spec("flask") is None:
        not_installed("flask")
    (project / "app.py").write_text(f"{FLASK}\n{LOGS}")
    dev = start_dev()
    with urlopen(f"{dev.url}log", timeout=20) as response:
        assert response.read() == b"logged"
    dev.wait_for_output("GET /log 200")
    lines = [re.sub(r"^\S*\d\d:\d\d:\d\d\S* |^\[.*\] ", "", line) for line in dev.output.splitlines()]
    assert [line for line in lines if "GET" not in line and "open" not in line] == [
        "WARNING in app: of Flask's own",
        "of a handler's",
        "WARNING site.high.below: too low for the handler",
        "INFO site: of no handler's",
    ]


def test_a_project_of_django_is_found_by_its_manage_py(start_dev, django_project):
    wsgi = django_project / "mysite" / "wsgi.py"
    around = "from echo import Echo, WebSocketMiddleware\n"
    around += "application = WebSocketMiddleware(application, servers=[('/echo', Echo)])\n"
    wsgi.write_text(f"{wsgi.read_text()}{around}")
    dev = start_dev()
    assert "The install worked successfully" in body(dev)
    assert echoes(dev)


@pytest.mark.parametrize("handler", ["threads", "gevent"])
def test_debians_uwsgi_serves_with_its_plugins(start_dev, project, handler):
    program = debian_uwsgi("python3", "gevent_python3")
    rewrite(project / "echo.py", '"threads"', f'"{handler}"')
    dev = start_dev("echo.py", "--uwsgi", str(program))
    assert echoes(dev)
    rewrite(project / "echo.py", "the first", "the second")
    dev.wait_for_output("uwasp: reloaded")
    assert body(dev) == "the second"
