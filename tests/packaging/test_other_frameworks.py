"""Each program of docs/frameworks.md does on a real uWSGI what the document says of it."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from contextlib import ExitStack
from http.cookies import SimpleCookie

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from documents import code_block
from environments import REPOSITORY
from processes import LOOP_OPTIONS, Uwsgi

DOCUMENT = REPOSITORY / "docs" / "frameworks.md"


# What runs after the view, in the framework's own way; here it has another answer.
AFTERWARDS = {
    "bottle": """
def afterwards():
    if "refuse" in request.query:
        response.status = 409

bottle.add_hook("after_request", afterwards)
""",
    "falcon": """
class Afterwards:
    def process_response(self, req, resp, resource, req_succeeded):
        if "refuse" in req.params:
            resp.status = falcon.HTTP_409

api.add_middleware(Afterwards())
""",
    "pyramid": """
from pyramid.events import NewResponse

def afterwards(event):
    if "refuse" in event.request.params:
        event.response.status = 409

config.add_subscriber(afterwards, NewResponse)
config.commit()
""",
}


@pytest.fixture(params=["bottle", "falcon", "pyramid"], scope="module")
def framework(request):
    return request.param


@pytest.fixture(params=["gevent", "threads"], scope="module")
def uwsgi(framework, request, tmp_path_factory):
    """Serves the program as it stands there, but for the name of the handler and for what is added, in two workers."""
    code = code_block(DOCUMENT, "python", f"# {framework}_rooms.py")
    served, count = re.subn('"threads"', f'"{request.param}"', code)
    assert count == 1
    folder = tmp_path_factory.mktemp(framework)
    program = folder / f"{framework}_rooms.py"
    program.write_text(served + AFTERWARDS[framework])
    uwsgi = Uwsgi(program, folder, *LOOP_OPTIONS[request.param], "--processes", "2")
    yield uwsgi
    uwsgi.stop()


def cookie_of(headers):
    """What a browser would send from then on."""
    cookies = SimpleCookie()
    for header in headers.get_all("Set-Cookie"):
        cookies.load(header)
    return "; ".join(f"{name}={morsel.coded_value}" for name, morsel in cookies.items())


def enter(uwsgi, name):
    asked = urllib.request.Request(f"http://{uwsgi.address}/names/{name}", method="POST")
    with urllib.request.urlopen(asked, timeout=10) as response:
        assert response.read().decode() == f"Hello {name}.\n"
        return cookie_of(response.headers)


def open_room(uwsgi, cookie, room="blue"):
    return connect(f"{uwsgi.url}/rooms/{room}", additional_headers={"Cookie": cookie})


def status_of(uwsgi, path, cookie=""):
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{uwsgi.url}{path}", additional_headers={"Cookie": cookie})
    return refused.value.response.status_code


def hears(client, text):
    """Whether the next message is there soon, and is that."""
    try:
        return client.recv(0.5) == text
    except TimeoutError:
        return False


def test_people_in_a_room_hear_each_other_in_all_workers(uwsgi):
    with ExitStack() as stack:
        clients = [stack.enter_context(open_room(uwsgi, enter(uwsgi, name))) for name in ("ada", "bob", "eve", "kim")]
        for client in clients:
            while not hears(client, "ada: hello"):
                clients[0].send("hello")  # another worker learns of a member a moment later
        elsewhere = stack.enter_context(open_room(uwsgi, enter(uwsgi, "mia"), "green"))
        clients[0].send("goodbye")
        elsewhere.send("in green")
        assert elsewhere.recv(10) == "mia: in green"
        for client in clients:
            heard = [client.recv(10)]
            while heard[-1] != "ada: goodbye":
                heard.append(client.recv(10))
            assert set(heard) <= {"ada: hello", "ada: goodbye"}


def test_who_has_no_name_is_refused_before_the_handshake(uwsgi):
    assert status_of(uwsgi, "/rooms/blue") == 401
    forged = enter(uwsgi, "ada").replace("ada", "bob") + "0"
    assert status_of(uwsgi, "/rooms/blue", forged) == 401


def test_the_framework_finds_the_way(uwsgi):
    assert status_of(uwsgi, "/nothing", enter(uwsgi, "ada")) == 404


def test_a_cookie_that_the_view_sets_goes_out_with_the_101(uwsgi):
    with open_room(uwsgi, enter(uwsgi, "ada")) as client:
        headers = client.response.headers
        assert cookie_of(headers).split("; ")[-1] == "room=blue"
        assert "Content-Type" not in headers
        assert "Content-Length" not in headers


def test_what_runs_after_the_view_can_answer_with_something_else(uwsgi):
    assert status_of(uwsgi, "/rooms/blue?refuse", enter(uwsgi, "ada")) == 409


def test_who_asks_for_no_websocket_gets_426(uwsgi):
    asked = urllib.request.Request(f"http://{uwsgi.address}/rooms/blue", headers={"Cookie": enter(uwsgi, "ada")})
    with pytest.raises(urllib.error.HTTPError, match="426"):
        urllib.request.urlopen(asked, timeout=10)


def test_nothing_goes_wrong_in_silence(uwsgi):
    """After all of the above."""
    assert "Traceback" not in uwsgi.output
