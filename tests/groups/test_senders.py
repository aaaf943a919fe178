"""From wherever a program of uWSGI, or beside it, sends to a group: every member gets it, in all workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from processes import LOOP_OPTIONS, debian_uwsgi, wait_until
from talkers import Talker, get, in_each_worker

FOLDER = Path(__file__).parent
SENDERS = FOLDER / "senders.py"
ALONE = FOLDER / "alone.py"
WORKERS = 2
EVERYWHERE = ("view", "thread", "process", "another_bus", "named_bus", "logging")


def heard_from(where, uwsgi, group):
    """Whether all members, one in each worker, hear it from there, once."""
    with ExitStack() as stack:
        members = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, f"{group}:{where}")]
        get(uwsgi.url, f"/from/{where}", group=f"{group}:{where}")
        heard = [member.hear() for member in members]
        members[0].do("send", "end")
        assert [member.hear() for member in members] == ["end"] * WORKERS
        return heard == [f"from {where}"] * WORKERS


@pytest.fixture(params=["", "patched"])
def patch(request, handler):
    if request.param and handler != "gevent":
        pytest.skip("only gevent patches")
    return {"UWASP_PATCH": "1"} if request.param else {}


@pytest.mark.parametrize("options", [(), ("--lazy-apps",), ("--single-interpreter", "--enable-threads")])
def test_from_a_worker(serve, handler, group, options, patch):
    uwsgi = serve(*options, workers=WORKERS, application=SENDERS, env=patch)
    greenlet = ("greenlet",) if handler == "gevent" else ()
    for where in EVERYWHERE + greenlet:
        assert heard_from(where, uwsgi, group)


def test_without_a_master(serve, handler, group, patch):
    uwsgi = serve(workers=WORKERS, application=SENDERS, env=patch, master=False, wait=False)
    uwsgi.wait_for_output(f"spawned uWSGI worker {WORKERS}")
    for where in EVERYWHERE:
        assert heard_from(where, uwsgi, group)


def test_from_a_spooler_a_mule_and_a_timer(serve, group, tmp_path, patch):
    spool = tmp_path / "spool"
    spool.mkdir()
    options = ("--spooler", str(spool), "--spooler-frequency", "1", "--mule", "--cache2", "name=groups,items=10")
    uwsgi = serve(*options, workers=WORKERS, application=SENDERS, env=patch)
    for where in ("mule", "spooler", "timer"):
        assert heard_from(where, uwsgi, group)


def test_from_a_spooler_and_a_mule_that_have_not_loaded_the_application(serve, group, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    options = ("--lazy-apps", "--spooler", str(spool), "--spooler-frequency", "1", "--mule=" + str(ALONE))
    uwsgi = serve(*options, f"--spooler-import={ALONE}", workers=WORKERS, application=SENDERS)
    for where in ("mule", "spooler"):
        assert heard_from(where, uwsgi, group)


def test_from_outside_and_between_two_uwsgis(serve, group, tmp_path):
    """They hear each other, and a script, on a bus that has a name; and nobody else on their own."""
    bus = f"local:{tmp_path}/bus"
    uwsgis = [serve(workers=WORKERS, application=SENDERS, env={"UWASP_BUS": bus}) for _ in range(2)]
    apart = serve(workers=WORKERS, application=SENDERS)
    with ExitStack() as stack:
        members = []
        for uwsgi in uwsgis:
            members += [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group, key="alice")]
        others = [stack.enter_context(one) for one in in_each_worker(WORKERS, apart.url, group, key="alice")]
        script = (
            "import sys, uwasp\n"
            "with uwasp.open_bus(sys.argv[1]) as bus:\n"
            "    group = bus.group(*sys.argv[2].split(':'))\n"
            "    print([[one.key, one.connections] for one in group.members()])\n"
            "    group.send('from a script')\n"
            "    group.notify('from a script')\n"
        )
        said = subprocess.run([sys.executable, "-c", script, bus, group], capture_output=True, text=True, timeout=20)
        assert (said.stdout, said.stderr) == (f"[['alice', {2 * WORKERS}]]\n", "")
        assert [one.hear() for one in members] == ["from a script"] * 2 * WORKERS
        assert [one.next("notified")["notified"] for one in members] == ["from a script"] * 2 * WORKERS
        get(uwsgis[0].url, "/from/program", group=group)
        assert [one.hear() for one in members] == ["from program"] * 2 * WORKERS
        members[0].do("send", "from one to the other")
        assert [one.hear() for one in members] == ["from one to the other"] * 2 * WORKERS
        others[0].do("send", "end")
        assert [one.hears_nothing_before("end") for one in others] == [True] * WORKERS
        assert others[0].members() == [["alice", None, WORKERS]]
        script = "import sys, uwasp\nwith uwasp.open_bus(sys.argv[1]) as bus:\n    "
        script += "bus.group(*sys.argv[2].split(':')).close(4001)"
        subprocess.run([sys.executable, "-c", script, bus, group], check=True, timeout=20)
        assert [one.closed()[0] for one in members] == [4001] * 2 * WORKERS


@pytest.mark.parametrize("bus", ["uwasp.open_bus({0!r}).group(*{1})", "uwasp.Group(*{1}, bus={0!r})"])
def test_a_script_that_ends_without_closing_its_bus_has_sent_what_it_sent(serve, group, tmp_path, bus):
    url = f"local:{tmp_path}/bus"
    uwsgi = serve(workers=WORKERS, application=SENDERS, env={"UWASP_BUS": url})
    with ExitStack() as stack:
        members = [stack.enter_context(one) for one in in_each_worker(WORKERS, uwsgi.url, group)]
        script = f"import uwasp\n{bus.format(url, group.split(':'))}.send('at the end')"
        subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
        assert [one.hear() for one in members] == ["at the end"] * WORKERS


def test_with_debians_own_uwsgi(serve, handler, group):
    plugins = ("python3", "gevent_python3") if handler == "gevent" else ("python3",)
    loop = LOOP_OPTIONS["gevent"] if handler == "gevent" else ("--enable-threads", "--threads", "2")
    options = ("--virtualenv", sys.prefix, "--mule")
    uwsgi = serve(
        *options, workers=WORKERS, application=SENDERS, loop=loop, program=debian_uwsgi(*plugins), plugins=plugins
    )
    for where in (*EVERYWHERE, "mule"):
        assert heard_from(where, uwsgi, group)


def test_a_view_waits_for_who_is_there_beside_others(serve, handler, group, patch):
    """A process that does not answer costs who asks a second, and the requests beside it nothing."""
    uwsgi = serve(workers=WORKERS, env=patch)
    with Talker(uwsgi.url, group, key="alice") as alice:
        while get(uwsgi.url, "/members", group=group) != [["alice", None, 1]] or get(uwsgi.url, "/") == alice.worker:
            pass
        os.kill(alice.worker, signal.SIGSTOP)
        try:
            stopped = [Path(one, "stat") for one in Path(f"/proc/{alice.worker}/task").iterdir()]
            wait_until(lambda: all(one.read_text().split()[2] == "T" for one in stopped), "its threads to stop")
            asking = threading.Thread(target=get, args=(uwsgi.url, "/members"), kwargs={"group": group})
            asking.start()
            longest, count = 0.0, 0
            while asking.is_alive():
                before = time.monotonic()
                get(uwsgi.url, "/")
                longest, count = max(longest, time.monotonic() - before), count + 1
        finally:
            os.kill(alice.worker, signal.SIGCONT)
        assert count > 5
        assert longest < 0.7  # seconds; who asks waits for one


@pytest.mark.parametrize("patch", ["", "monkey.patch_all()"])
def test_in_the_hub_nobody_waits(patch):
    program = f"""
import gevent
from gevent import monkey
{patch}
from uwasp_gevent import GeventHandler
found = []
gevent.get_hub().loop.run_callback(lambda: found.append(GeventHandler.new_waiter()))
gevent.sleep(0.01)
print(found, type(GeventHandler.new_waiter()).__module__)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20)
    assert (said.stdout, said.stderr) == ("[None] gevent._gevent_cevent\n", "")
