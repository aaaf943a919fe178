"""Clients for the tests of groups: each is a member, says what it is asked to, and notes what it is told."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

TIMEOUT = 10.0  # seconds


class Talker:
    """A client at `/talk` or `/watch`.

    Attributes:
        worker: the process that has its connection.
        id: its `member_id`.
    """

    def __init__(self, url: str, group: str, path: str = "/talk", **query: Any) -> None:
        if "info" in query:
            query["info"] = json.dumps(query["info"])
        self._stack = ExitStack()
        target = f"{url}{path}?{urlencode({'group': group, **query}, quote_via=quote)}"
        self._connection: ClientConnection = self._stack.enter_context(connect(target, max_size=None, compression=None))
        self._early: list[Any] = []
        joined = self.next("joined")
        self.worker, self.id = joined["joined"], joined["id"]

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def do(self, word: str, *arguments: Any) -> None:
        self._connection.send(json.dumps([word, *arguments]))

    def next(self, word: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next thing of that kind that it is told; what else comes before it is kept."""
        for place, kept in enumerate(self._early):
            if isinstance(kept, dict) and word in kept:
                return self._early.pop(place)  # type: ignore[no-any-return]
        ends = time.monotonic() + timeout
        while True:
            told = _told(self._connection.recv(max(0.0, ends - time.monotonic())))
            if isinstance(told, dict) and word in told:
                return told
            self._early.append(told)

    def hear(self, timeout: float = TIMEOUT) -> str | bytes:
        """The next message that the group was sent."""
        for place, kept in enumerate(self._early):
            if not isinstance(kept, dict):
                return self._early.pop(place)  # type: ignore[no-any-return]
        ends = time.monotonic() + timeout
        while True:
            told = _told(self._connection.recv(max(0.0, ends - time.monotonic())))
            if not isinstance(told, dict):
                return told
            self._early.append(told)

    def hears_nothing_before(self, marker: str) -> bool:
        """Whether the next message is that one, which was sent last."""
        return self.hear() == marker

    def members(self) -> list[Any]:
        self.do("members")
        return self.next("members")["members"]  # type: ignore[no-any-return]

    def closed(self) -> tuple[int | None, str]:
        """Wait until it is closed; by which code and reason."""
        ends = time.monotonic() + TIMEOUT
        try:
            while True:
                self._early.append(_told(self._connection.recv(max(0.0, ends - time.monotonic()))))
        except TimeoutError:
            raise
        except Exception:
            return self._connection.close_code, self._connection.close_reason or ""


def _told(message: str | bytes) -> Any:
    if isinstance(message, str) and message.startswith("{"):
        return json.loads(message)
    return message


def in_each_worker(count: int, url: str, group: str, **query: Any) -> list[Talker]:
    """One in each of so many workers: uWSGI's workers take connections as they like, so more are opened than stay."""
    found: dict[int, Talker] = {}
    with ThreadPoolExecutor(8) as at_once:
        for _ in range(30):
            for talker in at_once.map(lambda _: Talker(url, group, **query), range(8)):
                if found.setdefault(talker.worker, talker) is not talker:
                    talker.__exit__()
            if len(found) == count:
                return list(found.values())
    raise AssertionError(f"of {count} workers, {len(found)} took a connection")


def get(url: str, path: str, **query: str) -> Any:
    """What a view says."""
    with urlopen(f"{url.replace('ws:', 'http:')}{path}?{urlencode(query)}", timeout=TIMEOUT) as response:
        return json.load(response)
