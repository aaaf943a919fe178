"""The chat as people start it: by `uwasp dev`, or `instances.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from commands import UWASP, Command

EXAMPLES = Path(__file__).parents[2] / "examples"


class Demo(Command):
    """The chat, started and waited for.

    Args:
        folder: where its log goes.
        handler: the name of the handler.
        options: further options.
        script: what starts it instead of the command.
        port: where it listens (default: any free port).
        wait: whether to wait until it says where it listens.
    """

    def __init__(
        self, folder: Path, handler: str, *options: str, script: str | None = None, port: int = 0, wait: bool = True
    ) -> None:
        chat = EXAMPLES / "chat"
        # `hatch run demo` is this, but for the handler and the port.
        program = [sys.executable, str(chat / script)] if script else [*UWASP, "dev", str(chat / "chat.py")]
        command = [*program, "--processes", "2", "--handler", handler, "--port", str(port), *options]
        super().__init__(command, folder, wait=wait)
