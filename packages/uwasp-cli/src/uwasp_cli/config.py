"""`uwasp config`: what `uwasp run` does, as files to keep: an ini for uWSGI, a unit for systemd, a site for nginx."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from uwasp_cli import access
from uwasp_cli.options import Option, Setup, options_for
from uwasp_cli.problem import Problem
from uwasp_cli.production import find_setup
from uwasp_cli.run import say_what_is_left_out
from uwasp_cli.target import find_target

__all__ = ["run"]

UNIT = """\
# {path}: written by `uwasp config --for systemd`. Its uWSGI reads {ini}, of `--for ini`.
[Unit]
Description={name}, WSGI and WebSockets on uWSGI
After=network.target

[Service]
# uWSGI says when its application is loaded.
Type=notify
NotifyAccess=main
User={user}
Group={user}
WorkingDirectory={folder}
{environment}\
# The folder of its sockets, {runtime}, is made at a start, and gone at a stop.
RuntimeDirectory={name}
# A descriptor for each WebSocket, as max-fd in the ini has it.
LimitNOFILE={max_fd}
ExecStart={uwsgi} --ini {ini}
# A reload: WebSockets are closed with 1001, and come back.
ExecReload=/bin/kill -HUP $MAINPID
KillSignal=SIGTERM
# uWSGI ends its workers; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=90
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""
NGINX = """\
# {path}: written by `uwasp config --for nginx`, to be included in nginx's `http` block.
{beside}\
server {{
    listen 80;
    listen [::]:80;
    server_name {server_name};
    return 301 https://$host$request_uri;
}}

server {{
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name {server_name};
    ssl_certificate {certificate};
    ssl_certificate_key {key};

    location / {{
{passing}
        # How long a WebSocket may be silent; uWASP pings after 20 seconds (ping_interval).
        {kind}_read_timeout 1h;
        {kind}_send_timeout 1h;
    }}
}}
"""
TO_A_SOCKET = """\
        # uWSGI's own protocol: nginx sends the upgrade along with the request's other headers.
        include uwsgi_params;
        uwsgi_pass {where};"""
TO_HTTP = """\
        proxy_pass http://{where};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;"""
MAP = """\
# A request that is no upgrade keeps an ordinary Connection header.
map $http_upgrade $connection_upgrade {
    default upgrade;
    ''      close;
}

"""


class Site(NamedTuple):
    """What a file is written from."""

    name: str
    ini: str
    setup: Setup
    used: list[Option]
    options: argparse.Namespace


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the file; return the exit code.

    Raises:
        Problem: an option cannot be, or the application cannot be loaded.
    """
    name = options.name or find_target(options.application, Path.cwd(), environment).name
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise Problem(f"--name {name}: letters, digits, and _ . - in between")
    setup = find_setup(options, environment, f"unix:/run/{name}/uwsgi.sock", f"/run/{name}/uwsgi.stats")
    used, left_out = options_for(setup)
    ini = options.ini or f"/etc/uwsgi/{name}.ini"
    print(WRITERS[options.kind](Site(name, ini, setup, used, options)), end="")
    say_what_is_left_out(left_out, setup.uwsgi)
    if options.kind == "systemd":
        _say_what_is_closed(options.user, (setup.folder, setup.uwsgi.path, sys.executable))
    if options.kind == "ini" and options.env_file:
        remedy = "have what starts uWSGI read it, as the unit of --for systemd does"
        print(f"uwasp: the variables of {options.env_file} are not in the ini; {remedy}", file=sys.stderr)
    return 0


def _say_what_is_closed(user: str, places: Iterable[str]) -> None:
    """Say which of the places that the unit needs are closed to its user: in a home, as a rule."""
    found = dict.fromkeys(closed for place in places if (closed := access.closed_to(user, place)) is not None)
    for outermost in dict.fromkeys(closed.place for closed in found):
        needed = " and ".join(closed.path for closed in found if closed.place == outermost)
        remedy = "have that elsewhere, such as in /srv, or name another --user"
        print(f"uwasp: {user} may not enter {outermost}, and the unit needs {needed}; {remedy}", file=sys.stderr)


def _ini(site: Site) -> str:
    lines = [f"# {site.ini}: written by `uwasp config --for ini`.", "[uwsgi]"]
    reason = ""
    for option in site.used:
        if option.reason != reason:
            lines.append(f"# {option.reason}")
            reason = option.reason
        lines.append(f"{option.name} = {_in_ini(option.value) or 'true'}")
    if site.options.rest:
        lines += ["# as given", *map(_from_command_line, _joined(site.options.rest))]
    return "\n".join(lines) + "\n"


def _in_ini(value: str) -> str:
    return value.replace("%", "%%")  # which begins one of uWSGI's variables there


def _joined(rest: list[str]) -> list[str]:
    """Options and their values, in one word each."""
    words: list[str] = []
    for word in rest:
        if word.startswith("--"):
            words.append(word)
        elif words and "=" not in words[-1]:
            words[-1] += f"={word}"
        else:
            raise Problem(f"{word}: for a file, an option of uWSGI is written --name or --name=value")
    return words


def _from_command_line(word: str) -> str:
    name, _, value = word.removeprefix("--").partition("=")
    return f"{name} = {_in_ini(value) or 'true'}"


def _systemd(site: Site) -> str:
    env_file = site.options.env_file
    return UNIT.format(
        path=f"/etc/systemd/system/{site.name}.service",
        name=site.name,
        ini=_in_a_command(site.ini).replace("$", "$$"),  # but for the program's own, which has no variables
        user=site.options.user,
        folder=_in_unit(site.setup.folder),
        environment=f"EnvironmentFile={_in_unit(os.path.abspath(env_file))}\n" if env_file else "",
        runtime=f"/run/{site.name}",
        max_fd=site.setup.max_fd,
        uwsgi=_in_a_command(site.setup.uwsgi.path),
    )


def _in_unit(value: str) -> str:
    return value.replace("%", "%%")  # which begins one of systemd's specifiers


def _in_a_command(word: str) -> str:
    return _quoted(_in_unit(word))


def _quoted(word: str) -> str:
    """As systemd and nginx have a word with blanks, or with what means something to them, in it."""
    if re.fullmatch(r"[^\s;{}\"'\\]+", word):
        return word
    escaped = word.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def _nginx(site: Site) -> str:
    bind = site.setup.bind
    host = site.options.server_name
    is_uwsgi = bind.kind == "socket"
    where = f"unix:{bind.path}" if bind.is_unix else bind.address
    return NGINX.format(
        path=f"/etc/nginx/sites-enabled/{site.name}",
        beside="" if is_uwsgi else MAP,
        server_name=host,
        certificate=_quoted(site.options.certificate or f"/etc/ssl/{host}.pem"),
        key=_quoted(site.options.certificate_key or f"/etc/ssl/{host}.key"),
        passing=(TO_A_SOCKET if is_uwsgi else TO_HTTP).format(where=_quoted(where)),
        kind="uwsgi" if is_uwsgi else "proxy",
    )


WRITERS: dict[str, Callable[[Site], str]] = {"ini": _ini, "systemd": _systemd, "nginx": _nginx}
