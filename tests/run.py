#!/usr/bin/python3 -B
"""Runs the tests of one build. Usage: tests/run.py BUILD_DIR unit|bpf|e2e|soak...

One file of tests at a time more than there are CPUs (LANES=1: one after another), for most of what they do is to wait. Those
that would take a load beside them for the gateway's come last, by themselves: their source says so in a line 'alone: WHY'.
Ends with one line, 'N passed, N failed'; exits non-zero on any failure, and when no test ran."""

import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GRACE_S = 5  # between asking and killing

# Leaks are failures; a sanitizer's report is an abort, not a line in a log.
SANITIZERS = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1",
              "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1"}


class Tests:
    """One file of tests: what runs it, and what it says of itself."""

    def __init__(self, name, source, argv, limit):
        self.name, self.argv, self.limit = name, argv, limit
        with open(source) as f:
            self.alone = any(re.match(r"(#|/?\*|//) alone: ", line.strip()) for line in f)
        self.passed = self.failed = self.skipped = 0

    def run(self, env):
        """Its output: all of it when something failed, else what is worth a line."""
        began = time.monotonic()
        try:
            p = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env,
                                 errors="replace", start_new_session=True)
        except OSError as e:
            self.failed = 1
            return "FAIL %s: %s" % (self.name, e)
        running.add(p)
        try:
            out = p.communicate(timeout=self.limit)[0]
            why = "exit status %d" % p.returncode
            ended = p.returncode == 0
        except subprocess.TimeoutExpired:
            out, why, ended = end(p), "not done after %d s" % self.limit, False
        finally:
            running.discard(p)
        self.count(out)
        if not ended and not self.failed:
            self.failed = 1
        seconds = time.monotonic() - began
        if self.failed:
            return "%sFAIL %s (%s)" % (out, self.name, why)
        return self.summary(out, seconds)


class Program(Tests):
    """A cmocka program. A skipped test is neither passed nor failed."""

    def count(self, out):
        self.passed, self.skipped = (sum(map(int, re.findall(r"^\[  %s *\] (\d+) test" % said, out, re.M)))
                                     for said in ("PASSED", "SKIPPED"))
        self.failed = len(re.findall(r"^\[  FAILED  \] [a-zA-Z_]", out, re.M))

    def summary(self, _, seconds):
        line = "%-4s %-28s %3d tests %6.1f s" % ("skip" if self.skipped else "ok", self.name, self.passed, seconds)
        if self.skipped:
            line += ", %d skipped: not possible here (they need root, BPF, or more of the kernel)" % self.skipped
        return line


class Module(Tests):
    """A file of tests/e2e. Its output has a line a test, and the counts in the last one."""

    def count(self, out):
        said = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", out, re.M)
        if said:
            self.passed, self.failed, self.skipped = map(int, said[-1])
        else:
            self.failed = 1

    def summary(self, out, _):
        return "\n".join(re.findall(r"^(?:ok|skipped) .*$", out, re.M))


running = set()
stopping = threading.Event()


def signal_all(processes, sig):
    """The process of a file, and all that it started: they are a group."""
    for p in processes:
        try:
            os.killpg(p.pid, sig)
        except ProcessLookupError:
            pass


def end(p):
    """Ends a file's processes, first in a way that lets them clean up; what was left of their output."""
    for sig in signal.SIGINT, signal.SIGKILL:
        signal_all([p], sig)
        try:
            return p.communicate(timeout=GRACE_S)[0]
        except subprocess.TimeoutExpired:
            pass
    return ""


def stop(*_):
    """Whoever ends the driver ends the tests that run, and the driver when they are gone."""
    stopping.set()
    processes = list(running)
    signal_all(processes, signal.SIGINT)
    killer = threading.Timer(GRACE_S, signal_all, (processes, signal.SIGKILL))
    killer.daemon = True
    killer.start()


def programs(folder, sources):
    for path in sorted(glob.glob(os.path.join(folder, "test_*"))):
        # A program whose source is gone is an old build's.
        source = os.path.join(sources, os.path.basename(path) + ".c")
        if os.path.isfile(path) and os.access(path, os.X_OK) and os.path.exists(source):
            yield Program(os.path.basename(path), source, [path], 300)


def modules(build, prefix, limit):
    for path in sorted(glob.glob(os.path.join(HERE, "e2e", prefix + "_*.py"))):
        name = os.path.basename(path)[:-3]
        yield Module(name, path, ["/usr/bin/python3", "-B", os.path.join(HERE, "e2e/run.py"), "--build", build, name], limit)


def main():
    if len(sys.argv) < 3 or set(sys.argv[2:]) - {"unit", "bpf", "e2e", "soak"}:
        sys.exit(__doc__)
    build = os.path.abspath(sys.argv[1])
    suites = {"unit": lambda: programs(os.path.join(build, "tests"), HERE),
              "bpf": lambda: programs(os.path.join(build, "tests/bpf"), os.path.join(HERE, "bpf")),
              "e2e": lambda: modules(build, "test", 600),
              "soak": lambda: modules(build, "soak", 1800)}
    tests = [t for suite in sys.argv[2:] for t in suites[suite]()]
    lanes = os.environ.get("LANES") or str(len(os.sched_getaffinity(0)) + 1)
    if not re.fullmatch(r"[1-9]\d{0,2}", lanes):
        sys.exit("run.py: LANES='%s' is not a whole number from 1 to 999" % lanes)
    lanes = int(lanes)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    free = list(range(lanes))
    os.chdir(os.path.dirname(HERE))

    def run(t):
        if stopping.is_set():
            return t, None
        lane = free.pop()
        try:
            return t, t.run({**SANITIZERS, **os.environ, "TEST_LANE": "%d/%d" % (lane, lanes)})
        finally:
            free.append(lane)

    for alone in False, True:
        with concurrent.futures.ThreadPoolExecutor(1 if alone else lanes) as pool:
            for done in concurrent.futures.as_completed([pool.submit(run, t) for t in tests if t.alone == alone]):
                out = done.result()[1]
                if out is not None:
                    print(out, flush=True)
    passed, failed, skipped = (sum(getattr(t, n) for t in tests) for n in ("passed", "failed", "skipped"))
    if failed:
        print("failed: " + " ".join(t.name for t in tests if t.failed))
    if not passed + failed:
        sys.exit("no test ran")
    if skipped:
        print("%d skipped" % skipped)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or stopping.is_set() else 0)


main()
