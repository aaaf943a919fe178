"""Who may come in, and that nobody gets anything into a head or the log that does not belong there."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from websockets.sync.client import connect

from inquiry import figures
from one_thread import LOOP_OPTIONS
from processes import Uwsgi, wait_until
from raw import request
from test_deployments import PROXY, UWSGI
from uwasp import Refusal
from uwasp_pytest.behaviour import APPLICATIONS

LIMITS = APPLICATIONS / "limits.py"


@pytest.fixture(scope="module")
def uwsgi(handler, tmp_path_factory):
    env = {"UWASP_HANDLER": handler, "UWASP_OPTIONS": "{}"}
    process = Uwsgi(LIMITS, tmp_path_factory.mktemp("uwsgi"), *LOOP_OPTIONS[handler], env=env)
    yield process
    process.stop()


class Answer:
    """The answer to a request for a WebSocket."""

    def __init__(self, port, path="/echo", host="example.com", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        for name, value in {**HANDSHAKE, "Host": host, **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        self.status = response.status
        self.headers = response.headers
        self.body = response.read().decode() if self.status != 101 else ""
        connection.close()


HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def test_a_page_of_the_same_host_comes_in_and_one_of_another_does_not(uwsgi):
    port = uwsgi.port
    assert Answer(port).status == 101
    assert Answer(port, Origin="http://example.com").status == 101
    assert Answer(port, Origin="https://EXAMPLE.com:443").status == 101
    assert Answer(port, host="[::1]:8000", Origin="http://[::1]:8000").status == 101
    refused = Answer(port, Origin="http://example.org")
    assert refused.status == 403
    assert refused.body.startswith("this origin may not open a WebSocket here: it is not that of the host")
    uwsgi.wait_for_output(
        "refused to 127.0.0.1 at /echo: origin, http://example.org at host example.com: if that page is yours, "
        'set allowed_origins=["http://example.org"], or have the proxy in front pass on in Host'
    )
    assert Answer(port, Origin="null").status == 403


def test_a_forwarded_host_is_believed_only_where_the_operator_says_so(uwsgi, serve):
    forwarded = {"host": "inner", "Origin": "https://example.com", "X_Forwarded_Host": "example.com"}
    assert Answer(uwsgi.port, **forwarded).status == 403
    trusting = serve(application=LIMITS, middleware={"trust_proxy": True})
    assert Answer(trusting.port, **forwarded).status == 101
    assert Answer(trusting.port, **{**forwarded, "Origin": "https://example.org"}).status == 403


def test_a_list_of_origins(serve):
    port = serve(application=LIMITS, middleware={"allowed_origins": ["https://a.org", "https://*.b.org"]}).port
    assert Answer(port).status == 101
    assert Answer(port, Origin="https://a.org").status == 101
    assert Answer(port, Origin="https://x.b.org").status == 101
    assert Answer(port, Origin="https://b.org").status == 403
    assert Answer(port, Origin="http://example.com").status == 403


def test_all_origins(serve):
    port = serve(application=LIMITS, middleware={"allowed_origins": "*"}).port
    assert Answer(port, Origin="https://anywhere.org").status == 101


@pytest.mark.parametrize("way", ["uwsgi_pass", "proxy_pass"])
def test_through_nginx(serve, start_nginx, way):
    if way == "proxy_pass":
        location = PROXY.format(target=serve(application=LIMITS).address)
    else:
        location = UWSGI.format(target=serve(application=LIMITS, kind="socket").address)
    port = start_nginx(location).port
    assert Answer(port, Origin="https://example.com").status == 101
    assert Answer(port, Origin="http://example.org").status == 403


def test_what_authorize_returns_is_the_user(uwsgi):
    with connect(f"{uwsgi.url}/guarded?user=Ada", proxy=None) as client:
        assert client.recv(10).split()[0] == "Ada"


def test_authorize_refuses_with_a_status_headers_and_a_body(uwsgi):
    port = uwsgi.port
    login = Answer(port, "/guarded?login=1")
    assert (login.status, login.body) == (401, "log in first\n")
    assert login.headers["WWW-Authenticate"] == 'Basic realm="chat"'
    moved = Answer(port, "/guarded?move=1")
    assert (moved.status, moved.headers["Location"]) == (302, "/login")
    plain = Answer(port, "/guarded")
    assert (plain.status, plain.body) == (403, "Forbidden\n")
    assert plain.headers["Content-Type"] == "text/plain; charset=utf-8"
    error = Answer(port, "/guarded?json=1")
    assert json.loads(error.body) == {"error": "no"}
    assert error.headers.get_all("Content-Type") == ["application/json"]
    uwsgi.wait_for_output("refused to 127.0.0.1 at /guarded: authorize, 401")


def test_an_authorize_that_returns_false_refuses(uwsgi):
    refused = Answer(uwsgi.port, "/guarded?false=1")
    assert (refused.status, refused.body) == (403, "Forbidden\n")


def test_an_authorize_that_returns_a_coroutine_refuses_and_says_so_once(uwsgi):
    before = figures(uwsgi.port)
    refused = Answer(uwsgi.port, "/guarded?later=1")
    assert (refused.status, refused.body) == (500, "authorize is at fault\n")
    uwsgi.wait_for_output(
        "at /guarded: authorize, Guarded.authorize returned a coroutine: nothing of it was run. Return the user itself"
    )
    after = figures(uwsgi.port)
    assert after["opened"] == before["opened"]
    assert after["refused"]["authorize"] == before["refused"].get("authorize", 0) + 1
    assert "never awaited" not in uwsgi.output


def test_an_error_in_authorize_is_as_an_error_in_a_view_and_takes_no_connection_over(uwsgi):
    """uWSGI logs it and closes the connection without an answer (which nginx turns into a 502)."""
    before = figures(uwsgi.port)["opened"]
    with pytest.raises(http.client.RemoteDisconnected):
        Answer(uwsgi.port, "/guarded?raise=1")
    uwsgi.wait_for_output("LookupError: raised in authorize")
    assert figures(uwsgi.port)["opened"] == before


def test_nothing_can_be_injected_into_a_head(uwsgi):
    """Neither by a subprotocol nor by a header of a refusal, which is an error on our side before it is sent."""
    injected = Answer(uwsgi.port, "/guarded?user=Ada", Sec_WebSocket_Protocol="b, a")
    assert injected.headers["Sec-WebSocket-Protocol"] == "a"
    with socket.create_connection(("127.0.0.1", uwsgi.port), timeout=10) as client:
        client.sendall(request("/guarded?user=Ada", "Sec-WebSocket-Protocol: a\r\n\tX-Injected: yes"))
        assert b"\nX-Injected" not in client.recv(65536)
    with pytest.raises(http.client.RemoteDisconnected):
        Answer(uwsgi.port, "/guarded?header=a%0D%0AX-Injected:%20yes")
    uwsgi.wait_for_output("ValueError: a header has a token for a name and printable ASCII in it")
    fine = Answer(uwsgi.port, "/guarded?header=a%20b")
    assert (fine.status, fine.headers["X-Asked"]) == (403, "a b")


@pytest.mark.parametrize(
    "header",
    [("X", "a\r\nY: b"), ("X", "a\n"), ("X", "a\0"), ("X", "ä"), ("X: Y", "a"), ("", "a"), ("X\n", "a"), ("X Y", "a")],
)
def test_a_refusal_takes_no_header_that_is_more_than_one(header):
    with pytest.raises(ValueError, match="a header has a token"):
        Refusal(headers=[header])


@pytest.mark.parametrize(
    "headers", [{"Set-Cookie": "a=b"}, {"ab": 1}, [("X", 1)], [(b"X", b"1")], ["X: 1"], [("X",)]], ids=repr
)
def test_the_headers_of_a_refusal_are_pairs_of_str_and_the_error_says_so(headers):
    with pytest.raises(TypeError, match="headers are pairs of str, such as"):
        Refusal(headers=headers)


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_a_refusal_leaves_the_length_of_its_body_to_uwasp(name):
    with pytest.raises(ValueError, match="is set by uWASP"):
        Refusal(headers=[(name, "1")])


@pytest.mark.parametrize("status", [100, 101, 200, 299, 600, 599, "you may not"])
def test_a_refusal_has_a_status_that_is_one(status):
    with pytest.raises(ValueError, match=r"(?i)status"):
        Refusal(status)


def test_a_close_reason_is_text_whatever_is_in_it(uwsgi):
    with connect(f"{uwsgi.url}/guarded?user=Ada", proxy=None) as client:
        client.recv(10)
        client.send("x" * 124)
        assert str(client.recv(10)).startswith("ValueError ")
        client.send("a\r\nb\x1b[31m")
        wait_until(lambda: client.close_code is not None, "the close")
        assert (client.close_code, client.close_reason) == (4000, "a\r\nb\x1b[31m")
    uwsgi.wait_for_output(r"is closed with 4000 'a\r\nb\x1b[31m'")


def test_log_lines_carry_no_raw_bytes_of_a_client(uwsgi):
    evil = "\x1b]0;\u00ffevil\u00e4"
    Answer(uwsgi.port, Origin=f"http://{evil}")
    Answer(uwsgi.port, Origin="http://" + "x" * 3000)
    Answer(uwsgi.port, "/%1b%0d%0a%ff-nowhere")
    Answer(uwsgi.port, Sec_WebSocket_Protocol=evil)
    Answer(uwsgi.port, host=evil)
    uwsgi.wait_for_output("handshake", 2)
    uwsgi.wait_for_output(r"at /\x1b\r\n\xff-nowhere: path, it is not UTF-8")
    ours = [line for line in uwsgi.log.read_bytes().splitlines() if line.startswith(b"uwasp.")]
    assert len(ours) >= 5
    for line in ours:
        assert line.isascii(), line
        assert line.decode().isprintable(), line
        assert len(line) < 700, line
