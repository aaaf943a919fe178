"""Start the chat as on several machines: two uWSGI instances behind one nginx, whose rooms meet in a Redis:

    python examples/chat/instances.py [--instances 2] [--redis redis://127.0.0.1:6379?prefix=chat]
        [--handler gevent|threads] [--processes 2] [--host 127.0.0.1] [--port 8000]

Ctrl-C stops it, but for the Redis, which has to be there. nginx shares the connections out; the page says which
instance and worker has it. Each instance is a `uwasp dev`, told the bus and a name of its own; on machines of their own
they would listen where nginx can reach them, and nothing else would differ.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

CHAT = Path(__file__).resolve().with_name("chat.py")

# What is particular to WebSockets: the upgrade is passed on, and a silent connection is not ended after a minute.
# `least_conn`, because they stay open: by turns, one could get all pages and the other all WebSockets.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream chat {{
        least_conn;
        {servers}
    }}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      close;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://chat;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""


class Together:
    """Processes that end together: when one of them does, or a signal ends all."""

    def __init__(self) -> None:
        self._processes: dict[subprocess.Popen[str], str] = {}  # and what each is
        self._is_stopping = False

    def start(self, what: str, command: Sequence[str], **keywords: Any) -> subprocess.Popen[str]:
        # In a session of its own, each hears of Ctrl-C from `stop` only.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, start_new_session=True, **keywords)
        self._processes[process] = what
        if self._is_stopping:
            process.terminate()
        return process

    def stop(self, number: int = 0, frame: FrameType | None = None) -> None:
        self._is_stopping = True
        for process in list(self._processes):
            process.terminate()

    def wait(self) -> int:
        """Wait until one has ended, and end the others; return the exit code for this program."""
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        was_stopping = self._is_stopping
        if not was_stopping:
            ended = [what for process, what in self._processes.items() if process.poll() is not None]
            print(" and ".join(ended), "ended by itself", file=sys.stderr)
        self.stop()
        for process in self._processes:
            process.wait()
        return 0 if was_stopping else 1


def instance_command(options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "uwasp_cli", "dev", str(CHAT), "--handler", options.handler]
    return [*command, "--processes", str(options.processes), "--port", "0", "--no-reload", "--", "--disable-logging"]


def where(instance: subprocess.Popen[str]) -> str | None:
    """Where one listens that has started; `None` if it has ended, and said why."""
    assert instance.stdout is not None
    found = re.match(r"open http://(\S+)/", instance.stdout.readline())
    return found and found[1]


def find_nginx() -> str:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    return program or sys.exit("nginx is not installed; in Debian, the package nginx-light has it")


def listen(host: str, port: int) -> socket.socket:
    """Listen here and not in nginx, to say in one line what is wrong with the address."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"port {port} on {host} is taken; choose another with --port")
        sys.exit(f"cannot listen: {error.strerror}")


def answers(host: str, port: int) -> bool:
    """Whether the page can be had through nginx."""
    connection = HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False  # it has ended; its output says why
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="The chat, under several uWSGIs behind nginx, over Redis.")
    parser.add_argument("--instances", type=int, choices=range(1, 27), default=2, metavar="N", help="default: 2")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379?prefix=chat", help="default: %(default)s")
    parser.add_argument("--handler", choices=("gevent", "threads"), default="gevent", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=2, help="workers of each; default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one; default: %(default)s")
    options = parser.parse_args()
    for module in ("uwasp_cli", "uwasp_redis"):
        if find_spec(module) is None:
            sys.exit(f"the module {module} is not installed; try: pip install uwasp-cli uwasp-redis")
    nginx = find_nginx()
    listening = listen(options.host, options.port)
    host, port = listening.getsockname()[:2]
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    together = Together()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, together.stop)
    with tempfile.TemporaryDirectory(prefix="chat-") as folder:
        names = [chr(ord("A") + number) for number in range(options.instances)]
        instances = [
            together.start(
                f"instance {name}",
                instance_command(options),
                stdout=subprocess.PIPE,
                env={**os.environ, "UWASP_BUS": options.redis, "CHAT_INSTANCE": name},  # read by chat.py
            )
            for name in names
        ]
        found = [where(instance) for instance in instances]
        if None not in found:
            configuration = Path(folder) / "nginx.conf"
            servers = " ".join(f"server {one};" for one in found)
            configuration.write_text(NGINX.format(folder=folder, address=address, servers=servers))
            fd = listening.fileno()  # nginx takes over the sockets whose numbers are in the variable of its name
            env = {**os.environ, "NGINX": f"{fd};"}
            command = [nginx, "-c", str(configuration), "-e", os.devnull]  # the configuration names its own log
            together.start("nginx", command, pass_fds=[fd], env=env)
            listening.close()
            if answers(host, port):
                print(f"open http://{address}/  (Ctrl-C stops it)", flush=True)
        return together.wait()


if __name__ == "__main__":
    sys.exit(main())
