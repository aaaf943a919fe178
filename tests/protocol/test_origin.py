"""RFC 6455 §10.2: which pages may open a connection."""

from __future__ import annotations

import pytest

from uwasp.origin import is_allowed, remedy

SAME = [
    ("http://example.com", "example.com"),
    ("http://example.com", "example.com:80"),
    ("http://example.com:80", "example.com"),
    ("https://example.com", "example.com"),
    ("https://example.com", "example.com:443"),
    ("HTTP://Example.COM", "eXample.com"),
    ("http://example.com:8000", "example.com:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("http://[2001:DB8::1]", "[2001:db8::1]:80"),
    ("http://127.0.0.1", "127.0.0.1"),
]
OTHER = [
    ("http://example.org", "example.com"),
    ("http://example.com.evil.org", "example.com"),
    ("http://evil-example.com", "example.com"),
    ("http://example.com:8000", "example.com"),
    ("http://example.com", "example.com:8000"),
    ("http://example.com@evil.org", "example.com"),
    ("http://evil.org/example.com", "example.com"),
    ("http://evil.org#example.com", "example.com"),
    ("http://[::2]", "[::1]"),
    ("http://[::1", "[::1]"),
    ("http://example.com:port", "example.com"),
    ("null", "example.com"),
    ("null", ""),
    ("", "example.com"),
    ("example.com", "example.com"),
    ("file://", "example.com"),
]


def environ(origin, host="example.com", **more):
    return {"HTTP_ORIGIN": origin, "HTTP_HOST": host, **more}


@pytest.mark.parametrize(("origin", "host"), SAME)
def test_a_page_of_the_same_host_may(origin, host):
    assert is_allowed(environ(origin, host), None, False)


@pytest.mark.parametrize(("origin", "host"), OTHER)
def test_a_page_of_another_host_may_not(origin, host):
    assert not is_allowed(environ(origin, host), None, False)


@pytest.mark.parametrize("allowed", [None, [], ["https://example.com"], ["*"]])
def test_what_sends_no_origin_is_no_browser_and_may(allowed):
    assert is_allowed({"HTTP_HOST": "example.com"}, allowed, False)


LISTS = [
    ("https://example.com", ["https://example.com"], True),
    ("HTTPS://EXAMPLE.com", ["https://Example.com"], True),
    ("http://example.com", ["https://example.com"], False),
    ("https://example.com:8443", ["https://example.com"], False),
    ("https://example.com:8443", ["https://example.com:8443"], True),
    ("https://a.example.com", ["https://example.com"], False),
    ("https://a.example.com", ["https://*.example.com"], True),
    ("https://a.b.example.com", ["https://*.example.com"], True),
    ("https://example.com", ["https://*.example.com"], False),
    ("https://evilexample.com", ["https://*.example.com"], False),
    ("http://a.example.com", ["https://*.example.com"], False),
    ("https://evil.org/.example.com", ["https://*.example.com"], False),
    ("https://evil.org#.example.com", ["https://*.example.com"], False),
    ("https://evil.org", ["*"], True),
    ("null", ["*"], True),
    ("null", ["https://example.com"], False),
    ("https://b.org", ["https://a.org", "https://b.org"], True),
    ("https://b.org", [], False),
]


@pytest.mark.parametrize(("origin", "allowed", "may"), LISTS)
def test_a_list_of_origins_says_all(origin, allowed, may):
    """The host that is asked is not in it by itself."""
    assert is_allowed(environ(origin, "b.org"), allowed, False) is may


def test_a_proxy_names_the_host_only_where_it_is_trusted():
    request = environ("https://example.com", "10.0.0.1:8000", HTTP_X_FORWARDED_HOST="example.com, inner")
    assert is_allowed(request, None, True)
    assert not is_allowed(request, None, False)


PAGE = "https://chat.example.com"


@pytest.mark.parametrize(
    ("environ", "allowed", "trust_proxy", "words"),
    [
        ({}, None, False, ['allowed_origins=["https://chat.example.com"]', "Host, or X-Forwarded-Host with"]),
        ({}, None, True, ['allowed_origins=["https://chat.example.com"]', "pass on in X-Forwarded-Host the host"]),
        ({}, ["https://example.org"], False, ['add "https://chat.example.com" to allowed_origins']),
        ({}, [], True, ['add "https://chat.example.com" to allowed_origins']),
        ({"HTTP_X_FORWARDED_HOST": "chat.example.com"}, None, False, ["X-Forwarded-Host has", "trust_proxy=True"]),
        ({"HTTP_X_FORWARDED_HOST": "other"}, None, False, ["allowed_origins=", "Host"]),
        ({"HTTP_ORIGIN": "null"}, None, False, ['allowed_origins="*"']),
        ({"HTTP_ORIGIN": 'https://a"]b'}, None, False, ['allowed_origins="*"']),
        ({"HTTP_ORIGIN": "https://" + "x" * 1000}, ["https://example.org"], False, ['allowed_origins="*"']),
    ],
)
def test_a_refusal_names_the_option_or_header_to_set(environ, allowed, trust_proxy, words):
    environ = {"HTTP_HOST": "inner", "HTTP_ORIGIN": PAGE, **environ}
    assert not is_allowed(environ, allowed, trust_proxy)
    said = remedy(environ, allowed, trust_proxy)
    assert [word for word in words if word not in said] == []
    assert len(said) < 300


def test_what_a_refusal_names_lets_the_page_in():
    environ = {"HTTP_HOST": "inner", "HTTP_ORIGIN": PAGE}
    assert is_allowed(environ, [PAGE], False)
    assert is_allowed({**environ, "HTTP_HOST": "chat.example.com"}, None, False)
    assert is_allowed({**environ, "HTTP_X_FORWARDED_HOST": "chat.example.com"}, None, True)
    assert is_allowed({**environ, "HTTP_ORIGIN": "null"}, ["*"], False)
