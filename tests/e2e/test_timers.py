"""What the gateway does when time passes: heartbeats, idle sessions, handshake deadlines, writes that stand still.

Lower bounds are the gateway's promises. Upper bounds leave room for a busy machine."""

import socket
import statistics
import struct
import threading
import time
import unittest

import support
from support import raw_frame, raw_recv, ws_frame, ws_recv, wait_for

ROUTES = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw}}
routes:
  - {{path: /echo, upstream: echo}}
  - {{path: /jitter, upstream: echo, heartbeat: {{interval: 200ms, jitter_percent: 50}}}}
  - {{path: /steady, upstream: echo, heartbeat: {{interval: 200ms, jitter_percent: 0}}}}
  - {{path: /patient, upstream: echo, heartbeat: {{interval: 100ms, jitter_percent: 0, missed: 5}}}}
  - {{path: /idle, upstream: echo, idle_timeout: 400ms}}
  - {{path: /slow-answers, upstream: slow, idle_timeout: 600ms}}
  - {{path: /pings, upstream: echo, client_pings_per_minute: 5}}
  - {{path: /pings-free, upstream: echo, client_pings_per_minute: 0}}
  - {{path: /stuck, upstream: echo, write_timeout: 400ms}}
  - {{path: /crawl, upstream: echo, write_timeout: 1s}}
upstreams:
  - {{name: slow, type: link, endpoints: ["{slow}"]}}
"""

PING, PONG, CLOSE, TEXT = 9, 10, 8, 1
RAW_PING, RAW_PONG, RAW_CLOSE = 5, 6, 7


class TimerCase(support.SharedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        slow = cls.share(support.Service(cls.shared_tmp, mode="delay:400"))
        cls.ws, cls.raw = support.free_port(), support.free_port()
        cls.gw = cls.share(support.Gateway(
            cls.shared_tmp, ROUTES.format(ws=cls.ws, raw=cls.raw, slow=slow.endpoint)))
        wait_for(cls.gw.ready)

    def open(self, path, headers=()):
        s = support.ws_open(self.ws, path, headers)
        self.addCleanup(s.close)
        return s

    def open_raw(self, path):
        s = support.raw_open(self.raw, path)
        self.addCleanup(s.close)
        return s

    def closes(self, reason):
        return self.gw.metric("tidegate_closes_total", reason=reason)

    def wait_closes(self, reason, count):
        def reached():
            "the close to be counted"
            return self.closes(reason) >= count
        wait_for(reached)
        self.assertEqual(self.closes(reason), count)


class Heartbeats(TimerCase):
    def beats(self, path, count, answer=True):
        """Times from the handshake to the first ping and on to each next one, each answered."""
        s = self.open(path)
        last, gaps = time.monotonic(), []
        while len(gaps) < count:
            op, fin, payload = ws_recv(s)
            self.assertEqual((op, fin), (PING, True))
            if answer:
                s.sendall(ws_frame(PONG, payload))
            now = time.monotonic()
            gaps.append(now - last)
            last = now
        return gaps

    def test_jitter(self):
        """A client that answers lives on; pings come up to jitter_percent early and never late by more than load."""
        out = {}

        def measure(path):
            out[path] = self.beats(path, 12)
        threads = [threading.Thread(target=measure, args=(p,)) for p in ("/jitter", "/steady")]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        late = 0.15 * support.slow()
        self.assertGreater(statistics.mean(out["/jitter"]), 0.1 - 0.005)
        self.assertLess(statistics.mean(out["/jitter"]), 0.2 + late)
        self.assertGreater(max(out["/jitter"]) - min(out["/jitter"]), 0.01, "no jitter: %r" % out["/jitter"])
        self.assertGreater(statistics.mean(out["/steady"]), 0.2 - 0.005)
        self.assertLess(statistics.mean(out["/steady"]), 0.2 + late)
        self.assertLess(statistics.median(out["/jitter"]), statistics.median(out["/steady"]))

    def test_dead_after_two_missed(self):
        before = self.closes("heartbeat")
        begin = time.monotonic()
        s, r = self.open("/steady"), self.open_raw("/steady")
        for _ in range(2):
            self.assertEqual(ws_recv(s), (PING, True, b""))
            self.assertEqual(raw_recv(r), (RAW_PING, b""))
        # A peer that is gone gets no close frame.
        self.assertEqual(support.recv_all(s), b"")
        self.assertEqual(support.recv_all(r), b"")
        self.assertGreater(time.monotonic() - begin, 0.6 - 0.01)
        self.wait_closes("heartbeat", before + 2)

    def test_missed_is_configured(self):
        s = self.open("/patient")
        for _ in range(5):
            self.assertEqual(ws_recv(s)[0], PING)
        self.assertEqual(support.recv_all(s), b"")

    def test_any_frame_is_a_sign_of_life(self):
        s, r = self.open("/steady"), self.open_raw("/steady")
        pings = 0
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            s.sendall(ws_frame(TEXT, b"x"))
            r.sendall(raw_frame(3, b"x"))
            for recv, ping, text in ((lambda: ws_recv(s)[0], PING, TEXT), (lambda: raw_recv(r)[0], RAW_PING, 3)):
                got = recv()
                while got == ping:
                    pings += 1
                    got = recv()
                self.assertEqual(got, text)
            time.sleep(0.05)
        self.assertGreaterEqual(pings, 6, "both got heartbeats all the same")


class Idle(TimerCase):
    def test_idle_timeout(self):
        before = self.closes("idle")
        begin = time.monotonic()
        s, r = self.open("/idle"), self.open_raw("/idle")
        # Pings are not messages: they keep nobody from being idle.
        s.sendall(ws_frame(PING, b"p"))
        self.assertEqual(ws_recv(s), (PONG, True, b"p"))
        op, _, payload = ws_recv(s)
        self.assertEqual((op, payload[:2]), (CLOSE, struct.pack("!H", 1001)))
        kind, payload = raw_recv(r)
        self.assertEqual((kind, payload[:2]), (RAW_CLOSE, struct.pack("!H", 1001)))
        self.assertGreater(time.monotonic() - begin, 0.4 - 0.01)
        s.close()
        r.close()
        self.wait_closes("idle", before + 2)

    def test_messages_keep_it_open(self):
        s = self.open("/idle")
        end = time.monotonic() + 1
        while time.monotonic() < end:
            s.sendall(ws_frame(TEXT, b"x"))
            self.assertEqual(ws_recv(s), (TEXT, True, b"x"))
            last = time.monotonic()
            time.sleep(0.1)
        self.assertEqual(support.ws_close_code(s), 1001)
        self.assertGreater(time.monotonic() - last, 0.4 - 0.05)

    def test_messages_of_the_service_count(self):
        """The answer comes 400 ms after the question; from there on it takes another 600 to be idle."""
        s = self.open("/slow-answers")
        s.sendall(ws_frame(TEXT, b"x"))
        asked = time.monotonic()
        self.assertEqual(ws_recv(s), (TEXT, True, b"x"))
        self.assertEqual(support.ws_close_code(s), 1001)
        self.assertGreater(time.monotonic() - asked, 0.4 + 0.6 - 0.05)


class PingFlood(TimerCase):
    def test_flood(self):
        before = self.closes("ping_flood")
        s = self.open("/pings")
        s.sendall(b"".join(ws_frame(PING, b"%d" % i) for i in range(8)))
        for i in range(5):
            self.assertEqual(ws_recv(s), (PONG, True, b"%d" % i))
        self.assertEqual(support.ws_close_code(s), 1008)
        s.close()
        r = self.open_raw("/pings")
        r.sendall(raw_frame(RAW_PING) * 6)
        for _ in range(5):
            self.assertEqual(raw_recv(r), (RAW_PONG, b""))
        kind, payload = raw_recv(r)
        self.assertEqual((kind, payload[:2]), (RAW_CLOSE, struct.pack("!H", 1008)))
        r.close()
        self.wait_closes("ping_flood", before + 2)

    def test_no_limit(self):
        s = self.open("/pings-free")
        s.sendall(ws_frame(PING, b"p") * 1000)
        for _ in range(1000):
            self.assertEqual(ws_recv(s), (PONG, True, b"p"))


class HandshakeDeadline(support.Case):
    def test_deadline(self):
        """Whoever is not through in time is told so: nothing sent, half sent, and byte by byte to the end."""
        ws, raw = support.free_port(), support.free_port()
        gw = self.gateway(support.echo_body(ws, raw), extra="handshake: {timeout: 700ms}")
        begin = time.monotonic()
        head, hello = support.upgrade_request(), support.raw_hello()
        silent, half, drip = (support.connect(ws) for _ in range(3))
        raw_silent, raw_half = (support.connect(raw) for _ in range(2))
        for s in (silent, half, drip, raw_silent, raw_half):
            self.addCleanup(s.close)
        half.sendall(head[:-2])
        raw_half.sendall(hello[:-1])
        stop = threading.Event()

        def trickle():
            for i in range(len(head)):
                if stop.wait(0.02):
                    return
                try:
                    drip.sendall(head[i:i + 1])
                except OSError:
                    return
        t = threading.Thread(target=trickle)
        t.start()
        try:
            for s in (silent, half, drip):
                answer = support.recv_head(s)
                self.assertTrue(answer.startswith(b"HTTP/1.1 408 "), answer)
                self.assertIn(b"\r\nConnection: close", answer)
            for s in (raw_silent, raw_half):
                kind, payload = raw_recv(s)
                self.assertEqual((kind, payload[:2]), (RAW_CLOSE, struct.pack("!H", 1008)))
        finally:
            stop.set()
            t.join()
        took = time.monotonic() - begin
        self.assertGreater(took, 0.7 - 0.01)
        self.assertLess(took, 0.7 + 1 * support.slow())
        for s in (silent, half, drip, raw_silent, raw_half):
            s.close()

        def counted():
            "five handshake time-outs to be counted"
            return gw.metric("tidegate_closes_total", reason="handshake_timeout") == 5
        wait_for(counted)
        self.assertEqual(gw.metric("tidegate_handshaking"), 0)
        self.assertEqual(gw.metric("tidegate_open_connections"), 0)


class SlowReaders(TimerCase):
    def open_narrow(self, path):
        """A client with a small receive buffer, so that the gateway's own queue fills."""
        s = socket.socket()
        self.addCleanup(s.close)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        s.settimeout(10 * support.slow())
        s.connect(("127.0.0.1", self.ws))
        s.sendall(support.upgrade_request(path))
        self.assertTrue(support.recv_head(s).startswith(b"HTTP/1.1 101 "))
        return s

    def queued(self):
        return sum(c["queued_bytes"] for c in self.gw.ctl("conns")["conns"])

    def test_write_timeout(self):
        """Many who never read, and a witness who does not notice."""
        before = self.closes("write_timeout")
        stuck = [self.open_narrow("/stuck") for _ in range(10)]
        witness = self.open("/echo")
        worst = 0
        for s in stuck:
            s.sendall(ws_frame(2, bytes(1 << 20)))
        end = time.monotonic() + 60
        while self.closes("write_timeout") < before + 10:
            self.assertLess(time.monotonic(), end)
            for _ in range(20):
                begin = time.monotonic()
                witness.sendall(ws_frame(TEXT, b"still here"))
                self.assertEqual(ws_recv(witness), (TEXT, True, b"still here"))
                worst = max(worst, time.monotonic() - begin)
        self.assertLess(worst, 0.25 * support.slow())
        self.assertEqual(self.closes("write_timeout"), before + 10)

        def freed():
            "the memory of the dead to be given back"
            return self.gw.metric("tidegate_buffered_bytes") < 65536
        wait_for(freed)

    def test_slow_is_not_stuck(self):
        """A reader that takes three times the time-out, but makes progress, gets all of it."""
        s = self.open_narrow("/crawl")
        data = bytes(range(256)) * 6144
        s.sendall(ws_frame(2, data))
        begin = time.monotonic()
        self.assertEqual(support.recv_exact(s, 10), b"\x82\x7f" + struct.pack("!Q", len(data)))
        got = b""
        while len(got) < len(data):
            got += support.recv_exact(s, min(len(data) - len(got), 32768))
            ahead = 3 * len(got) / len(data) - (time.monotonic() - begin)
            if ahead > 0:
                time.sleep(ahead)
        self.assertTrue(got == data)
        self.assertGreater(time.monotonic() - begin, 2.5)
        s.sendall(ws_frame(TEXT, b"and on"))
        self.assertEqual(ws_recv(s), (TEXT, True, b"and on"))

    def test_who_does_not_read_is_not_read(self):
        """The echo stops reading from a client whose answers pile up, and goes on when it reads again."""
        s = self.open_narrow("/echo")
        frame = ws_frame(2, bytes(65536))
        s.settimeout(0.5 * support.slow())
        sent = 0
        with self.assertRaises(socket.timeout):
            while sent < 64 << 20:
                sent += s.send(frame[sent % len(frame):])
        self.assertLess(sent, 32 << 20)
        self.assertLess(self.gw.metric("tidegate_buffered_bytes"), 2 << 20)
        self.assertEqual([c["reading_paused"] for c in self.gw.ctl("conns", "--route", "/echo")["conns"]], [True])
        s.settimeout(10 * support.slow())
        for _ in range(sent // len(frame)):
            op, _, payload = ws_recv(s)
            self.assertEqual((op, len(payload)), (2, 65536))


if __name__ == "__main__":
    unittest.main()
