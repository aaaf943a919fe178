"""What the tests of a worker's end have in common: clients of `production.py` that part."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from websockets.frames import Opcode

from uwasp_pytest.behaviour.raw import RawClient, frame
from uwasp_pytest.processes import Uwsgi, wait_until

__all__ = ["GOING_AWAY", "LONG", "SLACK", "connect", "is_gone", "part", "state", "wait_for_the_end"]

GOING_AWAY = b"\x03\xe9"
LONG = 60  # seconds; nothing here waits for so long
SLACK = 1.5  # seconds, for a machine under load


def state(pid: int) -> str:
    """The state of a process, as /proc has it, a letter; "Z" for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def is_gone(pid: int) -> bool:
    """Whether a process has ended; uWSGI, which looks once a second, may not have noticed yet."""
    return state(pid) == "Z"


def wait_for_the_end(pid: int) -> None:
    wait_until(lambda: is_gone(pid), "the worker's end", 10)


def connect(stack: ExitStack, uwsgi: Uwsgi, name: str, path: str = "/noting") -> tuple[RawClient, int]:
    """A client, and the process that it is connected to."""
    client = stack.enter_context(RawClient(uwsgi.port, f"{path}?{name}"))
    pid = int(client.recv().data)
    client.send(frame(Opcode.TEXT, b"wait for uWSGI"))
    assert client.recv().data == b"idle"
    return client, pid


def part(client: RawClient) -> bytes:
    """Read the close frame, answer it, and read the end: as well-behaved clients do."""
    closing = client.recv()
    assert closing.opcode is Opcode.CLOSE
    code = bytes(closing.data)
    client.send(frame(Opcode.CLOSE, code))
    client.recv_end()
    client.socket.close()
    return code
