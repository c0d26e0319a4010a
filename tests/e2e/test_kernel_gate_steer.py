"""Steering in the kernel, with real workers: one that hangs is given no new connection."""
# alone: looks at which worker lags behind

import json
import os
import subprocess
import unittest

import netns
import support

BODY = """
admission:
  mode: kernel
  interfaces: [{interface}]
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
debug: {{handshake_cost: {stall_ms}ms}}
"""

WORKERS = 4
STALL_MS = 400
PINS = "/sys/fs/bpf/tidegate"

# One connection; at a sign its handshake, which keeps its worker busy for so long; 25 ms later as many others as can be
# had before that is over, at most 100. How many these were, and whether they were there in time.
CLIENT = r"""
import json, socket, sys, time
sys.path.insert(0, sys.argv[1])
import support
at, stall = (sys.argv[2], int(sys.argv[3])), float(sys.argv[4])
first = socket.create_connection(at, timeout=10)
print("there", flush=True)
sys.stdin.readline()
begin = time.monotonic()
first.sendall(support.upgrade_request())
time.sleep(0.025)
others = []
while len(others) < 100 and time.monotonic() < begin + stall / 2:
    others.append(socket.create_connection(at, timeout=10))
opened = time.monotonic() - begin
head = support.recv_head(first)
print(json.dumps({"status": head[:12].decode(), "opened_s": opened, "others": len(others),
                  "stalled_s": time.monotonic() - begin}), flush=True)
sys.stdin.readline()
"""


@netns.skip
class Steer(support.Case):
    def picks(self):
        """Connections that the kernel gave to each worker."""
        r = subprocess.run(["bpftool", "--json", "map", "dump", "pinned", os.path.join(PINS, self.instance, "picks")],
                           capture_output=True, text=True, check=True)
        return [e["formatted"]["value"]["total"] for e in json.loads(r.stdout)[:WORKERS]]

    def attempt(self):
        """What the client said, the stalled worker, and what each worker was given meanwhile."""
        before = self.picks()
        p = subprocess.Popen(self.ns.inside("/usr/bin/python3", "-B", "-c", CLIENT,
                                            os.path.dirname(os.path.abspath(__file__)), self.ns.host, str(self.port),
                                            str(STALL_MS / 1e3)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.assertEqual(p.stdout.readline(), "there\n")
            first = self.picks()
            given = [b - a for a, b in zip(before, first)]
            self.assertEqual(sum(given), 1)
            p.stdin.write("\n")
            p.stdin.flush()
            said = json.loads(p.stdout.readline())
            return said, given.index(1), [b - a for a, b in zip(first, self.picks())]
        finally:
            p.communicate("\n", timeout=20 * support.slow())

    def test_a_stalled_worker_gets_none(self):
        with netns.Namespaces() as self.ns:
            self.port, self.instance = support.free_port(), "kgw-%d" % os.getpid()
            gw = self.gateway(BODY.format(interface=self.ns.interface, host=self.ns.host, port=self.port,
                                          stall_ms=STALL_MS), workers=WORKERS, instance=self.instance, admission=None)
            gw.ctl("gate", "open")  # such a delay would shut it
            for _ in range(5):
                said, stalled, given = self.attempt()
                self.assertEqual(said["status"], "HTTP/1.1 101")
                # On a machine that stands still itself nothing was tried.
                if said["opened_s"] < STALL_MS / 1e3 and said["others"] >= 10:
                    break
            else:
                self.fail("never enough connections in time: %s" % said)
            self.assertGreaterEqual(said["stalled_s"], STALL_MS / 1e3)
            self.assertEqual(sum(given), said["others"])
            self.assertEqual(given[stalled], 0, given)
            self.assertGreater(min(n for w, n in enumerate(given) if w != stalled), 0, given)
            gw.stop()


if __name__ == "__main__":
    unittest.main()
