"""Fairness of the gate in the kernel while it paces: 200 addresses offer ten times the rate in an open loop, one of them much
more than any other."""
# alone: compares what an open loop got with what it offered

import os
import unittest

import netns
import support
from support import wait_for

# Limits of sources are off: it is shares that are looked at.
BODY = """
admission:
  mode: kernel
  interfaces: [{interface}]
  refuse: drop
  v4_32_open: 0
  v4_32_churn: 0
  v4_24_open: 0
  v4_24_churn: 0
  flood_limit: 0
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
"""

RATE = 400
GREEDY = 50  # times what another one offers
SECONDS = 6
SKIP = 4  # a burst of every source, which comes first


@netns.skip
class Fair(support.Case):
    def setUp(self):
        super().setUp()
        self.ns = netns.Namespaces()
        self.ns.__enter__()
        self.addCleanup(self.ns.__exit__)
        self.port = support.free_port()
        self.gw = self.gateway(BODY.format(interface=self.ns.interface, host=self.ns.host, port=self.port), workers=1,
                               instance="kgf-%d" % os.getpid(), admission=None)

    def pace_and_measure(self):
        self.gw.ctl("gate", "rate", str(RATE))
        wait_for(lambda: self.gw.ctl("gate")["state"] == "paced")
        each = 10 * RATE / (netns.ADDRESSES - 1 + GREEDY)
        greedy = self.ns.address(0)
        offers = {self.ns.address(i): each for i in range(netns.ADDRESSES)}
        offers[greedy] *= GREEDY
        got = self.ns.open_loop(self.port, offers, SECONDS, 0.5, skip=SKIP)
        admitted, offered = got["admitted"], sum(got["offered"].values())
        others = sorted(n for a, n in admitted.items() if a != greedy)
        mean = sum(others) / len(others)
        figures = "admitted %d of %d, Jain's index %.3f, greedy %d, mean %.1f, least %d, most %d" % (
            sum(admitted.values()), offered, netns.jain(others), admitted[greedy], mean, others[0], others[-1])
        self.assertGreater(offered, 8 * RATE * SECONDS, figures)
        self.assertLess(abs(sum(admitted.values()) - RATE * SECONDS), 0.1 * RATE * SECONDS, figures)
        self.assertGreaterEqual(netns.jain(others), 0.95, figures)
        self.assertLessEqual(admitted[greedy], 2 * mean, figures)
        self.assertGreater(others[0], 0, figures)

    def test_newcomers(self):
        """Nobody is known yet: those that are let in first do not keep the others out."""
        self.pace_and_measure()

    def test_proven_sources(self):
        everybody = [self.ns.address(i) for i in range(netns.ADDRESSES)]
        got = self.ns.connect(self.port, everybody)
        self.assertEqual([a for a in everybody if got[a]["ok"] != 1], [])
        self.pace_and_measure()


if __name__ == "__main__":
    unittest.main()
