"""The load generator against a live gateway: its verdicts, its JSON and its exit status."""

import json
import os
import subprocess

import support


HUBS = """
  - {path: /hub, upstream: hub, hub: {payload_size: 8KiB}}
  - {path: /dropping, upstream: hub, max_message_size: 16KiB, out_queue: {bytes: 64KiB, policy: drop-oldest}}
  - {path: /ending, upstream: hub, max_message_size: 16KiB, out_queue: {bytes: 64KiB, policy: disconnect}}
"""


class Bench(support.Case):
    def setUp(self):
        super().setUp()
        self.ws, self.raw = support.free_port(), support.free_port()
        body = support.echo_body(self.ws, self.raw) + "  - {path: /service, upstream: service}\n" + HUBS
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

    def test_fanout(self):
        for url in ("ws://127.0.0.1:%d/hub" % self.ws, "raw://127.0.0.1:%d/hub" % self.raw):
            status, out, err = self.run_bench("fanout", "--url", url, "--connections", "200", "--threads", "2", "--rate",
                                              "20", "--duration", "1", "--warmup", "0.2", "--echo", "10", "--echo-rate",
                                              "100", "--pid", str(self.gw.gateway_pid))
            self.assertEqual(status, 0, err)
            self.assertEqual(out["publications"], 20)
            self.assertGreater(out["deliveries"], 0)  # those of the measured time, which late ones may fall into
            self.assertEqual((out["missing"], out["incomplete"], out["echo"]["unanswered"]), (0, 0, 0))
            self.assertGreaterEqual(out["last_us"]["p50"], out["delivery_us"]["p50"])
            self.assertGreater(out["echo"]["fanout_us"]["p99"], 0)
        self.assertEqual(self.gw.metric("tidegate_hub_delivered_total"), 2 * 24 * 200)

    def test_fanout_counts_and_pieces(self):
        """--count, and messages larger than the generator's buffers."""
        status, out, err = self.run_bench("fanout", "--url", "ws://127.0.0.1:%d/dropping" % self.ws, "--connections", "3",
                                          "--rate", "50", "--count", "7", "--size", "8000", "--echo", "0")
        self.assertEqual(status, 0, err)
        self.assertEqual((out["publications"], out["deliveries"]), (7, 21))
        self.assertNotIn("echo", out)

    def test_what_the_hub_refuses_is_noticed(self):
        status, out, _ = self.run_bench("fanout", "--url", "ws://127.0.0.1:%d/hub" % self.ws, "--connections", "5", "--rate",
                                        "10", "--count", "3", "--size", "10000", "--echo", "0")
        self.assertEqual(status, 1)
        self.assertIn("too_large", out["publisher_failure"])
        self.assertEqual(out["missing"], 15)

    def test_no_hub_there(self):
        status, _, err = self.run_bench("fanout", "--url", "ws://127.0.0.1:%d/service" % self.ws, "--connections", "5",
                                        "--timeout", "2")
        self.assertEqual(status, 1)
        self.assertIn("the hub says", err)

    def test_slow(self):
        for path, ended in ("dropping", 0), ("ending", 10):
            status, out, err = self.run_bench("slow", "--url", "ws://127.0.0.1:%d/%s" % (self.ws, path), "--connections", "50",
                                              "--slow", "10", "--size", "8000", "--rate", "50", "--duration", "1",
                                              "--warmup", "0.2", "--pid", str(self.gw.gateway_pid))
            self.assertEqual(status, 0, err)
            self.assertEqual((out["deaf"], out["missing"]), (10, 0))
            self.assertEqual(out["publications"], 3 * 50)
            self.assertEqual(self.gw.metric("tidegate_closes_total", reason="out_full"), ended)
            self.assertGreater(self.gw.metric("tidegate_out_dropped_messages_total"), 0)
            self.assertGreaterEqual(out["kernel_tcp"]["peak_bytes"], 0)  # the kernel rounds by a MiB a CPU
            self.assertGreater(out["server"]["rss_peak_bytes"], 0)

    def test_storm(self):
        for url in ("ws://127.0.0.1:%d/echo" % self.ws, "raw://127.0.0.1:%d/echo" % self.raw):
            status, out, err = self.run_bench("storm", "--url", url, "--connections", "20", "--echo-rate", "200", "--rate",
                                              "300", "--duration", "1", "--warmup", "0.2", "--deadline", "20", "--threads", "2",
                                              "--pid", str(self.gw.gateway_pid))
            self.assertEqual(status, 0, err)
            self.assertGreater(out["attempts"], 200)  # on a busy machine the last ones are due too late
            self.assertEqual(out["completed"], out["attempts"])
            self.assertEqual((out["refused"], out["handshakes_refused"], out["given_up"], out["not_made"]), (0, 0, 0, 0))
            self.assertEqual((out["echo"]["sessions"], out["echo"]["lost"], out["echo"]["unanswered"]), (20, 0, 0))
            self.assertGreater(out["echo"]["calm_us"]["p99"], 0)
            self.assertGreater(out["echo"]["storm_us"]["p99"], 0)
            self.assertGreater(out["handshake_us"]["p50"], 0)

    def test_storm_in_a_closed_loop(self):
        status, out, err = self.run_bench("storm", "--url", "ws://127.0.0.1:%d/echo" % self.ws, "--connections", "5",
                                          "--rate", "0", "--under-way", "4", "--duration", "1", "--warmup", "0.2")
        self.assertEqual(status, 0, err)
        self.assertGreater(out["completed"], 4)
        self.assertGreater(out["completed_per_s"], 0)

    def test_a_storm_beyond_capacity_is_given_up(self):
        port, folder = support.free_port(), os.path.join(self.tmp, "costly")
        os.mkdir(folder)
        os.chmod(folder, 0o755)  # the gateway gives up root
        gw = self.start(support.Gateway(folder, support.echo_body(port, support.free_port()),
                                        instance="storm-%d" % os.getpid(), extra="debug: {handshake_cost: 20ms}"), 0)
        support.wait_for(gw.ready)
        _, out, err = self.run_bench("storm", "--url", "ws://127.0.0.1:%d/echo" % port, "--connections", "5", "--rate", "500",
                                     "--deadline", "0.3", "--duration", "2", "--max-errors", "100000")
        self.assertGreater(out["given_up"], 0, err)
        self.assertEqual(out["attempts"], out["completed"] + out["given_up"] + out["refused"] + out["handshakes_refused"])

    def test_source_range(self):
        p = subprocess.Popen([os.path.join(support.BUILD, "tidegate-bench"), "hold", "--url",
                              "ws://127.0.0.1:%d/echo" % self.ws, "--connections", "4", "--source-range",
                              "127.3.0.1-127.3.0.2", "--duration", "60", "--quiet"], stdout=subprocess.DEVNULL)
        try:
            support.wait_for(lambda: self.gw.metric("tidegate_handshakes_total") == 4)
            with open("/proc/net/tcp") as f:
                local = [line.split()[1] for line in f]
            self.assertEqual([sum(a.startswith(prefix) for a in local) for prefix in ("0100037F:", "0200037F:")], [2, 2])
        finally:
            p.terminate()
            p.wait()
        for bad in ("127.3.0.1", "127.3.0.2-127.3.0.1", "127.3.0.1-there", "127.0.0.1-127.255.0.1"):
            status, _, err = self.run_bench("hold", "--url", "ws://127.0.0.1:%d/echo" % self.ws, "--source-range", bad)
            self.assertEqual(status, 2)
            self.assertIn("--source-range: '%s'" % bad, err)
        status, _, err = self.run_bench("hold", "--url", "ws://[::1]:%d/echo" % self.ws, "--source-range", "127.3.0.1-127.3.0.2")
        self.assertEqual(status, 2)
        self.assertIn("not an IPv4 address", err)

    def test_usage(self):
        self.assertEqual(self.run_bench("echo", "--connections", "none")[0], 2)

    def test_nobody_there(self):
        status, _, _ = self.run_bench("echo", "--url", "ws://127.0.0.1:%d/echo" % support.free_port(), "--connections", "1",
                                      "--duration", "1", "--timeout", "2")
        self.assertEqual(status, 1)
