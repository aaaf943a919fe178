"""What runs inside uWSGI, for the command outside: it says what it is to load, and is told how that went.

The order goes in by the environment, and the answer comes out by a descriptor, which uWSGI keeps open, whoever it
becomes and wherever it logs to.
"""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from importlib import import_module
from typing import Any

from uwasp_cli import loading
from uwasp_cli.configuration import PREFIX
from uwasp_cli.target import Target

__all__ = ["LOADED", "LOADING", "Order", "answer", "describe_failure", "ordered", "tell_options"]

TARGET = "UWASP_CLI_TARGET"
ANSWER = "UWASP_CLI_ANSWER"
# Between these lines of its output is what the application has to say while it is loaded.
LOADING = "uwasp: the application is being loaded"
LOADED = "uwasp: the application is loaded"


class Order:
    """From outside: what one uWSGI is to load, and the place for its answer.

    Args:
        target: the application.

    Attributes:
        fd: a descriptor that uWSGI is to inherit.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as this is there
        self.fd = self._file.fileno()

    def environment(self) -> dict[str, str]:
        """With this, uWSGI is started."""
        return {TARGET: json.dumps(self._target.as_dict()), ANSWER: str(self.fd)}

    def read(self) -> dict[str, Any] | None:
        """The answer, if there is one, once uWSGI has ended."""
        self._file.seek(0)
        text = self._file.read()
        return dict(json.loads(text)) if text else None


def ordered() -> Target:
    """From inside: what this uWSGI was started for."""
    return Target(**json.loads(os.environ[TARGET]))


def tell_options() -> None:
    """From inside: have `uwsgi.opt` say what is not done by its own name, in uWSGI's way."""
    # Not by way of uWASP, which is imported after the application; see `uwasp_cli.loading`.
    told: dict[str, bytes | bool] = import_module("uwsgi").opt
    for name in [name for name in told if name.startswith(PREFIX)]:
        value = told.pop(name)
        told[name.removeprefix(PREFIX)] = True if value == b"true" else value


def answer(**report: Any) -> None:
    """From inside: how it went. Once."""
    os.write(int(os.environ[ANSWER]), json.dumps(report).encode())


def describe_failure(error: BaseException, folder: str) -> dict[str, Any]:
    """The answer for an application that cannot be loaded."""
    return {
        "error": loading.describe(error, folder),
        "is_for_another_loop": loading.is_for_another_loop(error),
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }
