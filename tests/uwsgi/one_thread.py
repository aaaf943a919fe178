"""The handler of docs/handlers.md: how it is installed for the tests of behaviour, and what of these it cannot pass.

It stands for whatever somebody else writes on the documented pieces.
"""

from __future__ import annotations

import re
from pathlib import Path

import processes

__all__ = ["BEHAVIOUR", "LOOP_OPTIONS", "code_of", "install", "not_for_it"]

DOCUMENT = Path(__file__).parents[2] / "docs" / "handlers.md"

# The options that give each handler what it needs.
LOOP_OPTIONS = {**processes.LOOP_OPTIONS, "one-thread": ("--threads", "2")}

# The files of tests that are about what every handler does.
BEHAVIOUR = {
    "test_access",
    "test_background",
    "test_backpressure",
    "test_close",
    "test_corking",
    "test_echo",
    "test_fairness",
    "test_goodbye",
    "test_isolation",
    "test_keepalive",
    "test_lifecycle",
    "test_messages",
    "test_overload",
    "test_sends",
    "test_sessions",
    "test_stats",
}

BLOCKED = "a server that waits or computes holds up its one thread, and so everybody"
NEVER_WAITS = "the thread that reads cannot wait for a client to read"

# What one thread for everything cannot do, by a test's name, or the beginning of it with its parameters.
CANNOT = {
    "test_a_client_that_does_not_read_is_cut_after_send_timeout": NEVER_WAITS,
    "test_a_flood_of_tiny_messages_takes_bounded_memory[one-thread-False]": NEVER_WAITS,
    "test_a_ping_is_answered_while_the_server_is_busy_but_not_from_behind_a_full_queue": BLOCKED,
    "test_a_server_that_blocks_delays_neither_others_nor_its_own_pings": BLOCKED,
    "test_a_server_that_never_yields": BLOCKED,
    "test_a_waiting_send_ends_with_its_connection": NEVER_WAITS,
    "test_an_answer_leaves_before_its_own_server_goes_on_to_something_slow": BLOCKED,
    "test_no_answer_waits_for_a_server_that_takes_its_time": BLOCKED,
    "test_no_answer_waits_when_the_server_has_waited_before": BLOCKED,
    "test_reading_pauses_while_the_server_does_not_keep_up_and_nothing_is_lost": BLOCKED,
    "test_send_waits_for_a_client_that_does_not_read_and_nobody_else_does": NEVER_WAITS,
    "test_small_frames_that_grow_when_they_are_decompressed_take_bounded_memory": BLOCKED,
    "test_the_close_of_a_client_is_answered_while_its_server_is_busy": BLOCKED,
}
GREENLETS = "GreenletExit ends a greenlet, or a thread; here there is but one"


def not_for_it(test: str, parameters: str) -> str | None:
    """Why it cannot pass a test; `None` if it can."""
    if "GreenletExit" in parameters:
        return GREENLETS
    return CANNOT.get(test) or CANNOT.get(f"{test}[{parameters}]")


def code_of(file: str) -> str:
    """The code in the document that begins with the name of this file."""
    (code,) = re.findall(rf"^```python\n(# {file}\n.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(code)


def install(folder: Path) -> Path:
    """Take it out of the document and make it a distribution in `folder`, with its entry point."""
    (folder / "one_thread.py").write_text(code_of("one_thread.py"))
    entry_point = re.findall(r'^([\w-]+) = "(one_thread:\w+)"$', DOCUMENT.read_text(), re.MULTILINE)
    information = folder / "one_thread-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: one-thread\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[uwasp.handlers]\n{} = {}\n".format(*entry_point[0]))
    return folder
