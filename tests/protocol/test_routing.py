"""What cannot serve is refused when the middleware is made, with what was expected; what looks misspelt is told."""

from __future__ import annotations

import abc
import asyncio
import functools
import logging
import re
import warnings

import pytest

from takeovers import ENVIRON, SocketPair
from uwasp import Handler, Refusal, Server, WebSocketMiddleware, conversation


class Functions(Handler):
    def handle(self, environ, protocol_name=None):
        return []


class Coroutines(Functions):
    runs = "coroutines"


class Good(Server):
    def on_message(self, message):
        self.ws.send(message)


def make(server, path="/path", handler=Functions):
    return WebSocketMiddleware(print, handler, [(path, server)])


def derived(**attributes):
    return type("Chat", (Server,), attributes)


def function(*_):
    """Accepts anything."""


async def coroutine(*_):
    """Accepts anything."""


def generator(*_):
    yield


async def asynchronous_generator(*_):
    yield


class Callable:
    def __call__(self, *_):
        """Accepts anything."""


class CoroutineCallable:
    async def __call__(self, *_):
        """Accepts anything."""


def decorated(inner):
    @functools.wraps(inner)
    def wrapper(*arguments):
        return inner(*arguments, "more")

    return wrapper


# Paths


@pytest.mark.parametrize("path", ["echo", "", None, b"/echo", "ws://example.com/echo", "http://example.com/echo"])
def test_a_path_begins_with_a_slash(path):
    with pytest.raises(ValueError, match="a server's path is a str that begins with a slash"):
        make(Good, path)


@pytest.mark.parametrize("path", ["/echo?room=1", "/echo#top", "/?", "/#"])
def test_a_path_has_neither_query_nor_fragment(path):
    with pytest.raises(ValueError, match="a server's path ends before any"):
        make(Good, path)


@pytest.mark.parametrize(
    ("path", "braces", "parameter"),
    [
        ("/a/{name}", "{name}", "<name>"),
        ("/a/{name:int}/b", "{name:int}", "<name>"),
        ("/<room>/{name}", "{name}", "<name>"),
    ],
)
def test_a_parameter_in_braces_is_refused(path, braces, parameter):
    message = f"the path '{path}' has {braces} in it, which would stand for itself: a parameter is {parameter}, or"
    with pytest.raises(ValueError, match=re.escape(message)):
        make(Good, path)


def test_braces_that_are_no_parameter_stand_for_themselves():
    make(Good, "/a/{}/}{/{ /}")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/rooms/<name", "the < and > of the path '/rooms/<name' do not pair up"),
        ("/rooms/name>", "do not pair up"),
        ("/rooms/<<name>>", "do not pair up"),
        ("/a<b", "do not pair up: they are around a parameter, .* and stand for nothing else"),
        ("/rooms/<>", "the parameter <> of the path '/rooms/<>' has no name that is an identifier"),
        ("/rooms/<int:>", "has no name"),
        ("/rooms/<2nd>", "has no name"),
        ("/rooms/< name>", "has no name"),
        ("/rooms/<a/b>", "has no name"),
        ("/rooms/<itn:id>", "no converter 'itn', which the path .* has; there are str, string, int, path, uuid"),
        ("/rooms/<:id>", "there is no converter ''"),
        ("/rooms/<Int:id>", "there is no converter 'Int'"),
        ("/rooms/<string(length=2):id>", r"there is no converter 'string\(length=2\)'"),
        ("/<name>/<int:name>", "two parameters of the path '/<name>/<int:name>' have the name name"),
        ("/<a><b>", "between two parameters of the path '/<a><b>' is no slash: where one ends would be a guess"),
        ("/<int:a>-<int:b>", "is no slash"),
        ("/<path:a>/edit/<path:b>", "has more than one <path:...>: where the first ends would be a guess"),
        ("/<path:a>/<b>/<path:c>", "has more than one <path:...>"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        make(Good, pattern)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/rooms", "/rooms"),
        ("/rooms/<name>", "/rooms/<name>"),
        ("/rooms/<name>", "/rooms/<str:other>"),
        ("/rooms/<string:name>", "/rooms/<room>"),
        ("/a/<int:x>/<path:y>", "/a/<int:y>/<path:x>"),
    ],
)
def test_two_equal_forms_are_refused(first, second):
    with pytest.raises(ValueError, match=f"two servers for the path {second}") as raised:
        WebSocketMiddleware(print, Functions, [(first, Good), ("/a/<x>/<path:y>", Good), (second, Good)])
    assert (f"{first}, which comes first, matches the same" in str(raised.value)) == (first != second)


@pytest.mark.parametrize(
    ("asked", "server", "params"),
    [
        ("/rooms/lobby", "lobby", {}),
        ("/rooms/7", "number", {"id": 7}),
        ("/rooms/seven", "room", {"x": "seven"}),
        ("/rooms/seven/", "rest", {"rest": "seven/"}),
        ("/rooms", None, None),
        ("/rooms/", None, None),
    ],
)
def test_an_exact_path_comes_first_then_the_order_of_the_list(asked, server, params):
    paths = {"number": "/rooms/<int:id>", "room": "/rooms/<x>", "rest": "/rooms/<path:rest>", "lobby": "/rooms/lobby"}
    routes = [(path, type(name, (Good,), {})) for name, path in paths.items()]
    found = WebSocketMiddleware(print, Functions, routes)._routes.find(asked)
    assert (found and found.route.name, found and found.params) == (server, params)


class Asked(Server):
    """Notes what it is asked with."""

    @classmethod
    def authorize(cls, environ):
        cls.found = environ.get("wsgiorg.routing_args", "none")

    def __init__(self, ws):
        super().__init__(ws)
        type(self).ws = ws


def ask(path, asked, **further):
    """How a handshake is answered, by a middleware with one path."""
    middleware = WebSocketMiddleware(print, Functions, [(path, Asked)])
    pair = middleware.takeover = SocketPair()
    answers = []
    try:
        list(middleware({**ENVIRON, "PATH_INFO": asked, **further}, lambda status, headers: answers.append(status[:3])))
    finally:
        pair.client.close()
        pair.own.close()
    return answers[0]


def test_authorize_finds_the_parameters_in_the_environ_and_the_server_in_params():
    assert ask("/devices/<int:id>/<path:rest>", "/devices/12/a/b") == "101"
    assert Asked.found == ((), {"id": 12, "rest": "a/b"})
    assert Asked.ws.params == {"id": 12, "rest": "a/b"}
    assert Asked.ws.path == "/devices/12/a/b"


def test_an_exact_path_has_no_parameters_and_pays_for_none():
    assert ask("/echo", "/echo") == "101"
    assert (Asked.found, Asked.ws.params) == ("none", {})
    assert "wsgiorg.routing_args" not in Asked.ws.environ
    assert Asked.ws.params is not Asked.ws.params  # nobody can change another's


def test_the_parameters_join_those_of_who_dispatched_before():
    outer = {"tenant": "ours", "name": "theirs"}
    assert ask("/rooms/<name>", "/rooms/blue", **{"wsgiorg.routing_args": (("first",), outer)}) == "101"
    assert Asked.found == (("first",), {"tenant": "ours", "name": "blue"})
    assert outer == {"tenant": "ours", "name": "theirs"}


@pytest.mark.parametrize("path", ["/<name>", "/<path:name>"])
@pytest.mark.parametrize("asked", ["/%25", "/a%2Fb", "/%C3%A9", "/%", "/+", "/a%00"])
def test_a_path_is_never_decoded_again(path, asked):
    assert ask(path, asked) == "101"
    assert Asked.ws.params == {"name": asked[1:]}


def test_a_path_is_utf_8_and_what_is_not_is_404(caplog):
    caplog.set_level(logging.INFO)
    assert ask("/<name>", "/wörld🐝".encode().decode("latin-1")) == "101"
    assert Asked.ws.params == {"name": "wörld🐝"}
    for wrong in (b"\xff", b"a\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"):
        for path in ("/<name>", "/<path:name>", "/" + wrong.decode("utf-8", "replace")):
            assert ask(path, "/" + wrong.decode("latin-1")) == "404"
    assert ask("/<name>", "/\u20ac") == "404"  # which no WSGI server passes on so
    assert len(caplog.records) == 16
    assert all(record.getMessage().endswith(": path, it is not UTF-8") for record in caplog.records)
    assert "at /\\xff: path" in caplog.text


def test_the_log_has_the_pattern_and_the_path_and_nothing_of_a_client_ends_its_quotes(caplog):
    caplog.set_level(logging.INFO)
    for asked in ("/rooms/blue", "/rooms/x' is open", "/rooms/\n\x1b" + "x" * 3000):
        assert ask("/rooms/<name>", asked, HTTP_ORIGIN="null") == "403"
    lines = [record.getMessage() for record in caplog.records]
    assert "refused to a Unix socket at /rooms/<name> '/rooms/blue': origin" in lines[0]
    assert "at /rooms/<name> '/rooms/x\\' is open': origin" in lines[1]
    assert "at /rooms/<name> '/rooms/\\n\\x1bxxx" in lines[2]
    assert [line for line in lines if not (line.isascii() and line.isprintable() and len(line) < 700)] == []


# authorize

HIDDEN = {
    "a classmethod": lambda made: classmethod(made),
    "a staticmethod": lambda made: staticmethod(made),
    "a partial": lambda made: functools.partial(made, 1),
    "a classmethod of a partial": lambda made: classmethod(functools.partial(made, 1)),
    "a partial of a partial": lambda made: functools.partial(functools.partial(made, 1), 2),
    "a staticmethod of a partial": lambda made: staticmethod(functools.partial(made, 1)),
    "nothing": lambda made: made,
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
@pytest.mark.parametrize("made", [coroutine, generator, asynchronous_generator, CoroutineCallable()])
@pytest.mark.parametrize("handler", [Functions, Coroutines])
def test_an_authorize_of_which_nothing_would_be_run_is_refused_wherever_it_hides(hide, made, handler):
    with pytest.raises(TypeError, match=r"Chat.authorize is (async def|a generator.*): .*everybody let in"):
        make(derived(authorize=hide(made)), handler=handler)


@pytest.mark.parametrize("hide", [hide for name, hide in HIDDEN.items() if name != "nothing"])
@pytest.mark.parametrize("made", [function, Callable()])
def test_an_authorize_that_can_be_called_is_accepted_however_it_is_written(hide, made):
    make(derived(authorize=hide(made)))


def test_an_authorize_that_is_inherited_is_looked_at_too():
    class Base:
        @classmethod
        async def authorize(cls, environ):
            """Would let everybody in."""

    with pytest.raises(TypeError, match=r"Chat.authorize is async def"):
        make(type("Chat", (Base, Server), {}))


@pytest.mark.parametrize(
    ("authorize", "message"),
    [
        (lambda self, environ: None, r"put @classmethod above it, def authorize\(cls, environ\)"),
        (lambda environ: None, "put @classmethod above it"),
        (classmethod(lambda cls: None), "is called with the environ alone, which it does not accept"),
        (classmethod(lambda cls, environ, ws: None), r"does not accept \(missing a required argument: 'ws'\)"),
        (staticmethod(lambda: None), "is called with the environ alone"),
        (None, "is a classmethod, not None"),
        (property(lambda self: None), "is a classmethod, not <property"),
    ],
)
def test_an_authorize_that_cannot_be_called_is_refused(authorize, message):
    with pytest.raises(TypeError, match=f"Chat.authorize .*{message}"):
        make(derived(authorize=authorize))


def test_an_authorize_that_would_be_bound_to_an_object_is_refused_whatever_it_is():
    class Method:
        def __call__(self, environ):
            """Never called so."""

        def __get__(self, server, owner):
            return functools.partial(self, server)

    with pytest.raises(TypeError, match=r"Chat.authorize .*put @classmethod above it"):
        make(derived(authorize=Method()))
    make(derived(authorize=staticmethod(Method())))


class Closed(Server):
    @classmethod
    def authorize(cls, environ):
        raise Refusal(401)


def statuses(server_class):
    """How the middleware answers a handshake."""
    middleware = make(server_class)
    pair = middleware.takeover = SocketPair()
    answers = []
    try:
        list(middleware(dict(ENVIRON, PATH_INFO="/path"), lambda status, headers: answers.append(status[:3])))
    finally:
        pair.client.close()
        pair.own.close()
    return answers


def test_a_partial_of_a_class_is_guarded_by_its_authorize_and_has_its_options_and_subprotocols():
    class Keyed(Closed):
        protocols = ("chat",)
        max_queue = 3

        def __init__(self, ws, key):
            super().__init__(ws)

    assert statuses(functools.partial(Keyed, key=1)) == ["401"]
    route = make(functools.partial(functools.partial(Keyed, key=1), key=2))._routes.find("/path").route
    assert (route.protocols, route.options.max_queue) == (("chat",), 3)


def test_what_makes_something_guarded_lets_nobody_in_unless_it_is_guarded_itself():
    chat = MakesServers(Closed)
    with pytest.raises(TypeError, match=r"MakesServers made a Closed, whose authorize is not asked"):
        statuses(chat)
    chat.authorize = Closed.authorize
    assert statuses(chat) == ["401"]
    chat.authorize = lambda environ: None
    with pytest.raises(TypeError, match="whose authorize is not asked"):
        statuses(chat)
    assert statuses(MakesServers()) == ["101"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"params": ["blue"]}, r"params are what the router has found, by their names, .* not \['blue'\]"),
        ({"headers": {"Set-Cookie": "a=b"}}, "headers are pairs of str, .* 'Set-Cookie' is none"),
    ],
)
def test_what_is_no_params_or_no_headers_is_refused_where_a_request_is_handed_over(given, message):
    middleware = WebSocketMiddleware(print, Functions)
    middleware.takeover = SocketPair()
    with pytest.raises(TypeError, match=message):
        middleware.accept(dict(ENVIRON, PATH_INFO="/path"), print, Good, **given)


def returning(value):
    class Chat(Server):
        @classmethod
        def authorize(cls, environ):
            return value()

    return Chat


@pytest.mark.parametrize("value", [coroutine, generator, asynchronous_generator])
def test_an_authorize_that_returns_what_would_have_to_be_awaited_lets_nobody_in_and_says_so(value, caplog):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert statuses(returning(value)) == ["500"]
    assert [str(warning.message) for warning in warned if "never awaited" in str(warning.message)] == []
    (line,) = [record for record in caplog.records if record.name == "uwasp.middleware"]
    assert line.levelno == logging.ERROR
    assert "Chat.authorize returned a " in line.getMessage()


def test_an_async_authorize_behind_a_plain_wrapper_is_no_error_when_loaded_and_lets_nobody_in():
    """The wrapper may run it. Whether it does shows in what it returns."""

    def wrapped(run):
        async def authorize(cls, environ):
            raise Refusal(401)

        return classmethod(functools.wraps(authorize)(lambda *arguments: run(authorize(*arguments))))

    assert statuses(derived(authorize=wrapped(asyncio.run))) == ["401"]
    assert statuses(derived(authorize=wrapped(lambda later: later))) == ["500"]


def test_a_future_lets_nobody_in_either():
    loop = asyncio.new_event_loop()
    try:
        assert statuses(returning(loop.create_future)) == ["500"]
    finally:
        loop.close()


def test_a_response_of_a_framework_lets_nobody_in_and_the_log_says_what_would_refuse(caplog):
    class Redirect:
        status_code = 302

    assert statuses(returning(Redirect)) == ["500"]
    assert "Chat.authorize returned a Redirect: a response refuses nobody. Raise a uwasp.Refusal" in caplog.text


@pytest.mark.parametrize("answer", [Refusal(403), Refusal])
def test_a_refusal_that_is_returned_and_not_raised_lets_nobody_in(answer, caplog):
    assert statuses(returning(lambda: answer)) == ["500"]
    assert f"Chat.authorize returned a {type(answer).__name__}: it refuses nobody so. Raise it" in caplog.text


def test_false_refuses_and_every_other_answer_lets_in():
    assert statuses(returning(lambda: False)) == ["403"]
    for answer in (None, True, 0, "", [], {}, object()):
        assert statuses(returning(lambda answer=answer: answer)) == ["101"]


def test_a_lazy_user_is_not_looked_up_by_asking_what_it_is():
    class Lazy:
        @property
        def __class__(self):
            raise AssertionError("looked up")

    assert statuses(returning(Lazy)) == ["101"]


# Events

EVENTS = ("on_open", "on_message", "on_close", "on_notify", "on_presence", "on_missed")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
def test_events_that_the_handler_cannot_run_are_refused_wherever_they_hide(event, hide):
    with pytest.raises(TypeError, match=rf"Chat.{event} is async def, which Functions does not run: make it a plain"):
        make(derived(**{event: hide(coroutine)}))
    for made in (generator, asynchronous_generator):
        for handler in (Functions, Coroutines):
            with pytest.raises(TypeError, match=rf"Chat.{event} is a generator, .*: nothing of it would be run"):
                make(derived(**{event: hide(made)}), handler=handler)


def test_a_handler_that_runs_coroutines_takes_those_and_what_is_not_overridden():
    make(derived(on_message=coroutine), handler=Coroutines)
    make(Server, handler=Coroutines)


def test_a_handler_that_runs_coroutines_takes_plain_functions_beside_them():
    make(derived(on_open=function, on_message=coroutine, on_notify=function), handler=Coroutines)
    make(derived(on_message=function), handler=Coroutines)


def test_what_another_object_makes_is_looked_at_when_it_is_made():
    with pytest.raises(TypeError, match=r"Chat.on_message is async def"):
        statuses(MakesServers(derived(on_message=coroutine)))
    with pytest.raises(TypeError, match=r"Chat has no on_open, on_message, on_close"):
        statuses(MakesServers(lambda ws: type("Chat", (), {})()))


@pytest.mark.parametrize(
    ("event", "method", "expected"),
    [
        ("on_open", lambda: None, r"on_open\(self\)"),
        ("on_open", lambda self, ws: None, r"on_open\(self\)"),
        ("on_message", lambda self: None, r"on_message\(self, message\)"),
        ("on_message", lambda self, message, *, binary: None, r"on_message\(self, message\)"),
        ("on_message", staticmethod(lambda self, message: None), r"on_message\(self, message\)"),
        ("on_message", functools.partialmethod(lambda self, message: None, 1), r"on_message\(self, message\)"),
        ("on_close", lambda self, code, reason: None, r"on_close\(self\)"),
        ("on_notify", lambda self, data: None, r"on_notify\(self, group, data\)"),
        ("on_presence", lambda self, group, members: None, r"on_presence\(self, group, joined, left\)"),
        ("on_missed", lambda self: None, r"on_missed\(self, group\)"),
    ],
)
def test_an_event_that_cannot_be_called_is_refused(event, method, expected):
    with pytest.raises(TypeError, match=f"Chat.{event} is called as {expected}, which it does not accept"):
        make(derived(**{event: method}))


@pytest.mark.parametrize(
    "method",
    [
        lambda self, message: None,
        lambda self, message, more=None: None,
        lambda *arguments: None,
        classmethod(lambda cls, message: None),
        staticmethod(lambda message: None),
        functools.partialmethod(lambda self, more, message: None, 1),
        functools.partial(lambda more, message: None, 1),
        decorated(lambda self, message, more: None),
        Callable(),
        property(lambda self: print),
        functools.singledispatchmethod(lambda self, message: None),
        print,
    ],
)
def test_an_event_that_can_be_called_is_accepted_however_it_is_written(method):
    make(derived(on_message=method))


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_a_method(event):
    with pytest.raises(TypeError, match=f"Chat.{event} is a method, not "):
        make(derived(**{event: None}))


def test_a_server_need_not_have_what_is_about_groups():
    make(type("Chat", (), {"__init__": function, **dict.fromkeys(EVENTS[:3], function)}))


# What makes a server


class TwoArguments(Server):
    def __init__(self, ws, database):
        super().__init__(ws)


class MakesServers:
    def __init__(self, server_class=Good):
        self.server_class = server_class

    def __call__(self, ws):
        return self.server_class(ws)

    def method(self, ws):
        return self.server_class(ws)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (TwoArguments, r"TwoArguments is called with the WebSocket alone, .*'database'.*functools.partial can give it"),
        (CoroutineCallable(), r"CoroutineCallable makes no server .* has @conversation\(\) above it"),
        (type("Chat", (Server, abc.ABC), {"room": abc.abstractmethod(function)}), "Chat is abstract"),
        (Good(None), "the server for /path is a class or a function, not <"),
        ("Good", "the server for /path is a class or a function, not 'Good'"),
        (type("Half", (), {"on_open": function}), "Half has no on_message, on_close; inherit from uwasp.Server"),
    ],
)
def test_what_cannot_make_a_server_is_refused(server, message):
    with pytest.raises(TypeError, match=message):
        make(server)


@pytest.mark.parametrize(
    "server",
    [
        Good,
        functools.partial(TwoArguments, database=1),
        MakesServers(),
        MakesServers().method,
        type("Meta", (type,), {})("Chat", (Server,), {}),
    ],
)
def test_a_class_or_what_makes_servers_as_one_does_is_accepted(server):
    assert statuses(server) == ["101"]


def raises(*_):
    raise ValueError("said by\na client")


NO_SUPER = " (NeedsWs.__init__ has not called super().__init__(ws), which sets self.ws)"


class NeedsWs(Server):
    def __init__(self, ws):
        self.path = self.ws.path


@pytest.mark.parametrize(
    ("server", "called", "raised"),
    [
        (derived(authorize=classmethod(raises)), "Chat.authorize", "ValueError"),
        (derived(__init__=raises), "Chat.__init__", "ValueError"),
        (functools.partial(derived(__init__=raises)), "Chat.__init__", "ValueError"),
        (MakesServers(raises), "MakesServers", "ValueError"),
        (NeedsWs, "NeedsWs.__init__", f"AttributeError{NO_SUPER}"),
    ],
)
def test_what_is_raised_before_there_is_a_connection_is_named_in_one_line_and_raised(server, called, raised, caplog):
    with pytest.raises((ValueError, AttributeError)):
        statuses(server)
    (line,) = [record for record in caplog.records if record.name == "uwasp.server"]
    assert (line.levelno, line.exc_info) == (logging.ERROR, None)
    assert line.getMessage() == f"error in {called}, no WebSocket for a Unix socket at /path: {raised}"


def test_a_refusal_is_no_error_of_the_server(caplog):
    def refuse(self, ws):
        raise Refusal(403)

    assert statuses(derived(__init__=refuse)) == ["403"]
    assert statuses(Closed) == ["401"]
    assert [record for record in caplog.records if record.name == "uwasp.server"] == []


# Functions, which converse


class Spawning(Functions):
    @classmethod
    def spawn(cls, function, *args): ...


def returns_a_server(ws) -> Good:
    return Good(ws)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (lambda: None, "is called with the WebSocket alone"),
        (coroutine, 'coroutine is async def, which Spawning does not run: .*handler_class="asyncio"'),
        (functools.partial(coroutine, 1), "coroutine is async def"),
        (generator, "generator is a generator, as it has a yield in it: nothing of it would be run"),
        (asynchronous_generator, "asynchronous_generator is a generator"),
        (returns_a_server, "returns_a_server is a function that returns a Good: .*functools.partial of it"),
    ],
)
def test_a_function_that_cannot_converse_is_refused(server, message):
    with pytest.raises(TypeError, match=message):
        make(server, handler=Spawning)


def test_a_function_is_of_the_kind_that_the_handler_runs():
    make(function, handler=Spawning)
    make(coroutine, handler=Coroutines)
    with pytest.raises(TypeError, match="function is a plain function, and Coroutines runs only async def"):
        make(function, handler=Coroutines)


def test_a_handler_without_spawn_runs_no_functions():
    with pytest.raises(TypeError, match=r"Functions does not say how to start one .*give a server class"):
        make(function)


def test_a_function_is_given_what_a_class_has_as_attributes():
    @conversation(protocols=("chat",), max_queue=3, authorize=lambda environ: "ada")
    def chat(ws): ...

    route = make(chat, handler=Spawning)._routes.find("/path").route
    assert (route.protocols, route.options.max_queue, route.authorize({})) == (("chat",), 3, "ada")


def test_what_a_function_may_not_be_given_is_refused():
    with pytest.raises(TypeError, match=r"a conversation has no attribute max_mesage_size; it may have .*authorize"):
        conversation(max_mesage_size=3)
    with pytest.raises(TypeError, match="stands above a function, not <class"):
        conversation(max_queue=3)(Good)
    with pytest.raises(TypeError, match=r"a function stands @conversation\(\), with parentheses, not given <function"):
        conversation(function)
    with pytest.raises(ValueError, match="max_queue is a whole number of at least 1"):
        make(conversation(max_queue=0)(lambda ws: None), handler=Spawning)


def test_attributes_of_a_partial_are_refused_as_nothing_would_look_at_them():
    chat = functools.partial(Good)
    chat.authorize = function
    with pytest.raises(TypeError, match=r"has attributes of its own \(authorize\): set them on what it calls"):
        make(chat)


@pytest.mark.parametrize("protocols", ["chat", b"chat", 1, None, {"chat"}, iter(["chat"])])
def test_subprotocols_are_a_sequence(protocols):
    with pytest.raises(TypeError, match=r"Chat.protocols is a sequence, such as \(\"chat\",\), not "):
        make(derived(protocols=protocols))


@pytest.mark.parametrize("protocol", ["", "chat v2", "chat,v2", "chät", "a\r\nX-Injected: yes", b"chat", None])
def test_a_subprotocol_is_one_that_a_client_can_ask_for(protocol):
    with pytest.raises(TypeError, match=r"Chat.protocols has .* in it, which no client can ask for"):
        make(derived(protocols=("chat", protocol)))


# What looks misspelt


@pytest.mark.parametrize(
    ("attribute", "meant"),
    [
        ("max_mesage_size", "max_message_size"),
        ("max_msg_size", "max_message_size"),
        ("pingInterval", "ping_interval"),
        ("PING_TIMEOUT", "ping_timeout"),
        ("allowed_origin", "allowed_origins"),
        ("protocol", "protocols"),
        ("subprotocols", "protocols"),
        ("authorise", "authorize"),
        ("on_mesage", "on_message"),
        ("on_closed", "on_close"),
        ("on_notifiy", "on_notify"),
        ("on_presense", "on_presence"),
        ("on_miss", "on_missed"),
        ("on_connect", "on_open"),
        ("onConnect", "on_open"),
        ("on_receive", "on_message"),
        ("on_data", "on_message"),
        ("on_disconnect", "on_close"),
        ("on_error", "on_close"),
    ],
)
def test_an_attribute_that_looks_misspelt_is_warned_about(attribute, meant, caplog):
    server = derived(**{attribute: 1})
    WebSocketMiddleware(print, Functions, [("/a", server), ("/b", functools.partial(server))])
    assert [record.getMessage() for record in caplog.records] == [
        f"Chat.{attribute} means nothing to uWASP: is it to be {meant}?"
    ]


@pytest.mark.parametrize(("path", "part"), [("/:id", "/:id"), ("/a/:name/b", "/:name")])
def test_a_parameter_as_other_frameworks_write_it_is_warned_about(path, part, caplog):
    make(Good, path)
    assert f"{part} of the path '{path}' is no parameter, which is <name> or <converter:name>" in caplog.text


def test_other_attributes_are_not(caplog):
    class Room(Server):
        """Serves a room."""

        max_queue = 5
        room = users = path = name = limit = timeout = size = messages = None
        _ping_intervall = 1

        def on_open(self): ...
        def on_message(self, message): ...
        def on_close(self): ...
        def on_messages(self): ...
        def on_connect(self): ...
        def on_error(self): ...
        def on_join(self): ...
        def broadcast(self): ...
        def send(self): ...

    WebSocketMiddleware(print, Functions, [("/a", Room), ("/b", Good), ("/d", MakesServers())])
    assert caplog.records == []
