"""`Group` for coroutines: what waits there for an answer from other processes is awaited here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import uwasp
from uwasp.membership import HEARD_TIMEOUT
from uwasp_asyncio.acted import Acted
from uwasp_asyncio.waiter import Waiter

__all__ = ["Group"]


class _Heard(Acted):
    """Waits until what is sent to a group comes here."""

    __slots__ = ("_group",)

    def __init__(self, group: Group) -> None:
        self._group = group

    async def wait(self) -> None:
        membership = self._group.bus.membership
        if membership.is_heard(self._group.name):
            return
        waiter = Waiter()
        if not membership.is_heard(self._group.name, waiter):
            await waiter.wait(HEARD_TIMEOUT)


class Group(uwasp.Group):
    """A `uwasp.Group`, the same group as any other of its parts. `send`, `notify`, `close` and `remove` act at once."""

    __slots__ = ()

    def add(  # type: ignore[override]
        self, ws: uwasp.WebSocket, info: Any = None, key: str | int | UUID | None = None
    ) -> Acted:
        """Make a connection a member, at once. See `uwasp.Group.add`.

        Returns:
            What waits, if it is awaited or made a task, until whatever anybody sends comes here, for a second at most.
        """
        super().add(ws, info, key)
        return _Heard(self)

    async def members(self, timeout: float = 1.0) -> list[uwasp.Member]:  # type: ignore[override]
        """Everybody who is in the group, in all workers; those with one key are one. See `uwasp.Group.members`.

        Args:
            timeout: how long to wait for answers at most, in seconds, where this worker has no member of its own.
        """
        membership = self.bus.membership
        known = membership.members(self.name)
        if known is not None and membership.is_heard(self.name):
            return known
        waiter = Waiter()
        if known is None:
            answer = membership.ask(self.name, waiter.set)
            try:
                await waiter.wait(timeout)
            finally:
                found = answer()
            return found
        # Somebody is joining, and others have not said whom they have.
        if not membership.is_heard(self.name, waiter):
            await waiter.wait(timeout)
        return membership.members(self.name) or known

    async def count(self, timeout: float = 1.0) -> int:  # type: ignore[override]
        """How many `members` there are."""
        return len(await self.members(timeout))
