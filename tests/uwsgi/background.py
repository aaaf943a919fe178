"""The application of the tests of signals and threads. It has threads and processes of its own, or may not have them.

With one core, uWSGI runs requests in its main thread, and a thread that is started there hears all signals.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import uwsgi
from uwasp import Server, WebSocketMiddleware, stats
from uwasp_threads import ThreadHandler

STOPS = (signal.SIGINT, signal.SIGTERM)


class Parent(Server):
    """Starts a program, tells its process id, and what it ended with."""

    def on_message(self, message):
        if message == "start":
            self.child = subprocess.Popen(["sleep", "1000"])
            self.ws.send(str(self.child.pid))
        elif message == "terminate":
            self.child.terminate()
            self.ws.send(str(self.child.wait(10)))
        elif message == "sleep":
            time.sleep(3)
            self.ws.send("slept")
        elif message == "hello":
            self.ws.send("hello")
        elif message == "threads":
            self.ws.send(json.dumps({thread.name: thread.native_id for thread in threading.enumerate()}))
        elif message == "spawn":
            ThreadHandler.spawn(self.ws.send, "spawned")


class Laborious(Server):
    """Computes for 25 microseconds a message."""

    def on_message(self, message):
        end = time.perf_counter() + 25e-6
        while time.perf_counter() < end:
            continue


class Handler(ThreadHandler):
    max_consumers = int(os.environ.get("MAX_CONSUMERS", "64"))


no_further_thread = threading.Event()
start = threading.Thread.start


def start_or_fail(thread: threading.Thread) -> None:
    """As where the system has no thread left."""
    if no_further_thread.is_set():
        os.write(1, b"no thread\n")
        raise RuntimeError("can't start new thread")
    start(thread)


threading.Thread.start = start_or_fail


def until_the_main_thread_ends() -> None:
    while threading.main_thread().is_alive():
        time.sleep(0.01)


def kept(environ: dict[str, Any]) -> set[str]:
    """The names in an environ that somebody else refers to, too."""
    own = [f"a name of {os.getpid()}"]  # which nobody else has: what one costs to look at
    (alone,) = (sys.getrefcount(name) for name in own)
    return {name for name in environ if sys.getrefcount(name) > alone}


def plain(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    body = b""
    if path == "/background":
        threading.Thread(target=until_the_main_thread_ends).start()
    elif path == "/no-further-thread":
        no_further_thread.set()
    elif path == "/threads-again":
        no_further_thread.clear()
    elif path == "/deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    elif path == "/deaf-to-usr1":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    elif path == "/hear":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    elif path == "/kept":
        body = json.dumps({"open": stats()["open"], "names": sorted(kept(environ))}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def take_time() -> None:
    os.write(1, b"begin of the application's own atexit\n")
    time.sleep(1)
    os.write(1, b"end of the application's own atexit\n")


uwsgi.atexit = take_time

application = WebSocketMiddleware(plain, Handler, [("/parent", Parent), ("/laborious", Laborious)])
