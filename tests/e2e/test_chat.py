"""The chat page in a real browser against a live gateway: tabs that talk, what they load, how they look."""

import json
import os
import shutil
import signal
import tempfile
import unittest

import support
from browser import Browser
from support import wait_for

ENTER, TAB = "\ue007", "\ue004"

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
routes:
  - {{path: /hub, upstream: hub}}
"""


@unittest.skipUnless(shutil.which("chromedriver"), "no chromedriver (package chromium-driver)")
class Chat(support.Case):
    def setUp(self):
        super().setUp()
        self.ws = support.free_port()
        self.gw = self.gateway(BODY.format(ws=self.ws), workers=2)
        self.page = "http://127.0.0.1:%d/chat" % self.gw.admin_port
        self.b = Browser(self.tmp)
        self.addCleanup(self.b.close)

    def enter(self, name, room, first=False):
        """A tab of its own for somebody who joins a room; returns its handle."""
        tab = self.b.tab() if first else self.b.new_tab()
        self.b.open("%s#%s" % (self.page, room))
        self.wait_state("Connected")
        self.b.type("#name", name + TAB)
        self.b.type("#which", ENTER)
        self.wait_line("You joined")
        return tab

    def lines(self):
        """What the log shows: of a message name and text, without the time."""
        return self.b.run("""return Array.from(document.querySelectorAll("#list li"), li => {
            const who = li.querySelector("b");
            return who ? (li.className || "other") + " " + who.innerText + ": " + li.querySelector(".said").innerText
                       : li.innerText; })""")

    def wait_line(self, line):
        wait_for(lambda: line in self.lines(), timeout=15)

    def wait_state(self, text):
        wait_for(lambda: self.b.text("#said") == text, timeout=30)

    def wait_presence(self, text):
        wait_for(lambda: self.b.text("#presence") == text, timeout=15)

    def say(self, text):
        self.b.type("#text", text + ENTER)

    def test_two_tabs(self):
        ada = self.enter("Ada", "tea", first=True)
        self.wait_presence("only you are here")
        grace = self.enter("Grace", "tea")
        self.wait_presence("2 here")
        markup = "<b>bold?</b> & <img src=x onerror=alert(1)>"
        self.say("hello")
        self.wait_line("own Grace: hello")
        self.b.switch(ada)
        self.say(markup)
        self.wait_line("own Ada: " + markup)
        self.assertEqual(self.lines(), ["You joined", "Grace joined", "other Grace: hello", "own Ada: " + markup])
        self.wait_presence("2 here")
        self.b.switch(grace)
        self.assertEqual(self.lines(), ["You joined", "own Grace: hello", "other Ada: " + markup])
        self.assertEqual(self.b.run("return document.querySelectorAll('#list li b, #list img').length"), 2)  # the names

        self.look_at_it(ada, grace)
        self.b.switch(grace)
        self.b.click("#leave")
        self.b.switch(ada)
        self.wait_line("Grace left")
        self.wait_presence("only you are here")
        self.assertEqual(self.b.console(), [])
        hub, where = "ws://127.0.0.1:%d/hub" % self.ws, "http://127.0.0.1:%d/v1/hub.json" % self.gw.admin_port
        self.assertEqual(sorted(self.b.urls()), sorted([self.page, where, hub] * 2))

    def look_at_it(self, ada, grace):
        """Nothing is wider than the page, in both sizes and both colours; pictures for people who ask for them."""
        folder = self.tmp
        if os.environ.get("TIDEGATE_SCREENSHOTS"):
            folder = tempfile.mkdtemp(prefix="tidegate-screenshots-")
            print("screenshots in", folder)
        self.b.switch(ada)
        self.say("A word as long as the page is wide: " + "w" * 150)
        for tab, dark in (ada, False), (grace, True):
            self.b.switch(tab)
            for width, height in (1280, 800), (400, 780):
                self.b.look(width, height, dark)
                self.assertEqual(self.b.run("return matchMedia('(prefers-color-scheme: dark)').matches"), dark)
                self.assertLessEqual(self.b.run("return document.documentElement.scrollWidth"), width)
                self.assertLessEqual(self.b.run("return document.documentElement.scrollHeight"), height)
                path = os.path.join(folder, "chat-%d-%s.png" % (width, "dark" if dark else "light"))
                self.b.screenshot(path)
                self.assertGreater(os.path.getsize(path), 5000)

    def test_rooms(self):
        ada = self.enter("Ada", "tea", first=True)
        self.enter("Grace", "tea")
        self.b.clear("#which")
        self.b.type("#which", "coffee" + ENTER)
        self.wait_line("You joined")
        self.say("nobody hears this")
        self.wait_line("own Grace: nobody hears this")
        self.b.switch(ada)
        self.say("are you there?")
        self.wait_line("own Ada: are you there?")
        self.assertNotIn("other Grace: nobody hears this", self.lines())
        self.b.switch(self.b.call("GET", self.b.session + "/window/handles")[1])
        wait_for(lambda: self.b.text("#rooms button:first-child").split() == ["tea", "1", "unread"], timeout=15)
        self.b.click("#rooms button:first-child")
        self.wait_line("other Ada: are you there?")
        self.assertEqual(self.b.text("#rooms button:first-child"), "tea")

    def test_other_publishers(self):
        """What is not a message of this page is shown as what it is."""
        self.enter("Ada", "tea", first=True)
        s = support.ws_open(self.ws, "/hub")
        self.addCleanup(s.close)
        for data in '"plain"', '{"text": 7}', '[1, "<i>"]', "null", '{"from": {}, "text": "odd"}':
            s.sendall(support.ws_frame(1, b'{"type":"publish","topic":"chat/tea","data":' + data.encode() + b"}"))
        self.wait_line("other somebody: odd")
        self.assertEqual(self.lines()[1:], ["other service: plain", 'other service: {"text":7}',
                                            'other service: [1,"<i>"]', "other service: null", "other somebody: odd"])
        self.assertEqual(self.b.console(), [])

    def test_reconnects(self):
        self.enter("Ada", "tea", first=True)
        os.kill(self.gw.gateway_pid, signal.SIGKILL)
        self.wait_line("Connected again. What was said meanwhile is not shown.")
        self.wait_state("Connected")
        self.assertEqual(self.b.text("#countdown"), "")
        self.say("still here")
        self.wait_line("own Ada: still here")

    def test_says_that_it_is_lost(self):
        self.enter("Ada", "tea", first=True)
        self.gw.stop()
        wait_for(lambda: self.b.text("#said") not in ("Connected", "Reconnecting"), timeout=15)
        self.assertIn("next try in", self.b.text("#state"))
        self.assertTrue(self.b.run("return document.querySelector('#compose button').disabled"))
        self.assertEqual(self.b.text("#retry"), "Connect now")

    def test_bad_names(self):
        self.b.open(self.page)
        self.wait_state("Connected")
        self.b.type("#name", "Ada")
        for name in "a/b", "*":
            self.b.clear("#which")
            self.b.type("#which", name + ENTER)
            self.assertIn("A room's name", self.b.text("#problem"))
        self.assertEqual(self.lines(), [])

    def test_accessible(self):
        """Everything that can be used has a name; the log and the states are announced; the keyboard reaches it all."""
        self.enter("Ada", "tea", first=True)
        self.enter("Grace", "tea")
        self.b.clear("#which")
        self.b.type("#which", "coffee" + ENTER)
        self.wait_line("You joined")
        self.b.run("document.querySelector('#name').focus()")
        reached = []
        for _ in range(8):
            e = self.b.call("GET", self.b.session + "/element/active")["element-6066-11e4-a52e-4f735466cecf"]
            reached.append(self.b.call("GET", "%s/element/%s/computedlabel" % (self.b.session, e)))
            self.b.call("POST", "%s/element/%s/value" % (self.b.session, e), {"text": TAB})
        self.assertEqual(reached, ["Your name", "Room", "Join", "tea", "coffee", "Leave this room", "coffee", "Message"])
        roles = self.b.run("return Array.from(document.querySelectorAll('[role]'), e => e.id + ' ' + e.role)")
        self.assertEqual(roles, ["said status", "problem alert", "presence status", "log log"])


class Served(support.Case):
    def test_without_a_hub_there_is_no_page(self):
        gw = self.gateway(support.echo_body(support.free_port()))
        self.assertEqual(gw.get("/chat")[0], 404)
        self.assertEqual(gw.get("/")[0], 200)
        self.assertEqual(json.loads(gw.get("/v1/hub.json")[1]), {"hubs": []})
