"""The folder in which the processes of one local bus find each other: where it is, and who may be in it.

Each process has one Unix socket in it, named by its identity. Who may write into the folder may join, nobody else: the
kernel sees to that by the folder's mode, and `Folder.may_join` looks once more at who is at the other end of a socket.
While a process uses the folder it holds a shared lock (flock) on it, so that whoever gets an exclusive one knows that
the folder is nobody's.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import grp
import hashlib
import os
import pwd
import re
import stat
import struct
import tempfile
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from uwasp import takeover
from uwasp.exceptions import ConfigurationError

__all__ = ["Address", "Credentials", "Folder"]

LONGEST_PATH = 107  # bytes, of a Unix socket's
NAME_LENGTH = 16
NAME = re.compile(r"[0-9a-f]{16}")
CLAIM = re.compile(r"claim-[0-9a-f]{16}")
LEAST_BOUND, BOUND = 2**16, 2**24  # bytes
FOR_EVERYBODY = stat.S_ISVTX | stat.S_IWOTH  # in the mode of a folder such as /tmp
OPTIONS = ("bound", "group", "mode", "owner")
# A socket that refuses is a dead process's, or of one that is about to listen. Seconds.
NEW = 5.0
SO_PEERGROUPS = 59
MOST_GROUPS = 256  # that Python can ask for


@dataclass(frozen=True)
class Address:
    """What the URL of a local bus says.

    Attributes:
        path: of the folder; `None` for that of the uWSGI instance.
        owner: of the folder, as a number; `None` if it is not said.
        group: of the folder, as a number; `None` if it is not said.
        mode: of the folder; `None` if it is not said.
        bound: how many bytes may wait for one process.
    """

    path: str | None
    owner: int | None
    group: int | None
    mode: int | None
    bound: int

    @classmethod
    def parse(cls, url: str) -> Address:
        """
        Raises:
            ConfigurationError: the URL is not one of a local bus; the message says what is wrong.
        """
        parts = urlsplit(url)
        if parts.netloc or parts.fragment or (parts.path and not os.path.isabs(parts.path)):
            raise ConfigurationError(f'a local bus is "local:" or "local:" and an absolute path, not {url!r}')
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for option in options:
            if option not in OPTIONS:
                raise ConfigurationError(f"{url!r}: a local bus has no option {option!r}, only {', '.join(OPTIONS)}")
        if not parts.path and options.keys() - {"bound"}:
            raise ConfigurationError(f"{url!r}: owner, group and mode are for a bus with a path")
        group = None if "group" not in options else _number_of(url, "group", options["group"])
        mode = 0o770 if group is not None else None
        if "mode" in options:
            mode = _mode(url, options["mode"])
        return cls(
            path=os.path.normpath(parts.path) if parts.path else None,
            owner=None if "owner" not in options else _number_of(url, "owner", options["owner"]),
            group=group,
            mode=mode,
            bound=_bound(url, options["bound"]) if "bound" in options else BOUND,
        )

    def check(self) -> None:
        """
        Raises:
            ConfigurationError: there is no folder for it, or none can be made, or it is for everybody.
        """
        path = self.folder() if self.path is not None else os.path.dirname(self.folder())
        above = os.path.dirname(path)
        if not os.path.lexists(path) and not os.access(above, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"{path!r}, for a local bus, cannot be made in {above!r}: make it, or name another folder, "
                'such as bus="local:/run/mysite"'
            )
        if self.path is not None and os.path.isdir(path):
            _check_that_it_is_not_for_everybody(path, os.stat(path))

    def folder(self) -> str:
        """The path of the folder.

        Raises:
            ConfigurationError: there is none here, or its sockets' paths would be too long.
        """
        path = self.path
        if path is None:
            path = os.path.join(_private(), _instance())
        if len(os.fsencode(path)) + 1 + NAME_LENGTH > LONGEST_PATH:
            raise ConfigurationError(
                f"the path of a Unix socket has {LONGEST_PATH} bytes at most, so that of a local bus's folder "
                f"{LONGEST_PATH - 1 - NAME_LENGTH}, but {path!r} has {len(os.fsencode(path))}: "
                'name a shorter one, such as bus="local:/run/mysite"'
            )
        return path


def _number_of(url: str, option: str, value: str) -> int:
    if value.isdigit():
        return int(value)
    try:
        return pwd.getpwnam(value).pw_uid if option == "owner" else grp.getgrnam(value).gr_gid
    except KeyError:
        raise ConfigurationError(f"{url!r}: this machine has no {option} {value!r}") from None


def _mode(url: str, value: str) -> int:
    mode = int(value, 8) if re.fullmatch("[0-7]{1,4}", value) else -1
    if mode & ~0o2770 or mode & 0o700 != 0o700:
        raise ConfigurationError(f"{url!r}: the mode of a local bus is 0700, or 0770 for a group, not {value!r}")
    return mode


def _bound(url: str, value: str) -> int:
    if not value.isdigit() or int(value) < LEAST_BOUND:
        raise ConfigurationError(f"{url!r}: the bound is a number of bytes, at least {LEAST_BOUND}, not {value!r}")
    return int(value)


def _private() -> str:
    """The folder for this user's own buses: that which systemd made for the service, or one for temporary files."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return os.path.join(given or tempfile.gettempdir(), f"uwasp-{os.geteuid()}")


def _instance() -> str:
    """A name for the uWSGI instance, which no other has on any machine or in any container that shares the folder.

    Raises:
        ConfigurationError: this is no process of uWSGI's, or the platform does not tell what is needed.
    """
    instance = takeover.instance()
    if instance is None:
        raise ConfigurationError(
            'bus="local:" is that of a uWSGI instance, which this process is not of, so that nobody would hear what a '
            'group is sent here. Name a Redis or a folder, such as bus="local:/run/mysite", there and here; in a test, '
            "call uwasp.testing.alone()"
        )
    pid, started_on = instance
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        # Containers have pids of their own, so each has a process 1.
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError as error:
        raise ConfigurationError(
            f"{error}: without it, instances in several containers cannot be told apart; "
            'name a folder, such as bus="local:/run/mysite"'
        ) from error
    digest = hashlib.blake2s(f"{boot} {space} {started_on}".encode(), digest_size=6).hexdigest()
    return f"{pid}-{digest}"


@dataclass(frozen=True)
class Credentials:
    """Who is at the other end of a Unix socket. `pid` is 0 where it has none here, as in another container."""

    pid: int
    uid: int
    groups: frozenset[int]

    @classmethod
    def of(cls, socket: _socket.socket) -> Credentials:
        pid, uid, gid = struct.unpack("3i", socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        groups = {gid}
        with contextlib.suppress(OSError):  # an older kernel does not tell the others; the first is known
            packed = socket.getsockopt(_socket.SOL_SOCKET, SO_PEERGROUPS, 4 * MOST_GROUPS)
            groups.update(struct.unpack(f"{len(packed) // 4}I", packed))
        return cls(pid, uid, frozenset(groups))


class Folder:
    """The folder of a local bus, in use by this process until `close`. It is made if it is not there.

    Args:
        address: of the bus.

    Attributes:
        path: of the folder.
        fd: a descriptor of it, with the lock.

    Raises:
        ConfigurationError: it cannot be, or must not be used: it is somebody else's, or open to everybody.
        BlockingIOError: somebody is removing it at this moment; it can be made anew.
        OSError: what the platform has against it.
    """

    def __init__(self, address: Address) -> None:
        self.path = address.folder()
        self._is_named = address.path is not None
        if not self._is_named:
            os.close(_open(os.path.dirname(self.path), os.geteuid(), None, 0o700, is_private=True))
        self.fd = _open(self.path, address.owner, address.group, address.mode, is_private=not self._is_named)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if not self.is_there():
                raise BlockingIOError(f"{self.path} was removed just now")
            self._status = os.fstat(self.fd)
        except BaseException:
            os.close(self.fd)
            raise

    def is_there(self) -> bool:
        """Whether the path is still that of the folder."""
        try:
            return os.path.samestat(os.stat(self.path, follow_symlinks=False), os.fstat(self.fd))
        except FileNotFoundError:
            return False

    def processes(self) -> set[bytes]:
        """The identities of those that have, or had, a socket here."""
        return {bytes.fromhex(name) for name in os.listdir(self.fd) if NAME.fullmatch(name)}

    def has(self, process: bytes) -> bool:
        try:
            os.stat(process.hex(), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def path_of(self, process: bytes) -> str:
        return f"{self.path}/{process.hex()}"

    def listen(self, process: bytes) -> _socket.socket:
        """A socket that listens under the identity of this process."""
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            socket.setblocking(False)
            socket.bind(self.path_of(process))
            self._admit(process)
            socket.listen(1024)
        except BaseException:
            socket.close()
            raise
        return socket

    def _admit(self, process: bytes) -> None:
        """Let those connect who may write into the folder.

        By a descriptor: whoever owns the folder could put something else under the name meanwhile.
        """
        own = os.geteuid()
        mode = stat.S_IMODE(self._status.st_mode)
        if not mode & stat.S_IWGRP and self._status.st_uid == own:
            return
        fd = os.open(process.hex(), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISSOCK(found.st_mode) or found.st_uid != own or found.st_nlink != 1:
                raise PermissionError(f"{self.path_of(process)} is not the socket that was made")
            itself = f"/proc/self/fd/{fd}"
            if own == 0 or found.st_gid != self._status.st_gid:
                os.chown(itself, self._status.st_uid if own == 0 else -1, self._status.st_gid)
            os.chmod(itself, mode & 0o660)
        finally:
            os.close(fd)

    def may_join(self, other: Credentials) -> bool:
        """Whether one who is at the other end of a socket may be in the folder."""
        if other.uid in (0, os.geteuid(), self._status.st_uid):
            return True
        return bool(self._status.st_mode & stat.S_IWGRP) and self._status.st_gid in other.groups

    def remove(self, process: bytes) -> None:
        """Remove the socket of a process, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(process.hex(), dir_fd=self.fd)

    def remove_refusing(self, process: bytes) -> None:
        """Remove a socket to which nobody listens, unless somebody may be about to."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(process.hex(), dir_fd=self.fd, follow_symlinks=False)
            if stat.S_ISSOCK(found.st_mode) and time.time() - found.st_mtime > NEW:
                self.remove(process)

    def remove_dead(self) -> None:
        """Remove the folders of this user's instances that have ended without doing so."""
        if self._is_named:
            return
        parent = os.path.dirname(self.path)
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            if path != self.path:
                with contextlib.suppress(OSError):  # in use, gone meanwhile, or nothing of ours
                    _remove_unused(path)

    def close(self) -> None:
        """Use it no longer. One that was made for an instance is removed by its last process."""
        os.close(self.fd)
        if not self._is_named:
            with contextlib.suppress(OSError):  # in use by others
                _remove_unused(self.path)


def _open(path: str, owner: int | None, group: int | None, mode: int | None, is_private: bool) -> int:
    """Open a folder, which is made if it is not there, as one that may be used."""
    is_new = True
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        is_new = False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        raise ConfigurationError(f"{path!r}, the folder of a local bus, is a link or a file") from None
    try:
        _check_that_it_is_not_for_everybody(path, os.fstat(fd))
        if is_new or not is_private:
            _make_as_wanted(fd, path, is_new, owner, group, mode)
        found = os.fstat(fd)
        own = os.geteuid()
        trusted = {own} if is_private else {own, 0, owner}
        # Nobody but root and its members can have given a folder to a group.
        if found.st_uid not in trusted and (group is None or found.st_gid != group):
            raise ConfigurationError(
                f"{path!r}, the folder of a local bus, belongs to {_user(found.st_uid)}, not to {_user(own)}: "
                + ('name another folder, such as bus="local:/run/mysite"' if is_private else "say so with ?owner=")
            )
        if found.st_mode & (0o077 if is_private else 0o002):
            raise ConfigurationError(
                f"{path!r}, the folder of a local bus, is open to others (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"chmod {'0700' if is_private else 'o-w'} {path}"
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_that_it_is_not_for_everybody(path: str, found: os.stat_result) -> None:
    if found.st_mode & FOR_EVERYBODY == FOR_EVERYBODY:
        raise ConfigurationError(
            f"{path!r} is for everybody's temporary files, and a local bus needs a folder of its own: name one in it, "
            f'such as bus="local:{os.path.join(path, "mysite")}"'
        )


def _make_as_wanted(fd: int, path: str, is_new: bool, owner: int | None, group: int | None, mode: int | None) -> None:
    """Give a folder, if it is new or ours, the owner, the group and the mode that were asked for."""
    found = os.fstat(fd)
    if not is_new and os.geteuid() not in (0, found.st_uid):
        return
    owner = owner if owner is not None and is_new else found.st_uid
    group = found.st_gid if group is None else group
    is_anothers = (owner, group) != (found.st_uid, found.st_gid)
    is_otherwise = mode is not None and mode != stat.S_IMODE(found.st_mode)
    # One such as /run, in which others have theirs: they would be locked out of them.
    if (is_anothers or is_otherwise) and _has_folders(fd):
        raise ConfigurationError(
            f"{path!r} has other folders in it, and is not changed for a local bus: name one of its own, such as "
            f'bus="local:{os.path.join(path, "mysite")}", or give it the group and the mode yourself'
        )
    try:
        if is_anothers:
            os.fchown(fd, owner, group)
        if mode is not None and is_otherwise:
            os.fchmod(fd, mode)
    except PermissionError as error:
        if is_new:
            os.rmdir(path)  # for those who can do it
        raise ConfigurationError(
            f"{path!r}, the folder of a local bus, cannot be given to {_user(owner)} and group {group} "
            f"by {_user(os.geteuid())}: make it beforehand ({error})"
        ) from error


def _has_folders(fd: int) -> bool:
    with os.scandir(fd) as entries:
        return any(entry.is_dir(follow_symlinks=False) for entry in entries)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _remove_unused(path: str) -> None:
    """Remove the folder of an instance with the sockets in it, if nobody uses it.

    Raises:
        OSError: somebody does (BlockingIOError), or it is none.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in os.listdir(fd):
            if NAME.fullmatch(name) or CLAIM.fullmatch(name):
                os.unlink(name, dir_fd=fd)
        os.rmdir(path)
    finally:
        os.close(fd)
