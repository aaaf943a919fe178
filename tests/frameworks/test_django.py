"""Django's own around a WebSocket: URLs, middleware of each kind, users, permissions, origins, languages."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import django
import pytest
from websockets.sync.client import connect

from django_sites import ask, closed, get, log_in, migrated, refused, starting
from raw import request


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return migrated(tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="module")
def uwsgi(handler, database, tmp_path_factory):
    with starting(tmp_path_factory.mktemp("site")) as start:
        yield start(handler, database=database)


@pytest.fixture
def start(tmp_path):
    with starting(tmp_path) as start:
        yield start


def told(url, **keywords):
    with connect(url, **keywords) as client:
        return json.loads(client.recv(20))


# URLs


def test_a_class_is_given_its_messages_and_a_function_receives_them(uwsgi):
    with connect(f"{uwsgi.url}/echo/") as one, connect(f"{uwsgi.url}/chat/ada/3/") as other:
        for message in ("text", b"binary", "", "ü" * 100_000):
            one.send(message)
            assert one.recv(20) == message
        assert ask(other, "hello") == "ada 3: hello"


def test_a_class_has_its_attributes_as_everywhere(uwsgi):
    with connect(f"{uwsgi.url}/echo/", subprotocols=["chat.v1", "chat.v2"]) as client:
        assert client.subprotocol == "chat.v2"


def test_converters_groups_and_extra_arguments_reach_a_function(uwsgi):
    for path, answer in (
        ("chat/%C3%BC/12/", "ü 12: ?"),
        ("chat/ada/", "ada 7: ?"),
        ("named/bob/", "bob 0: ?"),
    ):
        with connect(f"{uwsgi.url}/{path}") as client:
            assert ask(client, "?") == answer
    with connect(f"{uwsgi.url}/positional/a-b/") as client:
        assert client.recv(20) == "a b"


def test_included_paths_have_names_that_pages_and_servers_reverse(uwsgi):
    assert json.loads(get(uwsgi, "/")[1])["room"] == "/rooms/blue/"
    there = told(f"{uwsgi.url}/rooms/blue/")
    assert (there["name"], there["url"], there["prefix"]) == ("blue", "/rooms/x/", "in")


def test_a_partial_of_a_class_is_a_class(uwsgi):
    assert told(f"{uwsgi.url}/rooms/blue/made/")["prefix"] == "made"


def test_a_path_that_is_none_gets_404_and_one_without_its_slash_django_s_redirect(uwsgi):
    assert refused(f"{uwsgi.url}/nowhere/").status_code == 404
    assert refused(f"{uwsgi.url}/chat/ada/x/").status_code == 404
    with socket.create_connection(("127.0.0.1", uwsgi.port)) as client:
        client.sendall(request("/echo"))
        assert client.recv(4096).startswith(b"HTTP/1.1 301 ")


def test_an_ordinary_request_for_a_websocket_gets_426(uwsgi):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(uwsgi, "/echo/")
    assert error.value.code == 426
    assert error.value.headers["Upgrade"] == "websocket"


# Middleware


@pytest.mark.parametrize(("when", "status"), [("before", 418), ("view", 410), ("after", 409)])
def test_middleware_of_each_kind_can_answer_in_the_place_of_a_websocket(uwsgi, when, status):
    assert refused(f"{uwsgi.url}/echo/?stop={when}").status_code == status


def test_middleware_sees_the_view_by_the_name_of_its_server(uwsgi):
    assert told(f"{uwsgi.url}/who/")["seen_by"] == "who"


def test_headers_that_middleware_has_set_go_out_with_the_101_and_with_a_refusal(uwsgi):
    with connect(f"{uwsgi.url}/echo/") as client:
        assert client.response.headers["X-Answered"] == "101 /echo/"
        assert client.response.headers["X-Frame-Options"] == "DENY"
        assert "Content-Type" not in client.response.headers
    assert refused(f"{uwsgi.url}/never-made/").headers["X-Answered"] == "101 /never-made/"


def test_a_header_that_is_not_in_ascii_is_left_out_and_the_websocket_opens(uwsgi):
    with connect(f"{uwsgi.url}/chat/%C3%BC/") as client:
        assert "X-Answered" not in client.response.headers
    uwsgi.wait_for_output("the header X-Answered is left out")


def test_a_session_that_every_request_saves_is_saved_and_its_cookie_goes_out(start, handler, database):
    uwsgi = start(handler, database=database, SESSION_SAVE_EVERY_REQUEST=True)
    headers = log_in(uwsgi, "ada")
    with connect(f"{uwsgi.url}/who/", additional_headers=headers) as client:
        assert "sessionid=" in client.response.headers["Set-Cookie"]


def test_without_sessions_and_users_there_is_no_user(start, handler):
    uwsgi = start(handler, database={}, MIDDLEWARE=["django_site.middleware.Views"])
    assert told(f"{uwsgi.url}/who/")["kind"] == "NoneType"


def test_the_language_of_the_request_holds_in_events_and_one_that_an_event_chooses_ends_with_it(uwsgi):
    with connect(f"{uwsgi.url}/rooms/blue/", additional_headers={"Accept-Language": "de"}) as german:
        assert json.loads(german.recv(20))["language"] == "de"
        with connect(f"{uwsgi.url}/rooms/blue/", additional_headers={"Accept-Language": "fr"}) as french:
            assert json.loads(french.recv(20))["language"] == "fr"
            assert json.loads(ask(french, "it"))["language"] == "it"
            assert json.loads(ask(german, "?"))["language"] == "de"
            assert json.loads(ask(french, "?"))["language"] == "fr"
    assert json.loads(get(uwsgi, "/")[1])["language"] == "en"


def test_in_async_def_as_well(start, database):
    uwsgi = start("asyncio", database=database)
    with (
        connect(f"{uwsgi.url}/rooms/blue/", additional_headers={"Accept-Language": "de"}) as german,
        connect(f"{uwsgi.url}/rooms/blue/", additional_headers={"Accept-Language": "fr"}) as french,
    ):
        assert [json.loads(client.recv(20))["language"] for client in (german, french)] == ["de", "fr"]
        assert json.loads(ask(french, "it"))["language"] == "it"
        assert [json.loads(ask(client, "?"))["language"] for client in (german, french)] == ["de", "fr"]


def test_the_time_zone_of_the_request_holds_in_events(uwsgi):
    assert told(f"{uwsgi.url}/rooms/blue/?zone=Asia/Tokyo")["zone"] == "Asia/Tokyo"
    assert told(f"{uwsgi.url}/rooms/blue/")["zone"] == "UTC"


def test_servers_reverse_paths_where_the_project_is_mounted(start, handler, database):
    uwsgi = start(handler, database=database, FORCE_SCRIPT_NAME="/app")
    assert told(f"{uwsgi.url}/rooms/blue/")["url"] == "/app/rooms/x/"


# Who may come in


def test_the_user_is_that_of_the_session(uwsgi):
    headers = log_in(uwsgi, "ada")
    there = told(f"{uwsgi.url}/who/", additional_headers=headers)
    assert (there["user"], there["kind"], there["color"]) == ("ada", "User", "blue")
    assert told(f"{uwsgi.url}/who/")["kind"] == "AnonymousUser"


def test_login_required_lets_in_who_is_logged_in_and_answers_others_401(uwsgi):
    assert told(f"{uwsgi.url}/private/", additional_headers=log_in(uwsgi, "ada"))["user"] == "ada"
    for path in ("private", "other-login"):
        answer = refused(f"{uwsgi.url}/{path}/")
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Cookie"
        assert "Location" not in answer.headers


@pytest.mark.skipif(django.VERSION < (5, 1), reason="Django has that middleware from 5.1 on")
def test_the_middleware_that_requires_a_login_answers_401_too(start, handler, database):
    names = ["sessions.middleware.SessionMiddleware", "auth.middleware.AuthenticationMiddleware"]
    names += ["auth.middleware.LoginRequiredMiddleware"]
    uwsgi = start(handler, database=database, MIDDLEWARE=[f"django.contrib.{name}" for name in names])
    assert refused(f"{uwsgi.url}/echo/").status_code == 401


def test_a_page_that_needs_a_login_redirects_as_ever(uwsgi):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(uwsgi, "/private/")
    assert "/login/" in error.value.url


def test_permission_required_lets_in_who_has_it_and_answers_others_403(uwsgi):
    assert told(f"{uwsgi.url}/logs/", additional_headers=log_in(uwsgi, "EVE"))["user"] == "EVE"
    assert refused(f"{uwsgi.url}/logs/", log_in(uwsgi, "ada")).status_code == 403
    assert refused(f"{uwsgi.url}/logs/").status_code == 403
    assert refused(f"{uwsgi.url}/logs-or-login/", log_in(uwsgi, "ada")).status_code == 401


def test_permission_denied_and_404_of_a_decorator_are_answered_by_django(uwsgi):
    for name, status in (("here", 403), ("nowhere", 404)):
        answer = refused(f"{uwsgi.url}/forbidden/{name}/")
        assert answer.status_code == status
        assert b"<h1>" in answer.body


def test_permission_denied_and_404_of_authorize_and_of_the_constructor_refuse(uwsgi):
    assert refused(f"{uwsgi.url}/rooms/blue/guarded/").status_code == 403
    assert refused(f"{uwsgi.url}/rooms/nowhere/guarded/").status_code == 404
    assert refused(f"{uwsgi.url}/never-made/").status_code == 403
    assert told(f"{uwsgi.url}/rooms/blue/guarded/", additional_headers=log_in(uwsgi, "ada"))["user"] == "ada in blue"


@pytest.mark.parametrize("origin", ["https://trusted.example", "https://a.b.wild.example", "https://wild.example"])
def test_pages_of_trusted_origins_may_connect(uwsgi, origin):
    with connect(f"{uwsgi.url}/echo/", origin=origin) as client:
        assert ask(client, "hello") == "hello"


def test_a_page_of_the_same_host_may_connect(uwsgi):
    with connect(f"{uwsgi.url}/echo/", origin=f"http://{uwsgi.address}") as client:
        assert ask(client, "hello") == "hello"


@pytest.mark.parametrize(
    "origin", ["https://elsewhere.example", "http://trusted.example", "https://wild.example.org", "http://[", "null"]
)
def test_pages_of_other_origins_get_403(uwsgi, origin):
    assert refused(f"{uwsgi.url}/echo/", origin=origin).status_code == 403
    neither = f"a page of '{origin}': that is neither the origin of this host, http://{uwsgi.address}, nor"
    assert f"{neither} one of CSRF_TRUSTED_ORIGINS\n" in uwsgi.output


def test_the_same_host_by_another_scheme_is_another_origin(uwsgi):
    assert refused(f"{uwsgi.url}/echo/", origin=f"https://{uwsgi.address}").status_code == 403
    assert "one of CSRF_TRUSTED_ORIGINS; if a proxy in front ends TLS, set SECURE_PROXY_SSL_HEADER\n" in uwsgi.output


def test_the_same_host_by_another_port_is_another_origin(uwsgi):
    assert refused(f"{uwsgi.url}/echo/", origin="https://127.0.0.1").status_code == 403
    assert "one of CSRF_TRUSTED_ORIGINS; have the proxy in front pass on, in Host, the port that the" in uwsgi.output


def test_behind_a_proxy_that_ends_tls_its_header_says_which_scheme_the_host_has(start, handler, database):
    uwsgi = start(handler, database=database, SECURE_PROXY_SSL_HEADER=["HTTP_X_FORWARDED_PROTO", "https"])
    proxied = {"X-Forwarded-Proto": "https"}
    with connect(f"{uwsgi.url}/echo/", origin=f"https://{uwsgi.address}", additional_headers=proxied) as client:
        assert ask(client, "hello") == "hello"
    assert refused(f"{uwsgi.url}/echo/", proxied, origin=f"http://{uwsgi.address}").status_code == 403


def test_a_class_may_let_in_fewer_origins(uwsgi):
    with connect(f"{uwsgi.url}/narrow/", origin="https://trusted.example") as client:
        assert ask(client, "hello") == "hello"
    assert refused(f"{uwsgi.url}/narrow/", origin="https://wild.example").status_code == 403


def test_a_host_that_is_not_allowed_gets_400(start, handler):
    uwsgi = start(handler, MIDDLEWARE=[], ALLOWED_HOSTS=["example.com"])
    assert refused(f"{uwsgi.url}/echo/").status_code == 400


def test_who_is_asked_again_is_asked_where_the_request_is_over(uwsgi):
    with connect(f"{uwsgi.url}/again/"):
        uwsgi.wait_for_output("was asked", 3)


def test_options_of_the_setting_hold(start, handler, database):
    uwsgi = start(handler, database=database, uwasp={"max_message_size": 100})
    with connect(f"{uwsgi.url}/echo/") as client:
        assert ask(client, "x" * 100) == "x" * 100
        client.send("x" * 101)
        assert closed(client)[0] == 1009


# What cannot hold is refused when the application loads


def fails_to_load(start, *arguments, **keywords):
    uwsgi = start(*arguments, wait=False, master=False, **keywords)
    uwsgi.popen.wait(30)
    return uwsgi.output


def test_under_gevent_django_without_patches_is_refused(start):
    for options in ((), ("--gevent-monkey-patch",)):
        told = fails_to_load(start, "gevent", *options, patches=False)
        assert "all requests and WebSockets would share one database connection" in told
        assert "begin wsgi.py with: from gevent import monkey; monkey.patch_all()" in told


def test_async_servers_under_a_handler_that_cannot_run_them_are_refused(start):
    urls = "django_site.coroutine_urls"
    told = fails_to_load(start, "threads", ROOT_URLCONF=urls)
    assert "ConfigurationError: /rooms/<slug:name>/: Room.on_open is async def" in told


def test_a_setting_that_cannot_be_is_refused(start):
    told = fails_to_load(start, "threads", uwasp={"ping_intervall": 3})
    assert "unknown option ping_intervall" in told
    told = fails_to_load(start, "threads", uwasp={"allowed_origins": "*"})
    assert "put the pages' origins into CSRF_TRUSTED_ORIGINS" in told
