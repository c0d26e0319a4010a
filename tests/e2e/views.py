"""What the gateway shows of its workers' delays, read side by side: the log line, /metrics, `top --json`, the dashboard."""

import json
import os
import re
import subprocess
import threading
import time

import support
from browser import Browser

BUCKET = re.compile(r'tidegate_poll_delay_seconds_bucket\{worker="(\d+)",le="([^"]+)"\} (\d+)')
MS = {"us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1e3}

CELLS = """
    const at = Array.from(document.querySelectorAll("#workers thead th"), h => h.innerText).indexOf("p99");
    return [shown ? shown.seq : 0, Array.from(document.querySelectorAll("#workers tbody tr"), r => r.cells[at].innerText)]"""


class Views:
    """Reads all of them until close(). seen[view] is a list of (when, value), one for each interval that the view has
    shown, the p99 of the poll delay in ms: of each worker, and in the log of all. Those of /metrics are of the time
    between two readings: between what the p99 lies."""

    def __init__(self, gw, tmp):
        self.gw, self.end = gw, threading.Event()
        self.seen = {"log": [], "metrics": [], "top": [], "page": []}
        self.failed = []
        self.top = subprocess.Popen([os.path.join(support.BUILD, "tidegatectl"), "--socket", gw.socket, "top", "--json"],
                                    stdout=subprocess.PIPE, text=True)
        self.browser = Browser(tmp)
        self.browser.open("http://127.0.0.1:%d/" % gw.admin_port)
        self.threads = [threading.Thread(target=self.guard, args=(f,)) for f in (self.read_top, self.read_others)]
        for t in self.threads:
            t.start()

    def close(self):
        self.end.set()
        self.top.terminate()
        for t in self.threads:
            t.join()
        self.top.wait()
        self.top.stdout.close()
        self.browser.close()

    def guard(self, read):
        try:
            read()
        except Exception as e:  # whoever waits for what it reads says so
            if not self.end.is_set():
                self.failed.append(repr(e))

    def add(self, view, value):
        self.seen[view].append((time.monotonic(), value))

    def read_top(self):
        for line in self.top.stdout:
            self.add("top", [w["poll_delay_p99_ns"] / 1e6 for w in json.loads(line)["workers"]])

    def read_others(self):
        seq, before = 0, None
        while not self.end.wait(0.2):
            lines = re.findall(r"sched_poll_delay_p99=([\d.]+)(us|ms|s)", self.gw.log())
            for value, unit in lines[len(self.seen["log"]):]:
                self.add("log", [float(value) * MS[unit]])
            now = self.buckets()
            if before:
                self.add("metrics", [self.p99(*pair) for pair in zip(before, now)])
            before = now
            new, cells = self.browser.run(CELLS)
            if new != seq:
                self.add("page", [float(v) * MS[unit] for v, unit in map(str.split, cells)])
            seq = new

    def buckets(self):
        out = {}
        for worker, le, count in BUCKET.findall(self.gw.get("/metrics")[1]):
            out.setdefault(int(worker), []).append((1e3 * float(le), int(count)))
        return [out[w] for w in sorted(out)]

    @staticmethod
    def p99(before, now):
        """(More than, up to) by the counts at two times; (0, 0) when nothing happened."""
        count = now[-1][1] - before[-1][1]
        low = 0
        for (le, a), (_, b) in zip(before, now):
            if count and b - a >= 0.99 * count:
                return low, le
            low = le if count else 0
        return 0, 0

    def after(self, when, n):
        """The first n that each view showed from then on, once it has."""
        def all_there():
            "each view to show some intervals more"
            return self.failed or all(len([1 for t, _ in s if t >= when]) >= n for s in self.seen.values())
        support.wait_for(all_there)
        if self.failed:
            raise AssertionError("a view could not be read: %s" % self.failed)
        return {view: [v for t, v in s if t >= when][:n] for view, s in self.seen.items()}
