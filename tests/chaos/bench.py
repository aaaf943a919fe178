"""The chaos bench: uWSGI with an application, a process of clients, and somebody who reloads it and kills its workers.

A run has three stages. *Turmoil*: reloads, and any worker is killed. *Warm-up*: nobody interferes. *Endurance*: workers
are killed, but for one; that one is measured before and after, without clients. A calm follows each stage: all
connections have to be gone.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from processes import ACCEPTING, Uwsgi, wait_until
from verdict import BORNE, Disturbance, Measure, Record

__all__ = ["run_chaos"]

HERE = Path(__file__).parent
WORKERS = 3
RESPAWNED = "Respawned uWSGI worker"
SURVIVOR = 1  # uWSGI's number of the worker that is not killed in the last stage
LOOP_OPTIONS = {"threads": ("--threads", "4"), "gevent": ("--gevent", "100"), "asyncio": ("--threads", "4")}
SHUTDOWN_TIMEOUT = 3.0  # seconds, as in the application
PATIENCE = 25.0  # seconds
SETTLING = 1.5  # seconds, longer than an idle thread lives
ANSWER_TIMEOUT = 20.0  # seconds for a worker to tell its state
STAGES = {"turmoil": 0.45, "warm-up": 0.15, "endurance": 0.4}
MIB = 2**20


def run_chaos(
    handler: str,
    folder: Path,
    seconds: float,
    seed: str,
    clients: int = 150,
    faults: str = "",
    patience: float = PATIENCE,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Run the bench once.

    Args:
        handler: the name of a handler.
        folder: for logs and records, empty.
        seconds: how long there is a load; what has to be waited for comes on top.
        seed: what clients and disturbances are drawn from.
        clients: how many there are at a time; one of five does not behave.
        faults: faults for the application to plant.
        patience: how long a client may wait for an echo, and a worker have connections without a client, in seconds.
    """
    return _Run(handler, folder, seconds, seed, clients, faults, patience, say).go()


class _Run:
    def __init__(
        self,
        handler: str,
        folder: Path,
        seconds: float,
        seed: str,
        clients: int,
        faults: str,
        patience: float,
        say: Callable[[str], None],
    ) -> None:
        self.record = Record(handler, seed, seconds, SHUTDOWN_TIMEOUT)
        self.folder = folder
        self.clients = clients
        self.patience = patience
        self.say = say
        self.rng = random.Random(f"{seed} disturbs {handler}")
        env = {"UWASP_HANDLER": handler, "UWASP_CHAOS_FOLDER": str(folder), "UWASP_CHAOS_FAULTS": faults}
        options = [*LOOP_OPTIONS[handler], "--processes", str(WORKERS), "--disable-logging"]
        for worker in range(1, WORKERS + 1):  # a socket for each worker alone, to ask for its state
            options += ["--http-socket", str(self._door(worker)), "--map-socket", f"{worker}:{worker}"]
        self.uwsgi = Uwsgi(HERE / "application.py", folder, *options, env=env)

    def _door(self, worker: int) -> Path:
        return self.folder / f"worker-{worker}.sock"

    def go(self) -> Record:
        record = self.record
        try:
            for stage, share in STAGES.items():
                self._stage(stage, record.seconds * share)
        except Exception as error:
            record.failures.append(f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
        finally:
            try:
                self.uwsgi.stop()
            except AssertionError as error:
                record.failures.append(f"uWSGI {str(error)[:40]}")
            record.log = self.uwsgi.output
            self._read_events()
        return record

    def _stage(self, stage: str, seconds: float) -> None:
        began = time.monotonic()
        results = self.folder / f"{stage}.jsonl"
        command = [sys.executable, str(HERE / "clients.py"), str(self.uwsgi.port), str(seconds)]
        command += [f"{self.record.seed} {self.record.handler} {stage}", str(self.clients), str(self.patience)]
        command.append(str(results))
        clients = subprocess.Popen(command, start_new_session=True)
        try:
            deadline = time.monotonic() + seconds
            if stage == "turmoil":
                self._disturb(clients, deadline, (self._reload, self._kill_one_of_all))
            elif stage == "endurance":
                self._disturb(clients, deadline, (self._kill_one_of_the_others,))
            clients.wait(seconds + 60)
            if clients.returncode:
                raise RuntimeError(f"the clients ended with {clients.returncode}")
        finally:
            if clients.poll() is None:
                clients.kill()
                clients.wait()
        for line in results.read_text().splitlines():
            found = json.loads(line)
            if "ill" in found:
                self.record.ill += Counter(found["ill"])
            else:
                self.record.outcomes.append(found)
        loaded = time.monotonic()
        self._calm(stage)
        calmed = time.monotonic() - loaded
        self.say(f"{self.record.handler}: {stage}, {loaded - began:.1f} s, then {calmed:.1f} s until it was calm")

    def _calm(self, stage: str) -> None:
        for worker in range(1, WORKERS + 1):
            self._wait_for(worker, lambda state: not state["open"] and not state["servers"], f"calm after {stage}")
        if stage == "warm-up":
            self.record.before.append(self._baseline(SURVIVOR))
        elif stage == "endurance":
            self.record.after.append(self._settled(SURVIVOR))

    def _wait_for(self, worker: int, condition: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait for a state of a worker, not for ever: what it is in the end is in the verdict."""
        state: dict[str, Any] = {}

        def holds() -> bool:
            state.update(self._state(worker))
            return condition(state)

        try:
            wait_until(holds, what, self.patience)
        except TimeoutError:
            self.record.failures.append(f"worker {worker} did not come to its {what} within {self.patience} s: {state}")
        return state

    def _baseline(self, worker: int) -> Measure:
        """The least of each that a worker has in a while: threads with nothing to do end, and the last request too."""
        measures = []
        deadline = time.monotonic() + SETTLING
        while not measures or time.monotonic() < deadline:
            measures.append(self._measure(worker))
            time.sleep(0.1)
        least = {name: min(getattr(measure, name) for measure in measures) for name in BORNE}
        return replace(measures[-1], **{**least, "memory": measures[-1].memory})

    def _settled(self, worker: int) -> Measure:
        """The measure of a worker once it is back at its baseline, or when it has had the time for that."""
        (baseline,) = (measure for measure in self.record.before if measure.worker == worker)
        deadline = time.monotonic() + self.patience
        while True:
            measure = self._measure(worker)
            is_back = all(getattr(measure, name) <= getattr(baseline, name) + more for name, more in BORNE.items())
            if is_back or time.monotonic() > deadline:
                return measure
            time.sleep(0.1)

    def _measure(self, worker: int) -> Measure:
        state = self._state(worker)
        pid = state["pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return Measure(
            worker=worker,
            pid=pid,
            open=state["open"],
            servers=state["servers"],
            threads=state["threads"],
            greenlets=state["greenlets"],
            idle_consumers=state["idle_consumers"],
            descriptors=len(os.listdir(f"/proc/{pid}/fd")),
            memory=round(int(resident.split()[1]) * 1024 / MIB, 1),
        )

    def _state(self, worker: int) -> dict[str, Any]:
        connection = http.client.HTTPConnection("worker")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(ANSWER_TIMEOUT)
            connection.sock.connect(str(self._door(worker)))
            connection.request("GET", "/state")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found

    def _disturb(
        self, clients: subprocess.Popen[bytes], deadline: float, kinds: tuple[Callable[[], Disturbance], ...]
    ) -> None:
        """Do one thing after another until the time is up; each at least once, however late."""
        longest = min(8.0, self.record.seconds / 10)
        turn = 0
        while clients.poll() is None or turn < len(kinds):
            pause = self.rng.uniform(longest / 4, longest)
            if time.monotonic() + pause >= deadline and turn >= len(kinds):
                return
            time.sleep(pause)
            kind = kinds[turn] if turn < len(kinds) else self.rng.choice(kinds)
            turn += 1
            self.record.disturbances.append(kind())

    def _reload(self) -> Disturbance:
        pids = self._workers()
        accepted = self.uwsgi.output.count(ACCEPTING)
        began = time.monotonic()
        self.uwsgi.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: not set(pids) & set(self._workers()), "the old workers to be gone", 90)
        gone = time.monotonic()
        self.uwsgi.wait_for_workers(accepted + WORKERS)
        self.say(f"  reloaded: {len(pids)} workers gone after {gone - began:.1f} s")
        return Disturbance("reload", began, time.monotonic(), tuple(pids), gone - began)

    def _kill_one_of_all(self) -> Disturbance:
        return self._kill(self.rng.choice(self._workers()))

    def _kill_one_of_the_others(self) -> Disturbance:
        survivor = self.record.before[0].pid
        return self._kill(self.rng.choice([pid for pid in self._workers() if pid != survivor]))

    def _kill(self, pid: int) -> Disturbance:
        respawned = self.uwsgi.output.count(RESPAWNED)
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(AssertionError):  # the next stage would find it missing
            self.uwsgi.wait_for_output(RESPAWNED, respawned + 1)
        self.say(f"  killed {pid}")
        return Disturbance("kill", began, time.monotonic(), (pid,))

    def _workers(self) -> list[int]:
        """The processes that uWSGI's master has: its workers."""
        found = []
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                    if int(parent) == self.uwsgi.popen.pid and state != "Z":
                        found.append(int(entry.name))
        return sorted(found)

    def _read_events(self) -> None:
        for path in sorted(self.folder.glob("*.events")):
            lines = [line.split(" ", 2) for line in path.read_text().splitlines()]
            self.record.events[int(path.stem)] = [(event, server, detail) for event, server, detail in lines]
