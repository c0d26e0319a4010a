"""The admin surface against a live gateway: tidegatectl, the Unix socket, /metrics."""

import http.client
import json
import multiprocessing
import os
import re
import socket
import stat
import struct
import subprocess
import time
import unittest

import support
from support import wait_for

ROUTES = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw}}
routes:
  - {{path: /echo, upstream: echo, max_message_size: 1KiB}}
  - {{path: /chat/*, upstream: echo, origins: ["https://example.com"]}}
"""

STRANGER = 12345  # a uid that is neither root nor anyone's


class AdminCase(support.Case):
    def setUp(self):
        super().setUp()
        self.ws, self.raw = support.free_port(), support.free_port()
        self.gw = self.gateway(ROUTES.format(ws=self.ws, raw=self.raw), workers=2)

    def open(self, path="/echo", source=None, headers=()):
        s = support.ws_open(self.ws, path, headers, source)
        self.addCleanup(s.close)
        return s

    def open_raw(self, path="/echo"):
        s = support.raw_open(self.raw, path)
        self.addCleanup(s.close)
        return s

    def sessions(self, *args):
        return self.gw.ctl("conns", *args)["conns"]

    def human(self, *args, status=0):
        r = subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--socket", self.gw.socket, *args],
                           capture_output=True, text=True, timeout=20 * support.slow())
        self.assertEqual(r.returncode, status, r.stdout + r.stderr)
        return r.stdout if status == 0 else r.stderr


class Ctl(AdminCase):
    def test_status(self):
        s = self.open()
        s.sendall(support.ws_frame(1, b"x"))
        support.ws_recv(s)
        status = self.gw.ctl("status")
        self.assertEqual((status["connections"], status["sessions"], status["workers"], status["accepting"]), (1, 1, 2, 2))
        self.assertEqual((status["messages_in"], status["messages_out"]), (1, 1))
        self.assertEqual((status["ready"], status["draining"], status["pid"]), (True, False, self.gw.gateway_pid))
        text = self.human("status")
        self.assertRegex(text, r"^tidegate \S+, instance test-\d+, pid %d, up \d" % self.gw.gateway_pid)
        self.assertRegex(text, r"(?m)^state +ready$")
        self.assertRegex(text, r"(?m)^workers +2, 2 accepting, 2 rings$")
        self.assertRegex(text, r"(?m)^messages in +1$")

    def test_doctor(self):
        with open("/proc/sys/net/core/somaxconn") as f:
            somaxconn = f.read().strip()
        report = self.gw.ctl("doctor", check=False)
        checks = {c["name"]: c for c in report["checks"]}
        self.assertEqual((report["running"], report["workers"], report["connections"]), (True, 2, 100000))
        self.assertRegex(report["instance"], r"^test-\d+$")
        self.assertEqual(checks["net.core.somaxconn"]["has"], somaxconn)
        self.assertEqual(checks["capabilities of the gateway"]["severity"], "ok")
        self.assertIn("pid %d" % self.gw.gateway_pid, checks["tidegate"]["has"])
        for c in report["checks"]:
            if c["severity"] != "ok":
                self.assertTrue(c["has"] and (c["why"] or c["has"].startswith("not ")), c)
        # A machine that runs the gateway has no problem with it, unless more is asked of it.
        few = self.gw.ctl("doctor", "--connections", "1000")
        self.assertEqual([c for c in few["checks"] if c["severity"] == "problem"], [])
        self.assertIn("for 1000 connections on 2 workers", self.human("doctor", "--connections", "1000"))
        more = self.gw.ctl("doctor", "--connections", "100000000", check=False)
        self.assertEqual(more["severity"], "problem")
        self.human("doctor", "--connections", "100000000", status=1)
        for bad in ("0", "-1", "x", "", "1e6", "99999999999999999999"):
            self.assertIn("--connections must be a number", self.human("doctor", "--connections", bad, status=2))

    def test_doctor_without_a_gateway(self):
        r = subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--socket", self.tmp + "/none", "--json", "doctor",
                            "--connections", "1000"],
                           capture_output=True, text=True, timeout=20 * support.slow())
        report = json.loads(r.stdout)
        self.assertEqual((r.returncode, report["running"]), (0, False), r.stderr)
        self.assertIn("not running", {c["name"]: c for c in report["checks"]}["tidegate"]["has"])

    def test_workers(self):
        conns = [self.open() for _ in range(20)]
        workers = self.gw.ctl("workers")
        self.assertEqual([w["worker"] for w in workers], [0, 1])
        self.assertEqual(sum(w["connections"] for w in workers), len(conns))
        for w in workers:
            self.assertEqual((w["rings"], w["accepting"]), (1, 1))
            self.assertGreaterEqual(w["run_delay_us"]["count"], w["accepts"])
        lines = self.human("workers").splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("CONNS", lines[0].split())

    def test_conns_and_filters(self):
        here = self.open()
        chat = [self.open("/chat/room-%d" % i, source="127.0.0.2") for i in range(3)]
        raw = self.open_raw()
        half = support.connect(self.ws)
        self.addCleanup(half.close)
        half.sendall(b"GET ")

        def all_seen():
            "six connections"
            return self.gw.ctl("conns")["matched"] == 6
        wait_for(all_seen)
        conns = self.sessions()
        self.assertEqual(sorted(c["state"] for c in conns), ["handshake"] + ["open"] * 5)
        c, = [c for c in conns if c["peer_port"] == here.getsockname()[1]]
        self.assertEqual((c["peer"], c["listener"], c["route"], c["upstream"], c["protocol"], c["queued_bytes"],
                          c["reading_paused"]), ("127.0.0.1", "ws", "/echo", "echo", "websocket", 0, False))
        self.assertLess(c["age_ms"], 60000 * support.slow())
        ports = {s.getsockname()[1] for s in chat}
        for args in (["--route", "/chat/*"], ["--peer", "127.0.0.2"], ["--peer", "::ffff:127.0.0.2"],
                     ["--route", "/chat/*", "--listener", "ws"]):
            with self.subTest(args=args):
                self.assertEqual({c["peer_port"] for c in self.sessions(*args)}, ports)
        self.assertEqual([c["peer_port"] for c in self.sessions("--listener", "raw")], [raw.getsockname()[1]])
        self.assertEqual(self.sessions("--session", "1"), [])
        self.assertEqual(self.sessions("--peer", "192.0.2.1"), [])
        cut = self.gw.ctl("conns", "--limit", "2")
        self.assertEqual((len(cut["conns"]), cut["matched"]), (2, 6))
        text = self.human("conns", "--peer", "127.0.0.2")
        self.assertIn("\n3 of 3 connections\n", text)
        self.assertEqual(text.count("127.0.0.2:"), 3)
        self.assertIn("2 of 6 connections; --limit N shows more", self.human("conns", "--limit", "2"))

    def test_kick_by_session(self):
        s, other = self.open(), self.open_raw()
        session, = [c["session"] for c in self.sessions("--listener", "ws")]
        self.assertEqual(self.gw.ctl("kick", "--session", session, "--code", "4321", "--reason", "grüße"), {"kicked": 1})
        op, _, payload = support.ws_recv(s)
        self.assertEqual((op, payload), (8, struct.pack("!H", 4321) + "grüße".encode()))
        self.assertEqual(support.recv_all(s), b"")
        s.close()
        session, = [c["session"] for c in self.sessions("--listener", "raw")]
        self.assertEqual(self.human("kick", "--session", session), "1 session closed\n")
        kind, payload = support.raw_recv(other)
        self.assertEqual((kind, payload[:2]), (7, struct.pack("!H", 1008)))
        other.close()

        def counted():
            "two kicks to be counted"
            return self.gw.metric("tidegate_closes_total", reason="kicked") == 2
        wait_for(counted)
        self.assertIn("no such session", self.human("kick", "--session", session, status=1))

    def test_kick_by_route(self):
        stay = self.open()
        go = [self.open("/chat/%d" % i) for i in range(30)]
        self.assertEqual(self.gw.ctl("kick", "--route", "/chat/*", "--code", "1001")["kicked"], 30)
        for s in go:
            self.assertEqual(support.ws_close_code(s), 1001)
        self.assertEqual(self.gw.ctl("kick", "--route", "/chat/*")["kicked"], 0, "closing ones are not kicked again")
        stay.sendall(support.ws_frame(1, b"x"))
        self.assertEqual(support.ws_recv(stay), (1, True, b"x"))

    def test_wrong_usage(self):
        for args in ([], ["nonsense"], ["kick"], ["kick", "--session", "1", "--route", "/echo"], ["conns", "--code", "1000"],
                     ["conns", "--limit", "0"], ["kick", "--session", "1", "--code", "1006"], ["status", "x"]):
            with self.subTest(args=args):
                self.assertTrue(self.human(*args, status=2))
        r = subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--socket", self.tmp + "/none", "status"],
                           capture_output=True, text=True, timeout=20 * support.slow())
        self.assertEqual(r.returncode, 1)
        self.assertIn("is tidegate running?", r.stderr)


class Socket(AdminCase):
    def ask(self, path="/v1/status", method="GET"):
        """(status, body) by HTTP on the Unix socket."""
        c = http.client.HTTPConnection("localhost", timeout=10 * support.slow())
        c.sock = socket.socket(socket.AF_UNIX)
        c.sock.settimeout(10 * support.slow())
        try:
            c.sock.connect(self.gw.socket)
            c.request(method, path)
            r = c.getresponse()
            return r.status, r.read().decode()
        finally:
            c.close()

    def test_mode(self):
        st = os.stat(self.gw.socket)
        self.assertTrue(stat.S_ISSOCK(st.st_mode))
        self.assertEqual(stat.S_IMODE(st.st_mode), 0o600)
        self.assertEqual(self.gw.stop(), 0)
        self.assertFalse(os.path.exists(self.gw.socket), "it is removed at the end")

    def as_stranger(self):
        """What somebody else gets: the HTTP status, or the errno of connect."""
        def child(out):
            os.setgroups([])
            os.setgid(STRANGER)
            os.setuid(STRANGER)
            try:
                out.send(self.ask())
            except OSError as e:
                out.send((e.errno, ""))
        ours, theirs = multiprocessing.Pipe()
        p = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
        p.start()
        try:
            self.assertTrue(ours.poll(20 * support.slow()))
            return ours.recv()
        finally:
            p.join()

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_other_users_are_refused(self):
        self.assertEqual(self.as_stranger()[0], 13, "EACCES: the mode keeps strangers out")
        os.chmod(self.gw.socket, 0o666)
        status, body = self.as_stranger()
        self.assertEqual(status, 403)
        self.assertIn("error", json.loads(body))
        self.assertEqual(self.ask()[0], 200)
        self.assertIn("uid %d" % STRANGER, self.gw.log())

    def test_silent_clients_block_nobody(self):
        for _ in range(5):
            for family, address in ((socket.AF_UNIX, self.gw.socket), (socket.AF_INET, ("127.0.0.1", self.gw.admin_port))):
                s = socket.socket(family)
                self.addCleanup(s.close)
                s.connect(address)
                s.sendall(b"GET /v1/sta" if family == socket.AF_UNIX else b"")
        begin = time.monotonic()
        for _ in range(5):
            self.assertEqual(self.ask()[0], 200)
            self.assertEqual(self.gw.get("/healthz"), (200, "ok\n"))
        self.assertLess(time.monotonic() - begin, 2 * support.slow())

    def test_what_is_served_where(self):
        for path in ("/v1/status", "/v1/conns", "/v1/kick?route=/echo"):
            self.assertEqual(self.gw.get(path)[0], 404, "not on TCP")
        self.assertEqual(self.ask("/metrics")[0], 200)
        self.assertEqual(self.ask("/v1/nothing")[0], 404)
        self.assertEqual(self.ask("/v1/kick?route=/echo")[0], 405)
        self.assertEqual(self.ask("/v1/status", "POST")[0], 405)
        status, body = self.ask("/v1/conns?colour=red")
        self.assertEqual((status, json.loads(body)), (400, {"error": "unknown query key: colour"}))


SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+]+|NaN|\+Inf)')


class Metrics(AdminCase):
    def samples(self):
        """{name: {labels: value}}, after checking the exposition as a scraper would."""
        types, out, family_ended = {}, {}, set()
        last = None
        for line in self.gw.get("/metrics")[1].splitlines():
            if line.startswith("# "):
                kind, name, rest = line[2:].split(" ", 2)
                self.assertIn(kind, ("HELP", "TYPE"))
                if kind == "TYPE":
                    self.assertNotIn(name, types)
                    types[name] = rest
                continue
            m = SAMPLE.fullmatch(line)
            self.assertTrue(m, line)
            name = m.group(1)
            family = name if name in types else re.sub(r"_(bucket|sum|count)$", "", name)
            self.assertIn(family, types, line)
            if types[family] == "counter":
                self.assertTrue(name.endswith("_total"), line)
            if family != last:
                self.assertNotIn(family, family_ended, "series of one family stand together")
                if last:
                    family_ended.add(last)
                last = family
            labels = m.group(3) or ""
            self.assertNotIn(labels, out.setdefault(name, {}), line)
            out[name][labels] = float(m.group(4))
        for name, kind in types.items():
            if kind == "histogram":
                self.check_histogram(name, out)
        return out

    def check_histogram(self, name, out):
        for labels, count in out[name + "_count"].items():
            buckets = [v for k, v in out[name + "_bucket"].items() if k.startswith(labels)]
            self.assertEqual(buckets, sorted(buckets))
            self.assertEqual(buckets[-1], count)

    def test_exposition(self):
        self.open()
        out = self.samples()
        for name in ("tidegate_connections", "tidegate_accepts_total", "tidegate_closes_total", "tidegate_runnable",
                     "tidegate_poll_delay_seconds_count", "tidegate_run_delay_seconds_count",
                     "tidegate_forced_yields_total", "process_resident_memory_bytes"):
            self.assertIn(name, out)
        self.assertEqual(out["tidegate_connections"].keys(),
                         {'worker="%d",route="%s",kind="%s"' % (w, r, k) for w in (0, 1) for r, k in
                          (("", "handshaking"), ("", "closing"), *((path, "session") for path in ("/echo", "/chat/*")))})
        self.assertGreater(out["process_resident_memory_bytes"][""], 1 << 20)

    def move(self, name, action, by=1, **labels):
        """action moves the counter by so much, soon."""
        before = self.gw.metric(name, **labels)
        action()

        def moved():
            "the counter to move"
            return self.gw.metric(name, **labels) >= before + by
        wait_for(moved)
        self.assertEqual(self.gw.metric(name, **labels), before + by)

    def refused(self, request):
        s = support.connect(self.ws)
        s.sendall(request)
        support.recv_all(s)
        s.close()

    def test_closes_by_reason(self):
        def end(frame):
            s = support.ws_open(self.ws)
            s.sendall(frame)
            support.recv_all(s)
            s.close()

        def reset():
            s = support.ws_open(self.ws)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()

        def closes(reason, action):
            self.move("tidegate_closes_total", action, reason=reason)

        def errors(kind, action):
            self.move("tidegate_protocol_errors_total", action, kind=kind)

        closes("client", lambda: end(support.ws_frame(8, struct.pack("!H", 1000))))
        closes("client", lambda: support.ws_open(self.ws).close())
        closes("reset", reset)
        closes("protocol", lambda: end(support.ws_frame(1, b"x", mask=None)))
        errors("ws_frame", lambda: end(support.ws_frame(3, b"x")))
        errors("utf8", lambda: end(support.ws_frame(1, b"\xff")))
        closes("too_big", lambda: end(support.ws_frame(2, bytes(1025))))
        errors("size", lambda: end(support.ws_frame(2, bytes(1025))))
        closes("handshake", lambda: self.refused(b"nonsense\r\n\r\n"))
        errors("http", lambda: self.refused(b"nonsense\r\n\r\n"))
        errors("route", lambda: self.refused(support.upgrade_request("/nowhere")))
        errors("origin", lambda: self.refused(support.upgrade_request(
            "/chat/1", headers=("Origin: https://evil.example",))))
        closes("health", lambda: self.refused(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
        out = self.samples()

        def all_closed():
            "every connection to be closed"
            return self.gw.metric("tidegate_open_connections") == 0
        wait_for(all_closed)
        self.assertEqual(sum(out["tidegate_closes_total"].values()), sum(out["tidegate_accepts_total"].values()))

    def test_traffic(self):
        def some():
            s = support.ws_open(self.ws)
            for _ in range(10):
                s.sendall(support.ws_frame(1, b"12345678"))
                support.ws_recv(s)
            s.close()
        self.move("tidegate_accepts_total", some)
        self.move("tidegate_handshakes_total", some)
        self.move("tidegate_sessions_opened_total", some)
        self.move("tidegate_messages_in_total", some, 10)
        self.move("tidegate_messages_out_total", some, 10)
        self.move("tidegate_bytes_in_total", some, 10 * (6 + 8) + len(support.upgrade_request()))

    def test_gauges(self):
        conns = [support.ws_open(self.ws) for _ in range(7)]
        self.assertEqual(self.gw.metric("tidegate_connections", kind="session"), 7)
        half = support.connect(self.ws)

        def eight():
            "the one that does not go on"
            return self.gw.metric("tidegate_connections", kind="handshaking") == 1
        wait_for(eight)
        self.assertEqual(self.gw.metric("tidegate_open_connections"), 8)
        for s in conns + [half]:
            s.close()

        def none():
            "all to be gone"
            return self.gw.metric("tidegate_open_connections") == 0
        wait_for(none)
        self.assertEqual(self.gw.metric("tidegate_sessions"), 0)
        self.assertEqual(self.gw.metric("tidegate_handshaking"), 0)
        self.assertEqual(self.gw.metric("tidegate_buffered_bytes"), 0)


if __name__ == "__main__":
    unittest.main()
