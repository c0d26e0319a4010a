"""The tests' own driver: a failure of any kind turns a run red, what runs alone does, and an interrupted run leaves nothing."""

import os
import re
import signal
import subprocess

import support

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../run.py")
PASSED = "echo '[  PASSED  ] %d test(s).'"


class Runner(support.Case):
    def program(self, name, body, suite=""):
        """A test program that is none, by the name of one that has a source."""
        folder = os.path.join(self.tmp, "tests", suite)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, name)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n%s\n" % body)
        os.chmod(path, 0o755)

    def start_run(self, *suites, lanes="2"):
        return subprocess.Popen([RUN, self.tmp, *suites], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env=dict(os.environ, LANES=lanes))

    def run_tests(self, *suites, **kw):
        p = self.start_run(*suites, **kw)
        out = p.communicate(timeout=60)[0]
        return p.returncode, out

    def test_passes(self):
        self.program("test_slab", PASSED % 3)
        self.program("test_ring", PASSED % 4 + "; echo '[  SKIPPED ] 2 test(s), listed below:'")
        self.program("test_of_an_old_build", "exit 1")  # no source any more
        status, out = self.run_tests("unit")
        self.assertEqual(status, 0, out)
        self.assertRegex(out, r"(?m)^ok   test_slab +3 tests")
        self.assertRegex(out, r"(?m)^skip test_ring +4 tests.*2 skipped")
        self.assertTrue(out.endswith("\n2 skipped\n7 passed, 0 failed\n"), out)

    def test_fails(self):
        cases = (("echo '[  PASSED  ] 2 test(s).'; echo '[  FAILED  ] test_a'; echo '[  FAILED  ] test_b'; exit 2", "2 passed, 2 failed"),
                 (PASSED % 5 + "; exit 1", "5 passed, 1 failed"),  # a leak that is found at the end
                 ("echo its last words; kill -ABRT $$", "0 passed, 1 failed"))
        for body, counts in cases:
            with self.subTest(body=body):
                self.program("test_slab", body)
                status, out = self.run_tests("unit")
                self.assertEqual(status, 1)
                self.assertIn("\nfailed: test_slab\n%s\n" % counts, out)
        self.assertIn("its last words\n", out)

    def test_nothing_to_run(self):
        self.program("test_slab", "exit 0")
        for suites in (("unit",), ("bpf",)):
            status, out = self.run_tests(*suites)
            self.assertEqual((status, out.splitlines()[-1]), (1, "no test ran"))
        for suites, lanes in ((("unti",), "2"), ((), "2"), (("unit",), "0"), (("unit",), "many")):
            self.assertEqual(self.run_tests(*suites, lanes=lanes)[0], 1)

    def test_lanes(self):
        """Two at a time and no more; what measures comes last, by itself; and each has ports of its own."""
        log = os.path.join(self.tmp, "log")
        body = "echo begin $TEST_LANE >>%s; sleep 0.3; echo end >>%s; %s" % (log, log, PASSED % 1)
        for name in ("test_slab", "test_ring", "test_runq", "test_timer"):
            self.program(name, body)
        self.program("test_sched", "echo alone >>%s; sleep 0.3; echo alone >>%s; %s" % (log, log, PASSED % 1), suite="bpf")
        status, out = self.run_tests("bpf", "unit")
        self.assertEqual((status, out.splitlines()[-1]), (0, "5 passed, 0 failed"))
        with open(log) as f:
            lines = f.read().splitlines()
        self.assertEqual(lines[-2:], ["alone", "alone"])
        running = most = 0
        for line in lines[:-2]:
            running += 1 if line.startswith("begin") else -1
            most = max(most, running)
        self.assertEqual((running, most), (0, 2))
        self.assertEqual(sorted(lines[:2]), ["begin 0/2", "begin 1/2"])

    def test_interrupted(self):
        pids = os.path.join(self.tmp, "pids")
        self.program("test_slab", "sleep 300 & echo $$ $! >%s; wait" % pids)
        self.program("test_ring", PASSED % 1)
        p = self.start_run("unit", lanes="1")
        # In alphabetical order: the second one hangs.
        support.wait_for(lambda: os.path.exists(pids) and os.path.getsize(pids))
        p.send_signal(signal.SIGTERM)
        out = p.communicate(timeout=60)[0]
        self.assertEqual((p.returncode, re.findall(r"\d+ passed, \d+ failed", out)), (1, ["1 passed, 1 failed"]))
        with open(pids) as f:
            mine = f.read().split()
        support.wait_for(lambda: not any(os.path.exists("/proc/" + pid) for pid in mine))
