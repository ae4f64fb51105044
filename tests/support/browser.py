"""A headless Chromium, controlled through a pipe by the Chrome DevTools Protocol.

It needs no driver and opens no port. Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
HEADLESS_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PAGE_FLAGS = ("--remote-debugging-pipe", "--window-size=1400,900")
KEY_CODES = {
    "Backspace": 8,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
POLL_INTERVAL_S = 0.02
MAX_ERROR_LENGTH = 500


def find_chromium() -> str:
    """The path of Chromium. The test is skipped if it is not installed."""
    for program in PROGRAMS:
        path = shutil.which(program)
        if path is not None:
            return path
    pytest.skip("Chromium is not installed; run `apt-get install chromium`")


class Browser:
    """One page of one Chromium process.

    Args:
        profile: Folder of the browser's profile.
        downloads: Folder that downloads are saved to.

    Attributes:
        exceptions: Exceptions that scripts of the page have raised, as JSON.
    """

    def __init__(self, profile: Path, downloads: Path) -> None:
        self.exceptions: list[str] = []
        self._process = self._start(profile)
        self._buffer = b""
        self._last_id = 0
        self._session: str | None = None
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        self.send("Page.enable")
        self.send("Runtime.enable")
        self.send(
            "Browser.setDownloadBehavior",
            to_browser=True,
            behavior="allow",
            downloadPath=str(downloads),
        )

    def _start(self, profile: Path) -> subprocess.Popen[bytes]:
        program = find_chromium()
        flags = (*HEADLESS_FLAGS, *PAGE_FLAGS, f"--user-data-dir={profile}")
        chromium_input, self._write_end = os.pipe()
        self._read_end, chromium_output = os.pipe()

        def connect_pipes() -> None:
            # Chromium reads from descriptor 3 and writes to 4. The copies keep the originals valid
            # if they have these numbers.
            input_copy = os.dup(chromium_input)
            output_copy = os.dup(chromium_output)
            os.dup2(input_copy, 3)
            os.dup2(output_copy, 4)

        process = subprocess.Popen(
            [program, *flags, "about:blank"],
            preexec_fn=connect_pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(chromium_input)
        os.close(chromium_output)
        return process

    def send(self, method: str, to_browser: bool = False, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result.

        Args:
            method: Method of the protocol.
            to_browser: Send it to the browser instead of the page.
            **params: Parameters of the method.

        Returns:
            The result of the method.
        """
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        is_for_page = not to_browser and not method.startswith("Target.")
        if self._session is not None and is_for_page:
            message["sessionId"] = self._session
        os.write(self._write_end, json.dumps(message).encode() + b"\0")
        while True:
            response = self._receive()
            if response.get("method") == "Runtime.exceptionThrown":
                details = json.dumps(response["params"]["exceptionDetails"])
                self.exceptions.append(details[:MAX_ERROR_LENGTH])
            if response.get("id") == self._last_id:
                if "error" in response:
                    raise RuntimeError(f"{method}: {response['error']}")
                return response["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read_end, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path) -> None:
        """Show a file and wait until it is loaded."""
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """Evaluate an expression in the page; a promise is awaited."""
        response = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in response:
            raise RuntimeError(json.dumps(response["exceptionDetails"])[:MAX_ERROR_LENGTH])
        return response["result"].get("value")

    def wait_for(self, script: str, timeout_s: float = 60) -> None:
        """Wait until an expression is true; fail after `timeout_s` seconds."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"still false after {timeout_s} s: {script}"
            time.sleep(POLL_INTERVAL_S)

    def press(self, *keys: str, ctrl: bool = False) -> None:
        """Press keys one after the other, each a character or a name such as ArrowRight."""
        for key in keys:
            self.key_down(key, ctrl)
            self.key_up(key)

    def key_down(self, key: str, ctrl: bool = False) -> None:
        """Press a key and hold it."""
        types_character = key not in KEY_CODES and not ctrl
        self.send(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key=key,
            modifiers=2 if ctrl else 0,
            **_key_code(key),
            **({"text": key} if types_character else {}),
        )

    def key_up(self, key: str) -> None:
        """Release a key."""
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **_key_code(key))

    def insert_text(self, text: str) -> None:
        """Insert text into the focused element."""
        self.send("Input.insertText", text=text)

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a position of the page in CSS pixels."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click the centre of an element."""
        x, y = self._centre(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def _centre(self, selector: str) -> tuple[float, float]:
        x, y = self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def resize(self, width: int, height: int, *, touch: bool = False) -> None:
        """Give the page another size in CSS pixels; with `touch`, as a telephone has it."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=touch,
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)

    def prefer_colour_scheme(self, scheme: str) -> None:
        """Set the preferred colour scheme of the user, `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def tap(self, selector: str) -> None:
        """Tap the centre of an element with a finger."""
        x, y = self._centre(selector)
        self._touch([(x, y)])

    def swipe(self, selector: str, dx: float) -> None:
        """Move a finger horizontally by `dx` CSS pixels, over the centre of an element."""
        x, y = self._centre(selector)
        self._touch([(x - dx / 2 + dx * step / 5, y) for step in range(6)])

    def _touch(self, points: list[tuple[float, float]]) -> None:
        for index, (x, y) in enumerate(points):
            kind = "touchMove" if index else "touchStart"
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        # A finger that leaves while it moves starts a fling, and a tap only ends a fling.
        time.sleep(0.1 if len(points) > 1 else 0)
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self, path: Path) -> None:
        """Save a PNG of the visible page."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._write_end)
        os.close(self._read_end)


def _key_code(key: str) -> dict[str, Any]:
    if key in KEY_CODES:
        return {"code": key, "windowsVirtualKeyCode": KEY_CODES[key]}
    return {"windowsVirtualKeyCode": ord(key.upper())} if key.isalnum() else {}


@contextlib.contextmanager
def open_browser(downloads: Path) -> Iterator[Browser]:
    """Start a Chromium with an empty profile, and end it afterwards.

    The test is skipped if Chromium is not installed.

    Args:
        downloads: Folder that downloads are saved to.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(Path(profile), downloads)
        try:
            yield browser
        finally:
            browser.close()
