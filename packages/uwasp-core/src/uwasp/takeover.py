"""How a connection is taken over from uWSGI, and all else that concerns uWSGI: this module alone imports `uwsgi`.

uWSGI answers the handshake and then believes the request to have ended. The TCP connection lives on in a duplicate of
uWSGI's descriptor, while uWSGI's own number is pointed at /dev/null: whatever uWSGI still does with it (close it, read
the next request of a keep-alive connection from it) cannot reach the client. Its thread or async core is free.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import resource
import socket
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from uwasp.exceptions import ConfigurationError

if TYPE_CHECKING:
    from uwasp.connection import Connection
    from uwasp.handler import Handler

try:
    import uwsgi

    _ = uwsgi.opt
except (ImportError, AttributeError):  # outside uWSGI (or a folder of that name): all but taking over works
    uwsgi = None

__all__ = [
    "STAND_IN",
    "StandIn",
    "Takeover",
    "add_to_metric",
    "answer",
    "async_cores",
    "at_exit",
    "backlog",
    "be_an_instance",
    "be_an_instance_if",
    "begins_to_be_tried",
    "cores",
    "duplicate",
    "forgets_at_reloads",
    "has_metric",
    "has_request",
    "in_each_worker",
    "in_main_interpreter",
    "instance",
    "is_exiting",
    "is_set",
    "keep_standard_descriptors",
    "look_at_server",
    "loop",
    "other_slots",
    "processes",
    "refusal",
    "release",
    "running_under_uwsgi",
    "slot",
    "threads_enabled",
    "values",
    "version",
    "worker",
]


STAND_IN = "uwasp.stand_in"  # in an environ: a `StandIn`, which whoever makes the environ has put there
MOST_RESERVED = 64  # descriptors; see `duplicate`
DEFAULT_BACKLOG = 100  # uWSGI's
REMEMBERS_AT_RELOADS = (2, 0, 28)  # the first uWSGI that calls `uwsgi.atexit` at each reload, whatever its threads do

_pipes: list[tuple[int, int]] = []  # for `_has_read_ahead`, of which mostly one is at work at a time
# What servers that come with Python and with Werkzeug, for development, say of themselves.
FOR_DEVELOPMENT = ("WSGIServer/", "Werkzeug/")
OF_WEBTEST = "paste.testing"  # in the environs of its client
_instance_since: int | None = None  # outside uWSGI; see `be_an_instance`
_is_tried_if: list[Callable[[], bool]] = []
_exiting = False  # uWSGI has called what `at_exit` was given
_in_each_worker: list[Callable[[], object]] = []
_own_post_fork_hook: Callable[[], object] | None = None  # the application's


class Takeover(Protocol):
    """What the middleware takes a connection over with: this module, or what stands for it where uWSGI is not."""

    def has_request(self) -> bool: ...

    def refusal(self) -> str | None: ...

    def duplicate(self) -> int: ...

    def release(
        self,
        start_response: Callable[..., Any],
        status: str,
        headers: Sequence[tuple[str, str]],
        before: Callable[[int], object],
    ) -> bool: ...


class StandIn(Takeover, Protocol):
    """What stands where uWSGI is not, and comes with a request; see `uwasp.testing`.

    Attributes:
        authorize: is asked in the place of the server's own; `None`: that is.
    """

    authorize: Callable[[dict[str, Any]], Any] | None

    def opens(self, connection: Connection, handler: Handler) -> None:
        """Called when all is made for a connection, before it is answered and given to its handler."""


def running_under_uwsgi() -> bool:
    """Whether this process is uWSGI's, with its Python module `uwsgi`."""
    return uwsgi is not None


def is_to_be_forked() -> bool:
    """Whether this is uWSGI's process that loads the application, and of which workers are forked: it should have no
    threads then. One that has Python's lock in that moment takes it along, and the worker waits for it for ever.
    """
    if uwsgi is None or uwsgi.worker_id() or uwsgi.mule_id():
        return False
    is_spooler = getattr(uwsgi, "i_am_the_spooler", None)  # a uWSGI may have been built without
    return is_spooler is None or not is_spooler()


def values(option: str) -> list[str]:
    """The values that a uWSGI option was given, an empty string for one without a value; none if it was not given."""
    if uwsgi is None:
        return []
    value = uwsgi.opt.get(option, uwsgi.opt.get(option.encode()))
    if value is None:
        return []
    several = value if isinstance(value, list) else [value]
    return ["" if one is True else os.fsdecode(one) if isinstance(one, bytes) else str(one) for one in several]


def is_set(option: str) -> bool:
    """Whether a uWSGI option was given, and not with one of the values that uWSGI takes for a no."""
    return any(value.lower() not in ("false", "off", "no", "0") for value in values(option))


def version() -> tuple[int, ...]:
    """The version of uWSGI, such as (2, 0, 31)."""
    return tuple(int(number) for number in re.findall(r"\d+", uwsgi.version.decode())[:3])


def forgets_at_reloads() -> bool:
    """Whether this uWSGI may leave `uwsgi.atexit` out, or hang, at a reload while its threads are in requests."""
    return uwsgi is not None and version() < REMEMBERS_AT_RELOADS


def in_main_interpreter() -> bool:
    """Whether this is the interpreter that uWSGI tells of a worker's end.

    Without --single-interpreter, uWSGI makes a further one for each application but the first.
    """
    try:
        interpreters = importlib.import_module("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    except ImportError:  # CPython has it; nothing else does what uWSGI would need for a second
        return True
    return bool(interpreters.get_current() == interpreters.get_main())


def async_cores() -> int:
    """How many requests uWSGI's --async has each worker serve at a time, without threads; 0 if it does not."""
    given = [int(value) for value in values("async") if value.isdigit()][-1:]
    return sum(given) if sum(given) > 1 else 0


def threads_enabled() -> bool:
    """Whether Python threads run while uWSGI waits for requests.

    From uWSGI 2.0.27 on they do; before, with `--enable-threads`, which `--threads` implies.
    """
    return uwsgi is not None and bool(uwsgi.has_threads)


def loop() -> str | None:
    """The name of uWSGI's loop engine, such as `"gevent"`; `None` for its ordinary loop."""
    name = getattr(uwsgi, "loop", None)
    return name.decode() if isinstance(name, bytes) else name


def processes() -> int:
    """How many worker processes uWSGI has at most."""
    return int(uwsgi.numproc)


def cores() -> int:
    """How many requests a worker of uWSGI's serves at a time: threads, or greenlets."""
    return int(uwsgi.cores)


def has_request() -> bool:
    """Whether the caller is in uWSGI's thread or greenlet of a request whose connection has not been taken over yet."""
    if uwsgi is None:
        return True  # of whatever server this is; it is refused
    try:
        return stat.S_ISSOCK(os.fstat(uwsgi.connection_fd()).st_mode)
    except SystemError:
        return False


def refusal() -> str | None:
    """Why the connection of the current request cannot be taken over; `None` if it can be."""
    if uwsgi is None:
        return (
            "this application does not run under uWSGI, whose connections uWASP takes over: start it by `uwasp dev`, "
            "of uwasp-cli, or by uwsgi"
        )
    ports = _tls_ports()
    if ports and _local_port(uwsgi.connection_fd()) in ports:
        return (
            "--https-socket ends TLS inside the worker, where the connection cannot be taken over; "
            "use uWSGI's --https with --http-websockets, or a proxy, for TLS"
        )
    return None


def duplicate() -> int:
    """A descriptor of our own for the connection of the current request. Works only in the request's own context.

    The last descriptors of the process are left to all else: to uWSGI, which accepts no connection without one and
    could not even refuse, and to the application.

    Raises:
        OSError: none is left for this (EMFILE).
    """
    _dev_null()  # opened while there is still time to refuse
    own = os.dup(uwsgi.connection_fd())
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    reserved = min(MOST_RESERVED, limit // 8)
    if limit != resource.RLIM_INFINITY and own >= limit - reserved:  # a new one is the lowest that is free
        os.close(own)
        raise OSError(errno.EMFILE, f"nearly all of the process's {limit} descriptors are in use")
    return own


def release(
    start_response: Callable[..., Any],
    status: str,
    headers: Sequence[tuple[str, str]],
    before: Callable[[int], object],
) -> bool:
    """Answer the current request through uWSGI, at once, and take uWSGI's descriptor off the connection.

    Args:
        start_response, status, headers: the answer, in the terms of WSGI.
        before: is called with uWSGI's number for the connection, just before that is pointed at /dev/null.

    Returns:
        Whether something of what the client sends is lost, because it came in one packet with the request: uWSGI has
        read that, and keeps it.

    Raises:
        ConfigurationError: `start_response` comes from a middleware that leaves out the `write` of PEP 3333.
        OSError: the client is gone.
    """
    answer(start_response, status, headers)
    fd = uwsgi.connection_fd()
    before(fd)
    something_is_lost = _has_read_ahead(fd)
    os.dup2(_dev_null(), fd, inheritable=False)
    return something_is_lost


def answer(start_response: Callable[..., Any], status: str, headers: Sequence[tuple[str, str]]) -> None:
    """Answer a request in the terms of WSGI, at once.

    Raises:
        ConfigurationError: `start_response` comes from a middleware that leaves out the `write` of PEP 3333.
    """
    write = start_response(status, list(headers))
    if write is None:
        raise ConfigurationError(
            "start_response returned None, not the write callable of PEP 3333: "
            "put WebSocketMiddleware outside the middleware that replaces start_response"
        )
    write(b"")  # sends the head


def _has_read_ahead(fd: int) -> bool:
    """Whether uWSGI keeps something that it has read behind the current request; `fd` is its number, no longer needed.

    It gives that out before it reads on from its number. Only `uwsgi.chunked_read` and its like read behind a request
    without a body, and what they read has to be a chunk of RFC 9112 §7.1. So the number gets a chunk to read. Another
    comes out, or an error, if something was there before.
    """
    reading, writing = _pipes.pop() if _pipes else os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(writing, b"5\r\nuwasp\r\n")
    os.dup2(reading, fd, inheritable=False)
    try:
        something_is_there = uwsgi.chunked_read_nb() != b"uwasp"
    except OSError:
        something_is_there = True
    if something_is_there:
        with contextlib.suppress(BlockingIOError):
            os.read(reading, 64)  # what uWSGI has left
    if _pipes:
        os.close(reading)
        os.close(writing)
    else:
        _pipes.append((reading, writing))
    return bool(something_is_there)


def has_metric(name: str) -> bool:
    """Whether uWSGI's metrics subsystem is on and the operator has registered this metric (--metric)."""
    return uwsgi is not None and hasattr(uwsgi, "metric_inc") and bool(uwsgi.metric_inc(name, 0))


def add_to_metric(name: str, difference: int) -> None:
    """Add to a metric, which all workers share; does nothing if the operator has not registered it."""
    if difference > 0:
        uwsgi.metric_inc(name, difference)
    elif difference < 0:
        uwsgi.metric_dec(name, -difference)


def slot() -> str | None:
    """What this worker has in common with the one before and after it in its place; `None` without a master.

    When uWSGI starts itself anew, to reload, it is another.
    """
    return _slot_of(uwsgi.worker_id()) if uwsgi.masterpid() else None


def other_slots() -> list[str]:
    """The slots of the other workers that are there."""
    if not uwsgi.masterpid():
        return []
    there = (each["id"] for each in uwsgi.workers() if each["pid"] and each["status"] != b"cheap")
    return [_slot_of(number) for number in there if number != uwsgi.worker_id()]


def _slot_of(number: int) -> str:
    return f"{uwsgi.masterpid()}-{uwsgi.started_on}-{number}"


def instance() -> tuple[int, int] | None:
    """What all processes of this uWSGI instance have in common, and no other on this machine; `None` outside uWSGI,
    unless this process is to `be_an_instance`.

    The pid of the master, or without one of the first worker, which is the process that loaded the application and
    forked the others; it is kept when that has ended. And when uWSGI started, in seconds since the epoch, which is
    another when it has started itself anew to reload.
    """
    if uwsgi is None:
        return None if _instance_since is None else (os.getpid(), _instance_since)
    return uwsgi.masterpid() or uwsgi.workers()[0]["pid"] or os.getpid(), uwsgi.started_on


def be_an_instance() -> None:
    """For `uwasp.testing`: have this process be an instance of its own outside uWSGI, so that it has a local bus."""
    global _instance_since
    if _instance_since is None:
        _instance_since = int(time.time())


def be_an_instance_if(is_tried: Callable[[], bool]) -> None:
    """For the packages of frameworks: have this process be one where the application is only tried, outside uWSGI.

    Args:
        is_tried: says whether it is developed or tested here; asked when a local bus is to be opened.
    """
    _is_tried_if.append(is_tried)


def look_at_server(environ: dict[str, Any]) -> None:
    """Have this process be an instance if a request comes by a server for development, or from WebTest. Those serve no
    WebSockets, so that nobody of theirs misses what a group is sent.
    """
    if uwsgi is None and _by_server not in _is_tried_if:
        server = str(environ.get("SERVER_SOFTWARE", ""))
        if server.startswith(FOR_DEVELOPMENT) or OF_WEBTEST in environ:
            be_an_instance_if(_by_server)


def _by_server() -> bool:
    """See `look_at_server`, which has looked."""
    return True


def begins_to_be_tried() -> bool:
    """Whether this process has become an instance now, because the application is only tried in it."""
    if uwsgi is not None or _instance_since is not None or not any(is_tried() for is_tried in _is_tried_if):
        return False
    be_an_instance()
    return True


def keep_standard_descriptors() -> None:
    """Have something at the descriptors 0 to 2, so that what is opened from now on is at others.

    In a mule or a spooler uWSGI has closed its own socket, which is descriptor 0; and a spooler points that at
    /dev/null when `post_fork_hook` has returned, whatever is there by then.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def in_each_worker(action: Callable[[], object]) -> None:
    """Have `action` called once in each worker when it begins: now, if this is one already (--lazy-apps).

    uWSGI holds one such callable, `uwsgi.post_fork_hook`. One that the application sets is called after ours, whether
    it sets it before or later, as `uwsgidecorators` does when it is imported.
    """
    if uwsgi.worker_id():
        action()
        return
    if not _in_each_worker:
        _share_post_fork_hook()
    _in_each_worker.append(action)


class _WithSharedHook(ModuleType):
    """The module `uwsgi`, once its `post_fork_hook` is that of the application, who sets and reads it as ever.

    uWSGI looks at neither this class nor what is set by it, but into the module's dictionary, where ours is.
    """

    @property
    def post_fork_hook(self) -> Callable[[], object]:
        if _own_post_fork_hook is None:
            raise AttributeError("module 'uwsgi' has no attribute 'post_fork_hook'")
        return _own_post_fork_hook

    @post_fork_hook.setter
    def post_fork_hook(self, hook: Callable[[], object]) -> None:
        global _own_post_fork_hook
        _own_post_fork_hook = hook


def _share_post_fork_hook() -> None:
    global _own_post_fork_hook
    _own_post_fork_hook = vars(uwsgi).get("post_fork_hook")
    vars(uwsgi)["post_fork_hook"] = _after_the_fork
    uwsgi.__class__ = _WithSharedHook


def _after_the_fork() -> None:
    try:
        if uwsgi.worker_id():  # no mule, no spooler
            for action in _in_each_worker:
                action()
    finally:
        if _own_post_fork_hook is not None:
            _own_post_fork_hook()


def at_exit(action: Callable[[], None]) -> None:
    """Have uWSGI call `action` when this worker ends, for whatever reason but SIGKILL, before its own `uwsgi.atexit`.

    uWSGI holds one such callable, so one that the application has set is kept, and called after ours. One that it sets
    after its first WebSocket takes our place.

    uWSGI's gevent loop may call it from two greenlets, after max-requests for instance. The action has to bear that;
    the application's own is called once. Outside uWSGI there is no worker, and nothing is called.
    """
    if uwsgi is None:
        return
    before = getattr(uwsgi, "atexit", None)
    worker = os.getpid()

    def chained() -> None:
        global _exiting
        nonlocal before
        try:
            if os.getpid() == worker:  # not in a child, which has uWSGI's signal handlers and our connections too
                _exiting = True
                action()
        finally:
            own, before = before, None
            if own is not None:
                own()

    uwsgi.atexit = chained


def is_exiting() -> bool:
    """Whether uWSGI has begun to call what `at_exit` was given."""
    return _exiting


def worker_id() -> int:
    """The number of this worker, from 1 on; 0 in the master, mules and spoolers, and outside uWSGI."""
    return int(uwsgi.worker_id()) if uwsgi is not None else 0


def worker() -> dict[str, Any]:
    """What uWSGI has in its books about this worker, one of those in `uwsgi.workers()`."""
    found: dict[str, Any] = uwsgi.workers()[uwsgi.worker_id() - 1]
    return found


def is_cheaped() -> bool:
    """Whether uWSGI's cheaper mode takes this worker away.

    The worker may hear of it late: of several threads it is the next one to have a request, and after 60 seconds
    uWSGI kills it.
    """
    return is_set("cheaper") and worker()["status"] == b"cheap"


def backlog() -> int:
    """How many connections wait in each of uWSGI's sockets at most until they are accepted."""
    given = values("listen")
    return int(given[-1]) if given and given[-1].isdigit() else DEFAULT_BACKLOG


@cache
def _dev_null() -> int:
    return os.open(os.devnull, os.O_RDWR)


@cache
def _tls_ports() -> frozenset[int]:
    """The ports on which this worker itself ends TLS."""
    addresses = [value.split(",")[0] for option in ("https-socket", "ssl-socket") for value in values(option)]
    return frozenset(int(port) for port in (address.rpartition(":")[2] for address in addresses) if port.isdigit())


def _local_port(fd: int) -> int | None:
    own = os.dup(fd)
    with socket.socket(fileno=own) as connected:
        name = connected.getsockname()
    return name[1] if isinstance(name, tuple) else None
