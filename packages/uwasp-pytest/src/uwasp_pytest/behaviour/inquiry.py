"""What `limits.py` tells and does when it is asked over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.request import ProxyHandler, build_opener

from uwasp_pytest.processes import wait_until

_opener = build_opener(ProxyHandler({}))


def ask(port: int, path: str) -> Any:
    """The answer to a plain request."""
    with _opener.open(f"http://127.0.0.1:{port}/{path}", timeout=20) as response:
        return json.load(response)


def figures(port: int) -> dict[str, Any]:
    """Those of `uwasp.stats()`, and the worker's memory in bytes and its processor time in seconds."""
    found: dict[str, Any] = ask(port, "figures")
    return found


def wait_until_it_stands_still(value: Callable[[], Any]) -> None:
    """Wait until a value has not changed for half a second."""
    last, since = value(), time.monotonic()

    def stands_still() -> bool:
        nonlocal last, since
        now = value()
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 0.5

    wait_until(stands_still, "nothing to change any more")
