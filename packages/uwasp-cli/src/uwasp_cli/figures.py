"""The figures of a running uWSGI.

Its stats server tells what uWSGI itself counts, and uWASP's figures of all workers together among its metrics. What
each worker has counted, by path too, is in a file of its own beside the stats socket.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from uwasp_cli.problem import Problem

__all__ = ["GAUGES", "METRIC_OPTIONS", "OF_ALL", "OF_A_PATH", "Figures", "read"]

GAUGES = frozenset({"open", "queued_in", "queued_out"})
OF_A_PATH = ("open", "opened", "messages_in", "messages_out", "bytes_in", "bytes_out", "queued_in", "queued_out")
OF_ALL = (*OF_A_PATH, "closed", "refused", "slow_members")
PREFIX = "uwasp."
TIMEOUT = 5.0  # seconds
MOST = 64 * 1024 * 1024  # bytes of an answer


@dataclass(frozen=True)
class Figures:
    """What the stats server said at one time.

    Attributes:
        at: when, in seconds of `time.monotonic()`.
        total: uWASP's figures by their names in `uwasp.stats()`; those that are registered.
        workers: for each worker, by its number, uWSGI's `pid`, `status`, `requests`, and what is in its file: all of
            `uwasp.stats()`.
        backlog: connections that wait to be accepted.
    """

    at: float
    total: dict[str, int]
    workers: dict[int, dict[str, Any]]
    backlog: int
    uwsgi: dict[str, Any] = field(repr=False)

    @property
    def has_all_workers(self) -> bool:
        """Whether the file of each worker is there."""
        return all("paths" in worker for worker in self.workers.values())

    @property
    def paths(self) -> dict[str, dict[str, int]]:
        """For each path, or pattern of one, its figures, of all workers that are there now."""
        paths: dict[str, dict[str, int]] = {}
        for worker in self.workers.values():
            for path, of_one in worker.get("paths", {}).items():
                figures = paths.setdefault(path, dict.fromkeys(OF_A_PATH, 0))
                for name in OF_A_PATH:
                    figures[name] += of_one[name]
        return dict(sorted(paths.items()))

    def counted(self, name: str) -> dict[str, int]:
        """`closed` by code or `refused` by reason, of all workers that are there now; the most frequent first."""
        counted: Counter[str] = Counter()
        for worker in self.workers.values():
            counted.update(worker.get(name, {}))
        return dict(counted.most_common())

    @property
    def as_json(self) -> dict[str, Any]:
        workers = [{"worker": number, **figures} for number, figures in self.workers.items()]
        return {**self.uwsgi, "backlog": self.backlog, "total": self.total, "paths": self.paths, "workers": workers}


METRIC_OPTIONS = [f"name={PREFIX}{name}" + (",type=gauge" if name in GAUGES else "") for name in OF_ALL]
"""The values of uWSGI's option `metric` that register uWASP's figures."""


def read(address: str) -> Figures:
    """Ask the stats server at an address: `host:port`, the path of a Unix socket, or `http://host:port`.

    Raises:
        Problem: nobody answers there, or it is no stats server.
    """
    try:
        text = _ask(address)
    except FileNotFoundError:
        raise Problem(f"{address}: there is no such socket; is that uWSGI running, with --stats?") from None
    except PermissionError:
        raise Problem(f"{address}: this user may not open it; ask as the user of that uWSGI") from None
    except ConnectionRefusedError:
        raise Problem(f"{address}: nobody listens there; has that uWSGI ended?") from None
    except TimeoutError:
        raise Problem(f"{address}: no answer within {TIMEOUT:g} s; is it uWSGI's stats server?") from None
    except OSError as error:
        raise Problem(f"{address}: {error.strerror or error}") from None
    try:
        said = json.loads(text)
        return _figures(said, _unix_path(address))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Problem(f"{address}: what answers there is not uWSGI's stats server (--stats)") from None


def _ask(address: str) -> bytes:
    path = _unix_path(address)
    is_http = address.startswith("http://")
    if path:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIMEOUT)
        try:
            client.connect(path)
        except BaseException:
            client.close()
            raise
    else:
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        client = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), TIMEOUT)
    with client:
        if is_http:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = bytearray()
        deadline = time.monotonic() + TIMEOUT
        while part := client.recv(65_536):
            answer += part
            if len(answer) > MOST or time.monotonic() > deadline:
                raise TimeoutError
    return bytes(answer.partition(b"\r\n\r\n")[2] if is_http else answer)


def _unix_path(address: str) -> str:
    """The path of a Unix socket; empty for `host:port`."""
    where = address.removeprefix("http://").rstrip("/") if address.startswith("http://") else address
    _, colon, port = where.rpartition(":")
    return "" if "/" not in where and colon and port.isdigit() else where.removeprefix("unix:")


def _figures(said: Mapping[str, Any], path: str) -> Figures:
    total = {
        name.removeprefix(PREFIX): metric["value"]
        for name, metric in said.get("metrics", {}).items()
        if name.startswith(PREFIX)
    }
    workers = {}
    for worker in said["workers"]:
        if worker["pid"]:
            of_uwsgi = {name: worker[name] for name in ("pid", "status", "requests")}
            workers[worker["id"]] = {**_own_figures(path, worker["id"], worker["pid"]), **of_uwsgi}
    uwsgi = {"version": said["version"], "pid": said["pid"]}
    return Figures(time.monotonic(), total, workers, said["listen_queue"], uwsgi)


def _own_figures(path: str, number: int, pid: int) -> dict[str, Any]:
    """What a worker has written down beside the stats socket; nothing, if what is there is another's."""
    if not path:
        return {}
    try:
        fd = os.open(f"{path}.{number}.json", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            text = file.read(MOST) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        figures: dict[str, Any] = json.loads(text)
        return figures if figures["pid"] == pid else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # there is none, or it is none of ours
        return {}
