"""Newcomers during a flood of SYNs with forged sources: shut out by it, or let in by SYN cookies."""
# alone: floods

import json
import os
import subprocess
import unittest

import netns
import support
import test_kernel_gate_flood as flood
from support import wait_for

BODY = """
admission:
  mode: kernel
  interfaces: [{interface}]
  refuse: drop
  cookie_trigger: {trigger}
  v4_24_open: 0
  v4_24_churn: 0
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
"""

RATE = 100
TRIGGER = 2000  # SYNs per second
NEWCOMERS = 60  # addresses
IN_TIME = 3
SYSCTL = "/proc/sys/net/ipv4/tcp_syncookies"

# A WebSocket from each address, one after the other, slower than the rate; three messages there and back, then it ends. For each line
# of standard input. A SYN is sent twice at most: how many chances each has at a moment without a flood does not depend on the build.
CLIENTS = r"""
import json, socket, sys, threading, time
sys.path.insert(0, sys.argv[1])
import support
support.BUILD = sys.argv[4]
host, port, limit, addresses = sys.argv[2], int(sys.argv[3]), float(sys.argv[5]), sys.argv[6:]

def one(address, out):
    s = socket.socket()
    s.settimeout(limit)
    try:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        s.bind((address, 0))
        s.connect((host, port))
        s.sendall(support.upgrade_request("/echo"))
        assert support.recv_head(s).startswith(b"HTTP/1.1 101 ")
        for i in range(3):
            s.sendall(support.ws_frame(1, b"%d" % i * 500))
            assert support.ws_recv(s)[2] == b"%d" % i * 500
        out.append(address)
    except OSError:
        pass
    finally:
        s.close()

print("ready", flush=True)
while sys.stdin.readline():
    out = []
    threads = [threading.Thread(target=one, args=(a, out)) for a in addresses]
    for t in threads:
        t.start()
        time.sleep(0.02)
    for t in threads:
        t.join()
    print(json.dumps(out), flush=True)
"""


class Cookies(flood.Flood):
    test_spoofed_flood = None  # of the base class, which has what is needed around a flood

    def setUp(self):
        support.Case.setUp(self)
        self.ns = netns.Namespaces()
        self.ns.__enter__()
        self.addCleanup(self.ns.__exit__)
        self.ns.answerable()
        self.port = support.free_port()
        self.instance = "kgc-%d" % os.getpid()

    def sysctl(self, value):
        """Of the gateway's namespace, in which this thread is."""
        with open(SYSCTL, "w") as f:
            f.write(str(value))

    def begin(self, trigger):
        body = BODY.format(interface=self.ns.interface, host=self.ns.host, port=self.port, trigger=trigger)
        self.gw = self.gateway(body, workers=1, instance=self.instance, admission=None)

    def clients(self, limit, addresses):
        here = os.path.dirname(os.path.abspath(__file__))
        p = subprocess.Popen(self.ns.inside("/usr/bin/python3", "-B", "-c", CLIENTS, here, self.ns.host, str(self.port),
                                            support.BUILD, str(limit), *addresses),
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.reap, p)
        self.assertEqual(p.stdout.readline(), "ready\n")
        return p

    def go(self, clients):
        """The addresses that came through."""
        clients.stdin.write("\n")
        clients.stdin.flush()
        return json.loads(clients.stdout.readline())

    def newcomers_in_a_flood(self, trigger):
        """How many of them came through, and what is said of an address that is not proven."""
        self.begin(trigger)
        sessions = self.sessions()
        newcomers = self.clients(IN_TIME * support.slow(), [self.ns.address(100 + i) for i in range(NEWCOMERS)])
        self.gw.ctl("gate", "rate", str(RATE))
        wait_for(lambda: self.gw.ctl("gate")["state"] == "paced")
        # Two, for each pauses now and then to make more, and who comes in a pause has no flood before it.
        floods = [self.ns.flood(support.BUILD, self.port, 30 * support.slow()) for _ in range(2)]
        for p in floods:
            self.addCleanup(self.reap, p)
        wait_for(lambda: self.admit("cookie_sent" if trigger else "newcomer") > 10000)
        self.echoes(sessions)
        got = self.go(newcomers)
        echoes = self.echoes(sessions)
        why = self.gw.ctl("why", "10.77.9.9")
        known = self.sources()
        for p in floods:
            self.assertIsNone(p.poll(), "the flood ended before its time")
            p.kill()
        sessions.stdin.close()
        self.assertEqual(sessions.wait(10 * support.slow()), 0)
        self.assertGreater(echoes, 10)  # each of the sessions
        # Who came through is proven, and no forged source is.
        self.assertLessEqual({a + "/32" for a in got}, known)
        self.assertEqual([k for k in known if not k.startswith("10.77.")], [])
        return len(got), why

    def test_newcomers_in_a_flood(self):
        self.sysctl(2)
        without, why = self.newcomers_in_a_flood(0)
        self.assertFalse(why["cookie"])
        self.assertEqual(self.admit("cookie_sent"), 0)
        self.gw.stop()
        by_cookie, why = self.newcomers_in_a_flood(TRIGGER)
        accepted, failed = self.admit("cookie_accepted"), self.admit("cookie_failed")
        figures = "%d of %d without cookies, %d with them; %d accepted, %d failed, %d sent" % (
            without, NEWCOMERS, by_cookie, accepted, failed, self.admit("cookie_sent"))
        self.assertTrue(why["cookie"], why)
        self.assertIn("cookie", why["detail"])
        self.assertGreaterEqual(by_cookie, 0.9 * NEWCOMERS, figures)
        self.assertLess(without, 0.75 * by_cookie, figures)
        self.assertGreaterEqual(accepted, by_cookie, figures)
        # Nothing of the rate went to the flood, and hardly any newcomer was charged twice.
        self.assertLess(accepted, 1.5 * NEWCOMERS, figures)

    def test_the_sysctl_is_not_ours(self):
        self.sysctl(1)
        self.begin(TRIGGER)
        with open(SYSCTL) as f:
            self.assertEqual(f.read(), "1\n")
        said = [line for line in self.gw.log().splitlines() if "SYN cookies" in line]
        self.assertEqual(len(said), 1, said)
        self.assertRegex(said[0], "(?i)warn.*needs net.ipv4.tcp_syncookies = 2, and it is 1")
        p = self.ns.flood(support.BUILD, self.port, 30 * support.slow())
        self.addCleanup(self.reap, p)
        wait_for(lambda: self.admit("open") > 100 * TRIGGER)
        self.assertEqual(self.admit("cookie_sent") + self.admit("cookie_failed"), 0)
        self.assertFalse(self.gw.ctl("why", "10.77.9.9")["cookie"])


if __name__ == "__main__":
    unittest.main()
