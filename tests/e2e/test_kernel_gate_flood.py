"""A flood of SYNs with four million forged sources against the gate in the kernel."""
# alone: floods

import json
import os
import subprocess
import unittest

import netns
import support
from support import wait_for

BODY = """
admission:
  mode: kernel
  interfaces: [{interface}]
  refuse: drop
  v4_24_open: 0
  v4_24_churn: 0
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
"""

RATE = 1000
PROVEN = 100  # addresses
EACH = 0.5    # attempts per second of each
SECONDS = 6
IN_TIME = 3
PINS = "/sys/fs/bpf/tidegate"

# Sessions that echo in turn. For each line of standard input, how often they did since the last one.
SESSIONS = r"""
import json, select, sys
sys.path.insert(0, sys.argv[1])
import support
support.BUILD = sys.argv[4]
sessions = [support.ws_open(int(sys.argv[3]), host=sys.argv[2]) for _ in range(10)]
print("open", flush=True)
n = 0
while True:
    s = sessions[n % len(sessions)]
    s.sendall(support.ws_frame(1, b"%d" % n))
    assert support.ws_recv(s)[2] == b"%d" % n
    n += 1
    if select.select([sys.stdin], [], [], 0.005)[0]:
        if not sys.stdin.readline():
            break
        print(n, flush=True)
        n = 0
"""


def bpftool(*args):
    r = subprocess.run(["bpftool", "--json", *args], capture_output=True, text=True)
    if r.returncode:
        raise AssertionError("bpftool %s: %s" % (args, r.stdout + r.stderr))
    return json.loads(r.stdout)


@netns.skip
class Flood(support.Case):
    def setUp(self):
        super().setUp()
        self.ns = netns.Namespaces()
        self.ns.__enter__()
        self.addCleanup(self.ns.__exit__)
        self.port = support.free_port()
        self.instance = "kgs-%d" % os.getpid()
        self.gw = self.gateway(BODY.format(interface=self.ns.interface, host=self.ns.host, port=self.port), workers=1,
                               instance=self.instance, admission=None)

    def reap(self, p):
        if p.poll() is None:
            p.kill()
        p.wait()
        for f in (p.stdin, p.stdout):
            if f:
                f.close()

    def admit(self, reason):
        return self.gw.metric("tidegate_verdicts_total", program="admit", reason=reason)

    def map_bytes(self):
        """{map: its memory}"""
        here = os.path.join(PINS, self.instance)
        maps = {}
        for name in sorted(os.listdir(here)):
            r = subprocess.run(["bpftool", "--json", "map", "show", "pinned", os.path.join(here, name)],
                               capture_output=True, text=True)
            if r.returncode == 0:  # others are links and programs
                maps[name] = json.loads(r.stdout)["bytes_memlock"]
        return maps

    def sources(self):
        """The prefixes with an entry, as the gateway lists them."""
        return {s["prefix"] for s in self.gw.ctl("sources", "--limit", "100000")}

    def sessions(self):
        here = os.path.dirname(os.path.abspath(__file__))
        p = subprocess.Popen(self.ns.inside("/usr/bin/python3", "-B", "-c", SESSIONS, here, self.ns.host, str(self.port),
                                            support.BUILD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(self.reap, p)
        self.assertEqual(p.stdout.readline(), "open\n")
        return p

    def test_spoofed_flood(self):
        proven = [self.ns.address(i) for i in range(PROVEN)]
        got = self.ns.connect(self.port, proven)
        self.assertEqual([a for a in proven if got[a]["ok"] != 1], [])
        self.assertEqual(len([p for p in self.sources() if p.endswith("/32")]), PROVEN)
        sessions = self.sessions()
        self.gw.ctl("gate", "rate", str(RATE))
        wait_for(lambda: self.gw.ctl("gate")["state"] == "paced")
        before, known = self.map_bytes(), self.sources()
        self.assertIn("sources", before)
        self.assertIn("syn_sketch", before)

        flood = self.ns.flood(support.BUILD, self.port, SECONDS + IN_TIME + 3)
        self.addCleanup(self.reap, flood)
        wait_for(lambda: self.admit("newcomer") > 10000)
        self.echoes(sessions)
        got = self.ns.open_loop(self.port, dict.fromkeys(proven, EACH), SECONDS, IN_TIME)
        echoes = self.echoes(sessions)
        refused = self.admit("newcomer")
        self.assertEqual(self.map_bytes(), before)
        self.assertEqual(self.sources(), known)
        self.assertIsNone(flood.poll(), "the flood ended before its time")
        sent = json.loads(flood.communicate(timeout=60 * support.slow())[0])
        admitted, offered = sum(got["admitted"].values()), sum(got["offered"].values())
        figures = "%d of %d attempts, %d echoes; flood %s, %d refused" % (admitted, offered, echoes, sent, refused)
        self.assertEqual(flood.returncode, 0)
        self.assertGreater(offered, 0)
        self.assertGreaterEqual(admitted, 0.95 * offered, figures)

        # Each of the sessions, several times.
        self.assertGreater(echoes, 100, figures)
        # What waited until the flood was over has left no trace either.
        self.assertEqual(self.sources(), known)
        entries = bpftool("map", "dump", "pinned", os.path.join(PINS, self.instance, "sources"))
        self.assertEqual(len(entries), len(known))

    def echoes(self, sessions):
        sessions.stdin.write("\n")
        sessions.stdin.flush()
        return int(sessions.stdout.readline())


if __name__ == "__main__":
    unittest.main()
