"""Rooms by URL on a real uWSGI: what comes of a path on its way through proxies and uWSGI."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from one_thread import LOOP_OPTIONS
from processes import Uwsgi
from raw import RawClient
from test_access import Answer
from test_deployments import PROXY, UWSGI

ROOMS = Path(__file__).parent / "rooms.py"
DOCUMENT = Path(__file__).parents[2] / "docs" / "routing.md"
UUID = "0123abcd-4567-89ef-0123-456789abcdef"


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    env = {"UWASP_HANDLER": handler}
    folder = tmp_path_factory.mktemp("uwsgi")
    process = Uwsgi(ROOMS, folder, "--buffer-size", "65535", *LOOP_OPTIONS[handler], env=env)
    yield process
    process.stop()


def told(port, path):
    """The server, the path, the parameters, and where the application is mounted."""
    with RawClient(port, path) as client:
        return json.loads(client.recv().data)


@pytest.mark.parametrize("way", ["http-socket", "uwsgi_pass", "proxy_pass"])
def test_a_path_is_decoded_once_and_matched_whole(serve, start_nginx, way):
    kind = "socket" if way == "uwsgi_pass" else "http-socket"
    uwsgi = serve(application=ROOMS, kind=kind)
    port = uwsgi.port
    if way != "http-socket":
        port = start_nginx((UWSGI if way == "uwsgi_pass" else PROXY).format(target=uwsgi.address)).port
    assert told(port, "/rooms/blue") == ["Telling", "/rooms/blue", {"name": "blue"}, ""]
    assert told(port, "/rooms/blue?name=red") == ["Telling", "/rooms/blue", {"name": "blue"}, ""]
    assert told(port, "/rooms/lobby") == ["Lobby", "/rooms/lobby", {}, ""]
    assert told(port, "/rooms/a%2525b") == ["Telling", "/rooms/a%25b", {"name": "a%25b"}, ""]
    assert told(port, "/rooms/%252F") == ["Telling", "/rooms/%2F", {"name": "%2F"}, ""]
    assert told(port, "/rooms/a+b%20c") == ["Telling", "/rooms/a+b c", {"name": "a+b c"}, ""]
    assert told(port, "/rooms/w%C3%B6rld") == ["Telling", "/rooms/wörld", {"name": "wörld"}, ""]
    assert told(port, "/devices/12/a%2Fb/c") == ["Telling", "/devices/12/a/b/c", {"id": 12, "rest": "a/b/c"}, ""]
    assert told(port, f"/things/{UUID}") == ["Telling", f"/things/{UUID}", {"id": f"UUID('{UUID}')"}, ""]
    for path in ("/rooms/a%2Fb", "/rooms/blue/", "/rooms/", "/rooms", "/devices/-1/a", "/devices/1/"):
        assert Answer(port, path).status == 404, path
    for path in ("/rooms/%FF", "/rooms/a%C3", "/rooms/%ED%A0%80", "/rooms/%C0%AF", "/devices/1/%80"):
        assert Answer(port, path).status == 404, path
    uwsgi.wait_for_output("it is not UTF-8", 5)


def test_a_path_is_the_one_within_a_mounted_application(serve):
    mount = ("--single-interpreter", "--manage-script-name", "--mount", f"/second={ROOMS}")
    uwsgi = serve(*mount, application=ROOMS)
    assert told(uwsgi.port, "/rooms/blue") == ["Telling", "/rooms/blue", {"name": "blue"}, ""]
    assert told(uwsgi.port, "/second/rooms/blue") == ["Telling", "/rooms/blue", {"name": "blue"}, "/second"]
    assert Answer(uwsgi.port, "/third/rooms/blue").status == 404


def test_the_log_has_the_mount_before_the_path(serve):
    mount = ("--single-interpreter", "--manage-script-name", "--mount", f"/second={ROOMS}")
    uwsgi = serve(*mount, application=ROOMS)
    told(uwsgi.port, "/rooms/blue")
    uwsgi.wait_for_output(" of 127.0.0.1 at /rooms/<name> '/rooms/blue' is closed with ")
    told(uwsgi.port, "/second/rooms/blue")
    uwsgi.wait_for_output(" of 127.0.0.1 at /second/rooms/<name> '/rooms/blue' is closed with ")
    Answer(uwsgi.port, "/second/nowhere")
    uwsgi.wait_for_output("refused to 127.0.0.1 at /second/nowhere: path, no server of this application is there")


def test_a_number_that_is_too_long_is_404(uwsgi):
    assert told(uwsgi.port, f"/devices/{'9' * 640}/a")[2]["id"] == int("9" * 640)
    for digits in (641, 4301, 10_000, 20_000):
        assert Answer(uwsgi.port, f"/devices/{'9' * digits}/a").status == 404


def test_the_log_has_the_pattern_and_the_path(uwsgi):
    with RawClient(uwsgi.port, "/rooms/logged%27%0A") as client:
        client.recv()
    told(uwsgi.port, "/rooms/lobby")
    Answer(uwsgi.port, "/rooms/refused", Origin="null")
    uwsgi.wait_for_output(r" of 127.0.0.1 at /rooms/<name> '/rooms/logged\'\n' is open")
    uwsgi.wait_for_output(r" of 127.0.0.1 at /rooms/<name> '/rooms/logged\'\n' is closed with ")
    uwsgi.wait_for_output(" of 127.0.0.1 at /rooms/lobby is open")
    uwsgi.wait_for_output("refused to 127.0.0.1 at /rooms/<name> '/rooms/refused': origin")


def test_the_example_refuses_a_stranger_a_room(start_uwsgi, tmp_path):
    (code,) = re.findall(r"^```python\n(# rooms\.py\n.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    application = tmp_path / "rooms.py"
    application.write_text(code)
    url = start_uwsgi(application, *LOOP_OPTIONS["gevent"]).url

    def answer(room, session):
        headers = {"Cookie": f"session={session}"} if session else None
        with connect(f"{url}/rooms/{room}", additional_headers=headers, proxy=None) as client:
            return client.recv(10)

    assert answer("blue", "3f9a") == "Hello Ada, this is blue."
    assert answer("green", "c07d") == "Hello Bob, this is green."
    for room, session in (("green", "3f9a"), ("red", "c07d"), ("blue", "stolen"), ("blue", None)):
        with pytest.raises(InvalidStatus) as refused:
            answer(room, session)
        assert refused.value.response.status_code == 403
        assert refused.value.response.body == b"you are not in this room\n"
