"""tidegatectl top on a pseudo terminal, against a live gateway; and where there is no terminal."""

import json
import os
import re
import signal
import subprocess

import netns
import support
from support import wait_for
from terminal import Terminal

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
routes:
  - {{path: /echo, upstream: echo}}
  - {{path: /service, upstream: svc}}
upstreams:
  - {{name: svc, type: link, endpoints: ["{endpoint}"]}}
"""

LINE = re.compile(r"^sched_poll_delay_p99=\S+ runnable_tasks=\S+ accepts=\S+/s closes=\S+/s conns=(\S+) gate=(\S+) "
                  r"admitted=\S+ refused=\S+ forced_yields=\S+ dropped=\S+$")


class Top(support.Case):
    def setUp(self):
        super().setUp()
        self.ws = support.free_port()
        self.svc = self.service()
        self.body = BODY.format(ws=self.ws, endpoint=self.svc.endpoint)
        self.gw = self.gateway(self.body, workers=2, admission="mode: user")

    def command(self, *args):
        return [os.path.join(support.BUILD, "tidegatectl"), "--socket", self.gw.socket, "top", *args]

    def top(self, *args, **kw):
        t = Terminal(self.command(*args), **kw)
        self.addCleanup(t.close)
        t.wait_for(r"^tidegate ")
        return t

    def open(self, n, path="/echo"):
        conns = [support.ws_open(self.ws, path) for _ in range(n)]
        for s in conns:
            self.addCleanup(s.close)
        return conns

    def run_lines(self, *args, **env):
        return subprocess.run(self.command(*args), capture_output=True, text=True, timeout=40 * support.slow(),
                              stdin=subprocess.DEVNULL, env=dict(os.environ, **env))

    def test_screen(self):
        t = self.top()
        t.wait_for(r"^ W\+ +CONNS +RUNQ +BUSY")
        self.open(7)
        self.open(2, "/service")
        t.wait_for(r"conns 9 ")
        t.wait_for(r"^/echo +7 ")
        t.wait_for(r"^/service +2 ")
        t.wait_for(r"^svc +tcp://127\.0\.0\.1:\d+ +2 +2 +2 ")
        lines = t.screen.lines()
        self.assertEqual(len(lines), 24)
        self.assertRegex(lines[1], r"^gate open .*word auto")
        self.assertRegex(lines[2], r"^why delay \S+/5ms  handshakes ")
        workers = [line for line in lines if re.match(r" +[01] +\d", line)]
        self.assertEqual(sum(int(w.split()[1]) for w in workers), 9)
        self.assertIn("no sources: not known without a gate in the kernel", lines)
        self.assertRegex(lines[-1], r"^\? help .* q quit$")
        self.assertTrue(t.screen.text().isascii())
        self.assertFalse(t.screen.unknown)
        t.key("?")
        t.wait_for(r"^Any key goes back\.")
        t.key("x")
        t.wait_for(r"^gate open")
        t.key("q")
        self.assertEqual(t.wait(), 0)

    def test_acts_after_a_confirmation_only(self):
        t = self.top()
        t.key("gs")
        t.wait_for(r"tell the gate: shut, .* \(y/n\)")
        t.key("n")
        t.wait_for(r"nothing was done")
        self.assertEqual(self.gw.ctl("gate")["word"], "auto")
        t.key("gs")
        t.wait_for(r"\(y/n\)")
        t.key("y")
        t.wait_for(r'"word": ?"shut"')
        t.wait_for(r"^gate shut by operator .*word shut")
        self.assertEqual(self.gw.ctl("gate")["word"], "shut")
        t.key("gr")
        t.wait_for(r"connections per second: _")
        t.key("12x\x7f00\r")
        t.wait_for(r"let 1200 connections per second in\? \(y/n\)")
        t.key("y")
        t.wait_for(r"^gate paced by operator .*rate 1.2k/s")
        t.key("d")
        t.wait_for(r"refuse address or prefix: _")
        t.key("10.9.8.1/16\ry")
        t.wait_for(r"prefix has address bits beyond")
        t.key("d10.9.0.0/16\r")
        t.wait_for(r"refuse everybody from 10\.9\.0\.0/16\? \(y/n\)")
        t.key("y")
        t.wait_for(r'"added": ?"10\.9\.0\.0/16"')
        self.assertIn("10.9.0.0/16", [e["prefix"] for e in self.gw.ctl("deny")])

    def test_kick(self):
        t = self.top()
        conns = self.open(3)
        t.wait_for(r"^/echo +3 ")
        t.key("3k")  # the route that is chosen
        t.wait_for(r"close session, or all of /route: /echo_")
        t.key("\r")
        t.wait_for(r"close all sessions of route /echo\? \(y/n\)")
        t.key("y")
        t.wait_for(r'"kicked": ?3')
        for s in conns:
            self.assertEqual(support.ws_recv(s)[0], 8)
        t.wait_for(r"^/echo +0 ")

    def test_sizes(self):
        t = self.top()
        t.resize(8, 40)
        t.wait_for(r"\A(?:.*\n){7}\? help")
        self.assertEqual(t.screen.rows, 8)
        t.resize(2, 9)
        t.pump(0.5)
        t.resize(40, 140)
        t.wait_for(r"WAKE99 +YLD/S +HEAP +RINGS")
        t.wait_for(r"\A(?:.*\n){39}\? help")

    def test_utf8_and_colours(self):
        t = self.top(term="xterm-256color", env={"LC_ALL": "C.UTF-8"})
        t.wait_for("P99 OVER TIME")
        conns = self.open(3)

        def talk():
            for s in conns:
                s.sendall(100 * support.ws_frame(1, b"x"))
            for s in conns:
                for _ in range(100):
                    support.ws_recv(s)

        t.wait_for("[▁▂▃▄▅▆▇█]", meanwhile=talk)
        self.assertTrue({32, 36} & t.screen.bold_or_colour)
        plain = self.top(term="xterm-256color", env={"NO_COLOR": "1"})
        plain.wait_for("P99 OVER TIME")
        plain.wait_for(r"^ +[01] .*s +[.:=+*%#-]+$", meanwhile=talk)
        self.assertTrue(plain.screen.text().isascii())
        self.assertFalse(set(range(30, 50)) & plain.screen.bold_or_colour - {39, 49})

    def test_a_gateway_that_goes_and_comes_back(self):
        t = self.top()
        self.open(4)
        t.wait_for(r"conns 4 ")
        self.gw.stop()
        t.wait_for(r"LOST")
        t.wait_for(r"^No such file or directory; is tidegate running\? ")
        t.wait_for(r"^svc +tcp://")  # the last that was known
        self.gw = self.start(support.Process([os.path.join(support.BUILD, "tidegate"), "-c", self.gw.config],
                                             os.path.join(self.tmp, "again.log")))
        self.gw.socket = os.path.join(self.tmp, "admin.sock")
        t.wait_for(r"conns 0 ")
        self.assertNotIn("LOST", t.screen.text())
        t.key("q")
        self.assertEqual(t.wait(), 0)

    def test_a_gateway_that_hangs(self):
        t = self.top()
        os.kill(self.gw.gateway_pid, signal.SIGSTOP)
        try:
            t.key("?")
            t.wait_for(r"^Any key goes back\.")  # keys are answered all the same
            t.key("xgs")
            t.wait_for(r"\(y/n\)")
            t.key("y")
            t.wait_for(r"asked for")
        finally:
            os.kill(self.gw.gateway_pid, signal.SIGCONT)
        t.wait_for(r"^gate shut by operator ")

    def test_lines(self):
        self.open(5)
        for env in ({"TERM": "xterm"}, {"TERM": "dumb"}):  # no terminal
            r = self.run_lines("--count", "2", **env)
            self.assertEqual((r.returncode, r.stderr), (0, ""))
            lines = r.stdout.splitlines()
            self.assertEqual(len(lines), 2)
            for line in lines:
                self.assertEqual(LINE.match(line).groups(), ("5", "open"))
        # A terminal, but a dumb one, or none that is known.
        for term in ("dumb", "", "no-such-terminal"):
            t = Terminal(self.command(), term=term)
            self.addCleanup(t.close)
            t.wait_for(r"^sched_poll_delay_p99=")

    def test_json(self):
        self.open(3)
        r = self.run_lines("--count", "3", "--json")
        self.assertEqual((r.returncode, r.stderr), (0, ""))
        snapshots = [json.loads(line) for line in r.stdout.splitlines()]
        self.assertEqual(len(snapshots), 3)
        for s in snapshots:
            self.assertEqual(sum(w["connections"] for w in s["workers"]), 3)
            self.assertEqual({r["path"]: r["connections"] for r in s["routes"]}, {"/echo": 3, "/service": 0})
        self.assertGreater(snapshots[2]["time"], snapshots[0]["time"])

    def test_lines_go_on_when_the_gateway_is_back(self):
        p = subprocess.Popen(self.command("--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        first = json.loads(p.stdout.readline())
        self.gw.stop()
        self.assertIn("is tidegate running?", p.stderr.readline())
        self.gw = self.start(support.Process([os.path.join(support.BUILD, "tidegate"), "-c", self.gw.config],
                                             os.path.join(self.tmp, "again.log")))
        while True:
            s = json.loads(p.stdout.readline())
            if s["uptime_s"] < first["uptime_s"] or s["time"] > first["time"] + 1:
                break
        p.send_signal(signal.SIGTERM)

    def test_bad_usage(self):
        for args in (("--interval", "0"), ("--interval", "1s"), ("--count", "x"), ("--count", "-1")):
            r = self.run_lines(*args)
            self.assertEqual((r.returncode, r.stdout), (2, ""))
            self.assertRegex(r.stderr, "must be a number from 1 to")
        socket, self.gw.socket = self.gw.socket, self.tmp + "/none"
        r = self.run_lines()
        self.assertEqual((r.returncode, r.stdout), (1, ""))
        self.assertIn("is tidegate running?", r.stderr)
        t = Terminal(self.command())
        self.addCleanup(t.close)
        self.assertEqual(t.wait(), 1)
        self.assertIn("is tidegate running?", t.screen.text())
        self.gw.socket = socket


@netns.skip
class TopOfAKernelGate(support.Case):
    def test_denies_the_source_that_is_chosen(self):
        import test_kernel_gate
        with netns.Namespaces() as ns:
            port = support.free_port()
            body = test_kernel_gate.body(ns.interface, port)
            gw = support.Gateway(self.tmp, body, workers=2, instance="top-%d" % os.getpid(), admission=None)
            try:
                address = ns.address(0)
                ns.connect(port, [address], times=3)
                t = Terminal([os.path.join(support.BUILD, "tidegatectl"), "--socket", gw.socket, "top"])
                self.addCleanup(t.close)
                t.wait_for(r"^%s/32 +\d+ " % re.escape(address))
                t.key("2")
                for _ in range(10):  # the wider tiers are in the list, too
                    t.key("d")
                    m = t.wait_for(r"refuse address or prefix: (\S+)_")
                    if m.group(1) == address + "/32":
                        break
                    t.key("\x1b")
                    t.wait_for(r"^\? help")
                    t.key("\x1bOB")  # down
                t.key("\r")
                t.wait_for(r"refuse everybody from %s/32\? \(y/n\)" % re.escape(address))
                t.key("y")
                wait_for(lambda: address + "/32" in [e["prefix"] for e in gw.ctl("deny")])
            finally:
                gw.stop()
