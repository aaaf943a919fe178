"""uWASP's peers: what other projects offer for the same purpose, each with an echo in benchmarks/peers/.

Each runs as one process with its own usual settings for speed, without compression and without an access log. What is
on by default, such as limits and keepalive, stays on. The largest message is what uWASP takes by default, in all of
them, or they would refuse a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from installation import node_environment, python_environment
from servers import BROADCAST, ECHO, Process, Server, free_port, wait_until_it_listens

__all__ = ["PEERS", "Peer", "installed"]

FOLDER = Path(__file__).parent / "peers"
MAX_MESSAGE_SIZE = 2**20
ENGINE_IO = ("--prefix", "4", "--greetings", "1")  # a packet of type message; the packet that opens


@dataclass(frozen=True, eq=False)
class Peer:
    """Another project's server.

    Args:
        name: what the tables call it.
        requirements: of its environment.
        arguments: of its program, from its port and its largest message.
        settings: with which it runs, for the report.
        program: of its environment; node is that of the machine.
        keepalive: it pings connections by default.
        lacks: the shapes in which it has no part, and why.
        echo, broadcast: the load client's options for it.
    """

    name: str
    requirements: tuple[str, ...]
    arguments: Callable[[int, int], list[str]]
    settings: str
    program: str = "python"
    keepalive: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    echo: tuple[str, ...] = ECHO
    broadcast: tuple[str, ...] = BROADCAST


def script(name: str) -> Callable[[int, int], list[str]]:
    return lambda port, limit: [str(FOLDER / name), str(port)]


def options(*flags: str, **values: object) -> list[str]:
    named = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items())
    return [*flags, *(part for option in named for part in option)]


def uvicorn(port: int, limit: int) -> list[str]:
    return options(
        "asgi_echo:application",
        "--no-access-log",
        app_dir=FOLDER,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="auto",
        ws_per_message_deflate="false",
        ws_max_size=limit,
        log_level="warning",
    )


def granian(port: int, limit: int) -> list[str]:
    return options(
        "asgi_echo:application",
        interface="asgi",
        port=port,
        loop="uvloop",
        workers=1,
        backpressure=20_000,  # as many connections as it serves at a time
        working_dir=FOLDER,
        log_level="warning",
    )


def gunicorn(port: int, limit: int) -> list[str]:
    return options(
        "flask_sock_echo:application",
        chdir=FOLDER,
        bind=f"127.0.0.1:{port}",
        worker_class="gthread",
        threads=1100,
        worker_connections=2000,
        log_level="warning",
    )


def uwsgi(port: int, limit: int) -> list[str]:
    return options(
        "--master",
        "--need-app",
        "--die-on-term",
        "--disable-logging",
        http_socket=f"127.0.0.1:{port}",
        gevent=1100,
        listen=100,
        websocket_max_size=limit // 1024 + 1,
        wsgi_file=FOLDER / "engineio_echo.py",
    )


NO_BROADCAST = "it has nothing for sending to other connections"
MANY_CONNECTIONS = ("idle-memory", "idle-cpu", "connections-10000", "storm")
A_THREAD_EACH = dict.fromkeys(MANY_CONNECTIONS, "a thread for each connection")
A_CORE_EACH = dict.fromkeys(MANY_CONNECTIONS, "one of uWSGI's async cores for each connection")
PEERS = (
    Peer("picows", ("picows", "uvloop"), script("picows_echo.py"), "uvloop; payloads as bytes, not checked for UTF-8"),
    Peer("aiohttp", ("aiohttp", "uvloop"), script("aiohttp_echo.py"), "uvloop"),
    Peer(
        "websockets",
        ("websockets", "uvloop"),
        script("websockets_echo.py"),
        "its asyncio server; uvloop",
        keepalive=True,
    ),
    Peer(
        "uvicorn",
        ("uvicorn", "websockets", "uvloop", "httptools"),
        uvicorn,
        "ASGI; `--ws auto`, which takes `websockets`; uvloop, httptools",
        "uvicorn",
        keepalive=True,
    ),
    Peer("granian", ("granian", "uvloop"), granian, "ASGI; uvloop, one worker with one runtime thread", "granian"),
    Peer("socketify", ("socketify",), script("socketify_echo.py"), "uWebSockets; broadcasts by its own `publish`"),
    Peer(
        "python-engineio",
        ("python-engineio", "gevent", "uwsgi"),
        uwsgi,
        "`gevent_uwsgi`, on a uWSGI compiled here with its own WebSockets; Engine.IO's packets, handlers in order",
        "uwsgi",
        keepalive=True,
        lacks=A_CORE_EACH,
        echo=("--path", "/engine.io/?EIO=4&transport=websocket", *ENGINE_IO),
        broadcast=("--path", "/engine.io/?EIO=4&transport=websocket&broadcast", *ENGINE_IO),
    ),
    Peer(
        "flask-sock",
        ("flask-sock", "gunicorn"),
        gunicorn,
        "gunicorn, one worker of `gthread` with 1,100 threads",
        "gunicorn",
        lacks={**A_THREAD_EACH, "fan-out": NO_BROADCAST},
    ),
    Peer("gevent-websocket", ("gevent-websocket", "gevent"), script("gevent_websocket_echo.py"), "gevent's own server"),
    Peer("ws", ("ws", "bufferutil"), script("ws_echo.js"), "Node.js; with its optional `bufferutil`", "node"),
)


def installed(peer: Peer, max_message_size: int = MAX_MESSAGE_SIZE) -> Server:
    """The server of a peer, in its environment, which is made if it is not there.

    Raises:
        NotInstalled
    """
    env = {"MAX_MESSAGE_SIZE": str(max_message_size)}
    if peer.program == "node":
        modules, versions = node_environment(peer.name, peer.requirements)
        program, env["NODE_PATH"] = "node", str(modules)
    else:
        programs, versions = python_environment(peer.name, peer.requirements)
        program = str(programs / peer.program)

    def start(folder: Path, port: int) -> tuple[Process, int]:
        port = port or free_port()
        process = Process([program, *peer.arguments(port, max_message_size)], folder / "server.log", env, cwd=folder)
        wait_until_it_listens(process, port)
        return process, port

    return Server(
        peer.name,
        start,
        peer=True,
        settings=peer.settings,
        versions=versions,
        keepalive=peer.keepalive,
        lacks=peer.lacks,
        echo=peer.echo,
        broadcast=peer.broadcast,
    )
