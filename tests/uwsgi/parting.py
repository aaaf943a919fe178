"""What the tests of a worker's end have in common: the application, clients that part, and how a worker is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from websockets.frames import Opcode

from processes import wait_until
from raw import RawClient, frame
from uwasp_pytest.behaviour import APPLICATIONS

APPLICATION = APPLICATIONS / "production.py"
GOING_AWAY = b"\x03\xe9"
LONG = 60  # seconds; nothing here waits for so long
# uWSGI starts itself anew to reload. That of pyuwsgi is within a Python, which it has to be told.
RELOADABLE = ("--binary-path", sys.executable)


def state(pid):
    """The state of a process, as /proc has it, a letter; "Z" for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def is_gone(pid):
    """Whether a process has ended; uWSGI, which looks once a second, may not have noticed yet."""
    return state(pid) == "Z"


def wait_for_the_end(pid):
    wait_until(lambda: is_gone(pid), "the worker's end", 10)


def connect(stack, uwsgi, name, path="/noting"):
    """A client, and the process that it is connected to."""
    client = stack.enter_context(RawClient(uwsgi.port, f"{path}?{name}"))
    pid = int(client.recv().data)
    client.send(frame(Opcode.TEXT, b"wait for uWSGI"))
    assert client.recv().data == b"idle"
    return client, pid


def part(client):
    """Read the close frame, answer it, and read the end: as well-behaved clients do."""
    closing = client.recv()
    assert closing.opcode is Opcode.CLOSE
    client.send(frame(Opcode.CLOSE, closing.data))
    client.recv_end()
    client.socket.close()
    return closing.data


def command(fifo, letter):
    """Write to the FIFO of uWSGI's master, which makes it anew at every reload."""

    def is_written():
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        with open(fd, "w") as opened:
            return opened.write(letter)

    wait_until(is_written, "the master to read its FIFO")
