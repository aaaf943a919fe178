"""Connections to databases live as in a view: a lost one is replaced, and none is left behind. On a real PostgreSQL."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from django_sites import ask, closed, get, log_in, migrated, starting
from postgres_servers import Postgres
from processes import wait_until

SERVERS = ["/counting/", "/counting/function/"]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    server = Postgres()
    try:
        migrated(tmp_path_factory.mktemp("database"), server.settings)
        yield server
    finally:
        server.end()


@pytest.fixture(params=["gevent", "threads", "asyncio"], scope="module")
def any_handler(request):
    return request.param


@pytest.fixture
def serve(postgres, tmp_path):
    """Start a uWSGI on that PostgreSQL: `serve(handler, **keywords for the entry of DATABASES)`."""
    with starting(tmp_path) as start:

        def serve(handler, *options, uwasp=None, **database):
            return start(handler, *options, database={**postgres.settings, **database}, uwasp=uwasp)

        yield serve
    wait_until(lambda: postgres.connections() == 0, "the end of all connections")


def none_is_left(postgres):
    wait_until(lambda: postgres.connections() == 0, "that no connection is left")


def test_servers_answer_again_when_the_database_was_restarted(serve, postgres, any_handler):
    uwsgi = serve(any_handler, CONN_MAX_AGE=None)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}{path}")) for path in SERVERS]
        for client in clients:
            int(client.recv(20))
            int(ask(client, "?"))
        kept = postgres.connections()
        postgres.restart()
        noticing = clients[:1] if any_handler == "asyncio" else clients  # there, all have one connection
        for client in noticing:  # what it has lost, an event notices
            client.send("?")
        for client in noticing:
            assert closed(client) == (1011, "internal error")
    failed = 0
    for _ in range(6):
        for path in SERVERS:
            with connect(f"{uwsgi.url}{path}") as client:
                try:
                    int(client.recv(20))
                    int(ask(client, "?"))
                except ConnectionClosed:
                    failed += 1
    assert failed <= max(0, kept - len(SERVERS))  # each thread has noticed, as it does by a view


def test_with_the_default_a_restarted_database_is_not_even_noticed(serve, postgres, any_handler):
    uwsgi = serve(any_handler)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}{path}")) for path in SERVERS]
        for client in clients:
            int(client.recv(20))
        none_is_left(postgres)
        postgres.restart()
        for client in clients:
            int(ask(client, "?"))


def test_with_health_checks_neither_is_one_that_was_kept(serve, postgres, any_handler):
    uwsgi = serve(any_handler, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    with connect(f"{uwsgi.url}/counting/") as client:
        int(client.recv(20))
        postgres.restart()
        int(ask(client, "?"))


@pytest.mark.parametrize("path", SERVERS)
def test_websockets_that_came_and_went_leave_no_connection(serve, postgres, any_handler, path):
    uwsgi = serve(any_handler)

    def come_and_go(number):
        with connect(f"{uwsgi.url}{path}") as client:
            int(client.recv(20))
            int(ask(client, "sleep"))

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(come_and_go, range(12)))
    if path == "/counting/" and any_handler != "asyncio":
        uwsgi.wait_for_output("counted at the close", 12)
    none_is_left(postgres)
    with connect(f"{uwsgi.url}{path}") as client:
        int(client.recv(20))


def test_functions_that_have_ended_leave_nothing_even_of_what_is_kept(serve, postgres, handler):
    uwsgi = serve(handler, CONN_MAX_AGE=None)
    with ExitStack() as stack:
        for _ in range(3):
            int(stack.enter_context(connect(f"{uwsgi.url}/counting/function/")).recv(20))
        assert postgres.connections() == 3
    none_is_left(postgres)


def test_a_function_that_waits_has_no_connection_unless_it_is_to_be_kept(serve, postgres, handler):
    with connect(f"{serve(handler).url}/counting/function/") as client:
        int(client.recv(20))
        none_is_left(postgres)
        int(ask(client, "?"))
        none_is_left(postgres)


def test_a_function_that_waits_lets_go_of_a_connection_when_it_is_too_old(serve, postgres, handler):
    with connect(f"{serve(handler, CONN_MAX_AGE=2).url}/counting/function/") as client:
        int(client.recv(20))
        assert postgres.connections() == 1
        none_is_left(postgres)
        int(ask(client, "?"))


def test_it_waits_for_its_own_timeout_all_the_same(serve, postgres, handler):
    with connect(f"{serve(handler, CONN_MAX_AGE=1).url}/counting/function/patient/") as client:
        int(client.recv(20))
        begin = time.monotonic()
        assert client.recv(20) == "no message came within 2 s"
        assert time.monotonic() - begin >= 1.9
        int(ask(client, "?"))


def test_a_transaction_survives_the_wait_within_it(serve, postgres, handler):
    with connect(f"{serve(handler).url}/counting/function/") as client:
        int(client.recv(20))
        client.send("raw")
        wait_until(lambda: postgres.connections("idle in transaction") == 1, "the transaction")
        int(ask(client, "go on"))


def test_events_of_all_kinds_are_looked_after(serve, postgres, handler):
    uwsgi = serve(handler)
    with connect(f"{uwsgi.url}/unusual/") as one, connect(f"{uwsgi.url}/unusual/") as other:
        for client in (one, other):
            assert client.recv(20) == "here"
        get(uwsgi, "/notify/")
        for client in (one, other):
            int(client.recv(20))
        none_is_left(postgres)


def test_authorize_leaves_nothing_the_first_time_and_when_it_is_asked_again(serve, postgres, handler):
    for age in (0, None):
        uwsgi = serve(handler, CONN_MAX_AGE=age)
        with connect(f"{uwsgi.url}/again/") as client:
            uwsgi.wait_for_output("was asked", 4)
            client.send("x")
            assert client.recv(20) == "x"
        kept = 0 if age == 0 else 1  # by uWSGI's own thread or greenlet, which has other requests
        wait_until(lambda kept=kept: postgres.connections() <= kept, "that no more is left than of a view")
        uwsgi.stop()


def test_events_are_atomic_where_requests_are(serve, postgres, handler):
    uwsgi = serve(handler, ATOMIC_REQUESTS=True)
    for path, kept in (("/counting/", 0), ("/counting/apart/", 1)):
        with connect(f"{uwsgi.url}{path}") as client:
            before = int(client.recv(20))
            assert int(ask(client, f"make {handler}{path}made")) == before + 1
            client.send(f"make {handler}{path} fail")
            assert closed(client)[0] == 1011
        with connect(f"{uwsgi.url}{path}") as client:
            assert int(client.recv(20)) == before + 1 + kept


def test_atomic_requests_and_async_def_are_refused(tmp_path, postgres):
    with starting(tmp_path) as start:
        settings = {**postgres.settings, "ATOMIC_REQUESTS": True}
        uwsgi = start("asyncio", database=settings, wait=False, master=False)
        uwsgi.popen.wait(30)
    assert "Room.on_open is async def, which no transaction can surround (ATOMIC_REQUESTS)" in uwsgi.output


def test_under_gevent_a_query_that_takes_long_holds_up_nobody(serve, postgres):
    uwsgi = serve("gevent")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"{uwsgi.url}/counting/")) for _ in range(8)]
        for client in clients:
            int(client.recv(20))
        for client in clients:
            client.send("sleep")
        wait_until(lambda: postgres.connections("active") == 8, "that all eight wait for the database at once")
        for client in clients:
            int(client.recv(20))


def test_in_async_def_there_is_one_connection_for_all(serve, postgres):
    uwsgi = serve("asyncio", CONN_MAX_AGE=None)
    with ExitStack() as stack:
        for path in SERVERS * 4:
            int(stack.enter_context(connect(f"{uwsgi.url}{path}")).recv(20))
        assert postgres.connections() == 1


def test_signals_of_a_view_and_of_an_event_reach_a_group_when_they_are_committed(serve, postgres, handler):
    uwsgi = serve(handler, ATOMIC_REQUESTS=True)
    with connect(f"{uwsgi.url}/listening/") as client, connect(f"{uwsgi.url}/counting/") as other:
        assert client.recv(20) == "listening"
        int(other.recv(20))
        log_in(uwsgi, f"by-view-{handler}")
        assert client.recv(20) == f'{{"made": "by-view-{handler}"}}'
        other.send(f"make lost-{handler} fail")
        assert closed(other)[0] == 1011
        with connect(f"{uwsgi.url}/counting/") as again:
            again.send(f"make by-event-{handler}")
            assert client.recv(20) == f'{{"made": "by-event-{handler}"}}'
