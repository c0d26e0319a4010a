"""Prints what measuring delays in the kernel costs an echo. Usage: sched.py BUILD_DIR

One gateway under one load that does not end; what is measured is switched to and fro (`tidegatectl sample set`): nothing
attached, the default share, every socket, and back. The default is compared with its neighbour in time, that before it and
that after it in turn, and the median of many such pairs counts: what is looked for is less than a machine drifts in a minute. The server has one CPU to itself, the
load generator another. In a network namespace of its own: the gate is attached to its loopback, not to the machine's.
Exit status: 0, also when a figure misses its bar; 1 when it could not be measured."""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../e2e"))

import support  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 151))
SECONDS = float(os.environ.get("BENCH_SECONDS", 0.4))
SETTLE = 0.15
with open(os.path.join(HERE, "../../docs/configuration.md")) as f:
    DEFAULT = re.search(r"`sched.sample_percent` \| number \| `(\d+)`", f.read()).group(1)
SHARES = "0", DEFAULT, "100"
BAR = 2

BODY = """
admission:
  mode: observe
  interfaces: [lo]
listeners:
  - {{name: ws, address: "127.0.0.1:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
"""


class Bench:
    def __init__(self, tmp, cpus):
        port = support.free_port()
        os.sched_setaffinity(0, {cpus[0]})
        self.gw = support.Gateway(tmp, BODY.format(port=port), instance="bench-sched-%d" % os.getpid(), admission=None)
        self.url, self.cpu = "ws://127.0.0.1:%d/echo" % port, cpus[1]
        os.sched_setaffinity(0, set(cpus))

    def load(self, connections):
        p = subprocess.Popen([os.path.join(support.BUILD, "tidegate-bench"), "echo", "--url", self.url, "--connections",
                              str(connections), "--warmup", "0", "--duration", "86400", "--quiet", "--pin", str(self.cpu)])
        support.wait_for(lambda: self.gw.metric("tidegate_sessions") == connections, timeout=30)
        return p

    def switch(self, share):
        """With few connections it is more of them, so that there are some: that is found out a little later."""
        if self.gw.ctl("sample", "set", share)["percent"] != float(share):
            raise AssertionError("the kernel does not measure: %s" % self.gw.log()[-300:])
        time.sleep(SETTLE)

    def read(self):
        """When, messages so far, CPU time of the gateway so far in ns."""
        cpu = 0
        tasks = "/proc/%d/task" % self.gw.gateway_pid
        for tid in os.listdir(tasks):
            with open("%s/%s/schedstat" % (tasks, tid)) as f:
                cpu += int(f.read().split()[0])
        return time.monotonic(), self.gw.metric("tidegate_messages_in_total"), cpu

    def window(self):
        """Messages a second, and CPU time of the gateway for each in us."""
        before = self.read()
        time.sleep(SECONDS)
        after = self.read()
        seconds, messages, cpu = (b - a for a, b in zip(before, after))
        if not messages:
            raise AssertionError("no message came back in %.1f s" % seconds)
        return messages / seconds, cpu / 1e3 / messages


def between(v):
    """The median, and between what it lies with 95 % confidence (by order statistics)."""
    v = sorted(v)
    at = max(0, int(len(v) / 2 - 0.98 * len(v) ** 0.5))
    return statistics.median(v), v[at], v[-1 - at]


def section(b, connections):
    seen = {share: [] for share in SHARES}
    load = b.load(connections)
    try:
        for i in range(ROUNDS):
            # The default stands between the two others.
            for share in SHARES if i % 2 else SHARES[::-1]:
                b.switch(share)
                seen[share].append(b.window())
        if load.poll() is not None:
            raise AssertionError("the load ended before its time")
    finally:
        load.kill()
        load.wait()
    support.wait_for(lambda: b.gw.metric("tidegate_sessions") == 0, timeout=30)
    for share in SHARES:
        rate, cpu = (statistics.median(w[i] for w in seen[share]) for i in (0, 1))
        line = "%12d  %3s %%  %10.0f %8.2f" % (connections, share, rate, cpu)
        if share != "0":
            lost = between([100 * (1 - s[0] / n[0]) for s, n in zip(seen[share], seen["0"])])
            more = between([100 * (s[1] / n[1] - 1) for s, n in zip(seen[share], seen["0"])])
            line += "  %5.2f %% (%.2f .. %.2f)  %5.2f %% (%.2f .. %.2f)" % (*lost, *more)
            if share == DEFAULT:
                line += ", %s (bar: <= %g %% lost)" % ("meets" if lost[0] <= BAR else "MISSES", BAR)
        print(line, flush=True)


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("bench-sched: needs two CPUs", file=sys.stderr)
        return 1
    support.BUILD = os.path.abspath(sys.argv[1])
    support.raise_nofile()
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    print("machine: %s, %d CPUs; Linux %s; load %.2f; %d rounds of %g s each" % (
        model, len(cpus), os.uname().release, os.getloadavg()[0], ROUNDS, SECONDS))
    # Ahead of whatever else runs, where that is allowed; the priority is inherited.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    print("\nsched: echo of 64 bytes, closed loop, with the delays of a share of the sockets measured, against "
          "nothing attached; %s %% is the default\n%12s  %5s  %10s %8s  %s" % (DEFAULT, "connections", "share", "msg/s", "us/msg", "throughput lost, CPU time "
          "per message more: median, and where it lies with 95 % confidence"))
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as tmp:
        os.chmod(tmp, 0o755)  # the gateway gives up root
        try:
            b = Bench(tmp, cpus)
            try:
                for n in 1, 1000:
                    section(b, n)
            finally:
                b.gw.stop()
                subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--instance",
                                "bench-sched-%d" % os.getpid(), "detach"], capture_output=True)
        except (AssertionError, subprocess.SubprocessError, OSError) as e:
            print("bench-sched: could not be measured: %s" % e, file=sys.stderr)
            return 1
    return 0


sys.exit(main())
