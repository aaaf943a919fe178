"""Where there is no uWSGI: `manage.py check` looks at the set-up, pages are served, and WebSockets get 501."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from django_sites import HERE, environment, manage, python_path
from processes import Process, running

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
PATCHED = "from gevent import monkey\nmonkey.patch_all()\n"
WRAPPED = "from django.core.wsgi import get_wsgi_application\nfrom uwasp_django import WebSocketApplication\n"


@pytest.fixture
def check(tmp_path):
    """What `manage.py check` says, with further modules: `check(is_right, {name: source}, handler, **settings)`."""

    def check(is_right=True, modules=None, handler="threads", uwasp=None, **settings):
        for name, source in (modules or {}).items():
            (tmp_path / f"{name}.py").write_text(source)
        env = environment(handler, uwasp=uwasp, **settings)
        env["PYTHONPATH"] = python_path(HERE, tmp_path)
        return manage(tmp_path, "check", env=env, is_right=is_right)

    return check


def urls(*lines):
    imports = "from django.urls import path\nfrom uwasp import Server\nfrom uwasp_django import websocket\n"
    return imports + "\n".join(lines)


@pytest.mark.parametrize("handler", ["threads", "gevent", "asyncio"])
def test_a_project_that_is_right_has_no_issues(check, handler):
    modules = {"wsgi_of_this": PATCHED + WRAPPED} if handler == "gevent" else {}
    application = {"WSGI_APPLICATION": "wsgi_of_this.application"} if handler == "gevent" else {}
    assert "System check identified no issues" in check(True, modules, handler, **application)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"ping_intervall": 3}, "unknown option ping_intervall"),
        ({"max_queue": 0}, "max_queue is"),
        ({"handler_class": "thread"}, "no handler named 'thread' is installed"),
        ({"allowed_origins": "*"}, "put the pages' origins into CSRF_TRUSTED_ORIGINS"),
    ],
)
def test_a_setting_that_cannot_be_is_an_error(check, setting, said):
    told = check(False, uwasp=setting)
    assert "(uwasp_django.E001)" in told
    assert said in told


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("async def x(ws): ...", "x is async def, which ThreadHandler does not run"),
        ("class x(Server):\n    def on_message(self): ...", "x.on_message is called as on_message(self, message)"),
        ("class x(Server):\n    max_queue = 0", "max_queue is"),
    ],
)
def test_a_server_that_cannot_be_is_an_error(check, server, said):
    told = check(False, {"urls": urls(server, 'urlpatterns = [path("a/<int:b>/", websocket(x))]')}, ROOT_URLCONF="urls")
    assert "(uwasp_django.E002)" in told
    assert f"/a/<int:b>/: {said}" in told


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ("def x(ws): yield", "TypeError: x is a generator"),
        ("x = 3", "TypeError: the server of a WebSocket is a class or a function, not 3"),
        ("@login_required\ndef x(ws): ...", "what decorates x is for views, and it has become none yet"),
    ],
)
def test_what_can_be_no_view_is_refused_when_it_is_to_become_one(check, server, said):
    source = urls("from django.contrib.auth.decorators import login_required", server, "websocket(x)")
    assert said in check(False, {"urls": source}, ROOT_URLCONF="urls")


def test_a_server_that_is_no_view_is_an_error(check):
    source = urls("class Echo(Server): ...", 'urlpatterns = [path("echo/", Echo)]')
    told = check(False, {"urls": source}, ROOT_URLCONF="urls")
    assert "/echo/: Echo is a server, and no view" in told
    assert "HINT: Write websocket(Echo)." in told


def test_websocket_urlpatterns_that_nothing_leads_to_are_an_error(check):
    source = urls("@websocket", "def x(ws): ...", 'websocket_urlpatterns = [path("x/", x)]', "urlpatterns = []")
    told = check(False, {"urls": source}, ROOT_URLCONF="urls")
    assert "1 of websocket_urlpatterns are in no urlpatterns" in told
    assert "HINT: Add them in urls: urlpatterns += websocket_urlpatterns" in told


def test_a_project_without_any_websocket_is_warned(check):
    told = check(True, {"urls": "urlpatterns = []"}, ROOT_URLCONF="urls")
    assert "(uwasp_django.W001) no WebSocket is in urls" in told


def test_a_wsgi_file_that_is_not_wrapped_is_warned_of(check):
    told = check(True, {"wsgi_of_this": "application = print"}, WSGI_APPLICATION="wsgi_of_this.application")
    assert "(uwasp_django.W002)" in told
    assert "HINT: application = WebSocketApplication(get_wsgi_application())" in told


@pytest.mark.parametrize(("handler", "source"), [("gevent", WRAPPED), ("gevent", WRAPPED + PATCHED)])
def test_gevent_that_comes_after_django_is_an_error(check, handler, source):
    told = check(False, {"wsgi_of_this": source}, handler, WSGI_APPLICATION="wsgi_of_this.application")
    assert "(uwasp_django.E005)" in told
    assert "begin wsgi.py with: from gevent import monkey; monkey.patch_all()" in told


def test_the_file_is_read_and_not_run(check):
    source = f"{PATCHED}{WRAPPED}raise SystemExit('it was run')"
    assert "no issues" in check(True, {"wsgi_of_this": source}, "gevent", WSGI_APPLICATION="wsgi_of_this.application")


SERVER = """
import sys
from wsgiref.simple_server import make_server
from django.core.servers.basehttp import get_internal_wsgi_application
server = make_server("127.0.0.1", 0, get_internal_wsgi_application())
print("serves", server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("application", ["django_site.wsgi.application", None], ids=["wrapped", "not wrapped"])
def test_what_runserver_runs_serves_pages_and_answers_501_for_a_websocket(tmp_path, application):
    """By the server of Python's that Django's derives from, on a port that the kernel chooses."""
    env = environment(MIDDLEWARE=[], WSGI_APPLICATION=application)
    code = f"import django; django.setup(){SERVER}"
    with running(Process([sys.executable, "-c", code], tmp_path / "log", env, cwd=tmp_path)) as process:
        process.wait_for_output("serves ")
        url = f"http://127.0.0.1:{process.output.split('serves ')[1].split()[0]}"
        with urllib.request.urlopen(url, timeout=20) as response:
            assert response.status == 200
        with urllib.request.urlopen(f"{url}/notify/", timeout=20) as response:
            assert response.read() == b"told"
        for headers, status in ((UPGRADE, 501), ({}, 426)):
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(urllib.request.Request(f"{url}/echo/", headers=headers), timeout=20)
            assert error.value.code == status
        process.wait_for_output("no WebSocket at /echo/: this application does not run under uWSGI")


def test_the_client_of_django_s_tests_gets_pages_and_501_for_a_websocket(tmp_path):
    code = f"""
import django; django.setup()
from django.test import Client
headers = {{"HTTP_" + name.upper().replace("-", "_"): value for name, value in {UPGRADE!r}.items()}}
client = Client()
for path, more in (("/", {{}}), ("/echo/", {{}}), ("/echo/", headers), ("/private/", headers), ("/nowhere/", headers)):
    response = client.get(path, **more)
    print(response.status_code, response.content[:90].decode())
"""
    env = environment(ALLOWED_HOSTS=["testserver"], MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ])  # fmt: skip
    told = manage(tmp_path, "shell", "-c", code, env=env).splitlines()
    statuses = [line.split()[0] for line in told if line[:3].isdigit()]
    assert statuses == ["200", "426", "501", "302", "404"]
    assert "501 this application does not run under uWSGI" in "\n".join(told)


KIT = """
import json, time
from django_site.wsgi import application
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from uwasp.testing import HandshakeRefused, connect
call_command("migrate", verbosity=0)
seen = {}
try:
    connect(application, "/private/")
except HandshakeRefused as refused:
    seen["a stranger"] = refused.status
browser = Client()
browser.force_login(get_user_model().objects.create(username="ada"))
cookie = {"Cookie": browser.cookies.output(attrs=[], header="", sep=";")}
with connect(application, "/private/", headers=cookie) as ws:
    seen["somebody"] = ws.receive_json()["user"]
with connect(application, "/rooms/blue/guarded/", user="bob") as ws:
    seen["whoever a test says"] = ws.receive_json()["user"]
with connect(application, "/counting/function/") as ws:
    seen["users"] = ws.receive()
    begin = time.process_time()
    try:
        ws.receive(1)
    except TimeoutError:
        seen["is idle"] = time.process_time() - begin < 0.2
print(json.dumps(seen))
"""


def python(code, folder, env):
    """Run a program, and return what became of it."""
    command, env = [sys.executable, "-c", code], {**os.environ, **env}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_test_kit_opens_websockets_on_a_database_in_memory(tmp_path, handler):
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": "file:kit?mode=memory&cache=shared"}
    done = python(KIT, tmp_path, environment(handler, database=database))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "a stranger": 401,
        "somebody": "ada",
        "whoever a test says": "bob",
        "users": "1",
        "is idle": True,
    }


def test_a_page_sends_to_a_group_where_the_setting_names_a_folder_for_the_bus(tmp_path):
    code = """
from django_site.wsgi import application
from django.test import Client
print(Client().get("/notify/").content.decode())
"""
    settings = {"ALLOWED_HOSTS": ["testserver"], "MIDDLEWARE": []}
    done = python(code, tmp_path, environment(uwasp={"bus": f"local:{tmp_path}/bus"}, **settings))
    assert done.stdout == "told\n", done.stderr
    done = python(code, tmp_path, environment(**settings))
    assert 'ConfigurationError: bus="local:" is that of a uWSGI instance' in done.stderr


SENDS = """
import django; django.setup()
from uwasp import Group
Group("room").send("hello")
print(Group("room").bus)
"""


def test_a_command_has_the_bus_of_the_settings_without_the_wsgi_file(tmp_path):
    done = python(SENDS, tmp_path, environment(uwasp={"bus": f"local:{tmp_path}/bus"}))
    assert done.stdout == f"<Bus local:{tmp_path}/bus>\n", done.stderr
    opens = SENDS.replace("Group(", f"import uwasp; uwasp.open_bus('local:{tmp_path}/other'); Group(", 1)
    done = python(opens, tmp_path, environment(uwasp={"bus": f"local:{tmp_path}/bus"}))
    assert done.stdout == f"<Bus local:{tmp_path}/other>\n", done.stderr


def test_a_command_that_would_reach_nobody_is_told_what_to_name(tmp_path):
    done = python(SENDS, tmp_path, environment(DEBUG=True))
    assert 'Name a Redis or a folder, such as bus="local:/run/mysite", there and here' in done.stderr


def test_a_page_sends_to_a_group_in_djangos_tests_and_the_log_says_that_it_reaches_nobody_else(tmp_path):
    (tmp_path / "tests.py").write_text(
        "from django.test import SimpleTestCase\n\n\n"
        "class PageTests(SimpleTestCase):\n"
        "    def test_it_tells(self):\n"
        '        self.assertEqual(self.client.get("/notify/").content, b"told")\n'
        '        self.assertEqual(self.client.get("/notify/").content, b"told")\n'
    )
    told = manage(tmp_path, "test", env={**environment(MIDDLEWARE=[]), "PYTHONPATH": python_path(HERE, tmp_path)})
    assert "Ran 1 test" in told
    assert told.count("groups reach the WebSockets of this process alone") == 1
