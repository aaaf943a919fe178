"""Which messages a server class takes is found when the application is loaded; a codec makes values of them."""

from __future__ import annotations

import functools
import json
import math
import types
import typing
from typing import Annotated, Any, Generic, NewType, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uwasp import JSON, Handler, Options, Server, WebSocket
from uwasp.codec import decode
from uwasp.exceptions import Undecodable
from uwasp.routing import find_routes

T = TypeVar("T")
U = TypeVar("U")
Name = NewType("Name", str)


class Functions(Handler):
    def handle(self, environ, protocol_name=None):
        return []


class Coroutines(Functions):
    runs = "coroutines"


class Move:
    def __init__(self, square):
        self.square = square


class Moves:
    """A codec."""

    def decode(self, message):
        return Move(int(message))

    def encode(self, value):
        return str(value.square)


def route_of(server_class, handler_class=Functions):
    return find_routes([("/path", server_class)], Options(), handler_class).find("/path").route


def make(server_class, handler_class=Functions):
    return route_of(server_class, handler_class).make_server(WebSocket({}, "/path"))


def accepted(server_class):
    route = route_of(server_class)
    return route.accepts(route.make_server(WebSocket({}, "/path")))


# Types


class Text(Server[str]):
    pass


class Binary(Server[bytes]):
    pass


class Either(Server):
    pass


class Open(Server[T]):
    pass


class Pair(Generic[T, U], Server[U]):
    pass


class Named(Pair[int, T]):
    pass


class Mixin(Server):
    pass


class Maker:
    def __init__(self, server_class):
        self.server_class = server_class

    def __call__(self, ws):
        return self.server_class(ws)


class Methods:
    def __init__(self, ws):
        self.ws = ws

    def on_open(self):
        """Does nothing."""

    def on_message(self, message):
        """Does nothing."""

    def on_close(self):
        """Does nothing."""


TEXT = [
    *(Text, type("Derived", (Text,), {}), type("Twice", (Mixin, Text), {}), Open[str], Pair[bytes, str], Named[str]),
    *(functools.partial(Text), functools.partial(functools.partial(Open[str])), Maker(Text), Server[str]),
    *(Server[Name], Server[Annotated[str, "a name"]]),
]
BINARY = [Binary, Open[bytes], Pair[str, bytes], functools.partial(Binary), Maker(Binary)]
EITHER = [
    *(Server, Either, Mixin, Open, Named, Methods, Maker(Either), Maker(Methods), functools.partial(Either)),
    *(Server[str | bytes], Server[Any], Server[object], Server["Move"], Open[T]),
]


@pytest.mark.parametrize(
    ("server_class", "expected"),
    [*((one, str) for one in TEXT), *((one, bytes) for one in BINARY), *((one, None) for one in EITHER)],
)
def test_what_a_server_takes_is_what_its_class_says(server_class, expected):
    assert accepted(server_class) is expected


def test_a_class_for_a_type_argument_of_ones_own():
    class Typed(Open[str]):
        pass

    assert accepted(Typed) is str
    assert accepted(type("Further", (Typed,), {})) is str


@pytest.mark.parametrize("kind", [Move, int, bytearray, dict[str, Any], list, str | Move, None, Annotated[Move, 1]])
def test_a_type_that_no_message_has_needs_a_codec(kind):
    with pytest.raises(TypeError, match=r"^Open: no message is a \w+ as it comes\. Give the class a codec, such as"):
        route_of(Open[kind])
    with pytest.raises(TypeError, match=r"or derive it from Server\[str\], Server\[bytes\] or Server$"):
        make(Maker(types.new_class("Typed", (Open[kind],))))


@pytest.mark.skipif(not hasattr(typing, "TypeAliasType"), reason="Python has no type statement before 3.12")
def test_a_type_by_another_name():
    assert accepted(Server[typing.TypeAliasType("Word", Name)]) is str
    with pytest.raises(TypeError, match="no message is a Move"):
        route_of(Server[typing.TypeAliasType("Turn", Move)])


# Codecs


class Game(Server[Move]):
    codec = Moves()

    def __init__(self, ws):
        super().__init__(ws)
        self.seen = []

    def on_message(self, message):
        self.seen.append(message)
        return message.square


def test_a_server_with_a_codec_is_given_values():
    server = make(Game)
    assert server.on_message("3") == 3
    assert server.on_message(b"4") == 4
    assert [move.square for move in server.seen] == [3, 4]


@pytest.mark.parametrize("server_class", [functools.partial(Game), Maker(Game), type("Derived", (Game,), {})])
def test_whatever_makes_it(server_class):
    assert make(server_class).on_message("3") == 3
    assert accepted(server_class) is None


def test_a_maker_may_have_the_codec():
    class Values(Either):
        def on_message(self, message):
            return message

    maker = Maker(Values)
    maker.codec = JSON
    assert make(maker).on_message("[3]") == [3]
    maker.server_class = Game  # whose own is nearer
    assert make(maker).on_message("3") == 3


def test_what_cannot_be_decoded_is_the_clients_fault():
    with pytest.raises(Undecodable, match=r"^ValueError: invalid literal for int.* 'e2e4'$") as raised:
        make(Game).on_message("e2e4")
    assert (raised.value.code, raised.value.reason) == (1007, "a message that this server cannot decode")


def test_what_a_codec_says_is_short_and_harmless_in_a_log():
    class Chatty(Moves):
        def decode(self, message):
            raise LookupError("\x1b[31m" + "ü" * 1000)

    with pytest.raises(Undecodable) as raised:
        decode(Chatty(), "x")
    assert str(raised.value).startswith(r"LookupError: \x1b[31m\xfc\xfc")
    assert len(str(raised.value)) < 300


def test_a_value_is_decoded_once():
    class Derived(Game):
        def on_message(self, message):
            return super().on_message(message)

        def on_notify(self, group, data):
            return self.on_message(Move(data))

    server = make(Derived)
    assert server.on_message("3") == 3
    assert server.on_notify("a group", 5) == 5


def test_another_on_message_that_a_server_puts_in_place_of_its_own_is_given_values():
    class Changing(Game):
        def on_open(self):
            self.on_message = lambda move: f"moved to {move.square}"

    server = make(Changing)
    server.on_open()
    assert server.on_message("3") == "moved to 3"


def test_nobody_need_know_that_something_stands_for_the_server():
    made = []

    class Noticing(Game):
        def __init_subclass__(cls):
            made.append(cls)

    server = make(Noticing)
    assert isinstance(server, Noticing)
    assert server.__class__ is Noticing
    assert server.seen == []
    assert not hasattr(server, "unheard_of")
    assert made == []


def test_of_an_async_def_there_is_something_to_await():
    class Later(Server[Move]):
        codec = Moves()

        async def on_message(self, message):
            return message.square

    coroutine = make(Later, Coroutines).on_message("3")
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    assert stopped.value.value == 3


class NoEncode:
    def decode(self, message):
        """Never called."""


class CannotWait(Moves):
    async def decode(self, message):
        """Never called."""


class WantsMore(Moves):
    def decode(self, message, schema):
        """Never called."""


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (Moves, r"Chat.codec is the class Moves, and not an object of it: codec = Moves\(...\)"),
        (json, r"Chat.codec has no decode\(message\), which each codec has: write codec = uwasp.JSON, or"),
        (NoEncode(), r"Chat.codec has no encode\(value\), which"),
        (json.loads, r"Chat.codec has no decode\(message\)"),
        (CannotWait(), "Chat.codec.decode is async def: a codec does not wait, under any handler"),
        (WantsMore(), "Chat.codec.decode is called with the message alone, which it does not accept .*schema"),
    ],
)
def test_what_is_no_codec_is_refused_when_the_application_is_loaded(codec, message):
    chat = type("Chat", (Server,), {"codec": codec})
    with pytest.raises(TypeError, match=f"^{message}"):
        route_of(chat)
    with pytest.raises(TypeError, match=f"^{message}"):
        make(Maker(chat))


# JSON


def test_json_is_a_codec_and_no_class_of_codecs():
    with pytest.raises(TypeError, match=r"write codec = uwasp.JSON, without \(\)"):
        JSON()


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "{", "[1,]", "nul", "NaN", "[Infinity]", "-Infinity", "1e999", '"\\ud800"', '{"\\uDC00": 1}', "\ufeff1"),
        *(b"\xff", b"\xff\xfe1\0", "[" * 100_000),
    ],
)
def test_what_is_not_json(wrong):
    with pytest.raises(Undecodable):
        decode(JSON, wrong)


def test_json_may_come_as_text_or_as_binary():
    assert JSON.decode('{"a": ["ü", 1.5, null]}') == {"a": ["ü", 1.5, None]}
    assert JSON.decode('{"a": ["ü", 1.5, null]}'.encode()) == {"a": ["ü", 1.5, None]}
    assert JSON.decode('"\\ud83d\\udc1d"') == "🐝"


def test_json_is_as_short_as_it_gets():
    assert JSON.encode({"a": [1, "ü🐝"], "b": None}) == '{"a":[1,"ü🐝"],"b":null}'


@pytest.mark.parametrize("wrong", [math.nan, [math.inf], {1, 2}, object(), {(1,): 2}, b"bytes"])
def test_what_json_has_not_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        JSON.encode(wrong)


TEXTS = st.text(st.characters(exclude_categories=()))
VALUES = st.recursive(
    st.none() | st.floats() | st.integers() | TEXTS, lambda of: st.lists(of) | st.dictionaries(TEXTS, of)
)


@given(VALUES)
def test_what_json_decodes_can_be_sent(value):
    try:
        decoded = decode(JSON, json.dumps(value))
    except Undecodable:
        return  # NaN, infinity, a lone surrogate
    assert decoded == value
    assert json.loads(JSON.encode(decoded).encode()) == value
