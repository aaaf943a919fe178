"""Where uWSGI listens: what the command is told, and what uWSGI's option for it is."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from uwasp_cli.limits import backlog
from uwasp_cli.problem import Problem

__all__ = ["Bind", "listen", "parse_bind"]

UNIX = "unix:"
LARGEST_PORT = 65_535
REASONS = {
    "socket": "where it listens, in uWSGI's own protocol: for nginx's uwsgi_pass",
    "http-socket": "where it listens, in HTTP",
    "http": "where uWSGI's router listens, which passes a request on when its head is there",
}


@dataclass(frozen=True)
class Bind:
    """An address to listen on.

    Attributes:
        kind: uWSGI's option: `socket`, `http-socket`, or `http` for its router.
        host, port: of a TCP address; empty and 0 for a Unix one.
        path: of a Unix socket; empty for a TCP address.
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def address(self) -> str:
        return self.path or f"{bracketed(self.host)}:{self.port}"

    @property
    def reason(self) -> str:
        return REASONS[self.kind]


def bracketed(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def parse_bind(text: str, router: bool = False) -> Bind:
    """`host:port`, `:port`, `[address]:port` or `unix:path`.

    Raises:
        Problem: it is none of these, or the router is to listen on a Unix socket.
    """
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if router:
            raise Problem(f"--bind {text}: uWSGI's router listens on TCP")
        if not path.startswith("/"):
            raise Problem(f"--bind {text}: the path of a Unix socket is an absolute one")
        return Bind("socket", path=path)
    host, colon, port = text.rpartition(":")
    if not (colon and port.isdecimal() and int(port) <= LARGEST_PORT):
        raise Problem(f"--bind takes host:port or unix:/path, not {text}")
    return Bind("http" if router else "http-socket", host.strip("[]"), int(port))


def listen(host: str, port: int, option: str) -> socket.socket:
    """Listen here and not in uWSGI, to say in one line what is wrong with the address.

    Raises:
        Problem: the port is taken, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            where = f" on {host}" if host else ""
            raise Problem(f"port {port}{where} is taken; choose another with {option}") from None
        raise Problem(f"cannot listen on {bracketed(host)}:{port}: {error.strerror}") from None
