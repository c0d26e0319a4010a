"""The tg-raw protocol (docs/raw-protocol.md) on the wire."""

import os
import struct
import time

import support
from support import raw_frame, raw_recv

HELLO, WELCOME, TEXT, BINARY, PING, PONG, CLOSE = range(1, 8)


def close_frame(code, text=b""):
    return raw_frame(CLOSE, struct.pack("!H", code) + text)


class Raw(support.SharedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ws, cls.raw = support.free_port(), support.free_port()
        cls.gw = cls.share(support.Gateway(cls.shared_tmp, support.echo_body(
            cls.ws, cls.raw, route=", max_message_size: 20MiB, client_pings_per_minute: 0")))

    def open(self):
        s = support.raw_open(self.raw)
        self.addCleanup(s.close)
        return s

    def assert_close(self, s, code):
        """The gateway's last words are CLOSE with this code, and then FIN."""
        kind, payload = raw_recv(s)
        self.assertEqual(kind, CLOSE)
        self.assertEqual(struct.unpack("!H", payload[:2])[0], code, payload)
        payload[2:].decode()
        self.assertEqual(support.recv_all(s), b"")

    def test_welcome(self):
        s = support.connect(self.raw)
        self.addCleanup(s.close)
        s.sendall(support.raw_hello("/echo"))
        kind, payload = raw_recv(s)
        self.assertEqual(kind, WELCOME)
        version, session = struct.unpack("!BQ", payload)
        self.assertEqual(version, 1)
        conns = self.gw.ctl("conns", "--session", str(session))["conns"]
        self.assertEqual([(c["session"], c["protocol"], c["route"], c["listener"]) for c in conns],
                         [(str(session), "raw", "/echo", "raw")])

    def test_session_ids_are_not_reused(self):
        seen = set()
        for _ in range(20):
            s = support.connect(self.raw)
            s.sendall(support.raw_hello("/echo"))
            seen.add(raw_recv(s)[1][1:])
            s.close()
        self.assertEqual(len(seen), 20)

    def test_echo(self):
        s = self.open()
        for n in (0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20):
            for kind, data in ((BINARY, os.urandom(n)), (TEXT, ("αβγδε" * (n // 10 + 1))[:n // 2].encode())):
                s.sendall(raw_frame(kind, data))
                got, payload = raw_recv(s)
                self.assertEqual(got, kind)
                self.assertTrue(payload == data, "%d bytes differ" % n)

    def test_order_and_pipelining(self):
        s = self.open()
        s.sendall(b"".join(raw_frame(TEXT, b"%d" % i) for i in range(2000)))
        for i in range(2000):
            self.assertEqual(raw_recv(s), (TEXT, b"%d" % i))

    def test_ping(self):
        s = self.open()
        for n in (0, 1, 125):
            s.sendall(raw_frame(PING, bytes([n]) * n))
            self.assertEqual(raw_recv(s), (PONG, bytes([n]) * n))
        s.sendall(raw_frame(PONG, b"nobody asked") + raw_frame(TEXT, b"on"))
        self.assertEqual(raw_recv(s), (TEXT, b"on"))

    def test_close_codes(self):
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999):
            s = self.open()
            s.sendall(close_frame(code, "grüße".encode()))
            self.assert_close(s, code)
        s = self.open()
        s.sendall(raw_frame(CLOSE))
        self.assert_close(s, 1000)

    def test_nothing_is_read_behind_close(self):
        s = self.open()
        s.sendall(raw_frame(TEXT, b"last") + close_frame(1000) + raw_frame(TEXT, b"too late"))
        self.assertEqual(raw_recv(s), (TEXT, b"last"))
        self.assert_close(s, 1000)

    def test_early_data(self):
        """Messages in the segment of the HELLO are messages, and so is half of one."""
        s = support.connect(self.raw)
        self.addCleanup(s.close)
        s.sendall(support.raw_hello() + raw_frame(TEXT, b"one") + raw_frame(BINARY, b"two") + raw_frame(PING, b"p") +
                  raw_frame(TEXT, b"three")[:6])
        self.assertEqual(raw_recv(s)[0], WELCOME)
        self.assertEqual(raw_recv(s), (TEXT, b"one"))
        self.assertEqual(raw_recv(s), (BINARY, b"two"))
        self.assertEqual(raw_recv(s), (PONG, b"p"))
        s.sendall(raw_frame(TEXT, b"three")[6:])
        self.assertEqual(raw_recv(s), (TEXT, b"three"))

    def test_one_byte_at_a_time(self):
        s = support.connect(self.raw)
        self.addCleanup(s.close)
        stream = support.raw_hello() + raw_frame(TEXT, "añb".encode()) + raw_frame(BINARY) + raw_frame(PING, b"!") + \
            close_frame(4001, b"bye")
        for i in range(len(stream)):
            s.sendall(stream[i:i + 1])
            time.sleep(0.0005)  # so that most bytes are a receive of their own
        self.assertEqual(raw_recv(s)[0], WELCOME)
        self.assertEqual(raw_recv(s), (TEXT, "añb".encode()))
        self.assertEqual(raw_recv(s), (BINARY, b""))
        self.assertEqual(raw_recv(s), (PONG, b"!"))
        self.assert_close(s, 4001)

    def test_refusals(self):
        """Each is closed with the code of docs/raw-protocol.md; hostile input has a suite of its own."""
        for what, stream, code in (
                ("no such route", support.raw_hello("/nowhere"), 1008),
                ("text before HELLO", raw_frame(TEXT, b"x"), 1002),
                ("another version", raw_frame(HELLO, b"\x02\x05/echo"), 1002),
                ("a long HELLO", raw_frame(HELLO, b"\x01\x05/echo" + b"x" * 4096), 1009),
                ("HELLO twice", support.raw_hello() + support.raw_hello(), 1002),
                ("an unknown type", support.raw_hello() + raw_frame(9), 1002),
                ("length 0", support.raw_hello() + bytes(5), 1002),
                ("not UTF-8", support.raw_hello() + raw_frame(TEXT, b"\xff"), 1007),
                ("a long ping", support.raw_hello() + raw_frame(PING, bytes(126)), 1002),
                ("a large message", support.raw_hello() + struct.pack("!IB", (20 << 20) + 2, BINARY), 1009)):
            with self.subTest(what=what):
                s = support.connect(self.raw)
                s.sendall(stream)
                if stream.startswith(support.raw_hello()):
                    self.assertEqual(raw_recv(s)[0], WELCOME)
                self.assert_close(s, code)
                s.close()

    def test_fin_without_close(self):
        before = self.gw.metric("tidegate_closes_total", reason="client")
        s = support.raw_open(self.raw)
        s.close()

        def counted():
            "the close to be counted"
            return self.gw.metric("tidegate_closes_total", reason="client") == before + 1
        support.wait_for(counted)
