"""Which names this process holds: by leases in Redis, a key for each name, which a process that is killed lets lapse.

Works on values: no clock, no socket. What is asked of Redis, in scripts so that nothing happens in between, is here.
"""

from __future__ import annotations

from uwasp_redis.resp import command

__all__ = ["Claims", "release", "take"]

# Takes the name if nobody has it, and begins the lease anew if we have it; 1 if we have it then.
TAKE = b"""local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"""
RELEASE = b"""if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0"""


def take(key: bytes, process: bytes, lease: float) -> bytes:
    """The command that takes or keeps a name, for `lease` seconds."""
    return command(b"EVAL", TAKE, b"1", key, process.hex().encode(), b"%d" % (lease * 1000))


def release(key: bytes, process: bytes) -> bytes:
    """The command that lets go of a name."""
    return command(b"EVAL", RELEASE, b"1", key, process.hex().encode())


class Claims:
    """The names that this process has claimed.

    Args:
        lease: in seconds, how long a name is held after Redis was asked for it.
        period: in seconds, how often it is asked.
    """

    def __init__(self, lease: float, period: float) -> None:
        self._lease = lease
        self._period = period
        self._held_until: dict[str, float] = {}  # 0: not held
        self._asked_at: dict[str, float] = {}

    def claim(self, name: str) -> None:
        """From any thread."""
        self._held_until.setdefault(name, 0.0)

    def holds(self, name: str, now: float) -> bool:
        """From any thread."""
        return now < self._held_until.get(name, 0.0)

    def let_go(self, now: float) -> list[str]:
        """Claim nothing any more. Returns what is held until then."""
        held = [name for name in list(self._held_until) if self.holds(name, now)]
        self._held_until.clear()
        return held

    def due(self, now: float) -> list[str]:
        """The names that Redis is to be asked for now; they count as asked for."""
        due = [name for name in list(self._held_until) if now >= self._asked_at.get(name, -self._period) + self._period]
        self._asked_at.update(dict.fromkeys(due, now))
        return due

    def ask_anew(self) -> None:
        """There is another connection: all are due."""
        self._asked_at.clear()

    def answered(self, name: str, asked_at: float, is_ours: bool) -> None:
        if name in self._held_until:
            self._held_until[name] = asked_at + self._lease if is_ours else 0.0
