"""The local bus: who may join it, what is bounded, what a fault of one process costs the others."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import secrets
import shutil
import signal
import socket
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from peer import Teller
from processes_on_bus import Kind, Peer, Peers, wait_until
from uwasp import local_folder, open_bus, takeover
from uwasp.exceptions import ConfigurationError
from uwasp.local_folder import Address, Folder
from uwasp.local_transport import LocalTransport
from uwasp.native import start_thread

HELLO, SUBSCRIBE, DATA, BEAT = 1, 2, 6, 8
BOUND = 2**20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has several users")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one, whoever runs the tests: the path of a Unix socket has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="uwasp-") as folder:
        yield Path(folder)


@pytest.fixture
def kind(tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """The local bus alone."""
    folder = tmp_path_factory.mktemp("bus")
    return Kind("local", f"local:{folder}/bus?bound={BOUND}", gone_within=2.0, env={})


@pytest.fixture
def folder(kind: Kind) -> Path:
    return Path(kind.url.removeprefix("local:").partition("?")[0])


def frame(number: int, body: bytes = b"") -> bytes:
    return struct.pack(">IB", len(body), number) + body


def hello(process: bytes, version: int = 1) -> bytes:
    return frame(HELLO, bytes([version]) + process)


@pytest.fixture
def link_to(folder: Path) -> Iterator[Callable[[Peer], socket.socket]]:
    """A link to a process, written by the test."""
    links = []

    def connect(peer: Peer) -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        links.append(link)
        link.settimeout(10)
        # The file of the socket is there before anybody listens to it.
        wait_until(lambda: link.connect_ex(str(folder / peer.id)) == 0, "its socket")
        return link

    yield connect
    for link in links:
        link.close()


def test_it_is_known_whether_another_process_can_hear_a_channel(peers: Peers) -> None:
    a, b = peers.open(2)
    a.hear("news", "own")
    b.hear("news")

    def may_be_heard(channel: str) -> bool:
        return bool(a.answer("may_be_heard", channel)[2])

    wait_until(lambda: not may_be_heard("own"), "a has met all that are there")
    assert may_be_heard("news")
    b.unsubscribe("news")
    wait_until(lambda: not may_be_heard("news"), "a has learned that b has left")


# A process that does not read.


def test_a_stopped_process_costs_its_own_messages_alone_and_is_told_what_it_missed(peers: Peers) -> None:
    a, b, c = peers.open(3)
    b.hear("news")
    c.hear("news")
    c.signal(signal.SIGSTOP)
    sent, size = 0, 10_000
    for _ in range(40):  # 16 MB, of which c takes what its socket and the bound hold
        a.answer("burst", "news", "a", sent, 40, size)
        sent += 40
        wait_until(lambda: b.answer("counted")[1] == sent, "b to hear all")  # noqa: B023
    assert not b.find("missed")
    dropped = a.answer("attribute", "dropped")[2]
    assert dropped > sent // 2
    c.signal(signal.SIGCONT)
    c.wait("missed", "news")
    a.publish("news", "after")
    c.wait("received", "after")
    b.wait("received", "after")
    _, counted, in_order = c.answer("counted")
    assert counted == sent - dropped
    assert in_order
    assert c.find("missed") == [["missed", "news"]]


def test_a_publisher_is_not_held_up_nor_fed_by_a_process_that_does_not_read(peers: Peers) -> None:
    a, b = peers.open(2)
    b.hear("news")
    a.answer("burst", "news", "a", 0, 1000, 10_000)
    b.signal(signal.SIGSTOP)
    before = a.answer("memory")[1]
    for number in range(1, 21):  # 200 MB
        *_, of_cpu = a.answer("burst", "news", "a", 1000 * number, 1000, 10_000)
        assert of_cpu < 1
    assert a.answer("memory")[1] - before < 50_000
    a.wait("gone", b.id)


def test_a_process_that_was_stopped_for_long_takes_nobody_for_gone(peers: Peers) -> None:
    a, b, c = peers.open(3)
    c.hear("news")
    c.signal(signal.SIGSTOP)
    for other in (a, b):
        other.wait("gone", c.id)
    time.sleep(2)
    c.signal(signal.SIGCONT)
    for other in (a, b):
        other.wait("appeared", c.id, count=2)
    a.publish("news", "after")
    c.wait("received", "after")
    assert not c.find("gone")


def test_who_missed_something_on_many_channels_is_told_that_it_may_be_any(peers: Peers) -> None:
    a, b = peers.open(2)
    channels = [f"channel {number}" for number in range(300)]
    b.hear(*channels)
    b.signal(signal.SIGSTOP)
    a.answer("burst", channels[0], "a", 0, 400, 10_000)
    for channel in channels:
        a.publish(channel, "x")
    a.answer("counted")
    b.signal(signal.SIGCONT)
    b.wait("missed", None)


def test_what_is_told_and_lost_is_missed_on_any_channel(peers: Peers) -> None:
    a, b = peers.open(2)
    b.hear("news")
    b.signal(signal.SIGSTOP)
    a.answer("burst", "news", "a", 0, 400, 10_000)
    a.tell(b.id, "lost")
    a.answer("counted")
    b.signal(signal.SIGCONT)
    b.wait("missed", None)
    a.tell(b.id, "after")
    b.wait("received", "after")
    assert "lost" not in b.received


def test_nobody_waits_for_long_to_hear_because_another_is_stopped(peers: Peers) -> None:
    a, b, c = peers.open(3)
    c.signal(signal.SIGSTOP)
    begun = time.monotonic()
    a.hear("news")
    assert 0.5 < time.monotonic() - begun < 2
    begun = time.monotonic()
    for number in range(20):
        a.hear(f"channel {number}")
    assert time.monotonic() - begun < 1
    b.publish("news", "heard")
    a.wait("received", "heard")
    c.signal(signal.SIGCONT)
    a.wait("missed", "news")  # what c may have published before it knew
    c.publish("news", "of c")
    a.wait("received", "of c")


def test_nobody_waits_for_longer_than_a_second_for_one_that_lives_and_does_not_answer(
    peers: Peers, folder: Path, link_to: Callable[[Peer], socket.socket]
) -> None:
    (a,) = peers.open(1)
    other = secrets.token_bytes(8)
    with socket.socket(socket.AF_UNIX) as listening:
        link = link_to(a)
        listening.bind(str(folder / other.hex()))
        listening.listen()
        link.sendall(hello(other))
        a.wait("appeared", other.hex())
        begun = time.monotonic()
        a.subscribe("news")
        while not a.find("heard", "news"):
            link.sendall(frame(BEAT))
            time.sleep(0.1)
        assert 0.9 < time.monotonic() - begun < 3


def test_a_process_that_begins_beside_a_stopped_one_is_held_up_no_longer_than_a_second(peers: Peers) -> None:
    a, b = peers.open(2)
    a.hear("news")
    b.hear("news")
    b.signal(signal.SIGSTOP)
    script = peers.start()
    script.open()
    script.publish("news", "of the script")
    assert script.answer("ask", "news", "?", event="expected")[2] == 1  # what b hears is not known
    a.wait("received", "of the script", timeout=3)
    b.signal(signal.SIGCONT)
    b.wait("missed", None)


def test_what_is_subscribed_to_while_one_is_stopped_has_a_bound_and_is_known_to_it_after(peers: Peers) -> None:
    a, b = peers.open(2)
    b.signal(signal.SIGSTOP)
    for _ in range(30):
        for number in range(100):
            a.subscribe(f"{number} {'x' * 1000}")
            a.unsubscribe(f"{number} {'x' * 1000}")
    a.hear("news")
    b.signal(signal.SIGCONT)
    b.answer("counted")
    wait_until(lambda: b.answer("ask", "news", "?", event="expected")[2] == 1, "b to know what a hears")
    b.publish("news", "of b")
    a.wait("received", "of b")


def test_a_process_whose_hub_is_held_is_not_taken_for_gone(peers: Peers) -> None:
    pytest.importorskip("gevent")
    (a,) = peers.open(1)
    (b,) = peers.open(1, UWASP_PATCH="1")
    peers.acquainted(a, b)
    b.hear("news")
    b.answer("hold", 3.0, event="held")
    assert not a.find("gone")
    assert not b.find("gone")


# What is not what it should be.


def garbage() -> dict[str, bytes]:
    other = secrets.token_bytes(8)
    return {
        "no frame": b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        "another version": hello(other, version=2),
        "a short identity": hello(other[:5]),
        "no identity": frame(HELLO),
        "a message before the name": frame(DATA, b"x"),
        "a frame that is too long": hello(other) + struct.pack(">IB", 2**24 + 1, DATA),
        "a second name": hello(other) + hello(secrets.token_bytes(8)),
        "a channel that is no text": hello(other) + frame(SUBSCRIBE, b"\xff\xfe"),
        "a number that is none": hello(other) + frame(4, b"x"),
        "an acknowledgement that is none": hello(other) + frame(5, b""),
    }


@pytest.mark.parametrize("what", garbage())
def test_what_is_no_frame_is_counted_and_ends_that_link_alone(
    peers: Peers, link_to: Callable[[Peer], socket.socket], what: str
) -> None:
    a, b = peers.open(2)
    a.hear("news")
    bad = link_to(a)
    bad.sendall(garbage()[what])
    assert bad.recv(1) == b""
    assert a.answer("attribute", "malformed")[2] == 1
    assert "the local bus cuts off" in a.output
    b.publish("news", "goes on")
    a.wait("received", "goes on")
    assert a.received == ["goes on"]
    assert not a.find("gone", b.id)


@pytest.mark.parametrize("env", [{}, {"UWASP_PATCH": "1"}], ids=["", "patched"])
def test_many_bad_links_are_logged_once(
    peers: Peers, link_to: Callable[[Peer], socket.socket], env: dict[str, str]
) -> None:
    (a,) = peers.open(1, **env)
    for _ in range(20):
        bad = link_to(a)
        bad.sendall(b"nothing that is known\r\n")
        assert bad.recv(1) == b""
    assert a.answer("attribute", "malformed")[2] == 20
    assert a.output.count("the local bus cuts off") == 1


def test_who_says_to_be_the_process_itself_is_cut_off(peers: Peers, link_to: Callable[[Peer], socket.socket]) -> None:
    (a,) = peers.open(1)
    bad = link_to(a)
    bad.sendall(hello(a.process))
    assert bad.recv(1) == b""
    assert not a.find("appeared")


def test_who_connects_and_says_nothing_is_cut_off_after_a_while(
    peers: Peers, link_to: Callable[[Peer], socket.socket]
) -> None:
    (a,) = peers.open(1)
    silent = link_to(a)
    assert silent.recv(1) == b""
    assert a.answer("attribute", "malformed")[2] == 0


def test_kinds_of_frames_of_a_later_release_are_skipped(peers: Peers, link_to: Callable[[Peer], socket.socket]) -> None:
    (a,) = peers.open(1)
    other = secrets.token_bytes(8)
    link_to(a).sendall(hello(other) + frame(200, b"something new") + frame(DATA, b"text"))
    a.wait("received", "text")
    assert a.find("appeared", other.hex())


def test_a_frame_that_comes_in_pieces_is_one(peers: Peers, link_to: Callable[[Peer], socket.socket]) -> None:
    (a,) = peers.open(1)
    link = link_to(a)
    for number in hello(secrets.token_bytes(8)) + frame(DATA, b"text") + frame(DATA, b"") + frame(DATA, b"more"):
        link.sendall(bytes([number]))
    a.wait("received", count=3)
    assert a.received == ["text", "", "more"]


def test_two_whose_link_was_cut_meet_again_and_are_told_that_something_may_be_lost(
    peers: Peers, link_to: Callable[[Peer], socket.socket]
) -> None:
    a, b, c = peers.open(3)
    for peer in (a, b, c):
        peer.hear("news")
    link_to(a).sendall(hello(b.process) + b"x" * 1000)  # as if b, begun anew, wrote what is no frame
    a.wait("gone", b.id)
    peers.acquainted(a, b)
    a.wait("appeared", b.id, count=2)
    b.wait("appeared", a.id, count=2)
    a.wait("missed", None)
    b.wait("missed", None)
    a.publish("news", "of a")
    b.wait("received", "of a")
    b.publish("news", "of b")
    a.wait("received", "of b")
    assert not c.find("gone")
    assert not c.find("missed")


def test_a_process_that_has_no_descriptor_left_keeps_those_it_knows_and_meets_others_later(peers: Peers) -> None:
    a, b = peers.open(2)
    a.hear("news")
    used = max(int(name) for name in os.listdir(f"/proc/{a.popen.pid}/fd")) + 1
    soft, hard = resource.prlimit(a.popen.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(a.popen.pid, resource.RLIMIT_NOFILE, (used, hard))
    c = peers.start()
    c.open()
    peers.acquainted(b, c)
    wait_until(lambda: "the local bus cannot accept a process" in a.output, "a line in the log")
    time.sleep(2)
    b.publish("news", "of b")
    a.wait("received", "of b")
    assert not b.find("gone")
    resource.prlimit(a.popen.pid, resource.RLIMIT_NOFILE, (soft, hard))
    peers.acquainted(a, b, c)
    assert "the local bus failed" not in a.output
    c.hear("other")
    a.publish("other", "of a")
    c.wait("received", "of a")


# The folder.


def test_the_folder_and_what_is_in_it_are_for_the_user_alone(peers: Peers, folder: Path) -> None:
    (a,) = peers.open(1)
    wait_until((folder / a.id).exists, "its socket")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == [a.id]


def test_who_closes_takes_its_socket_along_and_who_was_killed_loses_it_to_others(peers: Peers, folder: Path) -> None:
    a, b, c = peers.open(3)
    b.close(5.0)
    b.wait("closed")
    assert not (folder / b.id).exists()
    assert (folder / c.id).exists()
    c.kill()
    os.utime(folder / c.id, (0, 0))  # it is not one that is about to listen
    wait_until(lambda: not (folder / c.id).exists(), "the socket of the dead to go")
    assert (folder / a.id).exists()


def test_a_socket_that_was_removed_is_made_again(peers: Peers, folder: Path) -> None:
    (a,) = peers.open(1)
    wait_until((folder / a.id).exists, "its socket")
    (folder / a.id).unlink()
    (b,) = peers.open(1)
    peers.acquainted(a, b)
    wait_until((folder / a.id).exists, "its socket")
    (c,) = peers.open(1)
    peers.acquainted(a, b, c)


def test_a_folder_that_was_removed_is_made_again_and_nobody_parts(peers: Peers, folder: Path) -> None:
    a, b = peers.open(2)
    folder.rename(folder.with_name("elsewhere"))
    wait_until((folder / a.id).exists, "a's socket")
    wait_until((folder / b.id).exists, "b's socket")
    (c,) = peers.open(1)
    peers.acquainted(a, b, c)
    assert not a.find("gone")
    assert not b.find("gone")


def test_a_name_is_held_by_one_again_when_the_folder_was_removed(peers: Peers, folder: Path) -> None:
    """Until then two may, as the one that holds it has a file that the other does not see."""
    a, b = peers.open(2)
    for peer in (a, b):
        peer.claim("a name")
    wait_until(lambda: holds(a, "a name"), "the first to hold it")
    assert not holds(b, "a name")
    shutil.rmtree(folder)
    wait_until(lambda: (folder / a.id).exists() and (folder / b.id).exists(), "both to be there again")
    wait_until(lambda: holds(b, "a name"), "the other to hold it, as it asks first")
    assert not holds(a, "a name")
    b.answer("close", 5.0, event="closed")
    wait_until(lambda: holds(a, "a name"), "the first to hold it again")


def holds(peer: Peer, name: str) -> bool:
    """Whether a process holds a name; it takes it if it is free."""
    return bool(peer.answer("holds", name)[2])


def test_a_process_without_a_folder_goes_on_alone_and_joins_when_there_is_one(peers: Peers, folder: Path) -> None:
    (folder.parent / "file").write_text("")
    b = peers.start(url=f"local:{folder.parent}/file")
    b.open()
    b.hear("news")
    b.publish("news", "to nobody")
    assert b.answer("ask", "news", "?", event="expected")[2] == 0
    wait_until(lambda: "the local bus finds no other processes" in b.output, "a line in the log")
    b.signal(signal.SIGSTOP)
    (folder.parent / "file").unlink()
    c = peers.start(url=f"local:{folder.parent}/file")
    c.open()
    wait_until((folder.parent / "file" / c.id).exists, "the other to be there")
    c.publish("news", "to nobody")
    assert c.answer("ask", "news", "?", event="expected")[2] == 0
    b.signal(signal.SIGCONT)
    b.wait("missed", None)  # while it was deaf
    c.publish("news", "text")
    b.wait("received", "text")
    assert b.find("missed") == [["missed", None]]
    assert not c.find("missed")
    assert b.output.count("the local bus finds no other processes") == 1
    b.close(1.0)
    assert b.wait("closed")[1] < 2


def refusal(url: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        LocalTransport.check(url)
    return str(refused.value)


def test_what_cannot_be_a_local_bus_is_refused_when_it_is_checked(tmp_path: Path) -> None:
    LocalTransport.check(f"local:{tmp_path}/bus?mode=0770&bound=65536")
    assert "outside" not in refusal("local:run/mysite")
    assert "absolute path" in refusal("local:run/mysite")
    assert "absolute path" in refusal("local://run/mysite")
    assert "no option 'color'" in refusal("local:/run/mysite?color=red")
    assert "no group 'no such'" in refusal("local:/run/mysite?group=no such")
    assert "no owner 'no such'" in refusal("local:/run/mysite?owner=no such")
    for mode in ("0777", "0070", "770x", "0707", ""):
        assert "the mode of a local bus" in refusal(f"local:/run/mysite?mode={mode}")
    for bound in ("1024", "-1", "many"):
        assert "at least 65536" in refusal(f"local:/run/mysite?bound={bound}")
    assert "are for a bus with a path" in refusal("local:?mode=0770")
    assert "cannot be made in" in refusal("local:/etc/passwd/here")
    assert "cannot be made in" in refusal(f"local:{tmp_path}/nowhere/bus")
    (tmp_path / "bus").mkdir()
    LocalTransport.check(f"local:{tmp_path}/bus")


def test_a_path_that_is_too_long_for_a_socket_is_refused_by_name() -> None:
    longest = "/" + "x" * 89
    assert len(longest) + len("/0123456789abcdef") == 107
    Address.parse(f"local:{longest}").folder()
    message = refusal(f"local:{longest}x")
    assert f"'{longest}x'" in message
    assert "90, but" in message
    assert "has 91" in message


def test_outside_uwsgi_the_bus_of_the_instance_is_refused_where_it_is_used_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(takeover, "_instance_since", None)  # a test by `uwasp.testing` may have been here before
    LocalTransport.check("local:")  # an application with it loads
    transport = LocalTransport("local:", secrets.token_bytes(8), Teller())
    with pytest.raises(ConfigurationError, match='Name a Redis or a folder, such as bus="local:/run/mysite"'):
        transport.open()
    transport.close(1.0)


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "bus").symlink_to("real")
    with pytest.raises(ConfigurationError, match="is a link or a file"):
        Folder(Address.parse(f"local:{tmp_path}/bus"))


def test_a_folder_that_everybody_may_write_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus").chmod(0o777)
    with pytest.raises(ConfigurationError, match="is open to others"):
        Folder(Address.parse(f"local:{tmp_path}/bus"))


@pytest.mark.parametrize("options", ["", "?mode=0700"])
def test_a_folder_for_everybodys_temporary_files_is_refused_and_stays_as_it_is(tmp_path: Path, options: str) -> None:
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus").chmod(0o1777)
    with pytest.raises(ConfigurationError, match=f'name one in it, such as bus="local:{tmp_path}/bus/mysite"'):
        Folder(Address.parse(f"local:{tmp_path}/bus{options}"))
    assert stat.S_IMODE((tmp_path / "bus").stat().st_mode) == 0o1777
    with pytest.raises(ConfigurationError, match="for everybody's temporary files"):  # when the application is loaded
        Address.parse(f"local:{tmp_path}/bus{options}").check()


def test_a_folder_with_the_folders_of_others_in_it_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "run" / "another").mkdir(parents=True)
    (tmp_path / "run").chmod(0o755)
    with pytest.raises(ConfigurationError, match=f'name one of its own, such as bus="local:{tmp_path}/run/mysite"'):
        Folder(Address.parse(f"local:{tmp_path}/run?mode=0700"))
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755
    Folder(Address.parse(f"local:{tmp_path}/run")).close()


@as_root
def test_a_folder_of_somebody_else_is_refused_unless_it_was_said_to_be_theirs(tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir(mode=0o700)
    os.chown(tmp_path / "bus", 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to user 12345, not to root"):
        Folder(Address.parse(f"local:{tmp_path}/bus"))
    Folder(Address.parse(f"local:{tmp_path}/bus?owner=12345")).close()


@as_root
def test_a_folder_gets_the_owner_the_group_and_the_mode_of_its_options(tmp_path: Path) -> None:
    Folder(Address.parse(f"local:{tmp_path}/bus?owner=nobody&group=daemon")).close()
    status = (tmp_path / "bus").stat()
    assert (pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name) == ("nobody", "daemon")
    assert stat.S_IMODE(status.st_mode) == 0o770
    Folder(Address.parse(f"local:{tmp_path}/bus?owner=nobody&mode=0700")).close()
    assert stat.S_IMODE((tmp_path / "bus").stat().st_mode) == 0o700


# Several users.


@as_root
def test_users_of_the_group_share_a_named_bus_and_others_do_not(peers: Peers) -> None:
    with tempfile.TemporaryDirectory(prefix="uwasp-test-") as shared:  # not pytest's, which is for one user alone
        os.chmod(shared, 0o777)
        url = f"local:{shared}/bus?group=daemon&mode=0770"
        a = peers.start(url=url, **user("nobody", "daemon"))  # of the group beside its own
        a.open()
        a.hear("news")
        b = peers.start(url=url, **user("games", "daemon"))
        root = peers.start(url=f"{url}&owner=nobody")
        for other in (b, root):
            other.open()
        peers.acquainted(a, b, root)
        for number, sender in enumerate((b, root)):
            sender.publish("news", str(number))
        a.wait("received", count=2)
        for peer in (root, b, a):  # whoever makes the file of a name, the others can hold it after
            peer.claim("a name")
            wait_until(lambda: any(holds(other, "a name") for other in (a, b, root)), "one to hold it")
        assert [holds(peer, "a name") for peer in (a, b, root)] == [False, False, True]
        root.kill()
        wait_until(lambda: holds(b, "a name"), "another to hold it")
        stranger = peers.start(url=url, **user("games"))
        stranger.open()
        wait_until(lambda: "the local bus finds no other processes" in stranger.output, "its line in the log")
        assert not a.find("appeared", stranger.id)


@as_root
def test_who_gets_past_the_folder_is_refused_by_who_listens_and_by_who_connects(peers: Peers) -> None:
    with tempfile.TemporaryDirectory(prefix="uwasp-test-") as shared:
        os.chmod(shared, 0o755)
        folder = Path(shared, "bus")
        a = peers.start(url=f"local:{folder}")
        a.open()
        wait_until((folder / a.id).exists, "its socket")
        folder.chmod(0o755)
        (folder / a.id).chmod(0o777)
        with as_user("nobody") as link:
            link.connect(str(folder / a.id))
        assert link.recv(1) == b""
        wait_until(lambda: "refuses a process of user" in a.output, "a line in the log")
        folder.chmod(0o777)
        with as_user("nobody") as other:
            other.bind(str(folder / secrets.token_hex(8)))
            other.listen()
        end, _ = other.accept()
        assert end.recv(1) == b""
        end.close()
        wait_until(lambda: "who may not join" in a.output, "a line in the log")
    link.close()
    other.close()


def user(name: str, *groups: str) -> dict[str, str]:
    """The variables that have a process of peer.py be of a user, with these groups beside its own."""
    return {"UWASP_USER": ",".join((name, *groups))}


@contextmanager
def as_user(name: str) -> Iterator[socket.socket]:
    """A socket; what is done with it meanwhile, the user does."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(20)
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        yield link
    finally:
        os.seteuid(0)


# An instance's own folder.


@pytest.fixture
def instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Folder]:
    """The folder of an instance with this master, as a process of it uses it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)

    def folder(master: int) -> Folder:
        monkeypatch.setattr(takeover, "instance", lambda: (master, 1_700_000_000))
        LocalTransport.check("local:")
        return Folder(Address.parse("local:"))

    return folder


def test_processes_of_one_instance_have_one_folder_and_each_instance_its_own(
    instances: Callable[[int], Folder], tmp_path: Path
) -> None:
    one, same, other = instances(100), instances(100), instances(200)
    assert one.path == same.path != other.path
    own = tmp_path / f"uwasp-{os.geteuid()}"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    one.close()
    assert Path(one.path).exists()
    same.close()
    assert not Path(one.path).exists()
    assert Path(other.path).exists()
    other.close()


def test_containers_that_share_a_folder_do_not_share_an_instance(
    instances: Callable[[int], Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = instances(1)
    real = os.stat

    def elsewhere(path: object, **keywords: object) -> object:
        """As in a container, whose processes are counted from 1 too."""
        if path != "/proc/self/ns/pid":
            return real(path, **keywords)  # type: ignore[call-overload]
        return os.stat_result((0, 4026539999, 0, 0, 0, 0, 0, 0, 0, 0))

    monkeypatch.setattr(local_folder.os, "stat", elsewhere)
    other = instances(1)
    assert one.path != other.path
    one.close()
    other.close()


def test_the_folders_of_dead_instances_are_removed_by_later_ones(
    instances: Callable[[int], Folder], tmp_path: Path
) -> None:
    dead, alive, other = instances(100), instances(200), tmp_path / f"uwasp-{os.geteuid()}" / "other"
    for folder in (dead, alive):
        folder.listen(secrets.token_bytes(8)).close()
    other.mkdir()
    (other / "not ours").write_text("")
    os.close(dead.fd)  # as the kernel does for who is killed
    later = instances(300)
    later.remove_dead()
    assert not Path(dead.path).exists()
    assert Path(alive.path).exists()
    assert (other / "not ours").exists()
    alive.close()
    later.close()


@as_root
def test_a_folder_that_somebody_else_made_first_is_refused(instances: Callable[[int], Folder], tmp_path: Path) -> None:
    (tmp_path / f"uwasp-{os.geteuid()}").mkdir(mode=0o700)
    os.chown(tmp_path / f"uwasp-{os.geteuid()}", 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to user 12345, not to root: name another folder"):
        instances(100)


def test_a_process_that_opens_and_closes_a_bus_again_and_again_disturbs_none_of_its_descriptors(folder):
    """The thread may end as soon as it is told to, and what would have woken it is somebody else's by then."""
    url = f"local:{folder}"
    with open_bus(url):
        wait_until(lambda: list(folder.glob("?" * 16)), "the bus to be joined")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(150):
            with open_bus(url) as again:
                again.group("room").send("hello")
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1, "the descriptors to be closed")


def test_the_thread_of_a_bus_hears_no_signal_from_its_first_moment_on() -> None:
    """uWSGI's handlers end the process, and hang where that is not the main thread."""
    masks: list[set[int]] = []
    heard = threading.Event()

    def look() -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        heard.set()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    start_thread(look)
    assert heard.wait(10)
    assert masks[0] >= signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
