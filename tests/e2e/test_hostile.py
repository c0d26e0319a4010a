"""Malformed and slow clients of every kind: each is answered or closed as specified and counted, and a witness on the
same worker notices nothing."""

import collections
import re
import struct
import time

import hostile_cases as cases
import hostile_stream_cases as streams
import support
from crowd import Talk, Witness, exchange

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw}}
  - {{name: proxied, address: "127.0.0.1:{proxied}", proxy_protocol: {{from: ["127.0.0.1/32"]}}}}
  - {{name: proxied-raw, address: "127.0.0.1:{proxied_raw}", protocol: raw, proxy_protocol: {{from: ["127.0.0.1/32"]}}}}
routes:
  - {{path: /echo, upstream: echo, max_message_size: {message_max}}}
  - {{path: /pings, upstream: echo, client_pings_per_minute: 5}}
  - {{path: /origins, listener: ws, upstream: echo, origins: ["https://example.com", "https://*.example.org"]}}
"""

# How a case is delivered: bytes a piece (None: all at once), and whether our FIN is right behind.
MODES = (("in one piece", None, False), ("byte by byte", 1, False), ("with FIN right behind", None, True))


class HostileCase(support.SharedCase):
    HANDSHAKE = "timeout: 60s"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        support.raise_nofile()
        cls.ports = {name: support.free_port() for name in ("ws", "raw", "proxied", "proxied_raw")}
        cls.gw = cls.share(support.Gateway(
            cls.shared_tmp, BODY.format(message_max=cases.MESSAGE_MAX, **cls.ports),
            extra="handshake: {%s, head_size: %d, headers: %d}" % (cls.HANDSHAKE, cases.HEAD_MAX, cases.HEADERS_MAX)))
        cls.witness = Witness(cls.ports["ws"])
        cls.addClassCleanup(cls.witness.stop)

    def counts(self):
        """{(label, value): count} of protocol_errors_total and closes_total."""
        out = collections.Counter()
        for key, value in self.gw.metrics().items():
            m = re.fullmatch(r'tidegate_(protocol_errors|closes)_total\{(kind|reason)="(\w+)"\}', key)
            if m:
                out[m.group(2), m.group(3)] = int(value)
        return out

    def only_the_witness(self):
        "all connections but the witness to be gone"
        return self.gw.metric("tidegate_open_connections") == 1

    def counted(self, before, expected):
        """The counters moved by just that since `before`, once everyone is gone."""
        support.wait_for(self.only_the_witness)
        self.assertEqual(dict(self.counts() - before), dict(expected))
        self.witness.check()

    def play(self, group, open_):
        """Plays a group in every mode; returns {mode: [Talk, ...]}."""
        expected = collections.Counter()
        for c in group:
            expected["reason", c.reason] += 1
            if c.kind:
                expected["kind", c.kind] += 1
        played = {}
        for mode, step, fin in MODES:
            before = self.counts()
            played[mode] = [Talk(c.name, open_(), c.data, c.fin or fin) for c in group]
            exchange(played[mode], step)
            with self.subTest(mode=mode):
                self.counted(before, expected)
        return played

    def judge(self, group, open_, expect):
        """Plays a group; expect(case, output) judges each answer, and all modes must have the same one."""
        played = self.play(group, open_)
        for i, case in enumerate(group):
            answers = {mode: bytes(talks[i].output) for mode, talks in played.items()}
            for mode, output in answers.items():
                with self.subTest(case=case.name, mode=mode):
                    if case.want is None:
                        self.assertEqual(output, case.echo)
                    else:
                        expect(case, output)
                        self.assertEqual(played[mode][i].end, "fin")
            with self.subTest(case=case.name):
                self.assertEqual(len(set(answers.values())), 1, answers)

    def ws_active(self):
        """A session that has just said something: the gateway reads it in another way than one that is idle."""
        s = support.ws_open(self.ports["ws"])
        s.sendall(support.ws_frame(1, b"first"))
        self.assertEqual(support.ws_recv(s), (1, True, b"first"))
        return s

    def raw_active(self):
        s = support.raw_open(self.ports["raw"])
        s.sendall(support.raw_frame(streams.TEXT, b"first"))
        self.assertEqual(support.raw_recv(s), (streams.TEXT, b"first"))
        return s

    def http(self, case, output):
        head, _, body = output.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        self.assertEqual(status[:13], "HTTP/1.1 %d " % case.want, output)
        self.assertIn("close", headers["Connection"])
        self.assertEqual(int(headers["Content-Length"]), len(body))
        self.assertGreater(len(body.strip()), 5, "the body says why")
        if case.want == 405:
            self.assertEqual(headers["Allow"], "GET")
        if case.want == 426:
            self.assertEqual((headers["Upgrade"], headers["Sec-WebSocket-Version"]), ("websocket", "13"))

    def ws_closed(self, case, output):
        self.assertEqual(output[:len(case.echo)], case.echo)
        rest = output[len(case.echo):]
        self.assertEqual((rest[0], rest[1]), (0x88, len(rest) - 2), output)
        self.assertEqual(struct.unpack("!H", rest[2:4])[0], case.want, output)
        self.assertGreater(len(rest[4:].decode()), 5, "the reason says why")

    def raw_closed(self, case, output):
        self.assertEqual(output[:len(case.echo)], case.echo)
        rest = output[len(case.echo):]
        self.assertEqual(struct.unpack("!IB", rest[:5]), (len(rest) - 4, streams.CLOSE), output)
        self.assertEqual(struct.unpack("!H", rest[5:7])[0], case.want, output)
        self.assertGreater(len(rest[7:].decode()), 5, "the reason says why")


class Malformed(HostileCase):
    def test_there_are_enough(self):
        groups = (cases.HANDSHAKES, cases.FRAMES, streams.RAW_BEFORE + streams.RAW_AFTER, streams.PROXIES)
        for group, least in zip(groups, (70, 60, 35, 35)):
            self.assertGreaterEqual(len(group), least)
            self.assertEqual(len({c.name for c in group}), len(group))

    def test_handshakes(self):
        self.judge(cases.HANDSHAKES, lambda: support.connect(self.ports["ws"]), self.http)

    def test_frames(self):
        self.judge(cases.FRAMES, lambda: support.ws_open(self.ports["ws"]), self.ws_closed)

    def test_frames_in_an_active_session(self):
        self.judge(cases.FRAMES, self.ws_active, self.ws_closed)

    def test_raw_hellos(self):
        self.judge(streams.RAW_BEFORE, lambda: support.connect(self.ports["raw"]), self.raw_closed)

    def test_raw_frames(self):
        self.judge(streams.RAW_AFTER, lambda: support.raw_open(self.ports["raw"]), self.raw_closed)

    def test_raw_frames_in_an_active_session(self):
        self.judge(streams.RAW_AFTER, self.raw_active, self.raw_closed)

    def test_proxy_headers(self):
        self.judge(streams.PROXIES, lambda: support.connect(self.ports["proxied"]), self.http)

    def test_proxy_headers_before_raw(self):
        bad = [c for c in streams.PROXIES if c.want is None]
        then = [c._replace(name="raw " + c.name, data=streams.v2() + c.data) for c in streams.RAW_BEFORE if not c.fin]
        self.judge(bad + then, lambda: support.connect(self.ports["proxied_raw"]), self.raw_closed)

    def test_too_many_pings(self):
        """The window is a minute of the clock: where it lies among the pings is not known, but 5 of 20 are too many."""
        for name, open_, ping, judge in (
                ("ws", support.ws_open, cases.ping(b"?"), support.ws_close_code),
                ("raw", support.raw_open, support.raw_frame(streams.PING, b"?"), self.raw_close_code)):
            with self.subTest(name):
                before = self.counts()
                with open_(self.ports[name], "/pings") as s:
                    s.sendall(ping * 20)
                    self.assertEqual(judge(s), 1008)
                self.counted(before, {("reason", "ping_flood"): 1})

    @staticmethod
    def raw_close_code(s):
        while True:
            kind, payload = support.raw_recv(s)
            if kind == streams.CLOSE:
                return struct.unpack("!H", payload[:2])[0]


class Accepted(HostileCase):
    """Strict, and no stricter: what is odd and right."""

    def test_handshakes(self):
        before = self.counts()
        for name, data in cases.HTTP_ACCEPTED:
            with self.subTest(name), support.connect(self.ports["ws"]) as s:
                s.sendall(data + support.ws_frame(1, b"early"))
                self.assertEqual(support.recv_head(s)[:13], b"HTTP/1.1 101 ")
                self.assertEqual(support.ws_recv(s), (1, True, b"early"))
        self.counted(before, {("reason", "client"): len(cases.HTTP_ACCEPTED)})

    def session(self, group, open_, goodbye, farewell):
        """Each answered as the table says; then the client's close, behind which nothing is looked at."""
        before = self.counts()
        for mode, step, fin in MODES:
            talks = [Talk(name, open_(), data + goodbye + b"\xff\xff\xff\xff", fin) for name, data, _ in group]
            exchange(talks, step)
            for talk, (name, _, answer) in zip(talks, group):
                with self.subTest(name, mode=mode):
                    self.assertEqual(bytes(talk.output), answer + farewell)
        self.counted(before, {("reason", "client"): len(group) * len(MODES)})

    def test_frames(self):
        for open_ in (lambda: support.ws_open(self.ports["ws"]), self.ws_active):
            self.session(cases.FRAMES_ACCEPTED, open_,
                         cases.code(3001, b"bye"), support.ws_frame(8, struct.pack("!H", 3001), mask=None))

    def test_raw_frames(self):
        for open_ in (lambda: support.raw_open(self.ports["raw"]), self.raw_active):
            self.session(streams.RAW_ACCEPTED, open_,
                         support.raw_frame(streams.CLOSE, struct.pack("!H", 3001) + b"bye"),
                         support.raw_frame(streams.CLOSE, struct.pack("!H", 3001)))


class ProxySources(HostileCase):
    def test_declared_addresses_are_shown(self):
        for step in (None, 1):
            before = self.counts()
            expected, socks = [], []
            for name, header, address, port in streams.PROXY_GOOD:
                s = support.connect(self.ports["proxied"])
                socks.append(s)
                data = header + cases.request()
                for at in range(0, len(data), step or len(data)):
                    s.sendall(data[at:at + (step or len(data))])
                expected.append((address or "127.0.0.1", port or s.getsockname()[1]))
            for s, (name, *_) in zip(socks, streams.PROXY_GOOD):
                with self.subTest(name, step=step):
                    self.assertEqual(support.recv_head(s)[:13], b"HTTP/1.1 101 ")
                    s.sendall(support.ws_frame(1, b"hello"))
                    self.assertEqual(support.ws_recv(s), (1, True, b"hello"))
            shown = [(c["peer"], c["peer_port"]) for c in self.conns() if c["listener"] == "proxied"]
            self.assertCountEqual(shown, expected)
            for s in socks:
                s.close()
            self.counted(before, {("reason", "client"): len(socks)})

    def conns(self):
        return self.gw.ctl("conns")["conns"]

    def test_declared_address_of_a_raw_client(self):
        with support.connect(self.ports["proxied_raw"]) as s:
            s.sendall(streams.v2() + support.raw_hello() + support.raw_frame(streams.TEXT, b"hello"))
            self.assertEqual(support.raw_recv(s)[0], streams.WELCOME)
            self.assertEqual(support.raw_recv(s), (streams.TEXT, b"hello"))
            shown = [c for c in self.conns() if c["listener"] == "proxied-raw"]
            self.assertEqual([(c["peer"], c["peer_port"], c["protocol"]) for c in shown],
                             [("203.0.113.7", 4711, "raw")])
        support.wait_for(self.only_the_witness)

    def test_a_sender_outside_is_refused(self):
        """Whatever it sends, and also when it sends nothing: its first byte is not believed."""
        before = self.counts()
        senders = [("127.0.0.2", data) for data in (b"", streams.v1(b"TCP4 127.0.0.1 127.0.0.1 1 2") + cases.request(),
                                                    streams.v2() + cases.request(), cases.request(), b"\xff")] * 4
        talks = [Talk(repr(data), support.connect(self.ports["proxied"], source=source), data)
                 for source, data in senders]
        exchange(talks)
        for t in talks:
            self.assertEqual(bytes(t.output), b"", t.name)
        self.counted(before, {("kind", "proxy_source"): len(talks), ("reason", "handshake"): len(talks)})


class Slow(HostileCase):
    """Clients that never come to the end of their handshake."""

    HANDSHAKE = "timeout: 1500ms"
    HALF_OPEN = 500

    def trickle(self, port, data, n):
        return [Talk("half-open %d" % i, support.connect(self.ports[port]), data) for i in range(n)]

    def test_slowloris(self):
        before = self.counts()
        began = time.monotonic()
        groups = {
            "ws": (self.trickle("ws", cases.request(end=b"X: " + b"x" * 1000), self.HALF_OPEN), self.timed_out),
            "silent": (self.trickle("ws", b"", 50), self.timed_out),
            "raw": (self.trickle("raw", support.raw_hello("/echo", b"x" * 4000), 50), self.policy),
            "proxied": (self.trickle("proxied", b"PROXY UNKNOWN " + b"x" * 90, 50), self.nothing),
            "behind a header": (self.trickle("proxied", streams.v2() + b"GET /" + b"x" * 1000, 50), None),
        }
        talks = [t for group, _ in groups.values() for t in group]
        exchange(talks, step=1, pause=0.05)
        self.assertGreater(time.monotonic() - began, 1.4)
        for name, (group, judge) in groups.items():
            for t in group:
                with self.subTest(name, talk=t.name):
                    self.assertEqual(t.end, "fin")
                    (judge or self.either)(bytes(t.output))
        self.counted(before, {("reason", "handshake_timeout"): len(talks)})

    def timed_out(self, output):
        self.http(cases.Case("", b"", 408, None, None), output)

    def policy(self, output):
        self.raw_closed(cases.Case("", b"", 1008, None, None), output)

    def nothing(self, output):
        self.assertEqual(output, b"")

    def either(self, output):
        """Its time may have been up inside the header or behind it."""
        if output:
            self.timed_out(output)
