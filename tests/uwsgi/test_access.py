"""Who may come in, through nginx too, and that nothing gets into a head or the log that does not belong there."""

from __future__ import annotations

import pytest

from test_deployments import PROXY, UWSGI
from uwasp import Refusal
from uwasp_pytest.behaviour.test_access import *  # noqa: F403 - the tests, and their fixtures
from uwasp_pytest.behaviour.test_access import Answer


@pytest.mark.parametrize("way", ["uwsgi_pass", "proxy_pass"])
def test_through_nginx(serve, start_nginx, way):
    if way == "proxy_pass":
        location = PROXY.format(target=serve().address)
    else:
        location = UWSGI.format(target=serve(kind="socket").address)
    port = start_nginx(location).port
    assert Answer(port, Origin="https://example.com").status == 101
    assert Answer(port, Origin="http://example.org").status == 403


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
