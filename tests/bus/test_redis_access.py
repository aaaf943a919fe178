"""Who gets at a bus on Redis, and how: URLs and what is refused in them, TLS, sockets, prefixes, an ACL."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from processes import require_program, wait_until
from processes_on_bus import Peer, Peers, talk
from redis_servers import RedisServer
from uwasp import ConfigurationError
from uwasp.transport import find_transport
from uwasp_redis.address import Address

README = Path(__file__).parents[2] / "packages" / "uwasp-redis" / "README.md"
SECRET = "s3cr3t"


def hear_each_other(a: Peer, b: Peer) -> None:
    for peer in (a, b):
        peer.hear("talk")
    talk(a, b)


def start(peers: Peers) -> Peer:
    peer = peers.start()
    peer.wait("ready")
    peer.open()
    return peer


def test_two_sites_with_prefixes_of_their_own_share_a_redis(
    redis: RedisServer, peers_on: Callable[[str], Peers]
) -> None:
    a, b = peers_on(f"{redis.url}?prefix=one").open(2)
    c, d = peers_on(f"{redis.url}/1?prefix=two").open(2)
    hear_each_other(a, b)
    hear_each_other(c, d)
    assert (len(a.received), len(c.received)) == (1, 1)
    assert not a.find("appeared", c.id)
    assert all(name.startswith(("one:", "two:")) for name in redis.command("PUBSUB", "CHANNELS").split("\n"))


def test_a_unix_socket_is_a_way_to_redis(redis: RedisServer, peers_on: Callable[[str], Peers]) -> None:
    a, b = peers_on(f"redis+unix://{redis.socket}").open(2)
    hear_each_other(a, b)


def certificates(folder: Path) -> None:
    """One for localhost, and one for whoever comes, signed by an authority of their own."""
    openssl = str(require_program("openssl"))
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    sign = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-copy_extensions"]
    # From Python 3.13 on, an authority that does not say that it may sign is none (RFC 5280 §4.2.1.3).
    authority = ["-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    for command in (
        [*new, "-x509", *authority, "-keyout", "ca.key", "-out", "ca.pem"],
        [*new, *names, "-keyout", "server.key", "-out", "server.csr"],
        [*sign, "copyall", "-in", "server.csr", "-out", "server.pem"],
        [*new, "-subj", "/CN=client", "-keyout", "client.key", "-out", "client.csr"],
        [*sign, "copyall", "-in", "client.csr", "-out", "client.pem"],
    ):
        subprocess.run([openssl, *command], cwd=folder, capture_output=True, check=True)


def test_a_redis_with_tls_is_for_those_who_know_its_authority_and_whom_it_knows(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers], tmp_path: Path
) -> None:
    certificates(tmp_path)
    redis = new_redis(
        "port 0",
        "tls-port {port}",
        f"tls-cert-file {tmp_path}/server.pem",
        f"tls-key-file {tmp_path}/server.key",
        f"tls-ca-cert-file {tmp_path}/ca.pem",
        f"requirepass {SECRET}",
    )
    known = f"ssl_ca_certs={tmp_path}/ca.pem&ssl_certfile={tmp_path}/client.pem&ssl_keyfile={tmp_path}/client.key"
    address = f"rediss://:{SECRET}@localhost:{redis.port}"
    a, b = peers_on(f"{address}?{known}").open(2)
    hear_each_other(a, b)
    a.publish_large("talk", 2**24)
    b.wait("received", f"{2**24} characters of {{'x'}}")
    a.burst("talk", "a", 0, 5000, 1000)
    wait_until(lambda: b.answer("counted")[1:] == [5000, True], "all that was published")
    for url, why in (
        (address, "certificate verify failed"),
        (f"{address}?{known}".replace("localhost", "127.0.0.1"), "IP address mismatch"),
        (f"{address}?ssl_ca_certs={tmp_path}/ca.pem", ""),
        (address.replace("rediss", "redis"), ""),
    ):
        stranger = start(peers_on(url))
        wait_until(lambda stranger=stranger: "is out of order" in stranger.output, "the refusal")
        assert why in stranger.output
        assert SECRET not in stranger.output
        assert "Traceback" not in stranger.output


def test_the_acl_of_the_readme_is_enough_and_allows_no_more(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers], tmp_path: Path
) -> None:
    (acl,) = re.findall(r"^```text\n(user .*?)```$", README.read_text(), re.MULTILINE | re.DOTALL)
    users = tmp_path / "users.acl"
    users.write_text(acl)
    redis = new_redis(f"aclfile {users}")
    name, password = re.findall(r"^user (\S+) on >(\S+)", acl, re.MULTILINE)[0]
    a, b = peers_on(f"{redis.url.replace('//', f'//{name}:{password}@')}?prefix=mysite").open(2)
    hear_each_other(a, b)
    assert a.answer("ask", "talk", "?", event="expected")[2] == 1
    b.unsubscribe("talk")
    b.hear("another")
    redis.arguments = (*redis.arguments, "--no-auth-warning", "--user", name, "-a", password)
    for forbidden in (["GET", "key"], ["SET", "key", "1"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["FLUSHALL"]):
        assert "NOPERM" in redis.command(*forbidden)
    assert "NOPERM" in redis.command("PUBLISH", "other:all", "text")
    assert "NOPERM" in redis.command("PSUBSCRIBE", "*")
    # Another prefix is another site's: it is said, and harms nobody.
    stranger = start(peers_on(redis.url.replace("//", f"//{name}:{password}@")))
    wait_until(lambda: "refuses us" in stranger.output, "the refusal")
    assert "NOPERM" in stranger.output
    assert password not in stranger.output


def test_a_user_who_may_have_no_keys_can_claim_nothing_and_the_bus_goes_on(
    new_redis: Callable[..., RedisServer], peers_on: Callable[[str], Peers], tmp_path: Path
) -> None:
    (acl,) = re.findall(r"^```text\n(user .*?)```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (further,) = re.findall(r"`(~mysite:claim:\S+ [^`]*)`", README.read_text())
    users = tmp_path / "users.acl"
    users.write_text(acl)
    redis = new_redis(f"aclfile {users}")
    name, password = re.findall(r"^user (\S+) on >(\S+)", acl, re.MULTILINE)[0]
    a, b = peers_on(f"{redis.url.replace('//', f'//{name}:{password}@')}?prefix=mysite").open(2)
    a.claim("a name")
    a.claim("another")
    wait_until(lambda: "lets this process claim nothing" in a.output, "the refusal")
    hear_each_other(a, b)
    assert not a.answer("holds", "a name")[2]
    assert a.output.count("lets this process claim nothing") == 1
    assert "refuses us" not in a.output
    users.write_text(acl.replace("+publish", f"{further} +publish"))
    redis.stop()
    redis.start()
    wait_until(lambda: a.answer("holds", "a name")[2], "it to hold the name")
    redis.arguments = (*redis.arguments, "--no-auth-warning", "--user", name, "-a", password)
    assert "NOPERM" in redis.command("GET", "key")
    assert "NOPERM" in redis.command("KEYS", "*")


URLS = {
    "redis://h": ("redis://h:6379", {}),
    "redis://h:1/2": ("redis://h:1/2", {"db": 2}),
    f"redis://:{SECRET}@h": ("redis://h:6379", {"password": SECRET}),
    f"redis://me:{SECRET}@h": ("redis://h:6379", {"username": "me", "password": SECRET}),
    "redis://:a%40b%2Fc%23%3F@h": ("redis://h:6379", {"password": "a@b/c#?"}),
    "redis://[::1]:7": ("redis://[::1]:7", {}),
    "rediss://h": ("rediss://h:6379", {}),
    f"redis+unix://me:{SECRET}@/run/r.sock": ("redis+unix:///run/r.sock", {"username": "me", "password": SECRET}),
    "redis+sentinel://h,i:1/mymaster": ("redis+sentinel://h:26379,i:1/mymaster", {}),
    f"rediss+sentinel://:{SECRET}@h/m/3": ("rediss+sentinel://h:26379/m/3", {"password": SECRET, "db": 3}),
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_says_where_redis_is_and_who_we_are_there(url: str) -> None:
    find_transport(url).check(url)
    address = Address.parse(url)
    assert (address.name, address.credentials) == URLS[url]
    assert SECRET not in repr(address)
    assert (address.prefix, address.bound) == ("uwasp", 2**24)


def test_the_options_of_a_url_are_ours_and_those_for_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    address = Address.parse(
        f"rediss+sentinel://h/m?prefix=a.b&bound=100000&sentinel_password=x&ssl_ca_certs={tmp_path}/ca.pem"
    )
    assert (address.prefix, address.bound) == ("a.b", 100_000)
    assert address.sentinel_credentials == {"password": "x"}
    assert address.tls == {
        "ssl_ca_certs": f"{tmp_path}/ca.pem",
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
    }
    assert Address.parse("rediss://h?ssl_cert_reqs=none").tls == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"redis://:{SECRET}@h?colour=red", "no option 'colour'"),
        (f"redis://:{SECRET}@h?ssl_ca_certs=/x", "belongs to rediss:"),
        (f"redis://:{SECRET}@h?prefix=", "is empty"),
        (f"redis://:{SECRET}@h?prefix=a&prefix=b", "given twice"),
        (f"redis://:{SECRET}@h?prefix=a*", "the option 'prefix'"),
        (f"redis://:{SECRET}@h?bound=1k", "the option 'bound'"),
        (f"redis://:{SECRET}@h?bound=100", "at least 65536"),
        (f"redis://:{SECRET}@h/mine", "database"),
        (f"redis://:{SECRET}@h:0", "a port"),
        (f"redis://:{SECRET}@h:65536", "a port"),
        (f"redis://:{SECRET}@", "a host"),
        (f"redis://:{SECRET}@a,b", "a host"),
        (f"redis://:a/{SECRET}@h", "%2F"),
        (f"redis://me/{SECRET}@h", "%2F"),
        (f"redis://:a#{SECRET}@h", "%23"),
        (f"redis://:a?{SECRET}@h", "%3F"),
        (f"redis://:{SECRET}@a@h@:1", "a host"),
        (f"redis://:{SECRET}@[::1", "cannot be read"),
        (f"redis://:{SECRET}\u2100@h", "cannot be read"),
        (f"redis+unix://:{SECRET}@h/run/x", "redis+unix:///path"),
        (f"redis+sentinel://:{SECRET}@h", "names the service"),
        (f"redis+sentinel://:{SECRET}@h/m/x", "database"),
        (f"rediss://:{SECRET}@h?ssl_cert_reqs=maybe", "required"),
        (f"rediss://:{SECRET}@h?ssl_check_hostname=maybe", "true or false"),
        (f"rediss://:{SECRET}@h?ssl_ca_certs=/no/such/file", "names a file"),
    ],
)
def test_a_url_that_cannot_be_one_is_refused_without_its_password(url: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        find_transport(url).check(url)
    assert expected in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_check_connects_to_nothing() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.2)
        url = f"redis://127.0.0.1:{listening.getsockname()[1]}"
        find_transport(url).check(url)
        with pytest.raises(TimeoutError):
            listening.accept()
