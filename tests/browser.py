"""Headless Chromium driven through its own pipe (Chrome DevTools Protocol: JSON messages that end with a zero byte)."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

FLAGS = ["--headless=new", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PROGRAMS = ("chromium", "google-chrome", "chromium-browser")
PATIENCE = 60  # seconds that a page may take to load


def program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One browser window; use as `with Browser() as browser`."""

    def __enter__(self) -> "Browser":
        self._closing = contextlib.ExitStack()
        self._events: list[dict] = []
        self._count = 0
        profile = self._closing.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        command = [program(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *command]  # its fixed descriptors
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(shell, pass_fds=(theirs_in, theirs_out), stdout=quiet, stderr=quiet)
        self._closing.callback(self._process.wait, 20)
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = open(ours_in, "rb"), open(ours_out, "wb", buffering=0)
        self._closing.callback(self._in.close)
        self._closing.callback(self._out.close)  # which ends the browser
        self._session: str | None = None
        targets = self.devtools("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.devtools("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.devtools(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def _read(self) -> dict:
        message = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return json.loads(message)

    def devtools(self, command: str, **values: object) -> dict:
        self._count += 1
        call = {"id": self._count, "method": command, "params": values}
        self._out.write(json.dumps(call | ({"sessionId": self._session} if self._session else {})).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._count:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message["result"]
            self._events.append(message)

    def look(self, width: int, dark: bool) -> None:
        """Emulate a screen width and the reader's color scheme from now on."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        address = page.resolve().as_uri()
        self.devtools("Page.navigate", url=address)
        self.wait(f"return performance.timing.loadEventEnd > 0 && location.href == {json.dumps(address)}")

    def wait(self, script: str) -> None:
        """Wait until a script returns true; it may run while a page loads."""
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(RuntimeError):  # its page is gone
                if self.run(script):
                    return
            assert time.monotonic() < end, script
            time.sleep(0.05)

    def run(self, script: str) -> object:
        """Run a script and return the value of its `return`."""
        expression = f"(async () => {{ {script} }})()"
        answer = self.devtools("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _take(self, *methods: str) -> list[dict]:
        taken = [event["params"] for event in self._events if event["method"] in methods]
        self._events = [event for event in self._events if event["method"] not in methods]
        return taken

    def requests(self) -> list[str]:
        """Addresses requested since the last call."""
        return [event["request"]["url"] for event in self._take("Network.requestWillBeSent")]

    def messages(self) -> list[str]:
        """Console messages and errors since the last call."""
        return list(
            map(json.dumps, self._take("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"))
        )

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        picture = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))
