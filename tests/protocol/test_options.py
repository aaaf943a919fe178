"""Every option has a default, and refuses what it cannot be by its name."""

from __future__ import annotations

import math
import os
from dataclasses import fields
from typing import get_type_hints

import pytest

from uwasp import Deflate, Options, Server
from uwasp.options import GivenOptions
from uwasp.poller import READABLE, new_poller

COUNTS = ("max_message_size", "max_fragments", "write_limit", "max_queue", "max_queue_size")
TIMES = ("close_timeout", "shutdown_timeout")
OPTIONAL_TIMES = ("ping_interval", "ping_timeout", "send_timeout")
NO_TIMES = (0, -1, -0.5, "1", True, 604_801, 30 * 86_400, 2**31, 10**400, 1e300, math.inf, -math.inf, math.nan)
WRONG = [
    *((name, value) for name in COUNTS for value in (0, -1, 1.5, "1", None, True, math.inf, 2**63)),
    *((name, value) for name in TIMES for value in (*NO_TIMES, None)),
    *((name, value) for name in OPTIONAL_TIMES for value in NO_TIMES),
    *(("shutdown_spread", value) for value in (*NO_TIMES, 2.5)),
    *((name, value) for name in ("max_connections", "slow_member") for value in (0, -1, 1.5, "1", True, math.inf)),
    *(("compression", value) for value in ("gzip", True, 1)),
    *(("allowed_origins", value) for value in ("example.com", ["example.com"], [1])),
    *((name, value) for name in ("skip_slow_members", "trust_proxy") for value in ("yes", 1, None)),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        Options(**{name: value})


@pytest.mark.parametrize("name", [*TIMES, *OPTIONAL_TIMES])
def test_a_time_that_is_none_says_what_was_expected(name):
    with pytest.raises(ValueError, match=rf"^{name} is a number of seconds above 0 and at most 604,800 .*, not inf$"):
        Options(**{name: math.inf})


@pytest.mark.parametrize("name", [*TIMES, *OPTIONAL_TIMES])
def test_the_longest_time_is_one_that_the_poller_takes(name):
    longest = getattr(Options(**{name: 604_800}), name)
    reading, writing = os.pipe()
    os.write(writing, b"now")
    poller = new_poller()
    poller.register(reading, READABLE)
    assert poller.poll(2 * longest) == [(reading, READABLE)]
    for fd in (reading, writing):
        os.close(fd)


def test_what_is_an_attribute_of_the_handler_is_refused_as_an_option_and_its_place_is_named():
    with pytest.raises(TypeError, match=r"unknown option max_consumers \(max_consumers: of the handler class, derive"):
        Options.named({"max_consumers": 8})


def test_an_unknown_option_is_refused_and_the_known_ones_are_named():
    with pytest.raises(TypeError, match="unknown option max_size; the options are max_message_size, "):
        Options.named({"max_size": 1})


def test_none_turns_off_what_can_be_turned_off():
    off = dict.fromkeys((*OPTIONAL_TIMES, "max_connections", "slow_member", "compression", "allowed_origins"))
    options = Options(**off)
    assert all(getattr(options, name) is None for name in off)


def test_a_slow_member_is_one_for_which_a_quarter_of_the_write_limit_waits_unless_it_is_told():
    assert Options(write_limit=400).slow_limit == 100
    assert Options(write_limit=400, slow_member=1000).slow_limit == 1000


def test_a_server_class_overrides_what_it_names():
    class Small(Server):
        max_message_size = 100

    common = Options(max_queue=5)
    assert common.overridden_by(Small) == Options(max_queue=5, max_message_size=100)
    assert common.overridden_by(Server) is common


def test_a_server_class_with_a_wrong_value_is_refused():
    class Wrong(Server):
        max_queue = 0

    with pytest.raises(ValueError, match=r"^max_queue is "):
        Options().overridden_by(Wrong)


def test_one_origin_may_be_given_by_itself():
    assert Options(allowed_origins="https://example.com").allowed_origins == ("https://example.com",)


def test_deflate_by_name_has_its_defaults():
    assert Options(compression="deflate").deflate == Deflate()
    assert Options().deflate is None


def test_the_keywords_that_a_type_checker_knows_are_the_options():
    assert GivenOptions.__annotations__.keys() == {field.name for field in fields(Options)}
    assert get_type_hints(GivenOptions) == get_type_hints(Options)
    assert GivenOptions.__required_keys__ == frozenset()


def test_every_option_has_a_default():
    assert [field.name for field in fields(Options) if getattr(Options(), field.name, ...) is ...] == []
