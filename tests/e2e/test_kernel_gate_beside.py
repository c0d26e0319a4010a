"""The gate in the kernel beside somebody else's XDP program on the same interface, which libxdp's dispatcher allows on kernels
where a program may take the place of another one's function. Stock kernels do."""

import glob
import json
import os
import subprocess

import netns
import support
import test_kernel_gate
from support import wait_for
from test_kernel_gate import PINS, bpftool

FIRST, LAST = 10, 90  # where another program runs: before the gate, which has 50, and after it


class Beside:
    """tests/support/xdp_beside.c"""

    def __init__(self, interface, priority):
        self.p = subprocess.Popen([os.path.join(support.BUILD, "tests/support/xdp_beside"), interface, str(priority)],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.p.stdout.readline() != "attached\n":
            raise AssertionError("xdp_beside ended with %d" % self.end())

    def syns(self):
        """That it has seen since it was last asked."""
        self.p.stdin.write("\n")
        self.p.stdin.flush()
        return int(self.p.stdout.readline())

    def end(self):
        if self.p.returncode is None:
            self.p.communicate()
        return self.p.returncode


@netns.skip
class KernelGateBeside(test_kernel_gate.GateCase):
    def setUp(self):
        super().setUp()
        if "in libxdp's dispatcher" not in self.gw.log():
            self.skipTest("this kernel refuses libxdp's dispatcher")

    def beside(self, priority):
        b = Beside(self.ns.interface, priority)
        self.addCleanup(b.end)
        return b

    def link(self):
        r = subprocess.run(["ip", "-n", self.ns.gateway, "-j", "-d", "link", "show", self.ns.interface],
                           capture_output=True, text=True, check=True)
        return json.loads(r.stdout)[0]

    def dispatched(self):
        """The names of the programs in the interface's dispatcher."""
        prog = self.link()["xdp"]["prog"]
        self.assertEqual(bpftool("prog", "show", "id", str(prog["id"]))["name"], "xdp_dispatcher")
        pins = glob.glob("/sys/fs/bpf/xdp/dispatch-*-%d/prog*-prog" % prog["id"])
        return sorted(bpftool("prog", "show", "pinned", p)["name"] for p in pins)

    def pinned(self):
        """The program that the gateway pinned, as bpftool shows it."""
        return bpftool("prog", "show", "pinned", "%s/%s/admit_prog_%d" % (PINS, self.instance, self.link()["ifindex"]))

    def test_says_so_and_shows_it(self):
        said = "gate: %s: native XDP in libxdp's dispatcher" % self.ns.interface
        self.assertEqual(self.gw.log().count(said), 1)
        self.assertEqual(self.dispatched(), ["tidegate_admit"])
        ours = self.pinned()
        self.assertEqual((ours["type"], ours["name"]), ("ext", "tidegate_admit"))

    def test_each_has_its_say(self):
        first, last = self.beside(FIRST), self.beside(LAST)
        self.assertEqual(self.dispatched(), ["tidegate_admit", "xdp_beside", "xdp_beside"])
        bad, good = self.ns.address(0), self.ns.address(1)
        self.ctl("deny", "add", bad)
        self.assertEqual(self.try_from(good, timeout=5)[good]["ok"], 1)
        self.assertEqual((first.syns(), last.syns()), (1, 1))
        self.assertEqual(self.try_from(bad)[bad]["ok"], 0)
        self.assertGreater(first.syns(), 0)
        self.assertEqual(last.syns(), 0, "a refused SYN went on")
        self.assertGreater(self.verdict("admit", "deny"), 0)

    def test_the_gate_ends_and_the_other_stays(self):
        last = self.beside(LAST)
        a = self.ns.address(2)
        self.assertEqual(self.gw.stop(), 0)
        self.assertEqual(self.dispatched(), ["xdp_beside"])
        self.assertEqual(self.try_from(a)[a]["ok"], 0)
        self.assertGreater(last.syns(), 0)
        self.start()
        self.assertEqual(self.dispatched(), ["tidegate_admit", "xdp_beside"])
        self.assertEqual(self.try_from(a, timeout=5)[a]["ok"], 1)
        self.assertGreater(last.syns(), 0)
        self.assertEqual(self.verdict("admit", "open"), 1)

    def test_the_other_ends_and_the_gate_stays(self):
        bad = self.ns.address(3)
        self.ctl("deny", "add", bad)
        self.assertEqual(self.beside(FIRST).end(), 0)
        self.assertEqual(self.dispatched(), ["tidegate_admit"])
        self.assertEqual(self.try_from(bad)[bad]["ok"], 0)
        self.assertGreater(self.verdict("admit", "deny"), 0)
        self.assertEqual(self.gw.stop(), 0)
        wait_for(lambda: not self.attached())

    def test_a_crash_beside_another(self):
        """The gate holds, and the next start puts its program in the place of the one that was left."""
        last = self.beside(LAST)
        bad, good = self.ns.address(4), self.ns.address(5)
        self.ctl("deny", "add", bad)
        before = self.pinned()["id"]
        self.gw.kill()
        self.gw.wait()
        self.assertEqual(self.dispatched(), ["tidegate_admit", "xdp_beside"])
        self.assertEqual(self.try_from(bad)[bad]["ok"], 0)
        self.assertEqual(last.syns(), 0)
        self.start()
        self.assertIn("in libxdp's dispatcher, taken over from a former start", self.gw.log())
        self.assertEqual(self.dispatched(), ["tidegate_admit", "xdp_beside"])
        self.assertNotEqual(self.pinned()["id"], before)
        got = self.try_from(bad, good, timeout=5)
        self.assertEqual((got[bad]["ok"], got[good]["ok"]), (0, 1))
        self.assertEqual(last.syns(), 1)

    def test_detach(self):
        """Without a gateway, and only what is the gate's."""
        last = self.beside(LAST)
        self.gw.kill()
        self.gw.wait()
        r = subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--instance", self.instance, "detach"],
                           capture_output=True, text=True)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertEqual(self.dispatched(), ["xdp_beside"])
        self.assertEqual(last.end(), 0)
        self.assertFalse(self.attached())
