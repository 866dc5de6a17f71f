"""Headless Chromium driven through chromedriver's own HTTP interface (W3C WebDriver)."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

FLAGS = ["--headless=new", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
LOGS = ("browser", "performance")


def is_installed() -> bool:
    return shutil.which("chromedriver") is not None and any(map(shutil.which, ("chromium", "google-chrome")))


class Browser:
    """One browser window; use as `with Browser() as browser`."""

    def __enter__(self) -> "Browser":
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            port = next(
                found[1] for line in self._driver.stdout if (found := re.search(r"successfully on port (\d+)", line))
            )
            self._base = f"http://127.0.0.1:{port}/session"
            wanted = {"goog:chromeOptions": {"args": FLAGS}, "goog:loggingPrefs": dict.fromkeys(LOGS, "ALL")}
            answer = self._send("POST", "", {"capabilities": {"alwaysMatch": wanted}})
            self._base += f"/{answer['sessionId']}"
        except BaseException:
            self._driver.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            self._driver.stdout.close()

    def _send(self, method: str, path: str, body: dict | None = None) -> object:
        data = json.dumps(body or {}).encode() if method == "POST" else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, data, headers, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def devtools(self, command: str, **values: object) -> dict:
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def look(self, width: int, dark: bool) -> None:
        """Emulate a screen width and the reader's color scheme from now on."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path) -> None:
        self._send("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> object:
        """Run a script and return the value of its `return`."""
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def requests(self) -> list[str]:
        """Addresses requested since the last call."""
        events = [json.loads(line["message"])["message"] for line in self._log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def messages(self) -> list[str]:
        """Console messages since the last call."""
        return [line["message"] for line in self._log("browser")]

    def _log(self, kind: str) -> list[dict]:
        return self._send("POST", "/se/log", {"type": kind})

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        picture = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))
