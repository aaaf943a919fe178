"""The application with Socket.IO's servers, and how it is started and asked."""

from __future__ import annotations

import json
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from processes import Uwsgi

APPLICATION = Path(__file__).parent / "socketio_application.py"
# A client that polls has a thread or greenlet of uWSGI's in a request of its own.
LOOP_OPTIONS = {"threads": ("--threads", "8"), "gevent": ("--gevent", "100")}


def environment(**given: Any) -> dict[str, str]:
    """For the application: see there."""
    return {"UWASP_SOCKETIO": json.dumps(given)}


def get(uwsgi: Uwsgi, path: str) -> tuple[HTTPResponse, str]:
    """An answer to an ordinary request, and its body."""
    response = urllib.request.urlopen(f"http://{uwsgi.address}{path}", timeout=10)
    return response, response.read().decode()


def figures(uwsgi: Uwsgi) -> dict[str, Any]:
    """What the application tells of itself."""
    told: dict[str, Any] = json.loads(get(uwsgi, "/figures")[1])
    return told
