"""A silent connection is pinged; one that does not answer is closed; one that is only idle lives, through proxies."""

from __future__ import annotations

import pytest
from websockets.sync.client import connect

from test_deployments import PROXY
from uwasp.options import Options
from uwasp_pytest.behaviour.test_keepalive import *  # noqa: F403 - the tests, and their fixtures


def test_the_defaults_are_20_seconds():
    assert (Options().ping_interval, Options().ping_timeout, Options().close_timeout) == (20, 20, 10)


def idle_for(seconds, url):
    with connect(f"{url}/restless?proxied", ping_interval=None) as client:
        client.recv(10)
        with pytest.raises(TimeoutError):
            client.recv(seconds)
        client.send("hello")
        assert client.recv(10) == "hello"


def test_an_idle_connection_outlives_nginx(server, start_nginx):
    idle_for(2.5, start_nginx(PROXY.format(target=server.address) + "proxy_read_timeout 1s;").url)


def test_an_idle_connection_outlives_the_http_router(serve):
    uwsgi = serve("--http-websockets", "--http-timeout", "2", kind="http")
    idle_for(3.5, uwsgi.url)  # the router counts full seconds
