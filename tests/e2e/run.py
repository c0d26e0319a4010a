"""Runs end-to-end tests: run.py --build DIR [-k PATTERN]... [MODULE...]; all test_*.py unless told.
Ends with 'N passed, N failed, N skipped'."""

import argparse
import os
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import support  # noqa: E402


class Result(unittest.TextTestResult):
    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.passed = getattr(self, "passed", 0) + 1
        self.stream.writeln("ok   %-70s %5.1f s" % (test.id(), time.monotonic() - self.began))
        self.stream.flush()

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.stream.writeln("FAIL %s" % test.id())

    def addError(self, test, err):
        super().addError(test, err)
        self.stream.writeln("FAIL %s" % test.id())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("-k", action="append", default=[])
    p.add_argument("module", nargs="*", default=["test_*"])
    args = p.parse_args()
    support.BUILD = os.path.abspath(args.build)
    loader = unittest.TestLoader()
    if args.k:
        loader.testNamePatterns = ["*%s*" % k for k in args.k]
    suite = unittest.TestSuite(loader.discover(HERE, pattern=m + ".py", top_level_dir=HERE) for m in args.module)
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=0, resultclass=Result)
    result = runner.run(suite)
    bad = len(result.failures) + len(result.errors)
    good = getattr(result, "passed", 0)
    for test, why in result.skipped:
        print("skipped %s: %s" % (test.id(), why))
    print("%d passed, %d failed, %d skipped" % (good, bad, len(result.skipped)))
    sys.exit(1 if bad or not good + len(result.skipped) else 0)


main()
