"""What a connection takes while nothing happens on it."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

from raw import RawClient

FEW, MANY = 200, 800
LARGE = 6 * 1024  # bytes; docs/production.md says some 1.5 KiB, and an allocator takes its memory in steps


def resident(pid):
    """The resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)[0])


def test_an_idle_connection_of_a_class_takes_a_few_kibibytes(serve):
    uwsgi = serve()
    (pid,) = re.findall(r"spawned uWSGI worker 1 \(pid: (\d+)", uwsgi.output)
    with ExitStack() as stack:
        for _ in range(FEW):
            stack.enter_context(RawClient(uwsgi.port))
        before = resident(pid)
        for _ in range(MANY):
            stack.enter_context(RawClient(uwsgi.port))
        each = (resident(pid) - before) / MANY
    assert 0 < each < LARGE
