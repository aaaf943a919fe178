"""What the tests of a worker's end have in common: as for the tests of behaviour, and how uWSGI is told."""

from __future__ import annotations

import os

from processes import wait_until
from uwasp_pytest.behaviour.parting import GOING_AWAY, LONG, SLACK, connect, is_gone, part, state, wait_for_the_end

__all__ = ["GOING_AWAY", "LONG", "SLACK", "command", "connect", "is_gone", "part", "state", "wait_for_the_end"]


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
