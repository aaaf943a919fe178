"""Where uwasp.js runs: a page of Chromium, and Node.js with a WebSocket of its own. Both evaluate JavaScript."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from browser import Browser
from processes import require_program, wait_until

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "packages" / "uwasp-js" / "uwasp.js"
NODE = "22.23.3"  # the oldest line of Node.js that has a WebSocket without being told so
LOAD = "import('{0}').then((module) => void Object.assign(globalThis, module, {{host: '{1}'}}))"
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


def npm(folder: Path, *arguments: str) -> str:
    """Run npm in a folder, and return what it says."""
    done = subprocess.run([require_program("npm"), *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def npm_install(folder: Path, *packages: str) -> Path:
    """Install packages into a folder, and return where they are then."""
    (folder / "package.json").write_text('{"private": true}')
    npm(folder, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", *packages)
    return folder / "node_modules"


def node_with_websocket(folder: Path) -> Path:
    """A Node.js that has a WebSocket: that of this machine, or npm's, which is put into `folder`."""
    node = require_program("node")
    told = subprocess.run([node, "-p", "typeof WebSocket"], capture_output=True, text=True, check=True)
    if told.stdout.strip() == "function":
        return node
    package = f"node-linux-{MACHINES[platform.machine()]}"
    return npm_install(folder, f"{package}@{NODE}") / package / "bin" / "node"


class Node:
    """A Node.js that evaluates JavaScript.

    Args:
        folder: for its files.
        program: that Node.js.
    """

    def __init__(self, folder: Path, program: Path) -> None:
        self._program = program
        for source in (HERE / "runner.js", SCRIPT):
            shutil.copy(source, folder)
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        self._folder = folder
        self._start()

    def _start(self) -> None:
        command: Sequence[str | Path] = [self._program, "runner.js"]
        self._process = subprocess.Popen(
            command, cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def open(self, host: str) -> None:
        """Begin anew."""
        self.end()
        self._start()
        self.evaluate(LOAD.format(f"{self._folder}/uwasp.js", host))

    def evaluate(self, expression: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(expression) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise RuntimeError(f"{expression}: {answer['error']}")
        return answer.get("value")

    def wait_for(self, expression: str) -> None:
        wait_until(lambda: self.evaluate(f"Boolean({expression})"), expression)

    def errors(self) -> list[str]:
        """What nobody caught."""
        return list(self.evaluate("errors"))

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


class Chromium:
    """A page of Chromium.

    Args:
        folder: for its log.
    """

    def __init__(self, folder: Path) -> None:
        self.browser = Browser(folder)
        self.page = self.browser.open("about:blank")

    def open(self, host: str) -> None:
        """Begin anew, with a page of this host."""
        self.page.close()
        self.page = self.browser.open(f"http://{host}/")
        self.evaluate(LOAD.format("/uwasp.js", host))

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait_for(self, expression: str) -> None:
        self.page.wait_for(expression)

    def errors(self) -> list[str]:
        """What nobody caught."""
        return self.page.errors

    def end(self) -> None:
        self.browser.stop()
