"""What a bus's URL says: where Redis is, who we are there, and our own options. Opens nothing, connects to nothing.

    redis://[[user]:password@]host[:port][/db]              rediss:// the same with TLS
    redis+sentinel://[[user]:password@]host[:port][,host[:port]...]/service[/db]        rediss+sentinel:// with TLS
    redis+unix://[[user]:password@]/path/of/the/socket

Options follow a question mark. No password is ever part of a message, nor of an `Address` that is printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from uwasp import ConfigurationError

__all__ = ["Address"]

SCHEMES = ("redis", "rediss", "redis+unix", "redis+sentinel", "rediss+sentinel")
REDIS_PORT, SENTINEL_PORT = 6379, 26379
DEFAULT_PREFIX = "uwasp"
DEFAULT_BOUND = 2**24
SMALLEST_BOUND = 2**16

OWN_OPTIONS = ("prefix", "bound")
SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
# Those of the `redis` client, by its names.
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
TLS_OPTIONS = (*FILES, "ssl_ca_path", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname")
REQUIREMENTS = ("none", "optional", "required")
ESCAPES = "in a user's name or a password, ':', '/', '?', '#', '@', '%' are written %3A, %2F, %3F, %23, %40, %25"
TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Address:
    """A checked URL.

    Attributes:
        name: the URL without user, password and options, for the log.
        hosts: pairs of host and port: of Redis, or of the sentinels.
        path: of the Unix socket, or empty.
        service: what the sentinels call the master, or empty.
        credentials: `username`, `password` and `db`, as far as given.
        sentinel_credentials: `username` and `password` for the sentinels, as far as given.
        tls: the options for TLS, or `None` without TLS.
        prefix: what the names of all our channels begin with.
        bound: the most bytes that wait to be sent.
    """

    name: str
    hosts: tuple[tuple[str, int], ...]
    path: str
    service: str
    credentials: dict[str, Any] = field(repr=False)
    sentinel_credentials: dict[str, Any] = field(repr=False)
    tls: dict[str, Any] | None = field(repr=False)
    prefix: str
    bound: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """What a URL says.

        Raises:
            ConfigurationError: it cannot be the URL of a bus; the message says what was expected.
        """
        try:
            parts = urlsplit(url)
        except ValueError:  # which says all of it
            raise ConfigurationError(f"the URL of a bus on Redis cannot be read; {ESCAPES}") from None
        scheme = parts.scheme
        if scheme not in SCHEMES:
            raise ConfigurationError(f"a bus on Redis is named by {', '.join(SCHEMES)}, not by {scheme}:")
        if "#" in url or "@" in parts.path + parts.query:  # what looks like another part may be half a password
            raise ConfigurationError(
                f"the URL of a bus on {scheme}: has no '#', and no '@' but before the host; {ESCAPES}"
            )
        options = _options(scheme, parts.query)
        credentials, location = _credentials(parts)
        hosts, path, service, database = _location(scheme, location, parts.path)
        if database:
            credentials["db"] = database
        shown = ",".join(f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in hosts)
        return cls(
            name=f"{scheme}://{shown}{path}{f'/{service}' if service else ''}{f'/{database}' if database else ''}",
            hosts=hosts,
            path=path,
            service=service,
            credentials=credentials,
            sentinel_credentials={
                name.removeprefix("sentinel_"): options[name] for name in SENTINEL_OPTIONS if name in options
            },
            tls=_tls(options) if scheme.startswith("rediss") else None,
            prefix=_prefix(options.get("prefix", DEFAULT_PREFIX)),
            bound=_bound(options.get("bound", str(DEFAULT_BOUND))),
        )


def _options(scheme: str, query: str) -> dict[str, str]:
    allowed = [*OWN_OPTIONS]
    allowed += SENTINEL_OPTIONS if scheme.endswith("+sentinel") else ()
    allowed += TLS_OPTIONS if scheme.startswith("rediss") else ()
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            where = " (it belongs to rediss:)" if name in TLS_OPTIONS else ""
            raise ConfigurationError(
                f"a bus on {scheme}: has no option {name!r}{where}; it has {', '.join(sorted(allowed))}"
            )
        if name in options:
            raise ConfigurationError(f"the option {name!r} of a bus is given twice")
        if not value:
            raise ConfigurationError(f"the option {name!r} of a bus is empty")
        options[name] = value
    return options


def _credentials(parts: SplitResult) -> tuple[dict[str, Any], str]:
    """The user and the password, and what follows them."""
    given, _, location = parts.netloc.rpartition("@")
    user, _, password = given.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}, location


def _location(scheme: str, location: str, path: str) -> tuple[tuple[tuple[str, int], ...], str, str, int]:
    """The hosts, the path of the socket, the service, and the number of the database."""
    if scheme == "redis+unix":
        if location or not path.strip("/"):
            raise ConfigurationError("the URL of a bus on redis+unix: is redis+unix:///path/of/the/socket")
        return (), unquote(path), "", 0
    sentinel = scheme.endswith("+sentinel")
    names = location.split(",") if sentinel else [location]
    hosts = tuple(_host(scheme, name, SENTINEL_PORT if sentinel else REDIS_PORT) for name in names)
    service, database = path.strip("/"), ""
    if not sentinel:
        service, database = "", service
    elif "/" in service:
        service, _, database = service.partition("/")
    if sentinel and not service:
        raise ConfigurationError(
            f"the URL of a bus on {scheme}: names the service, as in {scheme}://host:26379/mymaster"
        )
    if database and not re.fullmatch(r"[0-9]{1,4}", database):
        raise ConfigurationError(f"the database of a bus on {scheme}: is a number, not {database!r}")
    return hosts, "", unquote(service), int(database or 0)


def _host(scheme: str, location: str, default: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/,\s]+))(?::([0-9]{1,5}))?", location)
    port = int(found[3] or default) if found else 0
    if found is None or not 0 < port < 65536:
        raise ConfigurationError(  # without what it is instead, which may be half a password
            f"the URL of a bus on {scheme}: has a host, and a port after a colon if it is not {default}; {ESCAPES}"
        )
    return unquote(found[1] or found[2]), port


def _tls(options: dict[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {name: options[name] for name in TLS_OPTIONS if name in options}
    if given.get("ssl_cert_reqs", "required") not in REQUIREMENTS:
        raise ConfigurationError(
            f"the option 'ssl_cert_reqs' of a bus is one of {', '.join(REQUIREMENTS)}, not {given['ssl_cert_reqs']!r}"
        )
    # The client's own defaults were weaker in some of its versions.
    check = str(given.get("ssl_check_hostname", given.get("ssl_cert_reqs") != "none"))
    if check.lower() not in TRUTHS:
        raise ConfigurationError(f"the option 'ssl_check_hostname' of a bus is true or false, not {check!r}")
    for name in FILES:
        if name in given and not Path(given[name]).is_file():
            raise ConfigurationError(f"the option {name!r} of a bus names a file, and {given[name]!r} is none")
    return {"ssl_cert_reqs": "required", **given, "ssl_check_hostname": TRUTHS[check.lower()]}


def _prefix(prefix: str) -> str:
    if not re.fullmatch(r"[-A-Za-z0-9_.:]{1,64}", prefix):
        raise ConfigurationError(
            f"the option 'prefix' of a bus is up to 64 of A-Z, a-z, 0-9, '-', '_', '.' and ':', not {prefix!r}"
        )
    return prefix


def _bound(bound: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", bound) or int(bound) < SMALLEST_BOUND:
        raise ConfigurationError(
            f"the option 'bound' of a bus is a number of bytes, at least {SMALLEST_BOUND}, not {bound!r}"
        )
    return int(bound)
