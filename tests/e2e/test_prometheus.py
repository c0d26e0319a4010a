"""Prometheus itself reads a gateway under load: every panel of the Grafana file has data, and every alert can be evaluated."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import netns
import support
from support import free_port, wait_for, ws_frame, ws_open, ws_recv

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
RULES = os.path.join(ROOT, "tools/packaging/prometheus/tidegate.rules.yml")
RULE_TESTS = os.path.join(ROOT, "tests/prometheus/rules_test.yml")
DASHBOARD = os.path.join(ROOT, "tools/packaging/grafana/tidegate.json")
RATE_INTERVAL_S = 4
SCRAPE = "500ms"

CONFIG = """
global: {{scrape_interval: %s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: tidegate
    static_configs: [{{targets: ["127.0.0.1:{admin}"]}}]
""" % SCRAPE

BODY = """
{admission}
auth: {{secrets: [{tmp}/secret]}}
sockets: {{send_buffer: 4KiB}}
access_log: {{file: {tmp}/access.log}}
listeners:
  - {{name: ws, address: "{host}:{port}"}}
routes:
  - {{path: /echo, upstream: echo}}
  - {{path: /private, upstream: echo, auth: {{type: token}}}}
  - {{path: /service, upstream: service}}
  - {{path: /hub, upstream: hub, out_queue: {{bytes: 64KiB, policy: drop-oldest}}, max_message_size: 16KiB}}
upstreams:
  - {{name: service, type: link, endpoints: ["{endpoint}"]}}
"""

IN_KERNEL = "admission: {{mode: kernel, interfaces: [{interface}]}}\nsched: {{sample_percent: 100}}"
IN_USER_SPACE = "admission: {mode: user}"
KERNEL_ONLY = ("tidegate_wake_delay_seconds", "tidegate_cpu_wait_seconds")


def program(name):
    path = os.path.join(ROOT, "build/deps/prometheus", name)
    if not os.access(path, os.X_OK):
        raise AssertionError("%s is not there: make deps" % path)
    return path


def promtool(*args, data=None):
    r = subprocess.run([program("promtool"), *args], input=data, capture_output=True, text=True)
    return r.returncode, r.stdout + r.stderr


def expressions(panel):
    return [t["expr"] for t in panel.get("targets", [])]


def dashboard():
    with open(DASHBOARD) as f:
        return json.load(f)


def names(expr):
    """The metrics and recorded rules that an expression asks for."""
    return set(re.findall(r"\b(?:tidegate[_:]|process_)[a-z0-9_:]+|\bup(?=\{)", re.sub(r'"[^"]*"', '""', expr)))


class Prometheus(support.Process):
    def __init__(self, tmp, admin_port):
        self.port = free_port()
        config = os.path.join(tmp, "prometheus.yml")
        with open(config, "w") as f:
            f.write(CONFIG.format(rules=RULES, admin=admin_port))
        super().__init__([program("prometheus"), "--config.file", config, "--storage.tsdb.path", os.path.join(tmp, "data"),
                          "--web.listen-address", "127.0.0.1:%d" % self.port, "--log.level", "warn"],
                         os.path.join(tmp, "prometheus.log"))
        wait_for(self.serves, 30)

    def serves(self):
        "Prometheus to serve"
        if self.p.poll() is not None:
            raise AssertionError("prometheus ended:\n%s" % self.log())
        with contextlib.suppress(OSError):
            with urllib.request.urlopen("http://127.0.0.1:%d/-/ready" % self.port, timeout=10) as r:
                return r.status == 200
        return False

    def ask(self, path, **query):
        url = "http://127.0.0.1:%d/api/v1/%s?%s" % (self.port, path, urllib.parse.urlencode(query))
        try:
            with urllib.request.urlopen(url, timeout=20 * support.slow()) as r:
                return json.load(r)["data"]
        except urllib.error.HTTPError as e:
            raise AssertionError("%s: %s" % (query, e.read().decode()))

    def numbers(self, expr, since):
        """Every value of every series from then to now that is a number."""
        found = self.ask("query_range", query=expr, start=since, end=time.time(), step="1s")["result"]
        return [v for series in found for _, v in series["values"] if v != "NaN"]


class Load(threading.Thread):
    """Sessions that talk and new ones that come and go, until it is stopped."""

    def __init__(self, at):
        super().__init__(daemon=True)
        self.host, self.port = at
        self.ended = threading.Event()
        self.failure = None

    def run(self):
        try:
            sessions = [ws_open(self.port, path, host=self.host) for path in ("/echo", "/service") for _ in range(8)]
            while not self.ended.wait(0.02):
                for s in sessions:
                    s.sendall(ws_frame(1, b"hello"))
                for s in sessions:
                    ws_recv(s)
                ws_open(self.port, host=self.host).close()
            for s in sessions:
                s.close()
        except (OSError, AssertionError, EOFError) as e:
            self.failure = e

    def stop(self):
        self.ended.set()
        self.join()
        if self.failure:
            raise self.failure


class Live(support.Case):
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.kernel = netns.needed() is None
        self.host, admission = "127.0.0.1", IN_USER_SPACE
        self.instance = "prom-%d" % os.getpid()
        if self.kernel:
            ns = netns.Namespaces()
            ns.__enter__()
            self.addCleanup(ns.__exit__)
            self.addCleanup(subprocess.run, [os.path.join(support.BUILD, "tidegatectl"), "--instance", self.instance,
                                             "detach"], capture_output=True)
            self.host, admission = ns.host, IN_KERNEL.format(interface=ns.interface)
        with open(os.path.join(self.tmp, "secret"), "w") as f:
            f.write("a secret of the tests, long enough for it")
        service = self.service()
        self.port = free_port()
        self.gw = self.gateway(BODY.format(tmp=self.tmp, host=self.host, port=self.port, endpoint=service.endpoint,
                                           admission=admission), workers=2, instance=self.instance, admission=None)
        wait_for(self.gw.ready)
        self.prometheus = self.start(Prometheus(self.tmp, self.gw.admin_port))
        wait_for(self.scraped, 30)

    def scraped(self):
        "the gateway to be scraped twice: what happens before that is part of no rate"
        found = self.prometheus.ask("query", query="sum_over_time(up[1m])")["result"]
        return found and float(found[0]["value"][1]) >= 2

    def refused(self, request):
        s = support.connect(self.port, host=self.host)
        s.sendall(request)
        support.recv_all(s)
        s.close()

    def hub(self, message):
        s = ws_open(self.port, "/hub", host=self.host)
        s.sendall(ws_frame(1, json.dumps(message).encode()))
        op, _, payload = ws_recv(s)
        self.assertEqual(op, 1)
        return s, json.loads(payload)

    def events(self):
        """What some panels show only when it happens: input and tokens refused, a request that the hub refuses, and messages
        dropped for a client that does not read."""
        self.refused(b"GET / HTTP/1.0\r\n\r\n")
        self.refused(support.upgrade_request("/private"))
        s, answer = self.hub({"type": "unsubscribe", "topic": "t", "id": 1})
        self.assertEqual(answer["code"], "not_subscribed")
        s.close()
        deaf, _ = self.hub({"type": "subscribe", "topic": "t", "id": 1})
        self.addCleanup(deaf.close)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def dropped():
            "messages to be dropped"
            self.gw.ctl("publish", "t", "x" * 12000)
            return self.gw.metric("tidegate_out_dropped_total", route="/hub", policy="drop-oldest") > 0
        wait_for(dropped, 30)

    def variables(self, expr):
        for name, value in (("$__rate_interval", "%ds" % RATE_INTERVAL_S), ("$job", "tidegate"), ("$instance", ".*")):
            expr = expr.replace(name, value)
        self.assertNotIn("$", expr)
        return expr

    def test_every_panel_has_data(self):
        begin = time.time()
        load = Load((self.host, self.port))
        load.start()
        self.addCleanup(load.stop)
        self.events()
        wanted = {self.variables(e) for panel in dashboard()["panels"] for e in expressions(panel)}
        if not self.kernel:
            wanted = {e for e in wanted if not any(name in e for name in KERNEL_ONLY)}

        def empty():
            return [e for e in sorted(wanted) if not self.prometheus.numbers(e, begin)]
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not empty(), 4 * RATE_INTERVAL_S, interval=1)
        self.assertEqual(empty(), [])

    def test_alerts(self):
        load = Load((self.host, self.port))
        load.start()
        self.addCleanup(load.stop)

        def rules():
            return [r for g in self.prometheus.ask("rules")["groups"] for r in g["rules"]]

        def evaluated():
            "every rule to be evaluated"
            return all(r["health"] != "unknown" for r in rules())
        wait_for(evaluated)
        self.gw.ctl("gate", "shut")

        def pending():
            "the alert of a shut gate"
            return [a for a in self.prometheus.ask("alerts")["alerts"] if a["labels"]["alertname"] == "TidegateGateShut"]
        alert = wait_for(pending)[0]
        self.assertEqual(alert["annotations"]["summary"],
                         "127.0.0.1:%d: the gate is shut, newcomers are refused" % self.gw.admin_port)
        self.gw.ctl("gate", "auto")
        self.assertEqual([(r["name"], r["lastError"]) for r in rules() if r["health"] != "ok"], [])
        self.assertNotIn("error", json.dumps([a["annotations"] for r in rules() for a in r.get("alerts", ())]).lower())
        self.known(rules())

    def known(self, rules):
        """What rules and panels name exists: a misspelt alert would just never fire."""
        exists = set(self.prometheus.ask("label/__name__/values"))
        if not self.kernel:
            exists |= {n + "_bucket" for n in KERNEL_ONLY}
        recorded = {r["name"] for r in rules if r["type"] == "recording"}
        asked = [r["query"] for r in rules] + [e for p in dashboard()["panels"] for e in expressions(p)]
        for expr in asked:
            self.assertTrue(names(expr), expr)
            self.assertEqual(names(expr) - exists - recorded, set(), expr)
            for label, values in re.findall(r'(\w+)=~?"([a-z_|]+)"', expr):
                there = set(self.prometheus.ask("label/%s/values" % label))
                if self.kernel or label != "reason":
                    self.assertEqual(set(values.split("|")) - there, set(), expr)


class Files(unittest.TestCase):
    def test_rules(self):
        status, said = promtool("check", "rules", RULES)
        self.assertEqual(status, 0, said)
        self.assertIn("SUCCESS", said)
        status, said = promtool("test", "rules", RULE_TESTS)
        self.assertEqual(status, 0, said)

    def test_every_alert_is_tested_and_says_what_to_do(self):
        with open(RULES) as f:
            rules = f.read()
        with open(RULE_TESTS) as f:
            tested = set(re.findall(r'alertname="(\w+)", alertstate="firing"', f.read()))
        alerts = re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", rules, re.S)
        self.assertEqual({name for name, _ in alerts}, tested)
        for name, text in alerts:
            self.assertRegex(text, r"severity: (critical|warning)\b", name)
            self.assertRegex(text, r"\n +summary: ", name)
            self.assertRegex(text, r"\n +description: >-\n +\S", name)

    def test_tests_of_rules_can_fail(self):
        with open(RULE_TESTS) as f:
            text = f.read()
        wrong = text.replace('alertname="TidegateGateShut"', 'alertname="TidegateGateOpen"')
        self.assertNotEqual(wrong, text)
        path = os.path.join(os.path.dirname(RULE_TESTS), "wrong-%d.yml" % os.getpid())  # it names the rules by their place
        self.addCleanup(os.unlink, path)
        with open(path, "w") as f:
            f.write(wrong)
        status, said = promtool("test", "rules", path)
        self.assertNotEqual(status, 0)
        self.assertIn("TidegateGateOpen", said)

    def test_dashboard_is_well_formed(self):
        panels = dashboard()["panels"]
        self.assertEqual(len({p["id"] for p in panels}), len(panels))
        taken = {}
        for p in panels:
            at = p["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], 24, p["title"])
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    self.assertIsNone(taken.setdefault((x, y), None), "%s is on another panel" % p["title"])
                    taken[x, y] = p["title"]
            if p["type"] != "row":
                self.assertTrue(p["targets"], p["title"])
                self.assertTrue(all(t["datasource"]["uid"] == "${datasource}" for t in p["targets"]), p["title"])
        self.assertIn("Poll delay", panels[1]["title"], "delay comes first")


class Exposition(support.Case):
    def test_promtool_finds_nothing(self):
        port = free_port()
        gw = self.gateway(support.echo_body(port), workers=2)
        ws_open(port).close()
        status, said = promtool("check", "metrics", data=gw.get("/metrics")[1])
        self.assertEqual((status, said.strip()), (0, ""))
        status, said = promtool("check", "metrics", data=gw.get("/metrics")[1].replace("cpu_seconds", "cpu_minutes"))
        self.assertNotEqual(status, 0, "it would find something")
