"""The access log: a line for every connection that ends, whatever ended it; sampled, rotated, and never a token in it."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import auth_support as a
import support
from links_support import dead_endpoint
from support import connect, free_port, recv_all, upgrade_request, wait_for, ws_close_code, ws_frame, ws_open, ws_recv

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))

BODY = """
access_log: {{file: {tmp}/access.log{access}}}
auth: {{leeway: 0, secrets: [{tmp}/secret]}}
handshake: {{timeout: 1s, close_timeout: 300ms}}
sockets: {{send_buffer: 8KiB}}
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw}}
routes:
  - {{path: /echo, upstream: echo}}
  - {{path: /small, upstream: echo, max_message_size: 16}}
  - {{path: /heartbeat, upstream: echo, heartbeat: {{interval: 100ms, missed: 1}}}}
  - {{path: /idle, upstream: echo, idle_timeout: 100ms}}
  - {{path: /pings, upstream: echo, client_pings_per_minute: 1}}
  - {{path: /stuck, upstream: echo, write_timeout: 300ms}}
  - {{path: /narrow, upstream: hub, max_message_size: 16KiB, out_queue: {{bytes: 32KiB}}}}
  - {{path: /private, upstream: echo, auth: {{type: token}}}}
  - {{path: /service, upstream: service}}
  - {{path: /down, upstream: down}}
upstreams:
  - {{name: service, type: link, endpoints: ["{endpoint}"]}}
  - {{name: down, type: link, endpoints: ["{dead}"], buffer: 0, open_timeout: 200ms}}
"""

KEYS = ["ts", "session", "peer", "peer_port", "listener", "route", "protocol", "subject", "worker", "handshake", "status",
        "duration_us", "bytes_in", "bytes_out", "messages_in", "messages_out", "dropped", "run_delay_max_us", "reason", "code",
        "error"]


def reasons():
    with open(os.path.join(ROOT, "include/tidegate/stats.h")) as f:
        listed = re.search(r"#define TG_CLOSE_REASONS\(X\)(.*?)\n\n", f.read(), re.S).group(1)
    return set(re.findall(r'X\(\w+, "(\w+)"', listed))


class AccessCase(support.Case):
    def begin(self, access="", **kw):
        a.write(os.path.join(self.tmp, "secret"), a.TOKEN_SECRETS[0])
        self.service_ = self.service(args=["--commands"])
        self.ws, self.raw = free_port(), free_port()
        self.path = os.path.join(self.tmp, "access.log")
        self.gw = self.gateway(BODY.format(tmp=self.tmp, ws=self.ws, raw=self.raw, access=access, dead=dead_endpoint(),
                                           endpoint=self.service_.endpoint), workers=2, **kw)
        wait_for(lambda: self.gw.metric("tidegate_link_up", upstream="service") == 2)

    def lines(self, path=None):
        """Those that are whole."""
        with open(path or self.path) as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def line_of(self, port):
        def there():
            "the line of a connection"
            return [line for line in self.lines() if line["peer_port"] == port]
        return wait_for(there)[0]


class Reasons(AccessCase):
    def scenario(self, s):
        self.addCleanup(s.close)
        self.port = s.getsockname()[1]
        return s

    def open(self, path, **kw):
        return self.scenario(ws_open(self.ws, path, **kw))

    def small(self, path, request):
        """A client whose socket takes little."""
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(10 * support.slow())
        s.connect(("127.0.0.1", self.ws))
        s.sendall(request)
        self.assertIn(b" 101 ", support.recv_head(s))
        return self.scenario(s)

    # Each brings about one end and says what the line must have besides the reason. ------------------------------

    def ends_client(self):
        s = self.open("/echo")
        s.sendall(ws_frame(1, b"hello"))
        ws_recv(s)
        s.sendall(ws_frame(8, struct.pack("!H", 4321)))
        recv_all(s)
        return {"handshake": "completed", "status": 101, "code": 4321, "messages_in": 1, "messages_out": 1,
                "bytes_in": len(upgrade_request()) + 11 + 8, "route": "/echo", "error": None}

    def ends_reset(self):
        s = self.open("/echo")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
        return {"handshake": "completed", "code": 1006}

    def ends_upstream(self):
        s = self.open("/service")
        s.sendall(ws_frame(1, b"close 4004 enough"))
        self.assertEqual(ws_close_code(s), 4004)
        return {"handshake": "completed", "code": 4004}

    def ends_handshake(self):
        s = self.scenario(connect(self.ws))
        s.sendall(upgrade_request("/private", headers=a.bearer(a.token(expires=1))))
        recv_all(s)
        return {"handshake": "refused", "status": 401, "error": "expired", "session": None, "route": None, "code": None}

    def ends_handshake_timeout(self):
        recv_all(self.scenario(connect(self.ws)))
        return {"handshake": "refused", "status": 408, "bytes_in": 0}

    def ends_protocol(self):
        s = self.open("/echo")
        s.sendall(ws_frame(1, b"hello", mask=None))
        self.assertEqual(ws_close_code(s), 1002)
        return {"code": 1002, "error": "ws_frame"}

    def ends_too_big(self):
        s = self.open("/small")
        s.sendall(ws_frame(1, b"x" * 17))
        self.assertEqual(ws_close_code(s), 1009)
        return {"code": 1009, "error": "size"}

    def ends_heartbeat(self):
        recv_all(self.open("/heartbeat"))
        return {"code": 1006}

    def ends_idle(self):
        recv_all(self.open("/idle"))
        return {"code": 1001}

    def ends_auth_expired(self):
        t = a.token(subject="b\u00e9a \"1\"\u2028", expires=int(time.time()) + 2 * support.slow())
        s = self.open("/private", headers=a.bearer(t))
        self.assertEqual(ws_close_code(s), 4001)
        return {"code": 4001, "subject": "b\u00e9a \"1\"\u2028"}

    def ends_ping_flood(self):
        s = self.open("/pings")
        s.sendall(ws_frame(9) * 2)
        self.assertEqual(ws_close_code(s), 1008)
        return {"code": 1008}

    def ends_write_timeout(self):
        s = self.small("/stuck", upgrade_request("/stuck"))
        s.sendall(ws_frame(2, bytes(1 << 20)))
        return {"code": 1006, "messages_in": 1}

    def ends_out_full(self):
        s = self.small("/narrow", upgrade_request("/narrow"))
        s.sendall(ws_frame(1, b'{"type":"subscribe","topic":"t","id":1}'))
        ws_recv(s)

        def full():
            "the out queue to be full"
            self.gw.ctl("publish", "t", "x" * 12000)
            return self.gw.metric("tidegate_closes_total", reason="out_full")
        wait_for(full)
        return {"code": 1008, "dropped": 1}

    def ends_no_upstream(self):
        s = self.scenario(connect(self.ws))
        s.sendall(upgrade_request("/down"))
        recv_all(s)
        return {"handshake": "refused", "status": 503, "route": "/down"}

    def ends_kicked(self):
        s = self.open("/echo")
        session = [c["session"] for c in self.gw.ctl("conns")["conns"] if c["peer_port"] == self.port][0]
        self.gw.ctl("kick", "--session", session, "--code", "4444")
        self.assertEqual(ws_close_code(s), 4444)
        return {"code": 4444, "session": session}

    def ends_health(self):
        s = self.scenario(connect(self.ws))
        s.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        recv_all(s)
        return {"status": 200, "handshake": "none"}

    def ends_refused(self):
        s = socket.socket()
        s.bind(("127.0.0.9", 0))
        self.scenario(s)
        with contextlib.suppress(ConnectionResetError):  # it may be as soon as that
            s.connect(("127.0.0.1", self.ws))
            recv_all(s)
        return {"peer": "127.0.0.9", "error": "deny", "handshake": "incomplete", "status": None}

    def ends_drain(self):
        s = self.open("/echo")
        self.gw.ctl("drain")
        self.assertEqual(ws_close_code(s), 1001)
        return {"code": 1001}

    ELSEWHERE = {"shed", "no_memory"}  # test_memory

    def test_every_reason(self):
        self.begin(admission="mode: user, deny: [127.0.0.9]")
        there = {name[5:] for name in dir(self) if name.startswith("ends_")}
        self.assertEqual(there | self.ELSEWHERE, reasons())
        seen = []
        for reason in sorted(there, key=lambda r: r == "drain"):
            with self.subTest(reason):
                wanted = getattr(self, "ends_" + reason)()
                line = self.line_of(self.port)
                self.assertEqual({**line, "reason": reason, **wanted}, line)
                self.assertEqual(list(line), KEYS)
                self.assertEqual(line["peer"], wanted.get("peer", "127.0.0.1"))
                seen.append(self.port)
        self.assertEqual(self.gw.wait(), 0)
        self.assertEqual(sorted(line["peer_port"] for line in self.lines()), sorted(seen), "one line each, and no other")
        with open(self.path) as f:
            text = f.read()
        self.assertTrue(text.isascii())
        self.assertNotIn("tg1.", text, "no token")

    def test_memory(self):
        self.begin(workers_extra=", buffer_cap: 1MiB")

        def push(s, data):
            with contextlib.suppress(OSError):  # ended meanwhile, as it should be
                s.sendall(data)
        s = self.open("/echo")
        threading.Thread(target=push, args=(s, ws_frame(2, bytes(2 << 20))), daemon=True).start()
        self.assertEqual(ws_close_code(s), 1013)
        line = self.line_of(self.port)
        self.assertEqual((line["reason"], line["code"]), ("no_memory", 1013))

        frame = ws_frame(2, bytes(16000))
        greedy = [self.small("/echo", upgrade_request()) for _ in range(100)]
        for s in greedy:
            s.setblocking(False)

        def shed():
            "somebody to be shed"
            for s in greedy:
                with contextlib.suppress(OSError):  # full, or ended
                    s.send(frame)
            return [line for line in self.lines() if line["reason"] == "shed"]
        self.assertEqual(wait_for(shed)[0]["code"], 1006)

    def test_raw(self):
        self.begin()
        s = self.scenario(support.raw_open(self.raw))
        s.sendall(support.raw_frame(7, struct.pack("!H", 1000)))
        recv_all(s)
        line = self.line_of(self.port)
        self.assertEqual((line["protocol"], line["listener"], line["reason"], line["status"], line["code"]),
                         ("raw", "raw", "client", 101, 1000))
        s = self.scenario(connect(self.raw))
        s.sendall(support.raw_hello("/nowhere"))
        recv_all(s)
        line = self.line_of(self.port)
        self.assertEqual((line["handshake"], line["status"], line["code"], line["error"]), ("refused", 404, 1008, "route"))


class Log(AccessCase):
    def come_and_go(self, n):
        for _ in range(n):
            s = ws_open(self.ws)
            s.sendall(ws_frame(8))
            recv_all(s)
            s.close()

    def refused(self, n):
        for _ in range(n):
            s = connect(self.ws)
            s.sendall(upgrade_request("/nowhere"))
            recv_all(s)
            s.close()

    def test_sample(self):
        self.begin(", sample_percent: 25")
        self.refused(20)
        self.come_and_go(400)
        wait_for(lambda: self.gw.metric("tidegate_closes_total") == 420)
        written = self.gw.metric("tidegate_access_log_lines_total")
        # Of 400 with a share of a quarter: 100, give or take 9; nine times that never happens.
        self.assertTrue(20 <= written - 20 <= 180, written)
        wait_for(lambda: len(self.lines()) == written)
        self.assertEqual(len([line for line in self.lines() if line["reason"] == "handshake"]), 20)

    def test_failures_sampled(self):
        self.begin(", sample_percent: 0, failures: sampled")
        self.refused(20)
        self.come_and_go(20)
        wait_for(lambda: self.gw.metric("tidegate_closes_total") == 40)
        self.assertEqual(self.gw.metric("tidegate_access_log_lines_total"), 0)

    @staticmethod
    def open_fds(pid):
        folder = "/proc/%d/fd" % pid
        return [fd for fd in os.listdir(folder) if os.path.islink(os.path.join(folder, fd))]

    def test_rotation(self):
        self.begin()
        self.come_and_go(5)
        wait_for(lambda: len(self.lines()) == 5)
        os.rename(self.path, self.path + ".1")
        self.come_and_go(5)
        wait_for(lambda: len(self.lines(self.path + ".1")) == 10)
        self.gw.kill(signal.SIGHUP)
        wait_for(lambda: os.path.exists(self.path))
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o640)

        def moved():
            "lines to go to the new file"
            self.come_and_go(1)
            return self.lines()
        wait_for(moved)
        for pid in (self.gw.pid, self.gw.gateway_pid):  # or its room on the disk stays taken
            self.assertNotIn(self.path + ".1", [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in self.open_fds(pid)])
        # A gateway that is started anew goes on with it.
        old = self.gw.gateway_pid
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: self.gw.log().count("is serving") == 2)
        before = len(self.lines())
        self.come_and_go(3)
        wait_for(lambda: len(self.lines()) >= before + 3)

    def test_path_that_cannot_be_opened_anew(self):
        self.begin()
        self.come_and_go(1)
        wait_for(lambda: len(self.lines()) == 1)
        os.rename(self.path, self.path + ".1")
        os.mkdir(self.path)
        self.gw.kill(signal.SIGHUP)
        wait_for(lambda: "lines go to the old file" in self.gw.log())
        self.come_and_go(1)
        wait_for(lambda: len(self.lines(self.path + ".1")) == 2)

    def test_path_that_cannot_be_opened(self):
        body = "access_log: {file: %s/nowhere/access.log}\n" % self.tmp + support.echo_body(free_port())
        gw = self.gateway(body, status=1, wait=False)
        self.assertEqual(gw.wait(), 1)
        self.assertIn("access log: %s/nowhere/access.log: No such file or directory" % self.tmp, gw.log())

    def test_stderr(self):
        port = free_port()
        gw = self.gateway("access_log: {file: stderr}\n" + support.echo_body(port))
        s = ws_open(port)
        s.close()

        def there():
            "a line between those of the log"
            return [json.loads(line) for line in gw.log().splitlines() if line.startswith("{")]
        self.assertEqual(wait_for(there)[0]["reason"], "client")

    def test_a_reader_that_stalls(self):
        """Lines are lost, and counted; clients do not notice, and the gateway ends in time."""
        path = os.path.join(self.tmp, "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        port = free_port()
        gw = self.gateway("access_log: {file: %s, queue: 1024}\n" % path + support.echo_body(port))

        def lost():
            "lines to be dropped"
            for _ in range(50):
                ws_open(port).close()
            return gw.metric("tidegate_access_log_dropped_total") > 50
        wait_for(lost, 60)
        gw.kill(signal.SIGINT)
        gw.kill(signal.SIGINT)
        self.assertEqual(gw.wait(), 0)
        self.assertRegex(gw.log(), "the access log misses [0-9]+ lines: its queue was full")

    def test_stop_writes_what_is_left(self):
        self.begin()
        held = [ws_open(self.ws) for _ in range(50)]
        self.gw.kill(signal.SIGINT)
        self.gw.kill(signal.SIGINT)
        self.assertEqual(self.gw.wait(), 0)
        self.assertEqual({line["reason"] for line in self.lines()}, {"drain"})
        self.assertEqual(len(self.lines()), 50)
        for s in held:
            s.close()

    def test_off_by_default(self):
        port = free_port()
        gw = self.gateway(support.echo_body(port))
        ws_open(port).close()
        wait_for(lambda: gw.metric("tidegate_closes_total") == 1)
        self.assertEqual(gw.metric("tidegate_access_log_lines_total"), 0)
        self.assertNotIn("access", os.listdir(self.tmp))
        check = subprocess.run(["ls", "/proc/%d/task" % gw.gateway_pid], capture_output=True, text=True, check=True)
        comms = []
        for task in check.stdout.split():
            with open("/proc/%d/task/%s/comm" % (gw.gateway_pid, task)) as f:
                comms.append(f.read().strip())
        self.assertNotIn("access-log", comms)
