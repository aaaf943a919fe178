"""The application of `application.py`, with whatever else of uWSGI or Python can send to a group: where the path of a
request says, `/from/...`.

Also what a mule runs without it: with the name of a group in UWASP_MULE, it opens the bus itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

sys.path.insert(0, str(Path(__file__).parent))

import uwasp
import uwsgi
from application import Talker, group_of
from application import application as websockets

TIMER = 17


def send(where: str, group: str) -> None:
    group_of(group).send(f"from {where}")


def from_view(group: str) -> None:
    send("view", group)


def from_thread(group: str) -> None:
    threading.Thread(target=send, args=("thread", group)).start()


def from_greenlet(group: str) -> None:
    import gevent

    gevent.spawn(send, "greenlet", group)


def from_spooler(group: str) -> None:
    uwsgi.spool({b"group": group.encode()})


def from_mule(group: str) -> None:
    uwsgi.mule_msg(group.encode())


def from_timer(group: str) -> None:
    """In a worker without lazy-apps, that was told so by the master."""
    uwsgi.cache_update("group", group.encode())
    uwsgi.add_timer(TIMER, 1)


def from_process(group: str) -> None:
    """A child by `fork` that ends in Python's way, once it has closed its bus."""

    def run() -> None:
        with uwasp.open_bus(websockets_bus) as bus:
            bus.group(*group.split(":")).send("from process")

    multiprocessing.get_context("fork").Process(target=run).start()


def from_another_bus(group: str) -> None:
    """A view that opens the bus, which the process has open."""
    with uwasp.open_bus(websockets_bus) as bus:
        bus.group(*group.split(":")).send("from another_bus")


def from_named_bus(group: str) -> None:
    uwasp.Group(*group.split(":"), bus=websockets_bus).send("from named_bus")


class ToGroup(logging.Handler):
    """Logs to a group, of its own troubles too."""

    def __init__(self, group: str) -> None:
        super().__init__()
        self.group = group

    def emit(self, record: logging.LogRecord) -> None:
        group_of(self.group).send(record.getMessage())


def from_logging(group: str) -> None:
    logger = logging.getLogger("senders")
    logger.addHandler(ToGroup(group))
    logger.info("from logging")


def from_program(group: str) -> None:
    program = "import sys, uwasp\nwith uwasp.open_bus(sys.argv[1]) as bus:\n    "
    program += "bus.group(*sys.argv[2:]).send('from program')"
    subprocess.Popen([os.path.join(sys.prefix, "bin", "python"), "-c", program, websockets_bus, *group.split(":")])


def spooler(task: dict[bytes, bytes]) -> int:
    send("spooler", task[b"group"].decode())
    return int(uwsgi.SPOOL_OK)


def on_timer(number: int) -> None:
    group = uwsgi.cache_get("group")
    if group is not None:
        uwsgi.cache_del("group")
        send("timer", group.decode())


class Leaver(Talker):
    """Tells the others that it has gone with its worker."""

    def on_close(self) -> None:
        if self.ws.close_code != 1001:
            return
        for number in range(10):
            self.group.send(f"{self.ws.member_id} {number}")


leaving = uwasp.WebSocketMiddleware(websockets, os.environ["UWASP_HANDLER"], [("/leave", Leaver)])
websockets_bus = os.environ.get("UWASP_BUS", "local:")
uwsgi.spooler = spooler
uwsgi.mule_msg_hook = lambda message: send("mule", message.decode())
if uwsgi.masterpid():
    uwsgi.register_signal(TIMER, "", on_timer)


def application(environ: dict[str, Any], start_response: Any) -> Any:
    _, _, where = environ["PATH_INFO"].partition("/from/")
    if where:
        globals()[f"from_{where}"](parse_qs(environ["QUERY_STRING"])["group"][0])
    return (leaving if environ["PATH_INFO"] == "/leave" else websockets)(environ, start_response)
