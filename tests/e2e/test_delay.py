"""Delays as the kernel measures them, against what a client sees: a worker that stalls, and everybody who shows it."""
# alone: compares delays with those that it made

import os
import re
import shutil
import time
import unittest

import netns
import support
from support import recv_head, wait_for, ws_frame, ws_recv
from views import Views

BODY = """
admission:
  mode: kernel
  interfaces: [{interface}]
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo, heartbeat: {{interval: 0}}}}
debug: {{handshake_cost: {stall_ms}ms}}
sched: {{sample_percent: 100}}
"""

WORKERS = 2
EACH = 6  # sessions of a worker
STALL_MS = 40
SPREAD = 0.2  # what is measured is that close to what the clients saw


@netns.skip
class Delay(support.Case):
    def setUp(self):
        super().setUp()
        self.ns = netns.Namespaces()
        self.ns.__enter__()
        self.addCleanup(self.ns.__exit__)
        self.port = support.free_port()
        self.gw = self.gateway(BODY.format(interface=self.ns.interface, host=self.ns.host, port=self.port,
                                           stall_ms=STALL_MS), workers=WORKERS, admission=None,
                               instance="delay-%d" % os.getpid())
        self.gw.ctl("gate", "open")  # such a delay would shut it

    def worker_of(self, sock):
        """Which worker has the connection, once one has."""
        port = sock.getsockname()[1]
        for c in self.gw.ctl("conns", "--limit", "1000")["conns"]:
            if c["peer_port"] == port:
                return c["worker"]
        return None

    def sessions(self):
        """Sessions of each worker; what is one too many is closed."""
        of = [[] for _ in range(WORKERS)]
        for _ in range(40 * WORKERS * EACH):
            if min(map(len, of)) == EACH:
                return of
            s = support.ws_open(self.port, host=self.ns.host)
            worker = self.worker_of(s)
            if len(of[worker]) < EACH:
                of[worker].append(s)
                self.addCleanup(s.close)
            else:
                s.close()
        self.fail("not %d sessions a worker: %s" % (EACH, list(map(len, of))))

    def told(self):
        """By worker: the sums and counts of its delays, in ms."""
        m = self.gw.metrics()
        return [{name: (1e3 * m['tidegate_%s_seconds_sum{worker="%d"}' % (name, w)],
                        m['tidegate_%s_seconds_count{worker="%d"}' % (name, w)]) for name in
                 ("wake_delay", "poll_delay", "run_delay")} |
                {"late": m['tidegate_late_turns_total{worker="%d"}' % w]} for w in range(WORKERS)]

    def round_trips(self, sessions):
        """A message on each, all at once: what each took, in ms."""
        sent = []
        for s in sessions:
            sent.append(time.monotonic())
            s.sendall(ws_frame(1, b"x"))
        took = []
        for s, at in zip(sessions, sent):
            self.assertEqual(ws_recv(s)[2], b"x")
            took.append(1e3 * (time.monotonic() - at))
        return took

    def attempt(self, of):
        """Stalls one worker under load. What clients saw of each worker, and what it says of the same time."""
        everybody = [s for sessions in of for s in sessions]
        newcomer = support.connect(self.port, host=self.ns.host)
        self.addCleanup(newcomer.close)
        wait_for(lambda: self.worker_of(newcomer) is not None)
        stalled = self.worker_of(newcomer)
        for _ in range(5):
            self.round_trips(everybody)
        before = self.told()
        newcomer.sendall(support.upgrade_request())
        time.sleep(0.002)
        # Those of the stalled one last: what they wait for others to be read is not to be in it.
        others = [s for w in range(WORKERS) if w != stalled for s in of[w]]
        saw = self.round_trips(others + of[stalled])
        saw = {"others": saw[:len(others)], "stalled": saw[len(others):]}
        self.assertEqual(recv_head(newcomer)[:12], b"HTTP/1.1 101")
        after = self.told()
        say = [{k: (b[k][0] - a[k][0], b[k][1] - a[k][1]) if k != "late" else b[k] - a[k] for k in a}
               for a, b in zip(before, after)]
        return stalled, saw, say

    def agrees(self, stalled, saw, say):
        """None, or what does not. A machine that stands still itself shows in what clients saw of the others."""
        truth = sum(saw["stalled"])
        if max(saw["others"]) > STALL_MS / 8 or min(saw["stalled"]) < STALL_MS / 2:
            return "not a stall of one worker alone"
        wake, events = say[stalled]["wake_delay"]
        poll, _ = say[stalled]["poll_delay"]
        if not (1 - SPREAD) * truth <= wake <= (1 + SPREAD) * truth:
            return "wake delay %.1f ms" % wake
        if not wake <= poll <= (1 + SPREAD) * truth:
            return "poll delay %.1f ms" % poll
        if events != EACH + 1:  # the newcomer's request, too
            return "%d events" % events
        for w in range(WORKERS):
            if w != stalled and say[w]["wake_delay"][0] > SPREAD * truth:
                return "worker %d has waited as well" % w
            if (say[w]["late"] > 0) != (w == stalled):
                return "late turns of worker %d: %d" % (w, say[w]["late"])
        return None

    def lines(self, pattern):
        return re.findall(pattern, self.gw.log())

    def test_a_stalled_worker(self):
        of = self.sessions()
        wait_for(lambda: self.gw.metric("tidegate_sched_sample_ratio") == 1)
        for _ in range(10):
            time.sleep(1.2)  # the interval of the log line is this attempt's own
            line = len(self.lines("sched_poll_delay_p99="))
            stalled, saw, say = self.attempt(of)
            why = self.agrees(stalled, saw, say)
            if not why:
                break
        else:
            self.fail("%s: %s %s" % (why, saw, say))
        # The log, for people: the line of the interval, and what the worker was at.
        wait_for(lambda: len(self.lines("sched_poll_delay_p99=")) >= line + 2)
        p99 = self.lines(r"sched_poll_delay_p99=([\d.]+)ms")
        self.assertTrue([v for v in p99[-3:] if (1 - SPREAD) * STALL_MS <= float(v) <= 2 * STALL_MS], self.gw.log()[-1000:])
        late = r"worker %d took (\d+)ms for a handshake \(ring \d+, slot \d+, no session yet\)" % stalled
        wait_for(lambda: self.lines(late))
        self.assertGreaterEqual(int(self.lines(late)[-1]), STALL_MS)
        # What others are shown.
        w = self.gw.ctl("workers")[stalled]
        self.assertGreaterEqual(w["wake_delay_us"]["max"], 1e3 * (1 - SPREAD) * STALL_MS)
        self.assertGreaterEqual(w["poll_delay_us"]["max"], w["wake_delay_us"]["max"] * 0.999)
        self.assertGreaterEqual(w["first_poll_us"]["count"], EACH)

    def agree_on(self, shown, stalled, truth):
        """None, or which view does not show a stall of that length, of that worker only, in one interval or the next."""
        def near(low, high):
            return high >= (1 - SPREAD) * truth and low <= (1 + SPREAD) * truth
        for view, intervals in shown.items():
            # The log has the worst worker only, the metrics have limits.
            one = [v if len(v) == 1 else [v[stalled]] for v in intervals]
            rest = [u for v in intervals if len(v) > 1 for w, u in enumerate(v) if w != stalled]
            limits = [p if isinstance(p, tuple) else (p, p) for v in one for p in v]
            if not any(near(*p) for p in limits):
                return "%s: not %.1f ms" % (view, truth)
            if [u for u in rest if (u[0] if isinstance(u, tuple) else u) > truth / 4]:
                return "%s: another worker as well" % view
        return None

    @unittest.skipUnless(shutil.which("chromedriver"), "no chromedriver (package chromium-driver)")
    def test_everybody_shows_the_same(self):
        of = self.sessions()
        views = Views(self.gw, self.tmp)
        self.addCleanup(views.close)
        for _ in range(10):
            # So that the intervals that show this stall show no other.
            views.after(time.monotonic(), 2)
            stalled, saw, say = self.attempt(of)
            shown = views.after(time.monotonic(), 2)
            why = self.agrees(stalled, saw, say) or self.agree_on(shown, stalled, max(saw["stalled"]))
            if not why:
                break
        else:
            self.fail("%s: worker %d, %s %s" % (why, stalled, saw, shown))

    def test_switching(self):
        """While nothing is measured, the poll delay is the run delay; nothing is attached then."""
        s = support.ws_open(self.port, host=self.ns.host)
        self.addCleanup(s.close)

        def count(name):
            return self.gw.metric("tidegate_%s_count" % name)

        self.assertEqual(self.gw.ctl("sample"), {"percent": 100.0})
        before = count("wake_delay_seconds"), count("poll_delay_seconds")
        self.round_trips([s])
        wait_for(lambda: (count("wake_delay_seconds"), count("poll_delay_seconds")) == (before[0] + 1, before[1] + 1))
        self.assertEqual(self.gw.ctl("sample", "set", "0"), {"percent": 0})
        self.assertEqual(self.gw.metric("tidegate_sched_sample_ratio"), 0)
        self.assertNotIn("tidegate_cpu_wait_seconds_count", self.gw.get("/metrics")[1])
        before = count("poll_delay_seconds"), count("run_delay_seconds")
        self.round_trips([s])
        self.assertEqual((count("poll_delay_seconds") - before[0]), (count("run_delay_seconds") - before[1]))
        self.assertGreater(count("poll_delay_seconds"), before[0])
        self.gw.ctl("sample", "set", "5")
        wait_for(lambda: self.gw.metric("tidegate_sched_sample_ratio") == 1)  # as few as they are
        before = count("wake_delay_seconds")
        self.round_trips([s])
        wait_for(lambda: count("wake_delay_seconds") == before + 1)


if __name__ == "__main__":
    unittest.main()
