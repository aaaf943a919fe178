"""The projects in the documents about Django run as they stand there."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.sync.client import connect

from django_sites import ask, get, log_in, manage, python_path, refused
from documents import code_blocks
from processes import LOOP_OPTIONS, wait_until

DOCUMENTS = Path(__file__).parents[2] / "docs"
SETTINGS = """
SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "uwasp_django", "{name}",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "{name}.urls"
WSGI_APPLICATION = "{name}.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{folder}/site.sqlite3"}}}}
"""


@pytest.fixture
def project(tmp_path):
    """Write the project of a document, and its tables: `project(document, handler)`; its folder and environment."""

    def write(document, handler, settings="", **replaced):
        files = {}
        for code in code_blocks(DOCUMENTS / document, "python"):
            name, variant = re.match(r"# (\w+/\w+\.py)(, for \w+)?\n", code).groups()
            if variant in (None, f", for {handler}"):
                files[name] = code
        project = next(iter(files)).split("/")[0]
        files |= {f"{project}/{name}.py": code for name, code in replaced.items()}
        files[f"{project}/__init__.py"] = ""
        files[f"{project}/settings.py"] = SETTINGS.format(name=project, folder=tmp_path) + settings
        for name, code in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(code)
        env = {"PYTHONPATH": python_path(tmp_path), "DJANGO_SETTINGS_MODULE": f"{project}.settings"}
        (tmp_path / project / "migrations").mkdir()
        (tmp_path / project / "migrations" / "__init__.py").touch()
        manage(tmp_path, "makemigrations", "-v0", project, env=env)
        manage(tmp_path, "migrate", "-v0", env=env)
        assert "no issues" in manage(tmp_path, "check", env=env)
        return tmp_path, env

    return write


@pytest.fixture
def serve(project, start_uwsgi):
    """Start the project of a document: `serve(document, handler)`."""

    def serve(document, handler, settings="", **replaced):
        folder, env = project(document, handler, settings, **replaced)
        (wsgi,) = folder.glob("*/wsgi.py")
        return start_uwsgi(wsgi, *LOOP_OPTIONS[handler], env=env)

    return serve


def test_the_project_of_the_page_about_django_runs(serve, handler):
    uwsgi = serve("django.md", handler)
    assert refused(f"{uwsgi.url}/rooms/blue/").status_code == 401
    headers = log_in(uwsgi, "ada")
    with connect(f"{uwsgi.url}/rooms/blue/", additional_headers=headers) as client:
        assert ask(client, "hello") == "ada: hello"
        get(uwsgi, "/post/blue/?text=news")
        assert client.recv(20) == "a view: news"
    with connect(f"{uwsgi.url}/rooms/blue/", additional_headers=headers) as client:
        assert [client.recv(20), client.recv(20)] == ["ada: hello", "a view: news"]
    with connect(f"{uwsgi.url}/rooms/blue/whisper/", additional_headers=headers) as client:
        assert ask(client, "psst") == "psst (2 were louder)"


def test_its_own_tests_pass_without_uwsgi_and_on_one_and_leave_the_database_of_the_site_alone(project):
    (settings,) = [code for code in code_blocks(DOCUMENTS / "django.md", "python") if "# chat/settings.py" in code]
    folder, env = project("django.md", "threads", settings)
    before = (folder / "site.sqlite3").read_bytes()
    assert "Ran 3 tests" in manage(folder, "test", "chat", env=env)
    assert (folder / "site.sqlite3").read_bytes() == before


def test_its_servers_in_async_def_run(serve):
    settings = 'UWASP = {"handler_class": "asyncio"}'
    urls = """
from django.urls import path
from uwasp_django import websocket
from chat.coroutines import Room, count
urlpatterns = [path("<slug:room>/", websocket(Room)), path("<slug:room>/count/", count)]
"""
    uwsgi = serve("django.md", "asyncio", settings, urls=urls)
    with connect(f"{uwsgi.url}/blue/") as client, connect(f"{uwsgi.url}/blue/count/") as counting:
        assert ask(counting, "?") == "0"
        client.send("hello")
        for _ in range(100):
            if ask(counting, "?") == "1":
                break
        else:
            pytest.fail("what was sent was not saved")


def test_the_program_of_the_page_about_channels_runs(serve):
    uwsgi = serve("moving-from-django-channels.md", "threads")
    assert refused(f"{uwsgi.url}/ws/chat/blue/").status_code == 401
    headers = log_in(uwsgi, "ada")
    with (
        connect(f"{uwsgi.url}/ws/chat/blue/", additional_headers=headers) as one,
        connect(f"{uwsgi.url}/ws/chat/blue/", additional_headers=log_in(uwsgi, "bob")) as other,
        connect(f"{uwsgi.url}/ws/bells/", additional_headers=headers) as bell,
    ):
        other.send('{"message": "hi"}')
        for client in (one, other):
            assert json.loads(client.recv(20)) == {"from": "bob", "message": "hi"}

        def rings():
            get(uwsgi, "/ring/3/")
            with suppress(TimeoutError):
                return bell.recv(1) == "3 for ada"

        wait_until(rings, "a bell whose on_open may be still to come")
