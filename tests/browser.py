"""A headless Chromium for tests, driven over the DevTools protocol.

https://chromedevtools.github.io/devtools-protocol/ has the methods and events that are named here. One connection
carries all: a tab is a *session* of its own on it.
"""

from __future__ import annotations

import base64
import json
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from processes import START_TIMEOUT, Process, require_program, wait_until

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    # Nothing but what the test asks for:
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    # A tab behind another runs at full speed:
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
)


class Browser(Process):
    """A Chromium with a fresh profile.

    Args:
        folder: where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        program = require_program("chromium", "/usr/bin/chromium")
        self._at_end = ExitStack()
        # Not in `folder`, where pytest would keep some 10 MB of it.
        temporary = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        profile = Path(self._at_end.enter_context(temporary))
        port_file = profile / "DevToolsActivePort"
        self._connection: ClientConnection
        self._numbers = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._sessions: dict[str, Page] = {}
        command = [str(program), *OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        super().__init__([*command, "about:blank"], folder / "chromium.log")
        try:
            wait_until(lambda: self._ended() or (port_file.exists() and port_file.read_text().count("\n")), "Chromium")
            port, path = port_file.read_text().split()
            url = f"ws://127.0.0.1:{port}{path}"
            devtools = connect(url, max_size=None, compression=None, ping_interval=None, proxy=None)
            self._connection = self._at_end.enter_context(devtools)
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def _ended(self) -> bool:
        if self.popen.poll() is not None:
            raise AssertionError(f"Chromium ended with {self.popen.returncode}:\n{self.output}")
        return False

    def open(self, url: str, width: int = 1000, height: int = 700) -> Page:
        """Open a tab and wait until its page is loaded."""
        target: str = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session: str = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self._sessions[session] = Page(self, target, session)
        page.call("Page.enable")
        page.call("Runtime.enable")
        page.call("Log.enable")
        page.call("Network.enable")
        page.call("Emulation.setFocusEmulationEnabled", {"enabled": True})  # each tab as if it were in front
        page.resize(width, height)
        page.navigate(url)
        return page

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._numbers += 1
        number = self._numbers
        command = {"id": number, "method": method, "params": parameters or {}}
        if session is not None:
            command["sessionId"] = session
        self._connection.send(json.dumps(command))
        while number not in self._answers:
            self._receive()
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> None:
        message = json.loads(self._connection.recv(START_TIMEOUT))
        if "id" in message:
            self._answers[message["id"]] = message
        elif message.get("sessionId") in self._sessions:
            self._sessions[message["sessionId"]].note(message["method"], message["params"])

    def forget(self, session: str) -> bool:
        """For a tab that is about to close; return whether it was known."""
        return self._sessions.pop(session, None) is not None

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        with self._at_end:
            return super().stop(with_signal)


class Page:
    """A tab.

    Attributes:
        errors: what went wrong in the page: exceptions that nobody caught, and what the browser logged as an error.
        requests: the addresses that the page asked for, WebSockets too.
    """

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.errors: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call a method of the protocol for this tab."""
        return self._browser.call(method, parameters, self._session)

    def note(self, method: str, parameters: dict[str, Any]) -> None:
        """An event of the protocol."""
        if method == "Runtime.exceptionThrown":
            self.errors.append(_exception(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(parameters["url"])

    def navigate(self, url: str) -> None:
        """Go to an address, and wait until its page is loaded."""
        error = self.call("Page.navigate", {"url": url}).get("errorText")
        if error:
            raise RuntimeError(f"{url}: {error}")
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page, of a promise the value that it is resolved with."""
        parameters = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", parameters)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {_exception(answer['exceptionDetails'])}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout: float = START_TIMEOUT) -> None:
        """Wait until a JavaScript expression is true in the page."""
        try:
            wait_until(lambda: self.evaluate(f"Boolean({expression})"), expression, timeout)
        except TimeoutError as error:
            text = self.evaluate("document.body.innerText")
            raise AssertionError(f"{error}; errors {self.errors}; the page reads:\n{text}") from None

    def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait_for_text(self, selector: str, text: str, timeout: float = START_TIMEOUT) -> None:
        """Wait until the visible text of an element has `text` in it."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"{element}?.innerText.includes({json.dumps(text)})", timeout)

    def type(self, selector: str, text: str) -> None:
        """Put the focus into a field and type."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", {"text": text})

    def press_enter(self) -> None:
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", "text": "\r", **key})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **key})

    def click(self, selector: str) -> None:
        """Click with the mouse, in the middle of an element."""
        box = self.evaluate(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", {"type": "mousePressed", **at})
        self.call("Input.dispatchMouseEvent", {"type": "mouseReleased", **at})

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Set the size of the page, in CSS pixels, and whether it is a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, color_scheme: str) -> None:
        """Have the user prefer `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": color_scheme}
        self.call("Emulation.setEmulatedMedia", {"features": [feature]})

    def screenshot(self, path: Path) -> None:
        """Save what is seen as PNG."""
        self.call("Page.bringToFront")  # a tab behind another is drawn slowly
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"]))

    def close(self) -> None:
        """Close the tab, as its user does, unless it is closed."""
        if self._browser.forget(self._session):
            self._browser.call("Target.closeTarget", {"targetId": self._target})


def _exception(details: dict[str, Any]) -> str:
    return str(details.get("exception", {}).get("description") or details["text"])
