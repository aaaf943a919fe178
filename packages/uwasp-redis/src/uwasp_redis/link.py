"""One connection to Redis. The `redis` client makes it: TLS, user and password, who of a Sentinel's is the master.

From then on it is ours, speaks RESP3, and nobody waits at it: `send` and `receive` do what can be done at once.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel

from uwasp_redis.address import Address
from uwasp_redis.resp import Replies, ServerError, command

__all__ = ["Link", "LinkLost", "Refused", "connect", "refusal"]

# In seconds, for each step of making a connection.
PATIENCE = 4.0
RECEIVE = 2**16  # bytes at once
# How the errors begin that do not mend themselves.
LASTING = ("NOAUTH", "WRONGPASS", "NOPERM", "NOPROTO", "ERR unknown command")
# What a socket raises that could do nothing at once; with TLS, either direction can want either.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class LinkLost(Exception):
    """There is no connection, or no longer. Its argument says why, in words."""


class Refused(LinkLost):
    """Redis is there, but not for us: that does not mend itself."""


def refusal(error: ServerError) -> LinkLost:
    """What an error means that Redis answers with: to be tried again soon, as while it is busy, or seldom."""
    return (Refused if error.startswith(LASTING) else LinkLost)(str(error))


class Link:
    """A connection that is ready, and what comes by it.

    Args:
        connection: of the client, connected.
        largest: the most bytes of one message.

    Attributes:
        fd: its descriptor, for a poller.
        has_more: whether there may be more to receive than a poller sees.
    """

    def __init__(self, connection: Any, largest: int) -> None:
        self._connection = connection
        # The client has no public name for it, but has had this one in all its versions.
        self._socket: socket.socket = connection._sock
        # How many bytes TLS has that a poller does not see.
        self._pending: Callable[[], int] = getattr(self._socket, "pending", int)
        self._replies = Replies(largest)
        self.fd = self._socket.fileno()
        self.has_more = False

    def greet(self, is_master: bool) -> None:
        """Begin to speak RESP3, while it may wait still; where a Sentinel was asked, see that this is the master."""
        version = self._ask(b"HELLO", b"3")
        if isinstance(version, ServerError):
            older = version.startswith(("NOPROTO", "ERR unknown command"))
            raise Refused(f"Redis 6 or newer, or Valkey, is needed: {version}") if older else refusal(version)
        if is_master:
            role = self._ask(b"ROLE")
            if isinstance(role, ServerError):
                raise refusal(role)
            if not (isinstance(role, list) and role[:1] == [b"master"]):
                raise LinkLost("the sentinels named a master that is none")
        self._socket.settimeout(0)

    def _ask(self, *arguments: bytes) -> Any:
        self._socket.sendall(command(*arguments))
        while True:
            data = self._socket.recv(RECEIVE)
            if not data:
                raise LinkLost("it closed the connection")
            for reply in self._replies.feed(data):
                return reply

    def send(self, data: memoryview) -> int:
        """How many of these bytes went out, perhaps none. What did not is handed over again."""
        try:
            return self._socket.send(data)
        except WOULD_BLOCK:
            return 0

    def receive(self) -> Iterable[Any]:
        """What has come, as complete values.

        Raises:
            LinkLost, OSError, ProtocolError: the connection is no good.
        """
        try:
            data = self._socket.recv(RECEIVE)
        except WOULD_BLOCK:
            self.has_more = False
            return ()
        if not data:
            raise LinkLost("it closed the connection")
        self.has_more = len(data) == RECEIVE or self._pending() > 0
        return self._replies.feed(data)

    def close(self) -> None:
        self._connection.disconnect()


def connect(address: Address, largest: int) -> Link:
    """Make a connection. Takes a while: for each step of it, up to `PATIENCE`.

    Raises:
        Refused: Redis does not want us.
        LinkLost: it could not be made.
    """
    try:
        connection = _connection(address)
        try:
            connection.connect()
            link = Link(connection, largest)
            link.greet(bool(address.service))
        except BaseException:
            connection.disconnect()
            raise
        return link
    except (AuthenticationError, ResponseError) as error:
        raise Refused(_words(error, address)) from None
    except (RedisError, OSError, ValueError) as error:
        raise LinkLost(_words(error, address)) from None


def _connection(address: Address) -> Any:
    times: dict[str, Any] = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    # RESP2, since all that the client would do more with RESP3 is not for us; and one attempt: when to make another is
    # decided elsewhere.
    settings = {**address.credentials, **times, "protocol": 2, "retry": Retry(NoBackoff(), 0)}
    if address.path:
        return UnixDomainSocketConnection(path=address.path, **settings)
    host, port = _master(address, times) if address.service else address.hosts[0]
    if address.tls is None:
        return Connection(host=host, port=port, **settings)
    return SSLConnection(host=host, port=port, **settings, **address.tls)


def _master(address: Address, times: dict[str, Any]) -> tuple[str, int]:
    settings = {**times, "protocol": 2, "retry": Retry(NoBackoff(), 0), **address.sentinel_credentials}
    if address.tls is not None:
        settings |= {"ssl": True, **address.tls}
    sentinel = Sentinel(address.hosts, sentinel_kwargs=settings)
    try:
        host, port = sentinel.discover_master(address.service)
    finally:
        for client in sentinel.sentinels:
            client.close()
    return str(host), int(port)


def _words(error: Exception, address: Address) -> str:
    """What an error says, without what is nobody's business."""
    words = str(error) or type(error).__name__
    for secret in (address.credentials.get("password"), address.sentinel_credentials.get("password")):
        if secret:
            words = words.replace(secret, "***")
    return words
