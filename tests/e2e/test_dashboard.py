"""The dashboard in a real browser against a gateway under load: live values, gaps, actions, how it looks and reads."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

import support
from browser import Browser
from support import wait_for, ws_frame, ws_recv

ENTER, TAB = "\ue007", "\ue004"
TOKEN = "a-token-of-28-characters-or-so"

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
routes:
  - {{path: /echo, upstream: echo}}
  - {{path: /hub, upstream: hub}}
"""


class Load:
    """Sessions that stay and talk, and others that come and go."""

    def __init__(self, port, stay=40):
        self.port, self.end = port, threading.Event()
        self.kept = [support.ws_open(port) for _ in range(stay)]
        self.threads = [threading.Thread(target=f) for f in (self.talk, self.churn)]
        for t in self.threads:
            t.start()

    def talk(self):
        with contextlib.suppress(OSError, EOFError, AssertionError):
            while not self.end.wait(0.05):
                for s in self.kept:
                    s.sendall(ws_frame(1, b"hello"))
                for s in self.kept:
                    ws_recv(s)

    def churn(self):
        while not self.end.wait(0.01):
            with contextlib.suppress(OSError, EOFError, AssertionError):
                support.ws_open(self.port).close()

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join()
        for s in self.kept:
            s.close()


@unittest.skipUnless(shutil.which("chromedriver"), "no chromedriver (package chromium-driver)")
class Dashboard(support.Case):
    def open(self, load=True, **kw):
        self.ws = support.free_port()
        kw.setdefault("admission", "mode: user")
        self.gw = self.gateway(BODY.format(ws=self.ws), workers=2, **kw)
        if load:
            self.load = Load(self.ws)
            self.addCleanup(self.load.stop)
        self.page = "http://127.0.0.1:%d/" % self.gw.admin_port
        self.b = Browser(self.tmp)
        self.addCleanup(self.b.close)
        self.b.open(self.page)
        self.wait_said("Live")

    def wait_said(self, text):
        wait_for(lambda: self.b.text("#said") == text, timeout=30)

    def tile(self, name):
        return dict(zip(self.b.texts("#tile-list dt"), self.b.texts("#tile-list dd:nth-of-type(1)")))[name]

    def cells(self, table):
        return self.b.run("return Array.from(document.querySelectorAll(arguments[0] + ' tbody tr'), r => "
                          "Array.from(r.cells, c => c.innerText))", table)

    def colours(self, canvas):
        """How many different ones a canvas shows."""
        return self.b.run("""const c = document.querySelector(arguments[0]);
            const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data, seen = new Set();
            for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
            return seen.size""", canvas)

    def test_live(self):
        self.open()
        wait_for(lambda: int(self.tile("Connections")) >= 40)
        seen = set()
        wait_for(lambda: seen.add((self.tile("Accepts/s"), self.tile("Messages in/s"))) or len(seen) > 2,
                 timeout=30, interval=0.5)
        live = json.loads(self.gw.get("/v1/live")[1])
        self.assertEqual([row[0] for row in self.cells("#workers")], ["0", "1"])
        self.assertEqual([row[:2] for row in self.cells("#routes")], [["/echo", "echo"], ["/hub", "hub"]])
        self.assertIn(["open", "user", "no"], [row[:3] for row in self.cells("#verdicts")])
        self.assertIn(live["instance"], self.b.text("#instance"))
        self.assertEqual(self.b.text("#gate-word"), "Open")
        self.assertIn("standing delay", self.b.text("#gate-sentence"))
        self.assertIn("gate=open", self.b.text("#line"))
        self.assertGreater(self.colours("#heat-canvas"), 5)
        charts = self.b.run("return document.querySelectorAll('.plot canvas').length")
        self.assertEqual(charts, 6)
        self.assertGreater(self.colours("#charts section:first-child canvas"), 3)
        self.b.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        wait_for(lambda: self.b.texts("#charts section:first-child tbody th") == ["open", "handshaking"])
        self.assertFalse(self.b.run("return document.getElementById('chat').hidden"))
        self.assertTrue(self.b.run("return document.getElementById('unlock').hidden"))  # there is no token

        self.gw.ctl("gate", "shut")
        wait_for(lambda: self.b.text("#gate-word") == "Shut")
        self.assertIn("operator", self.b.text("#gate-sentence"))
        self.assertIn("shut", self.b.run("return document.title"))
        wait_for(lambda: ["shut", "user", "yes"] in [row[:3] for row in self.cells("#verdicts")])
        self.gw.ctl("gate", "auto")
        wait_for(lambda: self.b.text("#gate-word") != "Shut")

        self.look_at_it()
        self.assertEqual(self.b.console(), [])
        self.assertEqual(sorted(self.b.urls()), [self.page, self.page + "v1/events", self.page + "v1/page.json"])

    def look_at_it(self):
        """Nothing is wider than the page, in both sizes and both colours; pictures for people who ask for them."""
        folder = self.tmp
        if os.environ.get("TIDEGATE_SCREENSHOTS"):
            folder = tempfile.mkdtemp(prefix="tidegate-screenshots-")
            print("screenshots in", folder)
            time.sleep(float(os.environ["TIDEGATE_SCREENSHOTS"]))
        self.b.run("document.querySelectorAll('details').forEach(d => d.open = false)")
        for dark in False, True:
            for width, height in (1280, 900), (400, 800):
                self.b.look(width, height, dark)
                # The page hears of the change a little later.
                wait_for(lambda: self.b.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light"))
                time.sleep(1.2)
                self.assertLessEqual(self.b.run("return document.documentElement.scrollWidth"), width)
                self.assertEqual(self.faint(), [])
                path = os.path.join(folder, "dashboard-%d-%s.png" % (width, "dark" if dark else "light"))
                self.b.screenshot(path, full=True)
                self.assertGreater(os.path.getsize(path), 20000)

    def faint(self):
        """Texts whose contrast with what they stand on is below 4.5 (WCAG 2 AA)."""
        return self.b.run("""
            const rgb = s => s.match(/[\\d.]+/g).map(Number);
            const lum = c => { const l = c.slice(0, 3).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
                               return .2126 * l[0] + .7152 * l[1] + .0722 * l[2]; };
            const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
                                  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
            const out = [];
            for (const e of document.querySelectorAll("body *")) {
                const text = Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim());
                if (!text || !e.checkVisibility() || e.closest("script, style, noscript, .hear, .skip")) continue;
                const a = lum(rgb(getComputedStyle(e).color)), b = lum(behind(e));
                const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
                if (ratio < 4.5) out.push(e.tagName + "." + e.className + " " + e.innerText.slice(0, 20) + " " + ratio.toFixed(2));
            }
            return out""")

    def test_reads_well(self):
        """Landmarks, headings, captions and names: what a screen reader goes by, and the keyboard."""
        self.open()
        wait_for(lambda: self.cells("#verdicts"))
        self.assertEqual(self.b.run("return ['header', 'nav', 'main', 'footer'].map(t => document.querySelectorAll(t).length)"),
                         [1, 1, 1, 1])
        levels = self.b.run("return Array.from(document.querySelectorAll('h1, h2, h3'), e => e.tagName)")
        self.assertEqual((levels[0], set(levels[1:])), ("H1", {"H2"}))
        self.assertEqual(self.b.run("return Array.from(document.querySelectorAll('main table')).filter("
                                    "t => !t.caption || !t.caption.innerText || t.querySelector('th:not([scope])')).length"), 0)
        labels = self.b.run("return Array.from(document.querySelectorAll('[role=img]'), "
                            "e => e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-describedby')).textContent)")
        self.assertEqual(len(labels), 7)
        self.assertIn("Worker 0: p99", labels[0])
        self.assertRegex(labels[1], r"^Connections: open \d+, handshaking \d+$")
        sections = self.b.run("return Array.from(document.querySelectorAll('section:not([hidden])')).filter("
                              "s => !document.getElementById(s.getAttribute('aria-labelledby'))).length")
        self.assertEqual(sections, 0)
        # Only states speak, not figures.
        live = self.b.run("return Array.from(document.querySelectorAll('[role=status], [role=alert]'), e => e.id)")
        self.assertEqual(live, ["said", "gate-sentence", "action-said", "token-said"])
        self.b.run("document.body.tabIndex = -1; document.body.focus()")
        reached = []
        for _ in range(5):
            self.b.press(TAB)
            reached.append(self.b.run("return document.activeElement.innerText.split('\\n')[0]"))
            self.assertNotEqual(self.b.run("return getComputedStyle(document.activeElement).outlineStyle"), "none")
        self.assertEqual(reached[:4], ["Skip to the content", "Chat", "Metrics", "Theme: system"])
        self.b.click("#theme")
        self.assertEqual(self.b.run("return document.documentElement.dataset.theme"), "light")
        self.b.click("#theme")
        self.assertEqual(self.b.run("return document.documentElement.dataset.theme"), "dark")
        self.assertEqual(self.faint(), [])
        self.b.open(self.page)
        wait_for(lambda: self.b.text("#theme") == "Theme: dark")

    def test_stale(self):
        """What is not known to be current says so, and recovers by itself."""
        self.open(load=False)
        pid = self.gw.gateway_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            self.wait_said("Stale")
            self.assertRegex(self.b.text("#age"), r"last data \d+ s ago")
        finally:
            os.kill(pid, signal.SIGCONT)
        self.wait_said("Live")
        self.assertEqual(self.b.text("#age"), "")

    def test_reconnects(self):
        """A new gateway in the old one's place is shown as soon as it is there."""
        self.open(load=False)
        up = "return shown.uptime_s"
        wait_for(lambda: self.b.run(up) > 3)
        before = self.b.run(up)
        os.kill(self.gw.gateway_pid, signal.SIGKILL)
        wait_for(lambda: self.b.run(up) < before, timeout=30)
        self.wait_said("Live")

    def test_too_many_viewers(self):
        """The page tries again until there is room."""
        self.open(load=False)
        self.b.open("about:blank")
        with contextlib.ExitStack() as stack:
            def full():
                "all places to be taken: that of the page is given back when the next snapshot is written to it"
                s = support.connect(self.gw.admin_port)
                s.sendall(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
                stack.callback(s.close)
                return support.recv_head(s).split()[1] == b"503"
            for _ in range(3):
                wait_for(full, timeout=30, interval=0)
                time.sleep(1)
            self.b.open(self.page)
            wait_for(lambda: self.b.text("#said") == "No data", timeout=15)
        self.wait_said("Live")

    def unlock(self, token):
        self.b.click("#unlock")
        self.b.type("#token", token + ENTER)

    def agree(self):
        wait_for(lambda: self.b.run("return document.getElementById('sure-dialog').open"))
        self.b.click("#sure-dialog button[value=yes]")

    def test_actions(self):
        path = os.path.join(self.tmp, "admin.token")
        with open(path, "w") as f:
            f.write(TOKEN + "\n")
        os.chmod(path, 0o600)
        self.open(load=False, admin=", token_file: " + path)
        wait_for(lambda: not self.b.run("return document.getElementById('unlock').hidden"))
        self.unlock("not the token at all")
        wait_for(lambda: "token" in self.b.text("#token-said"))
        self.assertTrue(self.b.run("return document.getElementById('actions').hidden"))
        self.b.click("#token-cancel")
        self.assertEqual(len([m for m in self.b.console() if "401" not in m]), 0)
        self.unlock(TOKEN)
        wait_for(lambda: not self.b.run("return document.getElementById('actions').hidden"))
        self.assertEqual(self.b.run("return document.getElementById('token').value"), "")

        self.b.click("#gate-form button[value=shut]")
        self.b.click("#sure-dialog button[value=no]")
        self.b.click("#gate-form button[value=shut]")
        self.agree()
        wait_for(lambda: self.b.text("#gate-word") == "Shut")
        self.b.type("#rate", "500")
        self.b.click("#gate-form button[value=rate]")
        self.agree()
        wait_for(lambda: self.b.text("#gate-word") == "Paced" and self.b.text("#gate-rate") == "500 connections/s")
        self.b.click("#gate-form button[value=auto]")
        self.agree()
        wait_for(lambda: self.b.text("#gate-word") == "Open")

        self.b.type("#prefix", "nonsense")
        self.b.click("#list-form button[value='deny/add']")
        self.agree()
        wait_for(lambda: "prefix" in self.b.text("#action-said"))
        self.assertEqual(self.b.run("return document.getElementById('action-said').className"), "bad")
        self.b.clear("#prefix")
        self.b.type("#prefix", "192.0.2.0/24")
        self.b.click("#list-form button[value='deny/add']")
        self.agree()
        wait_for(lambda: [row[:3] for row in self.cells("#lists")] == [["192.0.2.0/24", "deny", "operator"]])
        self.assertEqual(self.gw.ctl("deny", "list"), [{"prefix": "192.0.2.0/24", "origin": "operator"}])
        self.b.click("#lists button")
        self.agree()
        wait_for(lambda: "empty" in self.b.text("#lists"))
        self.assertIn("the client at 127.0.0.1 set the gate to shut", self.gw.log())
        self.assertEqual([u for u in self.b.urls() if TOKEN in u], [])
        self.assertNotIn(TOKEN, self.gw.log())
        self.b.click("#lock")
        self.assertTrue(self.b.run("return document.getElementById('actions').hidden"))
        # A new token takes the old one's place while the gateway runs.
        with open(path, "w") as f:
            f.write(TOKEN[::-1] + "\n")
        wait_for(lambda: self.status("GET", "/v1/deny", TOKEN[::-1]) == "200")
        self.assertEqual(self.status("GET", "/v1/deny", TOKEN), "401")

    def status(self, method, path, token):
        r = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-H",
                            "Authorization: Bearer " + token, self.page.rstrip("/") + path], capture_output=True, text=True)
        return r.stdout
