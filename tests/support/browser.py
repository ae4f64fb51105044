"""A real Chromium without a screen, driven over a pipe by its own protocol: no driver to install, no port to open."""

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

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--remote-debugging-pipe", "--window-size=1400,900",
)  # fmt: skip
CODES = {
    "Backspace": 8,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}


class Browser:
    """One page of one Chromium."""

    def __init__(self, profile: Path, downloads: Path):
        program = next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        )
        if program is None:
            pytest.skip("no Chromium on this machine (`apt-get install chromium`)")
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def pipes() -> None:  # Chromium reads 3 and writes 4
            low, high = os.dup(to_read), os.dup(to_write)
            os.dup2(low, 3)
            os.dup2(high, 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._number, self._session = b"", 0, None
        self.failures: list[str] = []
        page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self.ask("Page.enable")
        self.ask("Runtime.enable")
        self.ask(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), root=True
        )

    def ask(self, method: str, root: bool = False, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its answer. root: to the browser, not the page."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session and not root and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("method") == "Runtime.exceptionThrown":
                self.failures.append(json.dumps(answer["params"]["exceptionDetails"])[:500])
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium went away")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path) -> None:
        """Show a file, and wait until it is loaded."""
        self.ask("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, script
            time.sleep(0.02)

    def press(self, *keys: str, ctrl: bool = False) -> None:
        """Real key presses, one after the other: a character, or a name such as ArrowRight."""
        for key in keys:
            self.hold(key, ctrl)
            self.release(key)

    def hold(self, key: str, ctrl: bool = False) -> None:
        text = {} if key in CODES or ctrl else {"text": key}
        modifiers = 2 if ctrl else 0
        self.ask(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key=key,
            modifiers=modifiers,
            **_code(key),
            **text,
        )

    def release(self, key: str) -> None:
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, **_code(key))

    def write(self, text: str) -> None:
        """Text into whatever has the focus."""
        self.ask("Input.insertText", text=text)

    def move(self, x: float, y: float) -> None:
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """A real click in the middle of an element."""
        found = json.dumps(selector)
        x, y = self.run(
            f"(() => {{ const b = document.querySelector({found}).getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)


def _code(key: str) -> dict[str, Any]:
    if key in CODES:
        return {"code": key, "windowsVirtualKeyCode": CODES[key]}
    return {"windowsVirtualKeyCode": ord(key.upper())} if key.isalnum() else {}


@contextlib.contextmanager
def browser(downloads: Path) -> Iterator[Browser]:
    """A fresh Chromium, gone afterwards. Skips the test where there is none."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        opened = Browser(Path(profile), downloads)
        try:
            yield opened
        finally:
            opened.close()
