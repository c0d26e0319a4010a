"""The gate in the kernel: a gateway and its clients in network namespaces, clients with many addresses."""
# alone: counts attempts in seconds that go by

import contextlib
import json
import os
import re
import subprocess
import time
import unittest

import netns
import support
from support import wait_for, ws_frame, ws_recv

BODY = """
admission:
  mode: kernel
  interfaces: [{interface}]
  refuse: {refuse}
  v4_32_open: 20
  v4_32_churn: 50
  v4_24_open: 0
  v4_24_churn: 0
  penalty: {penalty}s
  penalty_max: {penalty}0s
  flood_limit: 0
sched:
  sample_percent: 100
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
"""

PINS = "/sys/fs/bpf/tidegate"


def abi():
    """What this build says."""
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "../../include/tidegate/abi.h")) as f:
        return int(re.search(r"^#define TG_ABI_VERSION (\d+)$", f.read(), re.M)[1])


def bpftool(*args):
    r = subprocess.run(["bpftool", "--json", *args], capture_output=True, text=True)
    if r.returncode:
        raise AssertionError("bpftool %s: %s" % (args, r.stdout + r.stderr))
    return json.loads(r.stdout)


def body(interface, port, refuse="drop"):
    # A penalty is longer than it takes to look at it.
    return BODY.format(interface=interface, host=netns.Namespaces.host, port=port, refuse=refuse, penalty=2 * support.slow())


class GateCase(support.Case):
    """A gateway of two workers with its gate on a veth, and clients at the other end."""

    refuse = "drop"

    def setUp(self):
        super().setUp()
        self.ns = netns.Namespaces()
        self.ns.__enter__()
        self.addCleanup(self.ns.__exit__)
        self.instance = "kg-%d" % os.getpid()
        self.port = support.free_port()
        self.start()

    def start(self, **more):
        config = body(self.ns.interface, self.port, self.refuse)
        self.gw = support.Gateway(self.tmp, config, workers=2, instance=self.instance, admission=None, **more)
        self.addCleanup(self.end)

    def end(self):
        if self.gw.p.poll() is None:
            self.gw.stop()
        subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--instance", self.instance, "detach"],
                       capture_output=True)

    def ctl(self, *args, **kw):
        return self.gw.ctl(*args, **kw)

    def try_from(self, *addresses, **kw):
        return self.ns.connect(self.port, list(addresses), **kw)

    def verdict(self, program, reason):
        return self.gw.metric("tidegate_verdicts_total", program=program, reason=reason)

    def pin(self, name):
        return os.path.join(PINS, self.instance, name).rstrip("/")

    def meta(self):
        return bpftool("map", "lookup", "pinned", self.pin("meta"), "key", "0", "0", "0", "0")

    def attached(self):
        r = subprocess.run(["ip", "-n", self.ns.gateway, "-j", "-d", "link", "show", self.ns.interface],
                           capture_output=True, text=True, check=True)
        return "xdp" in json.loads(r.stdout)[0]

    def penalised(self, prefix):
        sources = {s["prefix"]: s for s in self.ctl("sources", "--limit", "1000")}
        return prefix in sources and sources[prefix]["penalty_left_s"] > 0


@netns.skip
class KernelGate(GateCase):
    def test_native_and_let_in(self):
        self.assertRegex(self.gw.log(), "gate: %s: native XDP" % self.ns.interface)
        everybody = [self.ns.address(i) for i in range(netns.ADDRESSES)]
        got = self.try_from(*everybody)
        self.assertEqual([a for a in everybody if got[a]["ok"] != 1], [])
        self.assertEqual(self.verdict("admit", "open"), netns.ADDRESSES)
        wait_for(lambda: self.verdict("track", "closed") == netns.ADDRESSES)
        self.assertEqual(self.verdict("track", "established"), netns.ADDRESSES)
        self.assertEqual(self.verdict("steer", "chosen") + self.verdict("steer", "hash"), netns.ADDRESSES)
        sources = self.ctl("sources", "--limit", "1000")
        self.assertEqual(sum(s["accepts"] for s in sources if s["prefix"].endswith("/32")), netns.ADDRESSES)

    def test_doctor(self):
        checks = {c["name"]: c for c in self.ctl("doctor", check=False)["checks"]}
        self.assertRegex(checks["XDP on %s" % self.ns.interface]["has"], "^native, (by a plain link|in libxdp's dispatcher)$")
        self.assertEqual(checks["XDP programs"]["has"], "can be loaded")
        self.assertNotIn("network namespace", checks)

    def test_live(self):
        busy, quiet = self.ns.address(0), self.ns.address(1)
        for _ in range(10):
            self.assertEqual(self.try_from(busy)[busy]["ok"], 1)
        self.assertEqual(self.try_from(quiet)[quiet]["ok"], 1)
        wait_for(lambda: self.verdict("track", "closed") == 11)
        live = json.loads(self.gw.get("/v1/live")[1])
        known = {s["prefix"]: s for s in self.ctl("sources", "--limit", "1000")}
        narrow = [s for s in live["sources"] if s["prefix"].endswith("/32")]
        # In no order that holds: churn that is over counts for less and less.
        self.assertCountEqual([(s["prefix"], s["accepts"], s["closes"]) for s in narrow],
                              [(busy + "/32", 10, 10), (quiet + "/32", 1, 1)])
        self.assertEqual({s["prefix"] for s in live["sources"]}, set(known))
        verdicts = {(v["program"], v["reason"]): v["total"] for v in live["verdicts"]}
        self.assertEqual(verdicts["track", "established"], 11)
        self.assertEqual(live["gate"]["where"], "kernel")
        self.assertIsInstance(live["workers"][0]["wake_delay_p99_ns"], int)

    def test_lists(self):
        bad, good = self.ns.address(0), self.ns.address(1)
        self.ctl("deny", "add", bad)
        why = self.ctl("why", bad)
        self.assertEqual((why["admitted"], why["decides"], why["entry"]), (False, "deny", bad + "/32"))
        self.assertTrue(self.ctl("why", good)["admitted"])
        got = self.try_from(bad, good)
        self.assertEqual(got[good]["ok"], 1)
        self.assertEqual(got[bad]["ok"], 0)
        self.assertEqual(got[bad]["refused" if self.refuse == "reset" else "silent"], 1)
        self.assertGreater(self.verdict("admit", "deny"), 0)
        wait_for(lambda: "admit deny: %s/32" % bad in self.gw.log())
        self.ctl("allow", "add", "10.77.1.0/24")
        self.assertEqual(self.ctl("why", bad)["decides"], "allow")
        self.assertEqual(self.try_from(bad)[bad]["ok"], 1)
        self.ctl("allow", "del", "10.77.1.0/24")
        self.ctl("deny", "del", bad)
        self.assertEqual(self.try_from(bad)[bad]["ok"], 1)

    def test_shut(self):
        s = support.ws_open(self.port, host=self.ns.host)
        self.addCleanup(s.close)
        a = self.ns.address(3)
        self.ctl("gate", "shut")
        wait_for(lambda: self.ctl("gate")["state"] == "shut")
        wait_for(lambda: not self.ctl("why", a)["admitted"])
        self.assertEqual(self.try_from(a)[a]["ok"], 0)
        s.sendall(ws_frame(1, b"still here"))
        self.assertEqual(ws_recv(s)[2], b"still here")
        self.assertGreater(self.verdict("admit", "shut"), 0)
        self.ctl("gate", "auto")
        wait_for(lambda: self.ctl("why", a)["admitted"])
        self.assertEqual(self.try_from(a)[a]["ok"], 1)

    def test_rate(self):
        self.ctl("gate", "rate", "20")
        wait_for(lambda: self.ctl("gate")["state"] == "paced")
        addresses = [self.ns.address(i) for i in range(100)]
        begin = time.monotonic()
        got = self.try_from(*addresses, timeout=0.05)
        spent = time.monotonic() - begin
        admitted = sum(g["ok"] for g in got.values())
        self.assertGreater(admitted, 0)
        # The rate, a burst, and the retransmissions of the refused.
        self.assertLess(admitted, 20 * (spent + 1) + 10)
        self.assertGreater(self.verdict("admit", "rate") + self.verdict("admit", "newcomer") +
                           self.verdict("admit", "share"), 0)

    def test_concurrency(self):
        greedy, other = self.ns.address(5), self.ns.address(6)
        got, p = self.ns.connect(self.port, [greedy], times=40, close=False, hold=20)
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.assertLessEqual(got[greedy]["ok"], 21)
        self.assertGreaterEqual(got[greedy]["ok"], 20)
        self.assertTrue(self.penalised(greedy + "/32"))
        self.assertEqual(self.ctl("why", greedy)["decides"], "penalty")
        self.assertEqual(self.try_from(other)[other]["ok"], 1)
        self.assertGreater(self.verdict("track", "penalty_concurrency"), 0)
        wait_for(lambda: "track penalty_concurrency: %s/32" % greedy in self.gw.log())

    def test_churn(self):
        restless, other = self.ns.address(7), self.ns.address(8)
        self.try_from(restless, times=300)
        self.assertTrue(self.penalised(restless + "/32"))
        self.assertEqual(self.try_from(restless)[restless]["ok"], 0)
        self.assertEqual(self.try_from(other)[other]["ok"], 1)
        self.assertGreater(self.verdict("admit", "penalty"), 0)
        wait_for(lambda: not self.penalised(restless + "/32"))
        self.assertEqual(self.try_from(restless)[restless]["ok"], 1)

    def test_outlives_a_crash(self):
        bad, good = self.ns.address(9), self.ns.address(10)
        self.ctl("deny", "add", bad)
        self.gw.kill()
        self.gw.wait()
        self.assertTrue(self.attached())
        self.assertEqual(self.meta()["formatted"]["value"]["abi"], abi())
        wait_for(lambda: not os.path.exists("/proc/%d/fd" % (self.gw.gateway_pid or 0)) if self.gw.p.poll() is None
                 else True)
        self.start()
        self.assertIn("taken over from a former start", self.gw.log())
        self.assertEqual([e["prefix"] for e in self.ctl("deny")], [bad + "/32"])
        got = self.try_from(bad, good)
        self.assertEqual((got[bad]["ok"], got[good]["ok"]), (0, 1))

    def test_another_abi_takes_over(self):
        """As if the former start had been of the next version, then of the one before: the lists hold all the while, in maps
        that are made anew."""
        bad, good = self.ns.address(20), self.ns.address(21)
        self.ctl("deny", "add", bad)
        for version in (abi() + 1, abi() - 1):
            self.gw.kill()
            self.gw.wait()
            meta = self.meta()["value"]
            meta[:4] = ["0x%02x" % b for b in version.to_bytes(4, "little")]
            subprocess.run(["bpftool", "map", "update", "pinned", self.pin("meta"), "key", "0", "0", "0", "0", "value", *meta],
                           check=True)
            self.assertEqual(self.meta()["formatted"]["value"]["abi"], version)
            got = self.try_from(bad, good)
            self.assertEqual((got[bad]["silent"], got[good]["refused"]), (1, 1))  # dropped; let in, but nobody listens
            self.start()
            self.assertEqual(self.meta()["formatted"]["value"]["abi"], abi())
            self.assertEqual([e["prefix"] for e in self.ctl("deny")], [bad + "/32"])
            got = self.try_from(bad, good)
            self.assertEqual((got[bad]["silent"], got[good]["ok"]), (1, 1))
            self.assertTrue(self.ctl("why", good)["proven"])
            self.assertFalse(os.path.exists(self.pin("") + "_new"))

    def test_a_gateway_that_dies_is_replaced_behind_the_gate(self):
        a = self.ns.address(11)
        os.kill(self.gw.gateway_pid, 9)
        wait_for(lambda: self.gw.log().count("is serving") == 2)
        self.assertEqual(self.try_from(a, timeout=3)[a]["ok"], 1)

    def test_detach(self):
        self.assertTrue(self.attached())
        self.gw.kill()
        self.gw.wait()
        self.assertTrue(self.attached())
        r = subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--instance", self.instance, "detach"],
                           capture_output=True, text=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        wait_for(lambda: not self.attached())
        self.assertFalse(os.path.exists("%s/%s" % (PINS, self.instance)))

    def test_a_clean_stop_leaves_nothing(self):
        self.assertTrue(os.path.exists("%s/%s/gate" % (PINS, self.instance)))
        self.assertEqual(self.gw.stop(), 0)
        self.assertFalse(os.path.exists("%s/%s" % (PINS, self.instance)))
        wait_for(lambda: not self.attached())

    def test_delays(self):
        """Every message of a socket is one wake delay; a worker that sleeps is woken and waits for a CPU."""
        self.assertNotIn("not measured", self.gw.log())
        s = support.ws_open(self.port, host=self.ns.host)
        self.addCleanup(s.close)
        before = self.gw.metric("tidegate_wake_delay_seconds_count")
        waits = self.gw.metric("tidegate_cpu_wait_seconds_count")
        for _ in range(20):
            s.sendall(ws_frame(1, b"x"))
            self.assertEqual(ws_recv(s)[2], b"x")
        self.assertEqual(self.gw.metric("tidegate_wake_delay_seconds_count"), before + 20)
        self.assertGreater(self.gw.metric("tidegate_cpu_wait_seconds_count"), waits)

    def test_inspecting(self):
        """The commands of docs/inspecting.md, as printed there, do what it says."""
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, "../../docs/inspecting.md")) as f:
            commands = re.findall(r"^    \$ (bpftool .*)$", f.read(), re.M)
        self.assertGreater(len(commands), 5)
        a = self.ns.address(12)
        self.try_from(a)
        self.ctl("deny", "add", "198.51.100.0/24")
        for c in commands:
            c = c.replace("/sys/fs/bpf/tidegate/default", "%s/%s" % (PINS, self.instance))
            r = subprocess.run(["/bin/sh", "-c", c], capture_output=True, text=True)
            self.assertEqual(r.returncode, 0, "%s: %s" % (c, r.stdout + r.stderr))
            self.assertTrue(r.stdout.strip(), c)


class KernelGateReset(KernelGate):
    refuse = "reset"

    test_another_abi_takes_over = test_inspecting = test_detach = test_outlives_a_crash = test_churn = test_rate = test_shut = None
    test_a_clean_stop_leaves_nothing = test_a_gateway_that_dies_is_replaced_behind_the_gate = None
    test_concurrency = test_native_and_let_in = test_delays = None

    def setUp(self):
        super().setUp()
        self.ns.answerable()


@netns.skip
class Fallback(support.Case):
    def test_another_program_on_the_interface(self):
        """One that shares with nobody: `auto` goes on in user space and says why; `kernel` does not start."""
        with netns.Namespaces() as ns, contextlib.ExitStack() as stack:
            port = support.free_port()
            ns.occupy()
            first = support.Gateway(self.sub("one"), body(ns.interface, port), admission=None,
                                    instance="kg-one-%d" % os.getpid(), wait=False)
            self.assertEqual(first.wait(), 1)
            self.assertIn("the gate in the kernel: attaching admit to", first.log())
            second = support.Gateway(self.sub("two"), body(ns.interface, port + 1).replace("mode: kernel", "mode: auto"),
                                     admission=None, instance="kg-two-%d" % os.getpid())
            stack.callback(second.stop)
            self.assertIn("no gate in the kernel, admission is in user space: attaching admit to", second.log())
            self.assertEqual(second.ctl("gate")["mode"], "user")
            third = support.Gateway(self.sub("three"), body("nosuch0", port + 2), admission=None,
                                    instance="kg-three-%d" % os.getpid(), wait=False)
            self.assertEqual(third.wait(), 1)
            self.assertIn("the gate in the kernel: interface nosuch0", third.log())

    def sub(self, name):
        path = os.path.join(self.tmp, name)
        os.mkdir(path)
        return path


if __name__ == "__main__":
    unittest.main()
