"""Start the chat under a real uWSGI:

    python examples/chat/run.py [--handler gevent|threads] [--host 127.0.0.1] [--port 8000]

Ctrl-C stops it. With `--host 0.0.0.0`, a phone in the same network can join, at this machine's own address.

The options of uWSGI are in `uwsgi_command`; the rest keeps its output down to what concerns you, and makes sure that
nothing is left running.
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
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

APPLICATION = Path(__file__).resolve().parent / "chat.py"

# For each handler: the modules that it needs, and uWSGI's options for it.
HANDLERS = {
    "gevent": (("uwasp_gevent", "gevent"), ("--gevent", "100")),
    "threads": (("uwasp_threads",), ("--threads", "4")),
}

READY = "spawned uWSGI worker"  # the application is loaded by then
# What uWSGI says about its own comings and goings, once it runs.
CHATTER = re.compile(
    r"\*\*\* running gevent loop|SIGINT/SIGTERM received|Brutally killing worker|worker \d+ buried|goodbye to|"
    r".* - (stopping gevent|main gevent watchers)"
)
# Of what it says before it is ready, only the lines of Python's `logging` are of interest, as `chat.py` formats them.
LOG_RECORD = re.compile(r"(WARNING|ERROR|CRITICAL) ")


def uwsgi_command(program: str, fd: int, handler: str) -> list[str]:
    """The command line: one process with a hundred greenlets, or with four threads, which are for HTTP requests only.

    The open WebSockets need none of those. It is one process because the room is in its memory: in a second one would
    be a second room.
    """
    command = [program, "--http-socket", f"fd://{fd}", "--wsgi-file", str(APPLICATION), *HANDLERS[handler][1]]
    command += ["--master", "--no-orphans", "--die-on-term", "--need-app"]
    command += ["--buffer-size", "32768"]  # bytes of headers: browsers send this host's cookies to every port
    command += ["--disable-logging"]  # of requests
    with open(program, "rb") as file:
        if file.read(2) == b"#!":  # pyuwsgi, which could not reload if it took another Python than this for itself
            command += ["--binary-path", str(Path(program).parent / "python3")]
    return command


def find_uwsgi() -> str:
    """The uWSGI of this Python's environment, else the one on PATH."""
    beside = Path(sys.executable).parent
    for candidate in (beside / "uwsgi", beside / "pyuwsgi", "uwsgi", "pyuwsgi"):
        program = shutil.which(candidate)
        if program is not None:
            return program
    sys.exit("uWSGI is not installed; try: pip install pyuwsgi")


def check_packages(handler: str) -> None:
    modules, _ = HANDLERS[handler]
    for module in ("uwasp", *modules):
        if find_spec(module) is None:
            sys.exit(f"the module {module} is not installed; try: pip install uwasp-core uwasp-{handler}")


def listen(host: str, port: int) -> socket.socket:
    """Listen here and not in uWSGI, to say in one line what is wrong with the address."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"port {port} on {host} is taken; choose another with --port")
        sys.exit(f"cannot listen: {error.strerror}")


def serve(command: Sequence[str], listening: socket.socket) -> int:
    """Run uWSGI until it ends, or a signal ends it; return the exit code for this program."""
    uwsgi: subprocess.Popen[str] | None = None
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        if uwsgi is not None:
            uwsgi.terminate()
        signal.alarm(1)  # and again in a second: while it starts, uWSGI's master misses a signal

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, stop)
    host, port = listening.getsockname()[:2]
    # In a session of its own, uWSGI hears of Ctrl-C from `stop` only, and once.
    uwsgi = subprocess.Popen(
        command,
        pass_fds=[listening.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    listening.close()  # uWSGI has it; once uWSGI is gone, nobody should wait here for an answer
    try:
        said = _show(uwsgi, host, port)
        code = uwsgi.wait()
    finally:
        uwsgi.terminate()
        signal.alarm(0)
    if stopping:
        return 0
    print(said, f"uWSGI ended by itself, with code {code}", sep="", file=sys.stderr)
    return 1


def _show(uwsgi: subprocess.Popen[str], host: str, port: int) -> str:
    """Print of uWSGI's output what matters; return what it said if it never answered."""
    assert uwsgi.stdout is not None
    starting = []
    for line in uwsgi.stdout:
        starting.append(line)
        if line.startswith(READY) and _answers(host, port):
            break
    else:
        return "".join(starting)
    print(*filter(LOG_RECORD.match, starting), sep="", end="", file=sys.stderr)
    print(f"open http://{f'[{host}]' if ':' in host else host}:{port}/  (Ctrl-C stops it)", flush=True)
    for line in uwsgi.stdout:
        if not CHATTER.match(line):
            print(line, end="", file=sys.stderr, flush=True)
    return ""


def _answers(host: str, port: int) -> bool:
    """Whether the page can be had. The first answer takes as long as the worker needs to get going."""
    connection = HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False  # it has ended; its output says why
    finally:
        connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="A chat on one page, over WebSockets, under uWSGI.")
    parser.add_argument("--handler", choices=HANDLERS, default="gevent", help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one; default: %(default)s")
    options = parser.parse_args()
    if not 0 <= options.port < 2**16:
        parser.error(f"a port is a number from 0 to 65535, not {options.port}")
    check_packages(options.handler)
    program = find_uwsgi()
    os.environ["UWASP_HANDLER"] = options.handler  # read by chat.py
    listening = listen(options.host, options.port)
    return serve(uwsgi_command(program, listening.fileno(), options.handler), listening)


if __name__ == "__main__":
    sys.exit(main())
