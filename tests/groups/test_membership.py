"""One process's part in a bus whose other processes do just what a test says: what no real one would do on request."""

from __future__ import annotations

import enum
import itertools
import json
import logging
import socket
import threading
import uuid
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from processes import wait_until
from races import LockWithARace
from uwasp import ConfigurationError, Group, Listener, Server, WebSocket, envelope, stats
from uwasp.bus import Bus, set_default
from uwasp.connection import Connection
from uwasp.envelope import Envelope, Kind
from uwasp.identity import identity
from uwasp.options import Options
from uwasp.presence import member_id
from uwasp.protocol import FrameProtocol
from uwasp.transport import Transport

OTHER = b"another-"
THIRD = b"a-third-"


class Scripted(Transport):
    """Carries nothing: notes what is published, and leaves it to the test what arrives."""

    def __init__(self, url: str, process: bytes, receiver: Any) -> None:
        super().__init__(url, process, receiver)
        self.published: list[tuple[str, Envelope]] = []
        self.told: list[tuple[bytes, Envelope]] = []
        self.channels: list[str] = []
        self.asked: list[Any] = []
        self.has_hearers = True
        self.others = 0

    @classmethod
    def check(cls, url: str) -> None:
        pass

    def open(self) -> None:
        pass

    def publish(self, channel: str, data: bytes) -> None:
        self.published.append((channel, envelope.decode(data)))

    def may_be_heard(self, channel: str) -> bool:
        return self.has_hearers

    def tell(self, process: bytes, data: bytes) -> None:
        self.told.append((process, envelope.decode(data)))

    def tell_all(self, data: bytes) -> None:
        self.told.append((b"all", envelope.decode(data)))

    def ask(self, channel: str, data: bytes, expected: Any) -> None:
        self.asked.append(envelope.decode(data))
        expected(self.others)

    def subscribe(self, channel: str, heard: Any) -> None:
        self.channels.append(channel)
        self.heard = heard

    def unsubscribe(self, channel: str) -> None:
        self.channels.remove(channel)

    def close(self, timeout: float) -> None:
        pass


class Noting(Server):
    """Notes what it is told."""

    def __init__(self, ws: WebSocket) -> None:
        super().__init__(ws)
        self.told: list[Any] = []

    def on_notify(self, group, data):
        self.told.append(("notify", group.parts, data))

    def on_missed(self, group):
        self.told.append(("missed", group.parts))


class Member:
    def __init__(self, listener: Listener, server_class: type[Server] = Noting, **options: Any) -> None:
        self.client, served = socket.socketpair()
        self.client.setblocking(False)
        self.ws = WebSocket({}, "/pair", options=Options(**options))
        self.ws.connection = Connection(served.detach(), FrameProtocol(), self.ws.options, "192.0.2.7", "/pair")
        self.server = server_class(self.ws)
        self._stream = StreamReader()
        listener.add(self.ws, self.server)

    def heard(self) -> list[Any]:
        """The payloads of the frames that have come; a close code in the place of a close frame."""
        try:
            while data := self.client.recv(2**16):
                self._stream.feed_data(data)
        except BlockingIOError:
            pass
        found: list[Any] = []
        while True:
            parsing = Frame.parse(self._stream.read_exact, mask=False, max_size=None)
            try:
                next(parsing)
            except StopIteration as done:
                frame = done.value
                is_close = frame.opcode is Opcode.CLOSE
                found.append(int.from_bytes(frame.data[:2], "big") if is_close else frame.data.decode())
            else:
                parsing.close()
                return found


class World:
    """A listener with members, a bus, and the bus's other processes."""

    def __init__(self) -> None:
        self.listener = Listener(new_waiter=lambda: None)
        self.bus = Bus("scripted:")
        self.members: list[Member] = []
        self._sequences = {process: itertools.count(1) for process in (OTHER, THIRD)}

    def member(self, **options: Any) -> Member:
        member = Member(self.listener, **options)
        self.members.append(member)
        self.go_on()
        return member

    @property
    def transport(self) -> Scripted:
        transport = self.bus.membership.transport
        assert isinstance(transport, Scripted)
        return transport

    def group(self) -> Group:
        return self.bus.group("room", 7)

    def go_on(self) -> None:
        self.listener.poll(0)
        while self.listener.ready:
            self.listener.ready.popleft().consume()

    def until(self, condition: Any) -> None:
        wait_until(lambda: self.go_on() or condition(), "what the test waits for", 10)

    def arrives(self, kind: int, body: bytes, **place: Any) -> None:
        self.receive(kind, body, **place)
        self.go_on()

    def receive(
        self, kind: int, body: bytes, sender: bytes = OTHER, epoch: int = 1, sequence: int | None = None
    ) -> None:
        """It arrives, and nobody has had a turn since."""
        if sequence is None:
            sequence = next(self._sequences[sender])
        self.bus.membership.received(Envelope(kind, sender, epoch, sequence, "room/7", body).encode())

    def says(self, text: str, **place: Any) -> None:
        self.arrives(Kind.TEXT, envelope.exclusions([]) + text.encode(), **place)

    def end(self) -> None:
        for member in self.members:
            member.client.close()
        wait_until(lambda: self.go_on() or not self.listener.connections(), "the end", 10)
        self.bus.close()


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr("uwasp.bus.find_transport", lambda url: Scripted)
    for name, empty in (("_default", None), ("_found", {}), ("_opened", set())):
        monkeypatch.setattr(f"uwasp.bus.{name}", empty)
    world = World()
    yield world
    world.end()


def test_what_is_missing_between_two_envelopes_is_told(world, caplog):
    alice = world.member()
    world.group().add(alice.ws)
    world.says("first", sequence=5)
    world.says("second", sequence=6)
    assert alice.server.told == []
    with caplog.at_level(logging.WARNING, "uwasp.groups"):
        world.says("fourth", sequence=8)
        world.until(lambda: alice.server.told)
    assert alice.server.told == [("missed", ("room", "7"))]
    assert alice.heard() == ["first", "second", "fourth"]
    assert "the group 'room/7' on <Bus scripted:> was lost, or may have been" in caplog.text
    assert [(process, message.kind) for process, message in world.transport.told] == [(OTHER, Kind.ASK)]


def test_what_comes_twice_or_late_is_heard_once(world):
    alice = world.member()
    world.group().add(alice.ws)
    for sequence in (1, 2, 2, 1, 3):
        world.says(str(sequence), sequence=sequence)
    assert alice.heard() == ["1", "2", "3"]


def test_a_new_epoch_begins_anew(world):
    alice = world.member()
    world.group().add(alice.ws)
    world.says("old", epoch=1, sequence=900)
    world.says("new", epoch=4, sequence=1)
    world.says("of the old one", epoch=1, sequence=901)
    world.go_on()
    assert alice.heard() == ["old", "new"]
    assert alice.server.told == []
    world.says("third", epoch=5, sequence=3)
    world.until(lambda: alice.server.told == [("missed", ("room", "7"))])


def test_who_sends_to_very_many_groups_begins_epochs_seldom_and_never_goes_back(world, monkeypatch):
    monkeypatch.setattr("uwasp.membership.MOST_SEQUENCES", 64)
    for number in range(640):
        world.bus.group("user", number % 128).send("hello")
    places: dict[str, list[tuple[int, int]]] = {}
    for name, message in world.transport.published:
        places.setdefault(name, []).append((message.epoch, message.sequence))
    assert len(places) == 128
    for place in places.values():
        assert place == sorted(set(place))
        assert all(sequence == 1 for _, sequence in place)  # forgotten meanwhile
    assert max(epoch for epoch, _ in places["user/127"]) <= 640 // 32


def test_what_no_other_process_can_hear_is_counted_and_not_published(world):
    world.group().send("heard")
    world.transport.has_hearers = False
    world.group().send("not")
    world.group().notify({"heard": False})
    world.transport.has_hearers = True
    world.group().send("heard again")
    published = [(message.sequence, message.body[2:]) for _, message in world.transport.published]
    assert published == [(1, b"heard"), (4, b"heard again")]


def test_each_sender_has_a_sequence_of_its_own(world):
    alice = world.member()
    world.group().add(alice.ws)
    world.says("a", sender=OTHER, sequence=1)
    world.says("b", sender=THIRD, sequence=40)
    world.says("c", sender=OTHER, sequence=2)
    world.go_on()
    assert alice.heard() == ["a", "b", "c"]
    assert alice.server.told == []


def test_ours_comes_back_from_the_bus_and_is_discarded(world):
    alice = world.member()
    world.group().add(alice.ws)
    world.group().send("once")
    (message,) = [message for _, message in world.transport.published if message.kind == Kind.TEXT]
    world.bus.membership.received(message.encode())
    world.go_on()
    assert alice.heard() == ["once"]


def test_a_transport_that_was_deaf_is_told_of_to_all_groups_and_presence_is_asked_for(world):
    alice = world.member()
    world.group().add(alice.ws)
    world.bus.group("other").add(alice.ws)
    world.bus.membership.missed(None)
    world.until(lambda: len(alice.server.told) == 2)
    assert sorted(alice.server.told) == [("missed", ("other",)), ("missed", ("room", "7"))]
    ((whom, question),) = world.transport.told
    assert (whom, json.loads(question.body)["groups"]) == (b"all", ["room/7", "other"])


def test_who_misses_something_again_and_again_asks_for_presence_once_more_and_not_all_at_once(world, monkeypatch):
    """Else the answers that find no place are asked for once more by each who misses them, without an end."""
    monkeypatch.setattr("uwasp.membership.PART", 1)
    monkeypatch.setattr("uwasp.membership.ASKED_PERIOD", 0.1)
    monkeypatch.setattr("uwasp.membership.GATHERED", 0.3)
    alice = world.member()
    world.group().add(alice.ws)
    world.bus.group("other").add(alice.ws)

    def asked():
        return [json.loads(question.body)["groups"] for _, question in world.transport.told]

    for _ in range(100):
        world.bus.membership.missed(None)
    assert asked() == [["room/7"], ["other"]]
    world.until(lambda: len(asked()) == 3)
    assert asked()[2:] == [["room/7"]]
    world.until(lambda: len(asked()) == 4)
    for _ in range(20):
        world.listener.poll(0.02)
    assert asked()[2:] == [["room/7"], ["other"]]


def test_a_bound_that_overflows_is_told_and_what_came_before_it_is_kept(world, monkeypatch):
    """With slices of no time at all, what is not delivered to the first member waits."""
    monkeypatch.setattr("uwasp.fanout.SLICE", 0)
    world.bus = Bus("scripted:", backlog=10_000)
    alice, bob = world.member(), world.member()
    for member in (alice, bob):
        world.group().add(member.ws)
    for letter in "abc":
        world.group().send(letter * 6_000)
    world.until(lambda: alice.server.told and bob.server.told)
    for member in (alice, bob):
        assert [text[0] for text in member.heard()] == ["a"]
        assert member.server.told == [("missed", ("room", "7"))]
    world.group().send("d" * 6_000)
    world.until(lambda: alice.heard() == ["d" * 6_000])
    assert stats()["groups"]["room"]["missed"] == 2


def test_who_is_there_is_asked_once_the_group_is_heard_and_answers_are_gathered(world):
    alice = world.member()
    world.group().add(alice.ws, key="alice")
    world.transport.heard()
    (question,) = world.transport.asked
    number = json.loads(question.body)["question"]
    for begin in (0, 1):
        states = [[begin + 1, f"guest {begin}", "null"]]
        said = {"question": number, "begin": begin, "rest": 1 - begin, "members": states}
        world.arrives(Kind.STATE, envelope.dump(said), sequence=0)
    assert sorted(member.key for member in world.group().members()) == ["alice", "guest 0", "guest 1"]
    world.arrives(Kind.PRESENCE, b'{"joined":[[3,"late","null"]],"left":[1]}')
    assert sorted(member.key for member in world.group().members()) == ["alice", "guest 1", "late"]
    world.bus.membership.gone(OTHER)
    assert [member.key for member in world.group().members()] == ["alice"]


def test_those_who_join_wait_no_longer_for_one_that_does_not_answer(world, monkeypatch):
    monkeypatch.setattr("uwasp.membership.HEARD_TIMEOUT", 0.05)
    monkeypatch.setattr("uwasp.group.HEARD_TIMEOUT", 0.05)
    asked = []
    world.listener.new_waiter = lambda: asked.append(threading.Event()) or asked[-1]
    world.transport.others = 1
    world.group().add(world.member().ws)
    world.transport.heard()
    assert len(asked) == 1
    world.until(asked[0].is_set)
    world.group().add(world.member().ws)
    assert len(asked) == 1, "one joined a group that has been heard for long, and waited"


def test_for_a_group_that_all_have_left_nobody_is_asked(world):
    alice = world.member()
    for _ in range(3):
        world.group().add(alice.ws)
        world.group().remove(alice.ws)
        world.transport.heard()
    assert world.transport.asked == []


def test_an_answer_says_where_its_sender_is_so_that_the_first_loss_is_seen(world):
    alice = world.member()
    world.group().add(alice.ws)
    world.arrives(Kind.STATE, b'{"question":0,"begin":0,"rest":0,"members":[]}', sequence=10)
    world.says("eleven was lost", sequence=12)
    world.until(lambda: alice.server.told == [("missed", ("room", "7"))])


def test_we_answer_who_is_here_in_parts(world):
    for number in range(451):
        world.group().add(world.member().ws, key=f"guest {number}")
    world.arrives(Kind.ASK, b'{"question":5,"groups":["room/7","nobody"]}', sequence=0)
    answers = [(message.group, json.loads(message.body)) for process, message in world.transport.told]
    parts = [answer for group, answer in answers if group == "room/7"]
    assert [part["rest"] for part in parts] == [251, 51, 0]
    assert len([one for part in parts for one in part["members"]]) == 451
    assert [answer["members"] for group, answer in answers if group == "nobody"] == [[]]


def test_the_groups_in_which_nobody_is_here_are_one_answer_to_who_asks_for_many(world):
    world.group().add(world.member().ws, key="alice")
    world.bus.group("sent to").send("hello")
    world.arrives(Kind.ASK, b'{"question":0,"groups":["nobody","room/7","sent to"]}', sequence=0)
    here, nobody = [message for process, message in world.transport.told if process == OTHER]
    assert (here.kind, here.group, len(json.loads(here.body)["members"])) == (Kind.STATE, "room/7", 1)
    assert (nobody.kind, json.loads(nobody.body)) == (Kind.NOBODY, {"groups": [["nobody", 0, 0], ["sent to", 1, 1]]})


def test_who_answers_that_nobody_is_there_has_nobody_and_says_where_it_is(world):
    alice = world.member()
    world.group().add(alice.ws, key="alice")
    world.arrives(Kind.PRESENCE, b'{"joined":[[1,"bob","null"]],"left":[]}')
    world.arrives(Kind.PRESENCE, b'{"joined":[[1,"carol","null"]],"left":[]}', sender=THIRD)
    assert sorted(member.key for member in world.group().members()) == ["alice", "bob", "carol"]
    world.arrives(Kind.NOBODY, b'{"groups":[["no such",1,1],["room/7",1,1]]}', sequence=0)
    assert sorted(member.key for member in world.group().members()) == ["alice", "carol"]
    world.arrives(Kind.NOBODY, b'{"groups":[["room/7",1,8]]}', sender=b"a-fourth", sequence=0)
    world.says("the tenth", sender=b"a-fourth", sequence=10)
    world.until(lambda: alice.server.told == [("missed", ("room", "7"))])


def test_who_joins_while_an_answer_is_on_its_way_is_told_behind_it_and_who_sends_waits_for_neither(world):
    """Who joined or left behind the first part would be forgotten with the last."""
    for number in range(451):
        world.group().add(world.member().ws, key=f"guest {number}")
    transport, membership, went = world.transport, world.bus.membership, []
    world.until(lambda: not membership._changed)
    late = world.member()

    def tell(process, data):
        went.append("part")
        if went == ["part"]:
            sender.start()
            sender.join(10)
            assert not sender.is_alive(), "who sends waits until all is answered"
            world.group().add(late.ws, key="late")
        membership._publish_changes()

    sender = threading.Thread(target=lambda: world.group().send("meanwhile"))
    transport.tell = tell
    transport.publish = lambda channel, data: went.append(envelope.decode(data).kind)
    world.arrives(Kind.ASK, b'{"question":5,"groups":["room/7"]}', sequence=0)
    world.until(lambda: Kind.PRESENCE in went)
    assert went == ["part", Kind.TEXT, "part", "part", Kind.PRESENCE]


def test_a_process_that_is_back_is_asked_whom_it_has(world):
    alice = world.member()
    world.group().add(alice.ws)
    world.bus.membership.appeared(OTHER)
    assert world.transport.told == []
    world.bus.membership.gone(OTHER)
    world.bus.membership.appeared(OTHER)
    assert [(process, message.kind) for process, message in world.transport.told] == [(OTHER, Kind.ASK)]


def test_joining_and_leaving_is_published_in_batches(world):
    members = [world.member() for _ in range(30)]
    for member in members:
        world.group().add(member.ws)
    world.until(lambda: world.transport.published)
    ((_, message),) = world.transport.published
    assert message.kind == Kind.PRESENCE
    assert [one[0] for one in json.loads(message.body)["joined"]] == [member.ws.id for member in members]
    for member in members:
        world.group().remove(member.ws)
    assert world.transport.channels == []
    world.until(lambda: len(world.transport.published) == 2)


def test_a_slow_member_loses_its_connection_and_the_others_nothing(world):
    slow, fast = world.member(slow_member=10_000), world.member()
    for member in (slow, fast):
        world.group().add(member.ws)
    heard = []
    for _ in range(200):
        world.group().send("x" * 10_000)
        world.go_on()
        heard += fast.heard()
    assert len(heard) == 200
    assert slow.ws.close_code == 1013
    assert fast.ws.close_code is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.TEXT, b""),
        (Kind.TEXT, b"\0\0\xff\xff"),
        (Kind.TEXT, b"\0\1short"),
        (Kind.NOTIFY, b"{no JSON"),
        (Kind.CLOSE, b'{"code":1006,"reason":"","key":null}'),
        (Kind.CLOSE, b'{"code":"4000"}'),
        (Kind.CLOSE, b'{"code":4000,"reason":"' + 130 * b"x" + b'","key":null}'),
        (Kind.PRESENCE, b"[]"),
        (Kind.PRESENCE, b'{"joined":[[1,2,3]],"left":[]}'),
        (Kind.PRESENCE, b'{"joined":[[1,"key","null","now"]],"left":[]}'),
        (Kind.PRESENCE, b'{"joined":[],"left":["1"]}'),
        (Kind.PRESENCE, b'{"joined":[[1,"key","%s"]],"left":[]}' % (b"[" * 101 + b"]" * 101)),
        (Kind.NOTIFY, b"[" * 101 + b"]" * 101),
        (Kind.ASK, b'{"question":1,"groups":[1]}'),
        (Kind.ASK, b'{"question":1,"groups":["%s"]}' % (b"x" * 2**16)),
        (Kind.ASK, b'{"question":1,"groups":["\\ud800"]}'),
        (Kind.ASK, b'{"question":null,"groups":[]}'),
        (Kind.STATE, b'{"question":1}'),
        (Kind.STATE, b'{"question":1,"begin":0,"rest":0,"members":{}}'),
        (Kind.NOBODY, b'{"groups":["room/7"]}'),
        (Kind.NOBODY, b'{"groups":[["room/7",1,null]]}'),
    ],
)
def test_what_is_malformed_is_counted_logged_once_and_harms_nobody(world, caplog, kind, body):
    alice = world.member()
    world.group().add(alice.ws, key="alice")
    before = stats()["groups"].get("", {}).get("malformed", 0)
    with caplog.at_level(logging.WARNING, "uwasp.groups"):
        for _ in range(3):
            world.arrives(kind, body, sequence=0 if kind in (Kind.ASK, Kind.STATE, Kind.NOBODY) else None)
    assert stats()["groups"][""]["malformed"] == before + 3
    assert caplog.text.count("is not understood, and ignored") == 1
    world.says("still here", sequence=99)
    assert alice.heard() == ["still here"]
    assert [member.key for member in world.group().members()] == ["alice"]


@pytest.mark.parametrize("data", [b"", b"\x02 of a later version", b"\x01\x01", bytes(100)])
def test_what_is_no_envelope_harms_nobody(world, data):
    alice = world.member()
    world.group().add(alice.ws)
    world.bus.membership.received(data)
    world.says("still here")
    assert alice.heard() == ["still here"]


def test_what_a_later_release_sends_is_ignored_and_nothing_is_missing_where_it_was(world, caplog):
    alice = world.member()
    world.group().add(alice.ws)
    with caplog.at_level(logging.WARNING, "uwasp.groups"):
        world.arrives(200, b"something new that is no message", sequence=0)
        world.says("known")
        world.arrives(200, b"something new, in its place")
        world.says("also known")
    assert alice.heard() == ["known", "also known"]
    assert alice.server.told == []
    assert caplog.text == ""


def test_a_connection_that_has_ended_joins_nothing(world):
    alice = world.member()
    alice.ws.terminate()
    world.until(lambda: not world.listener.connections())
    world.group().add(alice.ws)
    assert world.group().local == []
    assert world.transport.channels == []


def test_info_and_keys_are_what_they_should_be(world):
    alice = world.member()
    group = world.group()
    for info in ({1, 2}, float("nan"), "x" * 4097, object(), json.loads("[" * 101 + "]" * 101)):
        with pytest.raises(TypeError, match="info is"):
            group.add(alice.ws, info=info)
    for key in (b"bytes", 1.5, True, "k" * 257):
        with pytest.raises(TypeError, match="a key is"):
            group.add(alice.ws, key=key)
    assert group.local == []
    group.add(alice.ws, info={"n": [1, None]}, key=42)
    (member,) = group.members()
    assert (member.key, member.info) == ("42", {"n": [1, None]})
    member.info["n"].append("mine alone")
    assert group.members()[0].info == {"n": [1, None]}


def test_a_bus_is_one_or_its_url_and_the_error_says_so(world, monkeypatch):
    with pytest.raises(TypeError, match=r"a bus is a uwasp.Bus or the URL of one, such as .*, not 3"):
        Group("room", bus=3)
    monkeypatch.setattr("uwasp.bus._default", None)
    with pytest.raises(TypeError, match=r"a bus is a uwasp.Bus or the URL of one, such as .*, not 3"):
        set_default(3, lambda: None)


def test_member_ids_tell_processes_apart(world):
    alice = world.member()
    assert alice.ws.member_id == member_id(identity(), alice.ws.id)


@pytest.mark.parametrize(
    ("parts", "error"),
    [((), TypeError), ((None,), TypeError), ((1.5,), TypeError), ((True,), TypeError), (("x" * 513,), ValueError)],
)
def test_a_group_has_a_name(parts, error):
    with pytest.raises(error):
        Group(*parts)


class Kinds(str, enum.Enum):
    ROOM = "room"


def test_parts_that_are_equal_name_one_group_and_a_uuid_is_its_text():
    assert Group(Kinds.ROOM, HTTPStatus.OK).name == Group("room", 200).name == "room/200"
    text = "0123abcd-4567-89ef-0123-456789abcdef"
    assert Group("device", uuid.UUID(text)).name == Group("device", text).name


class Comparing(Server):
    def on_notify(self, group, data):
        self.own = Group("room", 7)
        self.told_of = group


def test_the_group_that_a_server_is_told_of_equals_its_own_on_the_same_bus_alone(world, monkeypatch):
    monkeypatch.setattr("uwasp.bus._default", world.bus)
    alice = world.member(server_class=Comparing)
    Group("room", 7).add(alice.ws)
    world.group().notify("hello")
    world.go_on()
    server = alice.server
    assert server.own == server.told_of
    assert {server.own: "found"}[server.told_of] == "found"
    assert server.told_of != Group("room", 8)
    assert server.told_of != Group("room", 7, bus="scripted:2")


def test_a_member_is_a_websocket_and_no_server(world):
    for wrong in (Server(world.member().ws), None, world.member().ws.connection, "a-1"):
        for act in (world.group().add, world.group().remove):
            with pytest.raises(TypeError, match=r"a member of a group is a WebSocket, such as .* \(self.ws\), not "):
                act(wrong)


def test_who_is_excluded_is_somebody(world):
    for exclude in (5, [5], [None], object()):
        with pytest.raises(TypeError, match="who is excluded is a WebSocket, its member_id or several of them"):
            world.group().send("hello", exclude=exclude)


def test_who_asks_while_another_joins_waits_for_those_elsewhere(world):
    def meanwhile():
        world.transport.heard()
        question = json.loads(world.transport.asked[0].body)["question"]
        said = {"question": question, "begin": 0, "rest": 0, "members": [[5, "bob", "null"]]}
        world.arrives(Kind.STATE, envelope.dump(said), sequence=0)

    waiter = Pausing(meanwhile)
    world.bus.new_waiter = lambda: waiter
    world.transport.others = 1
    world.group().add(world.member().ws, key="alice")
    assert sorted(member.key for member in world.group().members(timeout=0.7)) == ["alice", "bob"]
    assert waiter.waited == [0.7]
    assert len(world.group().members()) == 2
    assert waiter.waited == [0.7]


def test_no_text_in_a_part_makes_it_another_group():
    names = [("a", "b"), ("a/b",), ("a%2Fb",), ("a", "b", ""), ("", "a", "b"), ("a%", "b"), ("a%25", "b")]
    assert len({Group(*parts).name for parts in names}) == len(names)
    assert Group("user", 42) == Group("user", "42")
    assert hash(Group("user", 42)) == hash(Group("user", "42"))


def test_a_bus_that_is_opened_again_is_another_for_those_who_have_heard_the_first(world):
    """It counts anew: as the same, what it sends would be taken for what has been heard."""
    assert world.transport.process == identity()
    with Bus("scripted:") as again:
        again.group("room", 7).send("hello", exclude=world.member().ws)
        transport = again.membership.transport
        ((_, message),) = transport.published
        assert message.sender == transport.process != identity()
        alice, bob = world.members[0], world.member()
        for member in (alice, bob):
            world.group().add(member.ws)
        world.bus.membership.received(message.encode())
        world.go_on()
        assert [alice.heard(), bob.heard()] == [[], ["hello"]]


def test_a_bus_that_many_threads_use_first_is_opened_once(world, monkeypatch):
    opened, may_go_on = [], threading.Event()

    def open_slowly(self):
        may_go_on.wait(10)
        opened.append(self)

    monkeypatch.setattr(Scripted, "open", open_slowly)
    bus = Bus("scripted:2")
    publish = Scripted.publish
    monkeypatch.setattr(Scripted, "publish", lambda self, *what: publish(self, *what) if self in opened else None)
    senders = [threading.Thread(target=bus.group("room").send, args=["hello"]) for _ in range(8)]
    for sender in senders:
        sender.start()
    may_go_on.set()
    for sender in senders:
        sender.join()
    (transport,) = opened
    assert len(transport.published) == 8


def test_the_default_bus_is_the_one_that_a_group_has_named_before(world):
    group = Group("room", bus="local:")
    assert set_default(None, threading.Event) is group.bus


def test_whoever_waits_for_answers_of_a_named_bus_does_so_as_the_handler_does(world):
    group = Group("room", bus="scripted:2")
    set_default("scripted:3", lambda: None)
    assert group.bus.new_waiter() is None
    assert group.members() == []


def test_the_error_for_a_process_without_a_bus_says_what_to_do(monkeypatch):
    monkeypatch.setattr("uwasp.bus._default", None)
    with pytest.raises(RuntimeError, match=r'uwasp\.open_bus\(url\).*such as "local:/run/mysite"'):
        Group("room").send("hello")
    monkeypatch.setattr("uwasp.takeover.uwsgi", object())
    with pytest.raises(RuntimeError, match=r'uwasp\.open_bus\("local:"\)'):
        Group("room").send("hello")


def test_whoever_makes_the_middleware_later_says_how_to_wait_on_the_default_bus(monkeypatch, world):
    monkeypatch.setattr("uwasp.bus._named_by", lambda: "scripted:4")
    bus = Group("room").bus
    assert bus.url == "scripted:4"
    assert set_default("scripted:4", lambda: None) is bus
    assert bus.new_waiter() is None


def test_messages_are_what_websockets_can_carry(world):
    with pytest.raises(TypeError, match="not int"):
        world.group().send(12)
    with pytest.raises(UnicodeEncodeError):
        world.group().send("\ud800")
    with pytest.raises(ValueError, match="the bus takes"):
        world.group().send(bytes(2**24))
    with pytest.raises(TypeError):
        world.group().notify({1, 2})
    with pytest.raises(ValueError, match="1006"):
        world.group().close(1006)


def test_who_joins_does_not_wait_until_all_others_have_been_looked_at(world, monkeypatch):
    """Thousands that join would look at millions."""
    looked = []
    monkeypatch.setattr("uwasp.membership._hears", lambda server, method: looked.append(server))
    members = [world.member() for _ in range(20)]
    looked.clear()
    for member in members:
        world.group().add(member.ws)
    assert looked == []


@pytest.mark.parametrize("turn", [1, 2])
def test_who_is_added_just_as_it_is_removed_leaves_at_its_end_all_the_same(world, monkeypatch, turn):
    alice, bob = world.member(), world.member()
    group = world.group()
    group.add(alice.ws)
    group.add(bob.ws)
    lock = LockWithARace()
    for _ in range(turn):
        lock.then = partial(setattr, lock, "then", lock.then) if lock.then else partial(group.add, alice.ws)
    with monkeypatch.context() as patch:
        patch.setattr(world.bus.membership, "_lock", lock)
        group.remove(alice.ws)
    assert not lock.then
    alice.client.close()
    world.until(lambda: alice.ws.connection not in world.listener.connections())
    assert group.local == [bob.ws]
    assert [member.key for member in group.members()] == [bob.ws.member_id]


def test_who_sends_many_in_a_row_is_not_held_for_a_slice_each_time(world, monkeypatch):
    """With slices of no time at all: the first message goes to one member, then all is left to the listener."""
    monkeypatch.setattr("uwasp.fanout.SLICE", 0)
    members = [world.member() for _ in range(3)]
    for member in members:
        world.group().add(member.ws)
    texts = [str(number) for number in range(5)]
    for text in texts:
        world.group().send(text)
    assert [member.heard() for member in members] == [["0"], [], []]
    heard = [["0"], [], []]

    def all_have_heard_all() -> bool:
        for known, member in zip(heard, members, strict=True):
            known += member.heard()
        return heard == [texts] * 3

    world.until(all_have_heard_all)


def test_who_leaves_and_comes_again_gets_nothing_out_of_order(world, monkeypatch):
    monkeypatch.setattr("uwasp.fanout.SLICE", 0)
    alice, bob = world.member(), world.member()
    for member in (alice, bob):
        world.group().add(member.ws)
    for text in "abc":
        world.group().send(text)
    for member in (alice, bob):
        world.group().remove(member.ws)
    world.group().add(bob.ws)
    world.group().send("d")
    heard = []
    world.until(lambda: heard.extend(bob.heard()) or "d" in heard)
    assert heard == sorted(heard)


def test_more_members_elsewhere_are_excluded_than_an_envelope_holds(world):
    with pytest.raises(ValueError, match="at most 65535"):
        world.group().send("hello", exclude=[f"{OTHER.hex()}-{number}" for number in range(2**16)])


class Pausing:
    """Waits as a thread does that joins: meanwhile the rest goes on, here what the test does."""

    def __init__(self, meanwhile: Any) -> None:
        self.meanwhile = meanwhile
        self.is_set = False
        self.waited: list[float] = []

    def set(self) -> None:
        self.is_set = True

    def wait(self, timeout: float) -> None:
        self.waited.append(timeout)
        self.meanwhile()


def test_who_joins_first_waits_until_the_group_is_heard_and_others_have_said_whom_they_have(world):
    def meanwhile():
        assert not waiter.is_set
        world.transport.heard()
        assert not waiter.is_set
        (question,) = world.transport.asked
        said = {"question": json.loads(question.body)["question"], "begin": 0, "rest": 0, "members": []}
        world.arrives(Kind.STATE, envelope.dump(said), sequence=0)
        assert waiter.is_set

    waiter = Pausing(meanwhile)
    world.listener.new_waiter = lambda: waiter
    world.transport.others = 1
    world.group().add(world.member().ws)
    world.group().add(world.member().ws)
    assert waiter.waited == [1.0]


def test_who_is_excluded_gets_nothing_here_and_is_named_to_others(world):
    alice, bob = world.member(), world.member()
    for member in (alice, bob):
        world.group().add(member.ws)
    elsewhere = (OTHER, 5)
    world.group().send("from here", exclude=[alice.ws, member_id(*elsewhere)])
    own = [(identity(), bob.ws.id)]
    world.arrives(Kind.TEXT, envelope.exclusions(own) + b"from there")
    assert [alice.heard(), bob.heard()] == [["from there"], ["from here"]]
    (message,) = [message for _, message in world.transport.published if message.kind == Kind.TEXT]
    assert envelope.without_exclusions(message.body) == (b"from here", [elsewhere])


def test_each_server_is_notified_with_data_of_its_own(world):
    alice, bob = world.member(), world.member()
    for member in (alice, bob):
        world.group().add(member.ws)
    world.group().notify({"n": []})
    world.arrives(Kind.NOTIFY, b'{"n":[]}')
    notified = [data for member in (alice, bob) for _, _, data in member.server.told]
    assert notified == [{"n": []}] * 4
    assert len({id(data) for data in notified}) == 4


def test_those_with_a_key_are_closed_here_and_others_are_told_the_key(world):
    alice, bob = world.member(), world.member()
    for member, key in ((alice, "alice"), (bob, "bob")):
        world.group().add(member.ws, key=key)
    world.group().close(4001, "logged out", key="alice")
    world.go_on()
    assert [alice.heard(), bob.heard()] == [[4001], []]
    (message,) = [message for _, message in world.transport.published if message.kind == Kind.CLOSE]
    assert json.loads(message.body) == {"code": 4001, "reason": "logged out", "key": "alice"}
    world.arrives(Kind.CLOSE, b'{"code":4002,"reason":"","key":"nobody"}')
    assert bob.heard() == []
    world.arrives(Kind.CLOSE, b'{"code":4002,"reason":"","key":"bob"}')
    assert bob.heard() == [4002]


class Watching(Noting):
    def on_presence(self, group, joined, left):
        self.told.append(("presence", [member.key for member in joined], [member.key for member in left]))


def test_changes_are_gathered_before_servers_are_told_and_for_longer_in_a_large_group(world, monkeypatch):
    delays = []
    call_later = Listener.call_later
    monkeypatch.setattr(
        Listener, "call_later", lambda self, delay, action: delays.append(delay) or call_later(self, delay, action)
    )
    watcher = world.member(server_class=Watching)
    delays.clear()
    world.group().add(watcher.ws, key="watcher")
    assert delays == [pytest.approx(0.02), pytest.approx(0.05 + 0.0001)]  # for other processes, and for servers
    for number in range(20):
        world.arrives(Kind.PRESENCE, b'{"joined":[[%d,"guest %d","null"]],"left":[]}' % (number, number))
    world.until(lambda: sum(len(joined) for _, joined, _ in watcher.server.told) == 21)
    assert len(watcher.server.told) < 20
    watcher.server.told.clear()
    for member in [world.member() for _ in range(200)]:
        world.group().add(member.ws)
    world.until(lambda: watcher.server.told)
    delays.clear()
    world.arrives(Kind.PRESENCE, b'{"joined":[],"left":[3]}')
    assert delays == [pytest.approx(0.05 + 201 * 0.0001)]
    watcher.server.told.clear()
    world.until(lambda: watcher.server.told)
    assert watcher.server.told == [("presence", [], ["guest 3"])]


def test_servers_are_told_of_thousands_of_changes_in_parts_and_others_have_their_turn_in_between(world):
    watcher = world.member(server_class=Watching)
    world.group().add(watcher.ws, key="watcher")
    world.until(lambda: watcher.server.told)
    watcher.server.told.clear()
    for begin in range(0, 1200, 200):
        joined = [[number, f"guest {number}", "null"] for number in range(begin, begin + 200)]
        world.receive(Kind.PRESENCE, envelope.dump({"joined": joined, "left": []}))
    turns = []
    world.until(lambda: turns.append(len(watcher.server.told)) or turns[-1] == 3)
    assert [len(joined) for _, joined, _ in watcher.server.told] == [500, 500, 200]
    assert {1, 2} <= set(turns)


def test_nobody_waits_until_thousands_of_a_process_that_is_gone_are_taken_out(world, monkeypatch):
    class Looking:
        """A lock that says how many members are known each time that it is free."""

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *exception):
            known.append(len(here.presence))
            lock.release()

    world.group().add(world.member().ws)
    for begin in range(0, 1200, 200):
        joined = [[number, None, "null"] for number in range(begin, begin + 200)]
        world.arrives(Kind.PRESENCE, envelope.dump({"joined": joined, "left": []}))
    membership = world.bus.membership
    here, lock, known = membership._groups["room/7"], membership._lock, []
    with monkeypatch.context() as patch:
        patch.setattr(membership, "_lock", Looking())
        membership.gone(OTHER)
    assert known == [1201, 701, 201, 1]


def test_the_figures_are_by_the_first_part_and_say_what_was_sent_received_and_delivered(world):
    alice, bob = world.member(), world.member()
    for member in (alice, bob):
        world.group().add(member.ws)
    world.group().send("one")
    world.says("two", sequence=1)
    world.says("four", sequence=3)
    figures = {"groups": 1, "members": 2, "sent": 1, "received": 2, "delivered": 6, "missed": 1}
    assert world.bus.membership.figures() == {"room": figures}


def test_what_is_only_named_is_not_opened(world, monkeypatch):
    opened = []
    monkeypatch.setattr(Scripted, "open", lambda self: opened.append(self))
    bus = set_default("scripted:2", lambda: None)
    groups = [Group("room"), bus.group("room"), Group("room", bus="scripted:3")]
    assert opened == []
    for group in groups:
        group.send("hello")
    assert len(opened) == 2
    for bus in {group.bus for group in groups}:
        bus.close()


def test_a_process_has_one_default_bus(world):
    bus = set_default("scripted:2", lambda: None)
    assert set_default("scripted:2", lambda: None) is set_default(None, lambda: None) is set_default(bus, str) is bus
    for another in ("scripted:3", Bus("scripted:2")):
        with pytest.raises(ConfigurationError, match="give both the same"):
            set_default(another, lambda: None)


def test_no_password_of_a_bus_is_shown(world):
    for given, shown in (
        ("scripted://me:secret@host/0", "scripted://me:...@host/0"),
        ("scripted://:sec//r@et@one:1,two:2/0", "scripted://:...@one:1,two:2/0"),
        ("scripted:me:secret@host", "scripted:me:...@host"),
        ("scripted://me@host:6379/0", "scripted://me@host:6379/0"),
    ):
        assert repr(Bus(given)) == f"<Bus {shown}>"
    url = "scripted://me:secret@host/0?key_password=secret&prefix=mine"
    assert repr(Bus(url)) == "<Bus scripted://me:...@host/0?key_password=...&prefix=mine>"
    set_default("scripted:2", lambda: None)
    with pytest.raises(ConfigurationError, match=r"'scripted://me:\.\.\.@host/0\?key_password=\.\.\.&prefix=mine'"):
        set_default(url, lambda: None)


def test_a_bus_that_is_closed_tells_others_what_it_has_not_yet_and_carries_all_for_a_second(world, monkeypatch):
    closed = []
    monkeypatch.setattr(Scripted, "close", lambda self, timeout: closed.append((timeout, len(self.published))))
    world.group().add(world.member().ws, key="alice")
    transport = world.transport
    assert transport.published == []
    world.bus.close()
    ((_, message),) = transport.published
    assert [member[1] for member in json.loads(message.body)["joined"]] == ["alice"]
    assert closed == [(1.0, 1)]
    with pytest.raises(RuntimeError, match="is closed"):
        world.group().send("too late")
