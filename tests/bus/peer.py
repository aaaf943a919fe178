"""A process with one transport, told on its standard input what to do: `python peer.py URL IDENTITY`.

One line of JSON for each command, `[name, *arguments]`; one for each event, `[name, *arguments]`, on its standard
output. Data are text here. It ends when its input does.

UWASP_USER is the user that it becomes, if it is root's, and groups beside that user's own, with commas.
With UWASP_PATCH=1 gevent patches the standard library first, as many applications have it; then the commands come
from a greenlet, and the hub can be held (`["hold", seconds]`).
"""

from __future__ import annotations

import os

if os.environ.get("UWASP_PATCH"):
    from gevent import monkey

    monkey.patch_all()

import ctypes
import grp
import json
import logging
import pwd
import sys
import time
from typing import Any

from uwasp.native import new_lock, original
from uwasp.transport import Transport, find_transport

logging.basicConfig(level="INFO", format="%(name)s %(levelname)s %(message)s")  # to standard error

_lock = new_lock()


def say(*event: Any) -> None:
    line = json.dumps(event).encode() + b"\n"
    with _lock:
        os.write(1, line)


class Teller:
    """A receiver that says what it is told. What is received is counted too, and not said when it is `#` at first."""

    def __init__(self) -> None:
        self.counted = 0
        self.in_order = True
        self._last: dict[str, int] = {}

    def received(self, data: bytes) -> None:
        text = data.decode()
        if text == "raise":
            raise RuntimeError("raised in received")
        if len(text) > 10_000 and not text.startswith("#"):
            say("received", f"{len(text)} characters of {set(text)}")
            return
        if not text.startswith("#"):
            say("received", text)
            return
        sender, number = text[1:].split()[:2]
        self.in_order &= int(number) > self._last.get(sender, -1)
        self._last[sender] = int(number)
        self.counted += 1

    def missed(self, channel: str | None) -> None:
        say("missed", channel)

    def appeared(self, process: bytes) -> None:
        say("appeared", process.hex())

    def gone(self, process: bytes) -> None:
        say("gone", process.hex())


class Peer:
    def __init__(self, url: str, process: bytes) -> None:
        self.receiver = Teller()
        self.transport: Transport = find_transport(url)(url, process, self.receiver)

    def open(self) -> None:
        self.transport.open()

    def publish(self, channel: str, data: str) -> None:
        """As groups do."""
        if self.transport.may_be_heard(channel):
            self.transport.publish(channel, data.encode())

    def may_be_heard(self, channel: str) -> None:
        say("may_be_heard", channel, self.transport.may_be_heard(channel))

    def publish_large(self, channel: str, size: int) -> None:
        self.transport.publish(channel, b"x" * size)

    def tell(self, process: str, data: str) -> None:
        self.transport.tell(bytes.fromhex(process), data.encode())

    def tell_all(self, data: str) -> None:
        self.transport.tell_all(data.encode())

    def ask(self, channel: str, data: str) -> None:
        self.transport.ask(channel, data.encode(), lambda number: say("expected", channel, number))

    def subscribe(self, channel: str) -> None:
        self.transport.subscribe(channel, lambda: say("heard", channel))

    def unsubscribe(self, channel: str) -> None:
        self.transport.unsubscribe(channel)

    def burst(self, channel: str, sender: str, first: int, count: int, size: int) -> None:
        """Publish `count` numbered messages of `size` bytes; say the seconds of all, the slowest, and of CPU."""
        filling = "x" * size
        messages = [f"#{sender} {number} {filling}"[:size].encode() for number in range(first, first + count)]
        slowest = 0.0
        of_cpu = time.process_time()
        begun = previous = time.perf_counter()
        for message in messages:
            self.transport.publish(channel, message)
            now = time.perf_counter()
            slowest = max(slowest, now - previous)
            previous = now
        say("burst", previous - begun, slowest, time.process_time() - of_cpu)

    def pace(self, channel: str, sender: str, seconds: float, interval: float, size: int) -> None:
        """Publish numbered messages for a while, with a pause after each; say how many."""
        filling, number = "x" * size, 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.transport.publish(channel, f"#{sender} {number} {filling}"[:size].encode())
            number += 1
            time.sleep(interval)
        say("paced", number)

    def claim(self, name: str) -> None:
        self.transport.claim(name)

    def holds(self, name: str) -> None:
        say("holds", name, self.transport.holds(name))

    def counted(self) -> None:
        say("counted", self.receiver.counted, self.receiver.in_order)

    def attribute(self, name: str) -> None:
        say("attribute", name, getattr(self.transport, name))

    def memory(self) -> None:
        """Say how much memory it has now, in KiB."""
        with open("/proc/self/statm") as file:
            say("memory", int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024)

    def fork(self, how: str) -> None:
        """Leave behind a child that does nothing and holds what it inherited: by Python's fork, or past its hooks."""
        child = original("os", "fork")() if how == "python" else ctypes.CDLL(None).fork()
        if child:
            say("forked", child)
            return
        while True:
            ctypes.CDLL(None).pause()

    def use_in_child(self, channel: str, data: str) -> None:
        """Fork a child that uses and closes the transport as if it were its own, and ends."""
        child = original("os", "fork")()
        if not child:
            self.transport.publish(channel, data.encode())
            self.transport.close(1.0)
            os._exit(0)
        original("os", "waitpid")(child, 0)
        say("child ended")

    def hold(self, seconds: float) -> None:
        """Hold this thread, and with it gevent's hub, without Python's lock."""
        original("time", "sleep")(seconds)
        say("held")

    def close(self, timeout: float) -> None:
        begun = time.monotonic()
        self.transport.close(timeout)
        say("closed", time.monotonic() - begun)


def become(name: str, *groups: str) -> None:
    account = pwd.getpwnam(name)
    os.setgroups([grp.getgrnam(group).gr_gid for group in groups])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def main(url: str, process: str) -> None:
    peer = Peer(url, bytes.fromhex(process))
    if os.environ.get("UWASP_USER"):  # from here on it may not be able to import
        become(*os.environ["UWASP_USER"].split(","))
    say("ready", os.getpid())
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        getattr(peer, command)(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
