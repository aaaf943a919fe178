"""The Django project of the tests on a uWSGI, its management commands, and its clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from processes import LOOP_OPTIONS, Uwsgi

HERE = Path(__file__).parent
WSGI = HERE / "django_site" / "wsgi.py"


def python_path(*folders: Path) -> str:
    """These, before what there is already: planted faults are found by it."""
    return os.pathsep.join([*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])])


def environment(
    handler: str = "threads",
    database: Mapping[str, object] | None = None,
    uwasp: Mapping[str, object] | None = None,
    patches: bool = True,
    **settings: object,
) -> dict[str, str]:
    """What the project's settings are read from."""
    return {
        "DJANGO_SETTINGS_MODULE": "django_site.settings",
        "PYTHONPATH": python_path(HERE),
        "SITE_DATABASE": json.dumps(database),
        "SITE_UWASP": json.dumps({"handler_class": handler, **(uwasp or {})}),
        "SITE_SETTINGS": json.dumps(settings),
        "SITE_PATCHES": "1" if patches and handler == "gevent" else "",
    }


def manage(folder: Path, *arguments: str, env: Mapping[str, str], is_right: bool = True) -> str:
    """What a management command says."""
    command = [sys.executable, "-m", "django", *arguments]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    assert (done.returncode == 0) is is_right, done.stdout + done.stderr
    return done.stdout + done.stderr


def migrated(folder: Path, database: Mapping[str, object] | None = None) -> dict[str, object]:
    """The entry of DATABASES for a database that has its tables."""
    database = dict(database or {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "site.sqlite3")})
    manage(folder, "migrate", "--verbosity=0", env=environment(database=database))
    return database


Start = Callable[..., Uwsgi]


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Start a uWSGI with the project: `start(handler, *options of uWSGI, keywords of environment and Uwsgi)`."""
    started: list[Uwsgi] = []

    def start(handler: str, *options: str, wait: bool = True, master: bool = True, **keywords: Any) -> Uwsgi:
        own = folder / f"uwsgi-{len(started)}"
        own.mkdir()
        env = environment(handler, **keywords)
        started.append(Uwsgi(WSGI, own, *LOOP_OPTIONS[handler], *options, env=env, wait=wait, master=master))
        return started[-1]

    try:
        yield start
    finally:
        for uwsgi in started:
            uwsgi.stop()


def get(uwsgi: Uwsgi, path: str, cookie: str = "") -> tuple[Any, str]:
    """An answer to an ordinary request, and its body."""
    asked = urllib.request.Request(f"http://{uwsgi.address}{path}", headers={"Cookie": cookie})
    response = urllib.request.urlopen(asked, timeout=20)
    return response, response.read().decode()


def log_in(uwsgi: Uwsgi, name: str) -> dict[str, str]:
    """The headers of somebody who is logged in."""
    response = get(uwsgi, f"/enter/{name}/")[0]
    cookies = SimpleCookie()
    for value in response.headers.get_all("Set-Cookie"):
        cookies.load(value)
    return {"Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in cookies.items())}


def refused(url: str, headers: Mapping[str, str] | None = None, **keywords: Any) -> Any:
    """The answer to a handshake that opens no WebSocket."""
    with pytest.raises(InvalidStatus) as error:
        connect(url, additional_headers=headers, **keywords)
    return error.value.response


def closed(client: Any) -> tuple[int, str]:
    """The close code and reason, once the server has closed."""
    with pytest.raises(ConnectionClosed) as ended:
        client.recv(20)
    return ended.value.rcvd.code, ended.value.rcvd.reason


def ask(client: Any, message: str) -> str:
    client.send(message)
    return str(client.recv(20))
