"""What `limits.py` tells and does when it is asked over HTTP."""

from __future__ import annotations

import json
from typing import Any
from urllib.request import ProxyHandler, build_opener

_opener = build_opener(ProxyHandler({}))


def ask(port: int, path: str) -> Any:
    """The answer to a plain request."""
    with _opener.open(f"http://127.0.0.1:{port}/{path}", timeout=20) as response:
        return json.load(response)


def figures(port: int) -> dict[str, Any]:
    """Those of `uwasp.stats()`, and the worker's memory in bytes and its processor time in seconds."""
    found: dict[str, Any] = ask(port, "figures")
    return found
