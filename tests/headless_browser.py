"""A headless Chromium, driven over its debugging pipe: what a test of a page needs, and no more."""

import base64
import json
import os
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_CODES = {"Enter": ("Enter", 13, "\r"), " ": ("Space", 32, " "), "Tab": ("Tab", 9, None)} | {
    name: (name, code, None) for name, code in (("ArrowLeft", 37), ("ArrowRight", 39), ("Home", 36), ("End", 35))
}


def find_chromium():
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    def __init__(self, profile):
        to_us, from_browser = os.pipe()
        to_browser, from_us = os.pipe()

        def adopt():
            os.dup2(to_browser, 3)
            os.dup2(from_browser, 4)

        options = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run")
        options += ("--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required", "--window-size=1000,800")
        self.process = subprocess.Popen(
            [find_chromium(), *options, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=adopt,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._write, self._read = os.fdopen(from_us, "wb", 0), os.fdopen(to_us, "rb", 0)
        self._buffer, self._count, self._session = b"", 0, None
        self.errors = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._write.close()
        self._read.close()

    def call(self, method, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                more = self._read.read(1 << 20)
                if not more:
                    raise RuntimeError("the browser has gone")
                self._buffer += more
            line, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(line)
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(answer["params"]["exceptionDetails"])
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def value(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script, seconds=30):
        end = time.monotonic() + seconds
        while not self.value(script):
            assert time.monotonic() < end, f"never came true: {script}"
            time.sleep(0.05)

    def press(self, key, times=1):
        code, number, text = _CODES.get(key) or (f"Key{key.upper()}", ord(key.upper()), key)
        for _ in range(times):
            down = {"key": key, "code": code, "windowsVirtualKeyCode": number} | ({"text": text} if text else {})
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **down)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=code, windowsVirtualKeyCode=number)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
