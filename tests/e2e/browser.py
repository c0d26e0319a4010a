"""Chromium without a window, driven by the WebDriver protocol (W3C) through chromedriver; only the standard library."""

import base64
import http.client
import json
import os
import signal
import subprocess

import support

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name for the member that holds an element's id

FLAGS = ["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"]


class Browser:
    """One browser with its own, fresh profile under tmp. close() ends it."""

    def __init__(self, tmp):
        self.session = None
        self.port = support.free_port()
        self.log_file = open(os.path.join(tmp, "chromedriver.log"), "ab")
        # A group of its own: the browser's many processes end with it.
        self.driver = subprocess.Popen(["chromedriver", "--port=%d" % self.port], stdout=self.log_file,
                                       stderr=self.log_file, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            support.wait_for(self.listening, timeout=30)
            flags = FLAGS + ["--user-data-dir=" + os.path.join(tmp, "profile")]
            if os.geteuid() == 0:
                flags.append("--no-sandbox")
            reply = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome",
                "goog:chromeOptions": {"args": flags, "perfLoggingPrefs": {"enableNetwork": True, "enablePage": False}},
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            }}})
            self.session = "/session/" + reply["sessionId"]
        except BaseException:
            self.close()
            raise

    def listening(self):
        "chromedriver to listen"
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            c.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            value = json.loads(c.getresponse().read())["value"]
        finally:
            c.close()
        if isinstance(value, dict) and "error" in value:
            raise AssertionError("%s %s: %s" % (method, path, value.get("message")))
        return value

    def close(self):
        try:
            if self.session:
                self.call("DELETE", self.session)
        finally:
            self.session = None
            try:
                os.killpg(self.driver.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.driver.wait()
            self.log_file.close()

    # ---- tabs: commands go to the current one ----

    def tab(self):
        return self.call("GET", self.session + "/window")

    def new_tab(self):
        handle = self.call("POST", self.session + "/window/new", {"type": "tab"})["handle"]
        self.switch(handle)
        return handle

    def switch(self, handle):
        self.call("POST", self.session + "/window", {"handle": handle})

    def open(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    # ---- what a person does ----

    def find(self, css):
        return self.call("POST", self.session + "/element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css, text):
        """Keys to an element; \\ue007 is Enter, \\ue004 Tab."""
        self.call("POST", "%s/element/%s/value" % (self.session, self.find(css)), {"text": text})

    def clear(self, css):
        self.call("POST", "%s/element/%s/clear" % (self.session, self.find(css)), {})

    def press(self, key):
        """A key to whatever has the focus."""
        self.call("POST", self.session + "/actions", {"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def click(self, css):
        self.call("POST", "%s/element/%s/click" % (self.session, self.find(css)), {})

    # ---- what a person sees ----

    def run(self, script, *args):
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": list(args)})

    def text(self, css):
        return self.run("return document.querySelector(arguments[0]).innerText", css)

    def texts(self, css):
        return self.run("return Array.from(document.querySelectorAll(arguments[0]), e => e.innerText)", css)

    def devtools(self, command, **params):
        return self.call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": params})

    def look(self, width, height, dark):
        """The size of the page and the colours it is asked for."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=width < 600)
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme",
                                                               "value": "dark" if dark else "light"}])

    def screenshot(self, path, full=False):
        """Of what is in sight, or of the whole page."""
        data = (self.devtools("Page.captureScreenshot", captureBeyondViewport=True)["data"] if full
                else self.call("GET", self.session + "/screenshot"))
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    # ---- what happened ----

    def log(self, kind):
        return self.call("POST", self.session + "/se/log", {"type": kind})

    def console(self):
        """The console's messages since the last call, network errors and refusals of the page's policy among them."""
        return ["%s: %s" % (e["level"], e["message"]) for e in self.log("browser")]

    def urls(self):
        """Every address asked for since the last call, WebSockets too; without what the browser carries itself."""
        out = []
        for entry in self.log("performance"):
            m = json.loads(entry["message"])["message"]
            if m["method"] == "Network.requestWillBeSent":
                out.append(m["params"]["request"]["url"])
            elif m["method"] == "Network.webSocketCreated":
                out.append(m["params"]["url"])
        return [u for u in out if not u.startswith(("chrome:", "data:"))]
