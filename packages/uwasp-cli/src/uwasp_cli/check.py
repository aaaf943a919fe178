"""`uwasp check`: what an application is under uWSGI, what will bite, and whether a handshake works."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uwasp_cli import limits
from uwasp_cli.configuration import is_socket
from uwasp_cli.handshake import try_handshake
from uwasp_cli.probing import probe
from uwasp_cli.target import find_target
from uwasp_cli.uwsgi import find_uwsgi

__all__ = ["run"]

ORIGIN = "allowed_origins"
# Where it is not uWASP that looks at the origin of a page, by the package that does.
ORIGINS = {
    "uwasp_django": "by Django's rule for forms: pages of the own host, and of CSRF_TRUSTED_ORIGINS",
    "uwasp_socketio": "by Socket.IO's rule: cors_allowed_origins of its server",
}
RUNTIME = Path("/run")  # is empty after each start of the system: what is in it is made anew with each service
FEW = 1024  # connections that wait, descriptors: what systems allow by default is not more


def run(options: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Say what there is; return 0, or 1 if something will bite.

    Raises:
        Problem: the application cannot be loaded.
    """
    bites: list[str] = []
    if options.application or not options.url:
        bites += check_application(options, environment)
    if options.url:
        bites += check_url(options.url, options.origin)
    for bite in bites:
        print(f"! {bite}")
    print("nothing bites" if not bites else f"{len(bites)} to look at")
    return 1 if bites else 0


def check_application(options: argparse.Namespace, environment: Mapping[str, str]) -> list[str]:
    """Tell what an application is; return what will bite."""
    target = find_target(options.application, Path.cwd(), environment)
    uwsgi = find_uwsgi(options.uwsgi)
    found = probe(options, target, uwsgi, environment, options.rest)
    version = ".".join(map(str, uwsgi.version))
    print(f"{found['name']} loads under uWSGI {version} ({uwsgi.path}), in its loop for {found['loop']}")
    for line in described(found):
        print(f"  {line}")
    return list(bites_of(found))


def described(found: Mapping[str, Any]) -> Iterator[str]:
    """A line for each thing that there is."""
    for middleware in found["middlewares"]:
        yield f"handler: {middleware['handler']}"
        yield f"bus: {middleware['bus']}"
        rule = ORIGINS.get(middleware["owner"])
        options = {name: value for name, value in middleware["options"].items() if not (rule and name == ORIGIN)}
        yield f"options: {_options(options)}"
        if rule:
            yield f"origins: {rule}"
        for server in middleware["servers"]:
            own = {name: value for name, value in server["options"].items() if middleware["options"].get(name) != value}
            yield f"path: {server['path']} {server['server']}{f', {_options(own)}' if own else ''}"
    for route in found["routes"]:
        yield f"route: {route}"
    yield f"C: {'uwasp-speedups is in use' if found['speedups'] else 'uwasp-speedups is not in use'}"
    for name, path in _without_folder(found):
        if _is_made_at_a_start(path):
            yield f"{name}: {path}, in a folder to be made at a start; RuntimeDirectory= in a unit of systemd does that"
    yield f"backlog: {found['listen']} connections, descriptors: {found['descriptors']}"


def _without_folder(found: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """The sockets on which uWSGI is to listen in folders that are not there, each with its option."""
    for name, value in found["configured"]:
        if is_socket(name, value) and not Path(value).parent.is_dir():
            yield name, Path(value)


def _is_made_at_a_start(path: Path) -> bool:
    return RUNTIME in path.parents


def _options(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "as by default"


def bites_of(found: Mapping[str, Any]) -> Iterator[str]:
    """What will go wrong some day, and what to change."""
    yield from found["warnings"]
    if not found["middlewares"]:
        yield "there is no WebSocketMiddleware in it: it serves no WebSockets"
    if found["listen"] < FEW:
        most = limits.backlog()
        how = f"add --listen {most}" if most >= FEW else f"raise net.core.somaxconn, which is {most}, and add --listen"
        yield f"the backlog is {found['listen']}: after a reload, clients beyond that go without an answer; {how}"
    if found["descriptors"] <= FEW:
        yield (
            f"a process may have {found['descriptors']} descriptors, of which each WebSocket needs one: add --max-fd "
            f"{limits.descriptors()}, or raise the limit (LimitNOFILE in a unit of systemd)"
        )
    if found["interpreters"]:
        yield (
            "the application of a second --mount has an interpreter of its own, where uWASP does not work: add "
            "--single-interpreter"
        )
    if not found["master"]:
        yield "without a master, uWSGI does not reload, and does not replace a worker that ends: add --master"
    for name, path in _without_folder(found):
        if not _is_made_at_a_start(path):
            yield f"{name} = {path}: there is no folder {path.parent}, and without it uWSGI does not start; make it"


def check_url(url: str, origin: str | None) -> list[str]:
    """Try a handshake; return what is wrong with it."""
    wrong = try_handshake(url, origin)
    whence = f" for a page of {origin}" if origin else ""
    if wrong is None:
        print(f"{url} opens{whence}, and answers a ping")
        return []
    return [f"{url} does not open{whence}: {wrong}"]
