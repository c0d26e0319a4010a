"""The load generator against a live gateway: its verdicts, its JSON and its exit status."""

import json
import os
import subprocess

import support


class Bench(support.Case):
    def setUp(self):
        super().setUp()
        self.ws, self.raw = support.free_port(), support.free_port()
        body = support.echo_body(self.ws, self.raw) + "  - {path: /service, upstream: service}\n"
        # It answers in upper case, which an echo test must notice.
        self.svc = self.service(mode="uppercase")
        body += "upstreams:\n  - {name: service, type: link, endpoints: [\"%s\"]}\n" % self.svc.endpoint
        self.gw = self.gateway(body)
        support.wait_for(self.gw.ready)

    def run_bench(self, *args):
        argv = [os.path.join(support.BUILD, "tidegate-bench"), *args, "--json", "--quiet"]
        r = subprocess.run(argv, capture_output=True, text=True, timeout=60 * support.slow())
        lines = r.stdout.strip().splitlines()
        return r.returncode, json.loads(lines[-1]) if lines else None, r.stderr

    def test_echo(self):
        for url in ("ws://127.0.0.1:%d/echo" % self.ws, "raw://127.0.0.1:%d/echo" % self.raw):
            status, out, err = self.run_bench("echo", "--url", url, "--connections", "100", "--duration", "1", "--pid",
                                              str(self.gw.gateway_pid))
            self.assertEqual(status, 0, err)
            self.assertGreater(out["messages"], 100)
        self.assertGreater(self.gw.metric("tidegate_messages_in_total"), 200)

    def test_a_wrong_echo_is_noticed(self):
        status, _, _ = self.run_bench("echo", "--url", "ws://127.0.0.1:%d/service" % self.ws, "--connections", "2", "--text",
                                      "--duration", "1")
        self.assertEqual(status, 1)

    def test_hold(self):
        status, out, err = self.run_bench("hold", "--url", "ws://127.0.0.1:%d/echo" % self.ws, "--connections", "1000",
                                          "--duration", "1")
        self.assertEqual(status, 0, err)
        self.assertEqual(self.gw.metric("tidegate_handshakes_total"), 1000)

    def test_usage(self):
        self.assertEqual(self.run_bench("echo", "--connections", "none")[0], 2)

    def test_nobody_there(self):
        status, _, _ = self.run_bench("echo", "--url", "ws://127.0.0.1:%d/echo" % support.free_port(), "--connections", "1",
                                      "--duration", "1", "--timeout", "2")
        self.assertEqual(status, 1)
