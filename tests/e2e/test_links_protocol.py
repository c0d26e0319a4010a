"""The link protocol as a gateway speaks it, against a service made of a socket: what it says, and what it does not take."""

import json
import os
import select
import signal
import struct
import threading
import time

from links_support import (ACCEPT, CLOSE, CREDIT, DRAIN, ERROR, HELLO, MAGIC, MESSAGE, MORE, OPEN, PING, PONG, PUBLISH, REJECT,
                           RESUMED, SUBSCRIBE, TEXT, UNSUBSCRIBE, WINDOW_MAX, FakeCase, frame, hello, links_body, ws_echo)
from support import (Gateway, connect, raw_frame, raw_hello, raw_recv, recv_all, recv_head, slow, upgrade_request, wait_for,
                     ws_open)


class TestProtocol(FakeCase):
    def setUp(self):
        super().setUp()
        self.f = self.fake()
        self.gw = self.links_gateway({"svc": ([self.f.endpoint], "session_window: 64KiB, reconnect: {min: 20ms, max: 50ms}")},
                                     ready=False)
        self.link = self.f.accept()

    def test_hello_and_open(self):
        kind, session, flags, payload = self.link.recv()
        self.assertEqual((kind, session, flags), (HELLO, 0, 0))
        magic, version, worker, sw, lw, pm, mm, features = struct.unpack("!IHHIIIII", payload[:28])
        self.assertEqual((magic, version, worker, sw, lw, pm, mm, features),
                         (MAGIC, 1, 0, 64 * 1024, 8 << 20, 32768, 16 << 20, 1))
        self.assertTrue(payload[28:].startswith(b"test-"))
        self.link.send(HELLO, payload=hello())
        wait_for(self.gw.ready)
        c = connect(self.port)
        c.sendall(upgrade_request("/svc/a%20b?x=1&access_token=secret&y=%C3%A9&access%5ftoken=secret", headers=[
            "User-Agent: tester/1", "X-Request-ID: 7", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 5.6.7.8",
            "Cookie: secret", "Authorization: Bearer secret", "Origin: http://o.example", "X-Bad: \xff\xfe",
            "Accept: */*", "Sec-WebSocket-Protocol: none, chat"]).replace("\xff\xfe".encode(), b"\xff\xfe"))
        sid, flags, payload = self.link.expect(OPEN)
        self.assertEqual(flags, 0)
        meta = json.loads(payload)
        peer = "127.0.0.1:%d" % c.getsockname()[1]
        self.assertEqual(meta, {
            "peer": peer, "listener": "ws", "route": "/svc/*", "path": "/svc/a%20b", "query": "x=1&y=%C3%A9",
            "host": "localhost", "protocol": "websocket", "subprotocols": ["none", "chat"], "session": str(sid),
            "headers": {"user-agent": "tester/1", "x-request-id": "7", "x-forwarded-for": "1.2.3.4, 5.6.7.8",
                        "origin": "http://o.example"}})
        self.assertNotIn(b"secret", payload)
        self.link.send(ACCEPT, sid, b"none")
        self.assertIn(b"Sec-WebSocket-Protocol: none", recv_head(c))
        raw = connect(self.raw_port)
        raw.sendall(raw_hello("/svc/raw", b"token"))
        sid, _, payload = self.link.expect(OPEN)
        self.assertEqual(json.loads(payload), {
            "peer": "127.0.0.1:%d" % raw.getsockname()[1], "listener": "raw", "route": "/svc/*", "path": "/svc/raw",
            "protocol": "raw", "session": str(sid)})

    def session(self, path="/svc/x"):
        c = connect(self.raw_port)
        c.sendall(raw_hello(path))
        sid, _, _ = self.link.expect(OPEN)
        self.link.send(ACCEPT, sid)
        self.assertEqual(raw_recv(c)[0], 2)
        return c, sid

    def test_a_subprotocol_that_was_not_offered(self):
        self.link.greet()
        c = connect(self.port)
        c.sendall(upgrade_request("/svc/x", headers=["Sec-WebSocket-Protocol: chat"]))
        sid, _, _ = self.link.expect(OPEN)
        self.link.send(ACCEPT, sid, b"other")
        self.assertTrue(recv_all(c).startswith(b"HTTP/1.1 502 "))
        self.link.expect(CLOSE, sid)
        self.session()

    def test_messages_are_split_and_take_turns(self):
        self.link.greet(session_window=4 << 20, link_window=64 * 1024)
        big, sid_big = self.session()
        small, sid_small = self.session()
        payload = os.urandom(2 << 20)
        sender = threading.Thread(target=lambda: big.sendall(raw_frame(4, payload)))
        sender.start()
        got = b""
        while len(got) < 64 * 1024 - 2 * 16:  # the link's credit
            sid, flags, part = self.link.expect(MESSAGE)
            self.assertEqual((sid, flags), (sid_big, MORE))
            self.assertLessEqual(len(part), 32768)
            got += part
        sender.join()
        small.sendall(raw_frame(3, b"quick"))
        time.sleep(0.2)
        self.link.send(CREDIT, 0, struct.pack("!I", 8 << 20))
        before = None
        while len(got) < len(payload):
            sid, flags, part = self.link.expect(MESSAGE)
            if sid == sid_big:
                got += part
                self.assertEqual(flags, MORE if len(got) < len(payload) else 0)
            else:
                self.assertEqual((sid, flags, part), (sid_small, TEXT, b"quick"))
                before = len(got)
        self.assertTrue(got == payload)
        self.assertLessEqual(before, 64 * 1024 + 32768)

    def test_credit_is_obeyed(self):
        self.link.greet(session_window=4096, payload_max=4096)
        c, sid = self.session()
        c.sendall(raw_frame(4, bytes(10000)))
        sizes = []
        sid, flags, part = self.link.expect(MESSAGE)
        sizes.append(len(part))
        self.assertEqual((sizes, flags), ([4080], MORE))
        self.assertFalse(select.select([self.link.s], [], [], 0.2)[0])
        self.link.send(CREDIT, sid, struct.pack("!I", 4096))
        self.assertEqual(len(self.link.expect(MESSAGE)[2]), 4080)
        self.link.send(CREDIT, sid, struct.pack("!I", 100))
        self.assertEqual(len(self.link.expect(MESSAGE)[2]), 84)
        self.link.send(CREDIT, sid, struct.pack("!I", 4000))
        sid, flags, part = self.link.expect(MESSAGE)
        self.assertEqual((len(part), flags), (10000 - 2 * 4080 - 84, 0))

    def test_link_credit_is_obeyed(self):
        self.link.greet(session_window=1 << 20, link_window=8192, payload_max=4096)
        one, two = self.session(), self.session()
        for c, _ in (one, two):
            c.sendall(raw_frame(4, bytes(6000)))
        spent, last, payload = 0, 0, 0
        while spent < 8192:
            _, flags, part = self.link.expect(MESSAGE)
            spent += 16 + len(part)
            payload += len(part)
            last += not flags & MORE
        self.assertEqual(spent, 8192)
        self.assertFalse(select.select([self.link.s], [], [], 0.2)[0])
        self.link.send(CREDIT, 0, struct.pack("!I", 100000))
        while last < 2:
            _, flags, part = self.link.expect(MESSAGE)
            payload += len(part)
            last += not flags & MORE
        self.assertEqual(payload, 12000)

    def test_credit_is_granted(self):
        """A megabyte through a window of 64 KiB."""
        self.link.greet()
        c, sid = self.session()
        reader = threading.Thread(target=lambda: [raw_recv(c) for _ in range(100)])
        reader.start()
        credit = 64 * 1024
        for _ in range(100):
            while credit < 16 + 10000:
                kind, session, _, payload = self.link.recv()
                self.assertEqual(kind, CREDIT)
                if session:
                    credit += struct.unpack("!I", payload)[0]
            self.link.send(MESSAGE, sid, bytes(10000))
            credit -= 10016
        reader.join(10 * slow())
        self.assertFalse(reader.is_alive())

    def test_frames_of_unknown_sessions_are_ignored(self):
        self.link.greet()
        c, sid = self.session()
        for kind, payload in ((MESSAGE, b"x"), (CREDIT, struct.pack("!I", 5)), (CLOSE, struct.pack("!HI", 1000, 0)),
                              (ACCEPT, b""), (REJECT, struct.pack("!H", 503)), (SUBSCRIBE, b"t"), (UNSUBSCRIBE, b"t")):
            self.link.send(kind, 12345, payload)
        self.link.send(PUBLISH, 0, b"\x05topicmessage")
        self.link.send(SUBSCRIBE, sid, b"topic")
        self.link.send(PONG, 0, bytes(8))
        self.link.send(MESSAGE, sid, b"known", TEXT)
        self.assertEqual(raw_recv(c), (3, b"known"))
        self.link.send(PING, 0, b"12345678")
        self.assertEqual(self.link.expect(PONG)[2], b"12345678")
        self.assertEqual(self.gw.metric("tidegate_link_bad_frames_total"), 0)

    def test_the_end_of_a_client_is_told(self):
        self.link.greet()
        c, sid = self.session()
        c.sendall(raw_frame(7, struct.pack("!H", 4321) + b"fin"))
        self.assertEqual(self.link.expect(CLOSE, sid)[2], struct.pack("!HI", 4321, 0) + b"fin")
        c, sid = self.session()
        c.close()
        self.assertEqual(self.link.expect(CLOSE, sid)[2], struct.pack("!HI", 1006, 0))

    def test_a_message_too_long_for_the_service(self):
        self.link.greet(message_max=1000)
        c, sid = self.session()
        c.sendall(raw_frame(4, bytes(1000)))
        self.assertEqual(len(self.link.expect(MESSAGE)[2]), 1000)
        c.sendall(raw_frame(4, bytes(1001)))
        self.assertEqual(raw_recv(c)[1][:2], struct.pack("!H", 1009))
        self.assertEqual(self.link.expect(CLOSE, sid)[2][:2], struct.pack("!H", 1009))

    def test_a_service_whose_text_is_not_utf8(self):
        self.link.greet()
        c, sid = self.session()
        self.link.send(MESSAGE, sid, b"\xff", TEXT)
        self.assertEqual(raw_recv(c)[1][:2], struct.pack("!H", 1007))
        self.link.expect(CLOSE, sid)
        self.session()

    def test_503_tries_another_endpoint(self):
        other = self.fake()
        port, raw_port = self.two_ports()
        self.link.close()
        tmp = os.path.join(self.tmp, "second")
        os.mkdir(tmp, 0o755)
        self.start(Gateway(tmp, links_body(port, raw_port, {"svc": ([self.f.endpoint, other.endpoint], "")}),
                           instance="second"))
        links = [self.wait_hello(self.f), self.wait_hello(other)]
        c = connect(raw_port)
        c.sendall(raw_hello("/svc/x"))
        ready, _, _ = select.select([l.s for l in links], [], [], 5 * slow())
        first = links[0] if ready[0] is links[0].s else links[1]
        second = links[1] if first is links[0] else links[0]
        sid, _, _ = first.expect(OPEN)
        first.send(REJECT, sid, struct.pack("!H", 503))
        self.assertEqual(second.expect(OPEN)[0], sid)
        second.send(REJECT, sid, struct.pack("!H", 503) + b"nor here")
        self.assertEqual(raw_recv(c), (7, struct.pack("!H", 1013) + b"nor here"))

    def wait_hello(self, fake):
        """A link of the second gateway; the first one keeps trying too."""
        while True:
            link = fake.accept()
            kind, _, _, payload = link.recv()
            if kind == HELLO and payload.endswith(b"second"):
                link.send(HELLO, payload=hello())
                return link
            link.close()

    def test_what_a_death_loses_is_counted(self):
        self.link.greet(session_window=64 * 1024)
        c, sid = self.session()
        for i in range(6):
            c.sendall(raw_frame(4, bytes(1000)))
        for i in range(6):
            self.link.expect(MESSAGE)
        self.link.send(CREDIT, sid, struct.pack("!I", 2 * 1016))
        self.link.send(MESSAGE, sid, b"part", MORE)
        self.link.send(PING, 0, bytes(8))
        self.link.expect(PONG)
        self.link.close()
        self.link = self.f.accept().greet()
        got, flags, payload = self.link.expect(OPEN)
        self.assertEqual((got, flags), (sid, RESUMED))
        meta = json.loads(payload)
        self.assertEqual((meta["resumed"], meta["sent"], meta["received"]), (True, 6, 0))
        self.assertEqual(self.gw.metric("tidegate_link_messages_lost_total"), 4)
        c.sendall(raw_frame(3, b"waits for ACCEPT"))
        self.assertFalse(select.select([self.link.s], [], [], 0.2)[0])
        self.link.send(ACCEPT, sid)
        self.assertEqual(self.link.expect(MESSAGE), (sid, TEXT, b"waits for ACCEPT"))
        self.link.send(MESSAGE, sid, b"whole", TEXT)
        self.assertEqual(raw_recv(c), (3, b"whole"))
        self.assertEqual(self.gw.metric("tidegate_sessions_failed_over_total"), 1)

    def test_a_session_not_accepted_again_is_closed(self):
        self.link.greet()
        c, sid = self.session()
        self.link.close()
        self.link = self.f.accept().greet()
        self.assertEqual(self.link.expect(OPEN)[0], sid)
        self.link.send(REJECT, sid, struct.pack("!H", 404) + b"unknown")
        self.assertEqual(raw_recv(c), (7, struct.pack("!H", 1008) + b"unknown"))

    def test_drain(self):
        self.link.greet()
        c, sid = self.session()
        self.link.send(DRAIN, 0, struct.pack("!I", 5000))
        late = connect(self.raw_port)
        late.sendall(raw_hello("/svc/x"))
        self.assertFalse(select.select([self.link.s], [], [], 0.3)[0])
        c.sendall(raw_frame(3, b"still served"))
        self.assertEqual(self.link.expect(MESSAGE), (sid, TEXT, b"still served"))
        self.link.send(CLOSE, sid, struct.pack("!HI", 1012, 0))
        self.assertEqual(raw_recv(c)[0], 7)
        self.assertEqual(self.link.expect(ERROR)[2][:2], struct.pack("!H", 0))
        failures = self.gw.metric("tidegate_link_failures_total")
        self.link.close()
        self.link = self.f.accept().greet()
        self.assertEqual(failures, 0)
        sid, _, _ = self.link.expect(OPEN)
        self.link.send(ACCEPT, sid)
        self.assertEqual(raw_recv(late)[0], 2)

    def test_the_gateway_drains(self):
        self.link.greet()
        c, sid = self.session()
        self.gw.kill(signal.SIGTERM)
        self.assertEqual(self.link.expect(DRAIN)[2], struct.pack("!I", 200))
        self.assertEqual(self.link.expect(CLOSE, sid)[2][:2], struct.pack("!H", 1001))
        self.assertEqual(raw_recv(c)[1][:2], struct.pack("!H", 1001))
        c.close()
        self.assertEqual(self.link.expect(ERROR)[2][:2], struct.pack("!H", 0))

    def test_no_hello_in_time(self):
        gw = self.gw
        self.link.close()
        port, raw_port = self.two_ports()
        tmp = os.path.join(self.tmp, "second")
        os.mkdir(tmp, 0o755)
        mute = self.fake()
        gw = self.start(Gateway(tmp, links_body(port, raw_port, {"svc": ([mute.endpoint], "connect_timeout: 300ms")})))
        link = mute.accept()
        self.assertEqual(link.recv()[0], HELLO)
        kind, _, _, payload = link.recv()
        self.assertEqual((kind, payload[:2]), (ERROR, struct.pack("!H", 4)))
        self.assertGreaterEqual(gw.metric("tidegate_link_failures_total"), 1)


# Each entry: what the service sends (after the HELLOs, unless it begins with them), and the error it is told.
SID = 77  # a session nobody knows: parsing comes before looking it up

FIRST = [
    ("an HTTP answer", b"HTTP/1.1 400 Bad Request\r\n\r\n", 1),
    ("zeros", bytes(64), 1),
    ("another magic", frame(HELLO, 0, hello(magic=0x12345678)), 2),
    ("another version", frame(HELLO, 0, hello(version=2)), 2),
    ("HELLO cut short", frame(HELLO, 0, hello()[:20]), 1),
    ("HELLO without version", frame(HELLO, 0, hello()[:5]), 1),
    ("HELLO with a session", frame(HELLO, 1, hello()), 1),
    ("HELLO with reserved bits", frame(HELLO, 0, hello(), reserved=1), 1),
    ("HELLO with a flag", frame(HELLO, 0, hello(), flags=1), 1),
    ("HELLO too long", frame(HELLO, 0, hello(name=b"n" * 2000)), 1),
    ("session window too small", frame(HELLO, 0, hello(session_window=4095)), 1),
    ("session window too large", frame(HELLO, 0, hello(session_window=WINDOW_MAX + 1)), 1),
    ("link window too small", frame(HELLO, 0, hello(link_window=0)), 1),
    ("link window too large", frame(HELLO, 0, hello(link_window=0xffffffff)), 1),
    ("payload_max too small", frame(HELLO, 0, hello(payload_max=4095)), 1),
    ("payload_max too large", frame(HELLO, 0, hello(payload_max=32769)), 1),
    ("message_max zero", frame(HELLO, 0, hello(message_max=0)), 1),
    ("no name", frame(HELLO, 0, hello(name=b"")), 1),
    ("a name with a space", frame(HELLO, 0, hello(name=b"a b")), 1),
    ("a name too long", frame(HELLO, 0, hello(name=b"n" * 64)), 1),
    ("PING before HELLO", frame(PING, 0, bytes(8)), 1),
    ("ACCEPT before HELLO", frame(ACCEPT, SID), 1),
]

LATER = [
    ("a second HELLO", frame(HELLO, 0, hello()), 1),
    ("type 0", frame(0), 1),
    ("type 15", frame(15), 1),
    ("type 255", frame(255), 1),
    ("OPEN from a service", frame(OPEN, SID, b"{}"), 1),
    ("reserved bits", frame(PING, 0, bytes(8), reserved=0x8000), 1),
    ("PING of 7 bytes", frame(PING, 0, bytes(7)), 1),
    ("PING of 9 bytes", frame(PING, 0, bytes(9)), 1),
    ("PING with a flag", frame(PING, 0, bytes(8), flags=1), 1),
    ("PONG with a session", frame(PONG, SID, bytes(8)), 1),
    ("CREDIT 0", frame(CREDIT, 0, struct.pack("!I", 0)), 1),
    ("CREDIT above the maximum", frame(CREDIT, SID, struct.pack("!I", WINDOW_MAX + 1)), 1),
    ("CREDIT of 3 bytes", frame(CREDIT, 0, bytes(3)), 1),
    ("more link credit than a window holds", frame(CREDIT, 0, struct.pack("!I", WINDOW_MAX)), 3),
    ("DRAIN of 3 bytes", frame(DRAIN, 0, bytes(3)), 1),
    ("DRAIN with a session", frame(DRAIN, SID, bytes(4)), 1),
    ("ERROR of 1 byte", frame(ERROR, 0, bytes(1)), 1),
    ("ERROR whose reason is not UTF-8", frame(ERROR, 0, b"\x00\x01\xff"), 1),
    ("PUBLISH with a session", frame(PUBLISH, SID, b"\x01tm"), 1),
    ("PUBLISH without a topic", frame(PUBLISH, 0, b"\x00tm"), 1),
    ("PUBLISH whose topic is longer than the frame", frame(PUBLISH, 0, b"\x09tm"), 1),
    ("PUBLISH with a control character", frame(PUBLISH, 0, b"\x01\x07m"), 1),
    ("PUBLISH without credit", frame(PUBLISH, 0, b"\x01t" + bytes(32768)), 3),
    ("SUBSCRIBE without a session", frame(SUBSCRIBE, 0, b"t"), 1),
    ("SUBSCRIBE to nothing", frame(SUBSCRIBE, SID, b""), 1),
    ("UNSUBSCRIBE that is not UTF-8", frame(UNSUBSCRIBE, SID, b"\xc0\x80"), 1),
    ("MESSAGE without a session", frame(MESSAGE, 0, b"x"), 1),
    ("MESSAGE too long", frame(MESSAGE, SID, b"", length=32769), 1),
    ("MESSAGE with an unknown flag", frame(MESSAGE, SID, b"x", flags=8), 1),
    ("an empty part", frame(MESSAGE, SID, b"", flags=MORE), 1),
    ("MESSAGE without link credit", frame(MESSAGE, SID, bytes(32768)), 3),
    ("ACCEPT without a session", frame(ACCEPT, 0), 1),
    ("ACCEPT of no token", frame(ACCEPT, SID, b"a,b"), 1),
    ("ACCEPT too long", frame(ACCEPT, SID, b"a" * 256), 1),
    ("REJECT with 200", frame(REJECT, SID, struct.pack("!H", 200)), 1),
    ("REJECT without a status", frame(REJECT, SID, b"x"), 1),
    ("REJECT that is not UTF-8", frame(REJECT, SID, struct.pack("!H", 503) + b"\xed\xa0\x80"), 1),
    ("CLOSE with 1005", frame(CLOSE, SID, struct.pack("!HI", 1005, 0)), 1),
    ("CLOSE with 999", frame(CLOSE, SID, struct.pack("!HI", 999, 0)), 1),
    ("CLOSE of 5 bytes", frame(CLOSE, SID, bytes(5)), 1),
    ("CLOSE whose reason is too long", frame(CLOSE, SID, struct.pack("!HI", 1000, 0) + b"r" * 124), 1),
    ("CLOSE that is not UTF-8", frame(CLOSE, SID, struct.pack("!HI", 1000, 0) + b"\xfe"), 1),
    ("a length of 4 GiB", frame(MESSAGE, SID, b"", length=0xffffffff), 1),
    ("noise", bytes(range(200, 256)) * 4, 1),
]

# With a session: called with its id.
IN_SESSION = [
    ("MESSAGE before ACCEPT", lambda s: frame(MESSAGE, s, b"x"), 1),
    ("ACCEPT twice", lambda s: frame(ACCEPT, s) * 2, 1),
    ("REJECT after ACCEPT", lambda s: frame(ACCEPT, s) + frame(REJECT, s, struct.pack("!H", 403)), 1),
    ("parts that disagree", lambda s: frame(ACCEPT, s) + frame(MESSAGE, s, b"x", TEXT | MORE) + frame(MESSAGE, s, b"y"), 1),
    ("MESSAGE without credit", lambda s: frame(ACCEPT, s) + frame(MESSAGE, s, bytes(10000)), 3),
    ("more credit than a window holds", lambda s: frame(ACCEPT, s) + frame(CREDIT, s, struct.pack("!I", WINDOW_MAX)), 3),
]


class TestMalformed(FakeCase):
    """Every broken frame ends its link and no other, with an ERROR that says why, and is counted."""

    def setUp(self):
        super().setUp()
        self.f = self.fake()
        good = self.service(args=["--commands"])
        keys = "session_window: 8KiB, link_window: 24KiB, failover: close, open_timeout: 20s, reconnect: {min: 10ms, max: 10ms}"
        self.gw = self.links_gateway({"bad": ([self.f.endpoint], keys), "good": ([good.endpoint], "")}, ready=False)
        self.link = self.f.accept()
        wait_for(lambda: self.gw.metric("tidegate_link_up", upstream="good") == 1)
        self.witness = ws_open(self.port, "/good/x")

    def break_link(self, name, data, error):
        with self.subTest(name):
            before = self.gw.metric("tidegate_link_bad_frames_total")
            self.link.s.sendall(data)
            while True:
                kind, _, _, payload = self.link.recv()
                if kind == ERROR:
                    break
                self.assertIn(kind, (HELLO, CREDIT, OPEN))
            self.assertEqual(struct.unpack("!H", payload[:2])[0], error, payload)
            self.assertGreater(len(payload), 2)
            self.assertEqual(self.link.s.recv(1), b"")
            self.link.close()
            self.assertEqual(self.gw.metric("tidegate_link_bad_frames_total"), before + 1)
            self.assertTrue(ws_echo(self.witness, name.encode()))
            self.assertEqual(self.gw.metric("tidegate_link_up", upstream="good"), 1)
            self.link = self.f.accept()

    def test_first_frames(self):
        for name, data, error in FIRST:
            self.break_link(name, data, error)
        self.check_counts(len(FIRST))

    def test_later_frames(self):
        for name, data, error in LATER:
            self.link.greet()
            self.break_link(name, data, error)
        self.check_counts(len(LATER))

    def test_frames_of_a_session(self):
        for name, make, error in IN_SESSION:
            self.link.greet()
            c = connect(self.raw_port)
            c.sendall(raw_hello("/bad/x"))
            sid, _, _ = self.link.expect(OPEN)
            self.break_link(name, make(sid), error)
            c.close()
        self.check_counts(len(IN_SESSION))

    def check_counts(self, n):
        self.assertEqual(self.gw.metric("tidegate_link_bad_frames_total"), n)
        self.assertEqual(self.gw.metric("tidegate_protocol_errors_total", kind="link_frame"), n)
        self.assertGreaterEqual(self.gw.metric("tidegate_link_failures_total"), n)
        self.assertEqual(self.gw.metric("tidegate_link_up", upstream="good"), 1)
