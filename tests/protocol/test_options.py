"""Every option has a default, and refuses what it cannot be by its name."""

from __future__ import annotations

from dataclasses import fields

import pytest

from uwasp import Deflate, Options, Server

COUNTS = ("max_message_size", "max_fragments", "write_limit", "max_queue", "max_queue_size")
TIMES = ("close_timeout", "shutdown_timeout")
OPTIONAL_TIMES = ("ping_interval", "ping_timeout", "send_timeout")
WRONG = [
    *((name, value) for name in COUNTS for value in (0, -1, 1.5, "1", None, True)),
    *((name, value) for name in TIMES for value in (0, -1, "1", None, True)),
    *((name, value) for name in OPTIONAL_TIMES for value in (0, -1, "1", True)),
    *(("max_connections", value) for value in (0, -1, 1.5, "1", True)),
    *(("compression", value) for value in ("gzip", True, 1)),
    *(("allowed_origins", value) for value in ("example.com", ["example.com"], [1])),
    *(("trust_proxy", value) for value in ("yes", 1, None)),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is "):
        Options(**{name: value})


def test_an_unknown_option_is_refused_and_the_known_ones_are_named():
    with pytest.raises(TypeError, match="unknown option max_size; the options are max_message_size, "):
        Options.named({"max_size": 1})


def test_none_turns_off_what_can_be_turned_off():
    off = dict.fromkeys((*OPTIONAL_TIMES, "max_connections", "compression", "allowed_origins"))
    options = Options(**off)
    assert all(getattr(options, name) is None for name in off)


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


def test_every_option_has_a_default():
    assert [field.name for field in fields(Options) if getattr(Options(), field.name, ...) is ...] == []
