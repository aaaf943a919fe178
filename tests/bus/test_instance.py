"""The bus of a uWSGI instance, on real uWSGI: all its processes meet, and nobody else."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from processes import LOOP_OPTIONS, Uwsgi, wait_until

APPLICATION = Path(__file__).parent / "bus_application.py"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """The folder for temporary files of the instances; not pytest's, which is too deep for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="uwasp-test-") as folder:
        yield Path(folder)


class Instance:
    """A uWSGI of which each process has opened the bus."""

    def __init__(self, uwsgi: Uwsgi, temporary: Path) -> None:
        self.uwsgi = uwsgi
        self.temporary = temporary

    def find(self, event: str) -> list[tuple[int, str]]:
        """The process and the arguments of each event of this name."""
        return [(int(pid), rest) for pid, rest in re.findall(rf"^bus (\d+) {event} (.*)$", self.uwsgi.output, re.M)]

    def meet(self, *others: int, number: int = 0) -> list[int]:
        """Wait until `number` processes beside `others` know each other; which these are."""

        def known() -> bool:
            there = self.there() - set(others)
            appeared = {(pid, int(other)) for pid, other in self.find("appeared")}
            return len(there) == number and all((a, b) in appeared for a in there for b in there if a != b)

        try:
            wait_until(known, f"{number} processes to meet")
        except TimeoutError as error:
            raise AssertionError(f"{error}:\n{self.uwsgi.output}") from None
        return sorted(self.there() - set(others))

    def there(self) -> set[int]:
        return {pid for pid, _ in self.find("hears") if _is_there(pid)}

    def publish(self, text: str) -> int:
        """Have a worker publish; which one it was."""
        with urllib.request.urlopen(f"http://{self.uwsgi.address}/?{text}", timeout=20) as response:
            return int(response.read())

    def heard_by_all(self, text: str, processes: list[int]) -> None:
        """Have a worker publish, and wait until all these but itself have heard it."""
        sender = self.publish(text)
        expected = sorted(pid for pid in processes if pid != sender)
        wait_until(lambda: sorted(self.who_received(text)) == expected, f"{expected} to hear {text!r}")

    def who_received(self, text: str) -> list[int]:
        return [pid for pid, what in self.find("received") if what == text]

    def folders(self) -> list[Path]:
        return list((self.temporary / f"uwasp-{os.geteuid()}").iterdir())


def _is_there(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture
def instance(start_uwsgi: Callable[..., Uwsgi], temporary: Path) -> Callable[..., Instance]:
    def start(*options: str, **keywords: object) -> Instance:
        env = {"TMPDIR": str(temporary), **keywords.pop("env", {})}  # type: ignore[dict-item]
        return Instance(start_uwsgi(APPLICATION, *options, env=env, **keywords), temporary)

    return start


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["", "lazy-apps"])
@pytest.mark.parametrize("loop", [*sorted(LOOP_OPTIONS), "gevent, patched"])
def test_the_workers_of_an_instance_meet_whatever_its_loop(
    instance: Callable[..., Instance], loop: str, lazy: tuple[str, ...]
) -> None:
    name, _, is_patched = loop.partition(", ")
    env = {"UWASP_PATCH": "1"} if is_patched else {}
    one = instance("--processes", "3", *LOOP_OPTIONS[name], *lazy, env=env)
    workers = one.meet(number=3)
    one.heard_by_all("first", workers)
    one.heard_by_all("second", workers)
    assert len(one.folders()) == 1


@pytest.mark.parametrize("lazy", [(), ("--lazy-apps",)], ids=["", "lazy-apps"])
def test_the_workers_of_an_instance_without_a_master_meet_though_the_first_is_killed(
    instance: Callable[..., Instance], lazy: tuple[str, ...]
) -> None:
    one = instance("--processes", "3", *lazy, master=False, wait=False)
    workers = one.meet(number=3)
    one.heard_by_all("first", workers)
    first = one.uwsgi.popen.pid
    assert first in workers
    os.kill(first, signal.SIGKILL)
    one.uwsgi.popen.wait()
    rest = [pid for pid in workers if pid != first]
    try:
        wait_until(lambda: {(pid, str(first)) for pid in rest} <= set(one.find("gone")), "it to be gone")
        one.heard_by_all("second", rest)
    finally:
        for pid in rest:
            os.kill(pid, signal.SIGKILL)


def test_mules_and_spoolers_are_of_the_instance_too(instance: Callable[..., Instance], tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    one = instance("--processes", "2", "--mule", "--spooler", str(tmp_path / "spool"))
    one.heard_by_all("first", one.meet(number=4))


def test_two_instances_in_one_folder_for_temporary_files_do_not_meet(instance: Callable[..., Instance]) -> None:
    one, other = instance("--processes", "2"), instance("--processes", "2")
    mine, theirs = one.meet(number=2), other.meet(number=2)
    one.heard_by_all("of-one", mine)
    other.heard_by_all("of-the-other", theirs)
    assert len(one.folders()) == 2
    assert not one.who_received("of-the-other")
    assert {int(pid) for _, pid in one.find("appeared")} == set(mine)


def test_the_workers_after_a_reload_meet_and_nothing_is_left_of_those_before(
    instance: Callable[..., Instance],
) -> None:
    one = instance("--processes", "2")
    before = one.meet(number=2)
    one.uwsgi.popen.send_signal(signal.SIGHUP)
    after = one.meet(*before, number=2)
    one.heard_by_all("after", after)
    assert not set(before) & one.there()
    wait_until(lambda: len(one.folders()) == 1, "the first folder to go")
    assert sorted(path.name for path in one.folders()[0].iterdir()) == sorted(f"{pid:016x}" for pid in after)


def test_workers_that_are_reloaded_one_after_the_other_meet_those_that_are_left(
    instance: Callable[..., Instance], tmp_path: Path
) -> None:
    touch = tmp_path / "touch"
    touch.write_text("")
    one = instance("--processes", "2", "--lazy-apps", "--touch-chain-reload", str(touch))
    before = one.meet(number=2)
    time.sleep(1)  # uWSGI compares whole seconds
    touch.write_text("again")
    os.utime(touch)
    after = one.meet(*before, number=2)
    one.heard_by_all("after", after)
    assert any((new, str(old)) in one.find("appeared") for new in after for old in before)
    for old in before:
        assert str(old) in [gone for _, gone in one.find("gone")]


def test_a_worker_that_is_killed_is_gone_within_two_seconds_though_its_child_holds_its_sockets(
    instance: Callable[..., Instance],
) -> None:
    one = instance("--processes", "3")
    workers = one.meet(number=3)
    victim = one.publish("fork")
    children = Path(f"/proc/{victim}/task/{victim}/children").read_text().split()
    rest = [pid for pid in workers if pid != victim]
    try:
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        wait_until(lambda: {(pid, str(victim)) for pid in rest} <= set(one.find("gone")), "it to be gone")
        assert time.monotonic() - begun < 2
        one.heard_by_all("after", one.meet(number=3))  # with the one that uWSGI has begun in its place
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_a_worker_that_was_stopped_is_gone_and_comes_back(instance: Callable[..., Instance]) -> None:
    one = instance("--processes", "3")
    workers = one.meet(number=3)
    victim = workers[0]
    rest = workers[1:]
    os.kill(victim, signal.SIGSTOP)
    try:
        wait_until(lambda: {(pid, str(victim)) for pid in rest} <= set(one.find("gone")), "it to be gone")
    finally:
        os.kill(victim, signal.SIGCONT)
    for pid in rest:
        wait_until(lambda: one.find("appeared").count((pid, str(victim))) == 2, "it to be back")  # noqa: B023
    one.heard_by_all("after", workers)
    assert [gone for _, gone in one.find("gone")] == [str(victim)] * 2
