"""A page in headless Chromium, driven over the DevTools protocol by a pipe: any width, dark, print, scripts, PDF."""

import base64
import json
import os
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page of a browser of its own; use as a context.

    Parameters
    ----------
    path
        The file to open.
    folder
        An empty folder for the browser's profile.
    width, height
        Size of the window in CSS pixels.
    dark, media
        Colour scheme, and "print" to see on screen what is printed.
    """

    def __init__(self, path, folder, width=1280, height=900, *, dark=False, media=""):
        self.path, self.folder, self.size, self.dark, self.media = path, folder, (width, height), dark, media
        self.messages, self._last = [], 0

    def __enter__(self):
        (theirs, self._write), (self._read, mine) = os.pipe(), os.pipe()
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={self.folder}", "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        # The browser reads commands from descriptor 3 and answers on 4; sh knows one-digit descriptors only.
        shell = ["bash", "-c", f'exec 3<&{theirs} 4>&{mine}; exec "$@"', "bash", *command]
        self._process = subprocess.Popen(
            shell, pass_fds=(theirs, mine), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(mine)
        self._buffer = b""
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        width, height = self.size
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}
        self._call("Emulation.setEmulatedMedia", media=self.media, features=[scheme])
        self.open(self.path)

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)

    def open(self, path, fragment=""):
        """Open a file and wait until it is loaded."""
        self._call("Page.navigate", url=path.as_uri() + fragment)
        self.run("document.readyState === 'complete' || new Promise((done) => addEventListener('load', done))")

    def run(self, script):
        """Return the value of an expression, awaited if it is a promise."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, *, whole=False):
        """Return a PNG of the window, or of the whole page."""
        clip = {}
        if whole:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        return base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)["data"])

    def pdf(self):
        """Return the page as it is printed."""
        return base64.b64decode(self._call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])

    def _call(self, method, **params):
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.messages.append(answer["params"])

    def _next(self):
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser ended"
            self._buffer += part
        text, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(text)
