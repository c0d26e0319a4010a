"""Prints what the gate in the kernel keeps off, between two network namespaces. Usage: gate.py BUILD_DIR [flood|fair|steer|storm]...

flood: echo of established sessions, and new connections of proven prefixes, while SYNs with four million forged sources come
as fast as one CPU sends them; calm, with a gate that paces, and with one that is open. The flood has one CPU, everything else
another. fair: 200 addresses that offer ten times what the gate lets in, one of them 50 times as much as any other. steer: how
evenly 4 equal workers are given connections, by their load and by the kernel's hash. storm: 2,000 sessions that echo, alone
and while ten times as many connections are attempted as the gateway can serve, with the gate and without. The generator has
one CPU, the gateway the other; a handshake costs so much CPU time that one generator is enough.
Exit status: 0, also when a figure misses its bar; 1 when something could not be measured."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../e2e"))

import netns  # noqa: E402
import support  # noqa: E402

ROUNDS = int(os.environ.get("BENCH_ROUNDS", 5))
SECONDS = int(os.environ.get("BENCH_SECONDS", 3))

BODY = """
admission:
  mode: {mode}
  interfaces: [{interface}]
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


def bar(value, limit, least=False):
    good = value >= limit if least else value <= limit
    return "%s (bar: %s %g)" % ("meets" if good else "MISSES", ">=" if least else "<=", limit)


class Place:
    """Two namespaces, and a gateway in one of them whose gate an operator sets."""

    def __init__(self, mode="kernel", workers=1, extra=""):
        self.mode, self.workers, self.extra = mode, workers, extra

    def __enter__(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="tidegate-bench-")
        os.chmod(self.tmp.name, 0o755)
        self.ns = netns.Namespaces()
        self.ns.__enter__()
        self.port = support.free_port()
        body = BODY.format(mode=self.mode, interface=self.ns.interface, host=self.ns.host, port=self.port)
        try:
            self.gw = support.Gateway(self.tmp.name, body, workers=self.workers, instance="bench-gate-%d" % os.getpid(),
                                      admission=None, extra=self.extra)
        except BaseException:
            self.ns.__exit__()
            raise
        self.proven = [self.ns.address(i) for i in range(100)]
        return self

    def __exit__(self, *_):
        self.gw.stop()
        self.ns.__exit__()
        self.tmp.cleanup()

    def gate(self, *word):
        self.gw.ctl("gate", *word)
        state = {"rate": "paced", "open": "open", "auto": "open"}[word[0]]
        support.wait_for(lambda: self.gw.ctl("gate")["state"] == state)

    def accepts(self):
        return [self.gw.metric("tidegate_accepts_total", worker=str(w)) for w in range(self.workers)]

    def prove(self, addresses):
        got = self.ns.connect(self.port, addresses)
        bad = [a for a in addresses if got[a]["ok"] != 1]
        if bad:
            raise AssertionError("no connection from %s" % bad)

    def echo(self):
        """p50 and p99 in us of 20 sessions, 2,000 messages a second together, open loop."""
        r = subprocess.run(self.ns.inside(
            os.path.join(support.BUILD, "tidegate-bench"), "echo", "--url",
            "ws://%s:%d/echo" % (self.ns.host, self.port), "--connections", "20", "--rate", "2000", "--duration",
            str(SECONDS), "--timeout", "30", "--json", "--quiet"), capture_output=True, text=True, timeout=120)
        if r.returncode:
            raise AssertionError("tidegate-bench: %s" % (r.stderr + r.stdout)[-1000:])
        return json.loads(r.stdout.splitlines()[-1])["latency_us"]

    def connects(self):
        """The share of attempts of proven prefixes that came through within 3 s."""
        got = self.ns.open_loop(self.port, dict.fromkeys(self.proven, 0.5), SECONDS, 3)
        return 100 * sum(got["admitted"].values()) / sum(got["offered"].values())


    def storm(self, cpus, rate, seconds, under_way=16):
        """2,000 sessions for so many seconds alone, and as long while connections are attempted; rate 0: as many as are
        completed. What tidegate-bench says of it."""
        r = subprocess.run(self.ns.inside(
            os.path.join(support.BUILD, "tidegate-bench"), "storm", "--url", "ws://%s:%d/echo" % (self.ns.host, self.port),
            "--connections", "2000", "--connect-rate", "1000", "--echo-rate", "2000", "--rate", "%.0f" % rate,
            "--under-way", str(under_way), "--duration", str(seconds), "--deadline", "0.9", "--source-range",
            "%s-%s" % (self.ns.address(0), self.ns.address(netns.ADDRESSES - 1)), "--pin", str(cpus[1]), "--timeout",
            "30", "--max-errors", "100000000", "--json", "--quiet"), capture_output=True, text=True, timeout=120)
        if not r.stdout:
            raise AssertionError("tidegate-bench: %s" % r.stderr[-1000:])
        return json.loads(r.stdout.splitlines()[-1])


def flooded(place, cpu, measure):
    """What measure() returns during a flood, and the flood's rate."""
    flood = place.ns.flood(support.BUILD, place.port, 100)
    os.sched_setaffinity(flood.pid, {cpu})
    try:
        seen = place.gw.metric("tidegate_verdicts_total", program="admit")
        support.wait_for(lambda: place.gw.metric("tidegate_verdicts_total", program="admit") > seen + 10000)
        got = measure()
        if flood.poll() is not None:
            raise AssertionError("the flood ended before its time")
    finally:
        flood.terminate()
        flood.communicate()
    return got


def section_flood(cpus):
    print("\nflood: 4,194,304 forged sources; 20 sessions echo 2,000 messages/s; 100 proven addresses connect 50 times a second")
    os.sched_setaffinity(0, {cpus[0]})
    with Place() as p:
        p.prove(p.proven)
        rows = {"calm": [], "paced": [], "open": []}
        for _ in range(ROUNDS):
            p.gate("open")
            rows["calm"].append((p.echo(), p.connects()))
            for name, word in (("paced", ("rate", "2000")), ("open", ("open",))):
                p.gate(*word)
                try:
                    rows[name].append(flooded(p, cpus[1], lambda: (p.echo(), p.connects())))
                except (AssertionError, subprocess.TimeoutExpired) as e:
                    if name == "paced":
                        raise
                    print("%12s  not measured: %s" % (name, str(e).splitlines()[0][:100]))
        for name, got in rows.items():
            if not got:
                continue
            ratio = statistics.median(g[0]["p99"] / c[0]["p99"] for g, c in zip(got, rows["calm"]))
            share = statistics.median(g[1] for g in got)
            print("%12s  echo p50 %.0f us, p99 %.0f us, x %.2f%s; %.1f %% of attempts within 3 s%s" % (
                name, statistics.median(g[0]["p50"] for g in got), statistics.median(g[0]["p99"] for g in got), ratio,
                ", " + bar(ratio, 2) if name == "paced" else "", share,
                ", " + bar(share, 95, least=True) if name == "paced" else ""))
    # How much that was, with nothing else to do.
    with Place() as p:
        p.gate("rate", "2000")
        flood = p.ns.flood(support.BUILD, p.port, SECONDS)
        os.sched_setaffinity(flood.pid, {cpus[1]})
        sent = json.loads(flood.communicate()[0])
        print("%12s  %.2f million SYNs a second" % ("the flood", sent["sent"] / sent["seconds"] / 1e6))


def section_fair(cpus):
    rate, times, seconds = 400, 50, 4 * SECONDS
    print("\nfair: 200 addresses offer 10 times the rate of %d a second, one of them %d times as much as another" %
          (rate, times))
    os.sched_setaffinity(0, set(cpus))
    for name in ("newcomers", "proven"):
        with Place() as p:
            everybody = [p.ns.address(i) for i in range(netns.ADDRESSES)]
            if name == "proven":
                p.prove(everybody)
            p.gate("rate", str(rate))
            offers = dict.fromkeys(everybody, 10 * rate / (netns.ADDRESSES - 1 + times))
            offers[everybody[0]] *= times
            got = p.ns.open_loop(p.port, offers, seconds, 0.5, skip=5)
            others = sorted(n for a, n in got["admitted"].items() if a != everybody[0])
            index = netns.jain(others)
            ratio = got["admitted"][everybody[0]] / (sum(others) / len(others))
            total = sum(got["admitted"].values()) / seconds
            print("%12s  %.0f of %.0f a second; Jain's index %.3f, %s; least %d, most %d; greedy x %.2f, %s; generator late by %.0f ms at most" % (
                name, total, sum(got["offered"].values()) / seconds, index, bar(index, 0.95, least=True), others[0],
                others[-1], ratio, bar(ratio, 2), 1e3 * got["behind"]))


def section_steer(cpus):
    print("\nsteer: 4 workers, %d times 800 connections; standard deviation of what each was given, to the mean" % ROUNDS)
    os.sched_setaffinity(0, set(cpus))
    spread = {}
    for mode, name in (("kernel", "steered"), ("off", "hashed")):
        with Place(mode, workers=4) as p:
            if mode == "kernel":
                p.gate("open")
            spread[name] = []
            for _ in range(ROUNDS):
                before = p.accepts()
                _, held = p.ns.connect(p.port, [p.ns.address(i) for i in range(netns.ADDRESSES)], times=4, close=False,
                                       hold=60)
                support.wait_for(lambda: sum(p.accepts()) - sum(before) == 4 * netns.ADDRESSES)
                held.kill()
                held.wait()
                held.stdout.close()
                given = [b - a for a, b in zip(before, p.accepts())]
                spread[name].append(statistics.pstdev(given) / statistics.mean(given))
    for name, got in spread.items():
        print("%12s  %.3f" % (name, statistics.median(got)))
    print("%12s  x %.2f, %s" % ("ratio", statistics.median(spread["steered"]) / statistics.median(spread["hashed"]), bar(
        statistics.median(spread["steered"]) / statistics.median(spread["hashed"]), 1)))


def section_storm(cpus):
    seconds, rounds = 5 * SECONDS, min(ROUNDS, 3)
    cost_us, turn_us = 300, int(os.environ.get("BENCH_HANDSHAKE_TURN_US", 100))
    print("\nstorm: 2,000 sessions echo 2,000 messages/s, %d times %d s alone and as long in the storm; a handshake costs %d us, in turns of %d; "
          "attempts from 200 addresses without limits of their own, refused ones dropped, given up after 0.9 s" % (
              rounds, seconds, cost_us, turn_us))
    os.sched_setaffinity(0, {cpus[0]})
    best = 0
    for name, mode in (("gate on", "kernel"), ("gate off", "off")):
        with Place(mode, extra="debug: {handshake_cost: %dus, handshake_turn: %dus}" % (cost_us, turn_us)) as p:
            if mode == "kernel":
                # What it can serve: offered just as many as it completes, by more and more at a time.
                p.gate("open")
                best = max(p.storm(cpus, 0, SECONDS, n)["completed_per_s"] for n in (16, 64))
                print("%12s  %.0f handshakes a second" % ("best rate", best))
                p.gate("auto")
            got = [p.storm(cpus, 10 * best, seconds) for _ in range(rounds)]

        def median(of):
            return statistics.median(of(g) for g in got)

        ratio = median(lambda g: g["echo"]["p99_ratio"])
        share = median(lambda g: 100 * g["completed_per_s"] / best)
        gated = mode == "kernel"
        print("%12s  sessions p50 %.2f ms, p99 %.2f ms, in the calm %.2f and %.2f ms: p99 x %.2f%s; %d lost" % (
            name, median(lambda g: g["echo"]["storm_us"]["p50"]) / 1e3, median(lambda g: g["echo"]["storm_us"]["p99"]) / 1e3,
            median(lambda g: g["echo"]["calm_us"]["p50"]) / 1e3, median(lambda g: g["echo"]["calm_us"]["p99"]) / 1e3, ratio,
            ", " + bar(ratio, 3) if gated else "", sum(g["echo"]["lost"] for g in got)))
        print("%12s  %.0f handshakes/s, %.1f %% of the best%s; %.0f attempts/s, late by %.0f ms at most; the sessions' "
              "messages late by %.2f ms (p99)" % (
            "", median(lambda g: g["completed_per_s"]), share, ", " + bar(share, 90, least=True) if gated else "",
            median(lambda g: g["attempts_per_s"]), max(g["late_ms"] for g in got),
            median(lambda g: g["echo"]["behind_us"]["p99"]) / 1e3))


def main():
    sections = {"flood": section_flood, "fair": section_fair, "steer": section_steer, "storm": section_storm}
    wanted = sys.argv[2:] or list(sections)
    if len(sys.argv) < 2 or [s for s in wanted if s not in sections]:
        print(__doc__, file=sys.stderr)
        return 2
    if netns.needed():
        print("bench-gate: " + netns.needed(), file=sys.stderr)
        return 1
    support.BUILD = os.path.abspath(sys.argv[1])
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("bench-gate: needs two CPUs", file=sys.stderr)
        return 1
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    print("machine: %s, %d CPUs; Linux %s; %d rounds of %d s" % (model, len(cpus), os.uname().release, ROUNDS, SECONDS))
    # Ahead of whatever else runs, where that is allowed; the priority is inherited.
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    failed = 0
    for s in wanted:
        try:
            sections[s](cpus)
        except (AssertionError, subprocess.SubprocessError, OSError) as e:
            print("bench-gate: %s could not be measured: %s" % (s, e), file=sys.stderr)
            failed = 1
    return failed


sys.exit(main())
