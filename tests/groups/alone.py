"""What a mule and a spooler run that have not loaded the application: they open the bus by its name."""

from __future__ import annotations

import os

import uwasp
import uwsgi

uwasp.open_bus(os.environ.get("UWASP_BUS", "local:"))


def spooler(task: dict[bytes, bytes]) -> int:
    uwasp.Group(*task[b"group"].decode().split(":")).send("from spooler")
    return int(uwsgi.SPOOL_OK)


if uwsgi.mule_id():
    while True:
        uwasp.Group(*uwsgi.mule_get_msg().decode().split(":")).send("from mule")

uwsgi.spooler = spooler
