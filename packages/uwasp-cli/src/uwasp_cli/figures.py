"""The figures of a running uWSGI, from its stats server: what uWSGI itself counts, and uWASP's among its metrics."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from uwasp_cli.problem import Problem

__all__ = ["OF_ALL", "OF_A_WORKER", "Figures", "metric_options", "read"]

GAUGES = frozenset({"open", "queued_in", "queued_out"})
OF_A_WORKER = ("open", "opened", "refused", "messages_in", "messages_out", "queued_in")
OF_ALL = ("open", "opened", "closed", "refused", "messages_in", "messages_out", "queued_in", "queued_out")
PREFIX = "uwasp."
TIMEOUT = 5.0  # seconds
MOST = 64 * 1024 * 1024  # bytes of an answer


@dataclass(frozen=True)
class Figures:
    """What the stats server said at one time.

    Attributes:
        at: when, in seconds of `time.monotonic()`.
        total: uWASP's figures by their names in `uwasp.stats()`; those that are registered.
        workers: for each worker, by its number, uWSGI's `pid`, `status`, `requests`, and uWASP's figures.
        backlog: connections that wait to be accepted.
    """

    at: float
    total: dict[str, int]
    workers: dict[int, dict[str, Any]]
    backlog: int
    uwsgi: dict[str, Any] = field(repr=False)

    @property
    def as_json(self) -> dict[str, Any]:
        workers = [{"worker": number, **figures} for number, figures in self.workers.items()]
        return {**self.uwsgi, "backlog": self.backlog, "total": self.total, "workers": workers}


def metric_options(processes: int) -> list[str]:
    """The values of uWSGI's option `metric` that register uWASP's figures, of all workers together and of each."""
    names = list(OF_ALL)
    names += [f"worker.{number}.{name}" for number in range(1, processes + 1) for name in OF_A_WORKER]
    return [f"name={PREFIX}{name}" + (",type=gauge" if name.split(".")[-1] in GAUGES else "") for name in names]


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
        return _figures(said)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Problem(f"{address}: what answers there is not uWSGI's stats server (--stats)") from None


def _ask(address: str) -> bytes:
    is_http = address.startswith("http://")
    where = address.removeprefix("http://").rstrip("/") if is_http else address
    host, colon, port = where.rpartition(":")
    if "/" not in where and colon and port.isdigit():
        client = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), TIMEOUT)
    else:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIMEOUT)
        try:
            client.connect(where.removeprefix("unix:"))
        except BaseException:
            client.close()
            raise
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


def _figures(said: Mapping[str, Any]) -> Figures:
    metrics = {
        name.removeprefix(PREFIX): metric["value"]
        for name, metric in said.get("metrics", {}).items()
        if name.startswith(PREFIX)
    }
    workers = {}
    for worker in said["workers"]:
        if worker["pid"]:
            of_worker = f"worker.{worker['id']}."
            workers[worker["id"]] = {
                **{name: worker[name] for name in ("pid", "status", "requests")},
                **{
                    name.removeprefix(of_worker): value for name, value in metrics.items() if name.startswith(of_worker)
                },
            }
    total = {name: value for name, value in metrics.items() if not name.startswith("worker.")}
    uwsgi = {"version": said["version"], "pid": said["pid"]}
    return Figures(time.monotonic(), total, workers, said["listen_queue"], uwsgi)
