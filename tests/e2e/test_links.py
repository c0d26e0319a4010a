"""Links: sessions behind services, and what becomes of them when services stall, die and come back."""

import asyncio
import contextlib
import os
import select
import signal
import struct
import threading
import time

import websockets

from links_support import LinkCase, Probe, dead_endpoint, links_body, whoami, ws_echo
from support import (Gateway, Service, SharedCase, connect, free_port, raw_frame, raw_hello, raw_open, raw_recv, recv_all,
                     recv_head, slow, upgrade_request, wait_for, ws_close_code, ws_frame, ws_open, ws_recv)


# ---------------------------------------------------------------------------------------- what works when all is well

class TestEcho(SharedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.tcp = cls.share(Service(cls.shared_tmp, name="tcp", args=["--commands", "--per-session"]))
        cls.unix = cls.share(Service(cls.shared_tmp, address="unix:%s/service.sock" % cls.shared_tmp, name="unix"))
        os.chmod("%s/service.sock" % cls.shared_tmp, 0o777)
        cls.port, cls.raw_port = free_port(), free_port()
        cls.gw = cls.share(Gateway(cls.shared_tmp, links_body(cls.port, cls.raw_port, {
            "svc": ([cls.tcp.endpoint], ""), "unix": ([cls.unix.endpoint], "")})))
        wait_for(cls.gw.ready)

    def test_raw(self):
        s = raw_open(self.raw_port, "/svc/echo")
        for kind, payload in ((3, b"text"), (4, b"\x00\xff"), (4, b""), (3, "žluťoučký".encode())):
            s.sendall(raw_frame(kind, payload))
            self.assertEqual(raw_recv(s), (kind, payload))
        s.sendall(raw_frame(7, struct.pack("!H", 1000)))
        self.assertEqual(raw_recv(s)[0], 7)

    def test_websockets_library(self):
        async def run():
            async with websockets.connect("ws://127.0.0.1:%d/svc/echo" % self.port, subprotocols=["chat"]) as ws:
                self.assertEqual(ws.subprotocol, "chat")
                for message in ("hello", b"\x00\x01", "", b"", "x" * 70000, bytes(range(256)) * 300):
                    await ws.send(message)
                    self.assertEqual(await ws.recv(), message)
                await ws.send(["in ", "three ", "parts"])
                self.assertEqual(await ws.recv(), "in three parts")
                await ws.ping()
            self.assertEqual(ws.close_code, 1000)
        asyncio.run(run())

    def test_uppercase(self):
        s = ws_open(self.port, "/svc/uppercase")
        s.sendall(ws_frame(1, "grüße abc".encode()))
        self.assertEqual(ws_recv(s), (1, True, "GRüßE ABC".encode()))

    def test_delay(self):
        s = ws_open(self.port, "/svc/delay:200")
        began = time.monotonic()
        self.assertTrue(ws_echo(s, b"later"))
        self.assertGreater(time.monotonic() - began, 0.15)

    def test_unix_socket(self):
        s = ws_open(self.port, "/unix/x")
        self.assertTrue(ws_echo(s, b"over a Unix socket"))
        self.assertTrue(ws_echo(s, bytes(300000), 2))

    def test_16_mib_both_ways(self):
        big = os.urandom(1 << 20) * 16
        s = ws_open(self.port, "/svc/echo")
        s.settimeout(60 * slow())
        sender = threading.Thread(target=lambda: s.sendall(ws_frame(2, big)))
        sender.start()
        op, fin, payload = ws_recv(s)
        sender.join()
        self.assertEqual((op, fin, len(payload)), (2, True, len(big)))
        self.assertTrue(payload == big)
        self.assertTrue(ws_echo(s, b"still there"))

    def test_16_mib_from_the_service(self):
        s = raw_open(self.raw_port, "/svc/echo")
        s.settimeout(60 * slow())
        s.sendall(raw_frame(3, b"send 16777216"))
        kind, payload = raw_recv(s)
        self.assertEqual((kind, len(payload)), (4, 1 << 24))
        self.assertTrue(payload == (bytes(range(251)) * ((1 << 24) // 251 + 1))[:1 << 24])

    def test_200_sessions(self):
        async def one(i):
            async with websockets.connect("ws://127.0.0.1:%d/svc/echo" % self.port, open_timeout=30 * slow()) as ws:
                for k in range(10):
                    message = "session %d message %d" % (i, k)
                    await ws.send(message)
                    self.assertEqual(await ws.recv(), message)
                payload = os.urandom(20000)
                await ws.send(payload)
                self.assertEqual(await ws.recv(), payload)

        async def run():
            await asyncio.gather(*(one(i) for i in range(200)))
        asyncio.run(run())
        wait_for(lambda: self.gw.metric("tidegate_link_sessions", upstream="svc") == 0)

    def test_close_from_the_service(self):
        for code in (1000, 1001, 1003, 1008, 1012, 3000, 4999):
            s = ws_open(self.port, "/svc/echo")
            s.sendall(ws_frame(1, b"close %d because" % code))
            op, _, payload = ws_recv(s)
            self.assertEqual((op, payload), (8, struct.pack("!H", code) + b"because"))

    def test_close_from_the_client(self):
        closed = self.gw.metric("tidegate_closes_total", reason="client")
        s = ws_open(self.port, "/svc/echo")
        s.sendall(ws_frame(1, b"bye") + ws_frame(8, struct.pack("!H", 4001) + b"done"))
        self.assertEqual(ws_close_code(s), 4001)
        s.close()
        wait_for(lambda: self.gw.metric("tidegate_closes_total", reason="client") > closed)
        wait_for(lambda: self.gw.metric("tidegate_link_sessions", upstream="svc") == 0)

    def test_reject_gives_the_http_status(self):
        rejected = self.gw.metric("tidegate_sessions_rejected_total")
        for status in (403, 404, 429, 500, 503, 599):
            s = connect(self.port)
            s.sendall(upgrade_request("/svc/reject:%d" % status))
            answer = recv_all(s)
            self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status), answer)
            self.assertIn(b"rejected by request", answer)
        self.assertEqual(self.gw.metric("tidegate_sessions_rejected_total"), rejected + 6)

    def test_reject_closes_raw_clients(self):
        for status, code in ((403, 1008), (413, 1009), (500, 1011), (503, 1013)):
            s = connect(self.raw_port)
            s.sendall(raw_hello("/svc/reject:%d" % status))
            kind, payload = raw_recv(s)
            self.assertEqual((kind, payload[:2]), (7, struct.pack("!H", code)))

    def test_metrics_and_listing(self):
        endpoint = self.tcp.endpoint
        self.assertEqual(self.gw.metric("tidegate_link_up", upstream="svc", endpoint=endpoint), 1)
        links = self.gw.get("/readyz")
        self.assertEqual(links[0], 200)
        status = self.gw.ctl("status")
        self.assertEqual((status["links"]["total"], status["links"]["up"]), (2, 2))

    def test_a_slow_reader_holds_up_only_itself(self):
        """A client that asks for much and does not read: its service session runs out of credit, others go on."""
        slow_one = raw_open(self.raw_port, "/svc/echo")
        for _ in range(30):
            slow_one.sendall(raw_frame(3, b"send 1000000"))
        other = ws_open(self.port, "/svc/echo")
        for i in range(50):
            self.assertTrue(ws_echo(other, b"%d" % i))
        self.assertLess(self.gw.metric("tidegate_buffered_bytes"), 6e6)
        slow_one.settimeout(30 * slow())
        for _ in range(30):
            self.assertEqual(len(raw_recv(slow_one)[1]), 1000000)


# ---------------------------------------------------------------------------------------- stalling and refusing

class TestStall(LinkCase):
    def test_a_service_that_stops_reading_a_session(self):
        """Its credit used up, the session alone waits; the gateway keeps a window and about a message of it."""
        service = self.service(args=["--per-session"])
        gw = self.links_gateway({"svc": ([service.endpoint], "")}, extra="")
        stalled = [ws_open(self.port, "/svc/stall") for _ in range(5)]
        others = [ws_open(self.port, "/svc/echo") for _ in range(20)]
        chunk = ws_frame(2, bytes(60000))
        for s in stalled:
            s.setblocking(False)
            took, quiet = 0, time.monotonic()
            while time.monotonic() - quiet < 0.3:
                with contextlib.suppress(BlockingIOError):
                    took += s.send(chunk[took % len(chunk):])
                    quiet = time.monotonic()
            self.assertGreater(took, 256 * 1024)
            self.assertLess(took, 16 << 20)
        for i in range(20):
            for s in others:
                self.assertTrue(ws_echo(s, b"flowing %d" % i))
        self.assertGreaterEqual(gw.metric("tidegate_reads_paused_total"), 5)
        self.assertLess(gw.metric("tidegate_buffered_bytes"), 5 * 2 * 1024 * 1024)
        self.assertEqual(gw.metric("tidegate_link_up"), 1)

    def test_a_stalled_client_is_not_taken_for_dead(self):
        """Its answers to our pings wait behind what is not read."""
        service = self.service(args=["--per-session"])
        gw = self.links_gateway({"svc": ([service.endpoint], "")}, route=", heartbeat: {interval: 100ms, missed: 1}")
        s = ws_open(self.port, "/svc/stall")
        s.sendall(ws_frame(2, bytes(300000)) * 2)
        wait_for(lambda: gw.metric("tidegate_reads_paused_total") > 0)
        time.sleep(1)
        self.assertEqual(gw.metric("tidegate_open_connections"), 1)
        s.close()

    def test_a_service_that_never_answers_open(self):
        service = self.service(args=["--per-session"])
        self.links_gateway({"svc": ([service.endpoint], "open_timeout: 500ms")})
        s = connect(self.port)
        s.sendall(upgrade_request("/svc/silent"))
        self.assertTrue(recv_all(s).startswith(b"HTTP/1.1 503 "))
        self.assertTrue(ws_echo(ws_open(self.port, "/svc/echo"), b"ok"))

    def test_a_frozen_service_is_given_up(self):
        """It accepts connections and bytes and does nothing: PINGs find out, and sessions go elsewhere."""
        gw = self.two_services("ping_interval: 200ms, ping_timeout: 400ms")
        probes = [Probe(self.port, "/svc/echo") for _ in range(10)]
        self.assertEqual({p.name for p in probes}, {"a", "b"})
        self.a.kill(signal.SIGSTOP)
        for p in probes:
            p.ask()
        self.assertEqual({whoami(p.s)["name"] for p in probes}, {"b"})
        self.a.kill(signal.SIGCONT)
        wait_for(lambda: gw.metric("tidegate_link_up") == 2)


class TestNoLink(LinkCase):
    def test_the_handshake_waits_for_the_service(self):
        port = free_port()
        gw = self.links_gateway({"svc": (["tcp://127.0.0.1:%d" % port], "open_timeout: 10s")}, ready=False)
        self.assertEqual(gw.get("/readyz")[0], 503)
        self.assertEqual(gw.metric("tidegate_link_up"), 0)
        waiting = []
        for _ in range(20):
            s = connect(self.port)
            s.sendall(upgrade_request("/svc/x"))
            waiting.append(s)
        raw = connect(self.raw_port)
        raw.sendall(raw_hello("/svc/x") + raw_frame(3, b"early"))
        time.sleep(0.3)
        self.service(address="127.0.0.1:%d" % port)
        for s in waiting:
            self.assertTrue(recv_head(s).startswith(b"HTTP/1.1 101 "))
            self.assertTrue(ws_echo(s, b"at last"))
        self.assertEqual(raw_recv(raw)[0], 2)
        self.assertEqual(raw_recv(raw), (3, b"early"))
        wait_for(gw.ready)

    def test_without_one_it_is_refused_in_time(self):
        gw = self.links_gateway({"svc": ([dead_endpoint()], "open_timeout: 400ms")}, ready=False)
        began = time.monotonic()
        s, raw = connect(self.port), connect(self.raw_port)
        s.sendall(upgrade_request("/svc/x"))
        raw.sendall(raw_hello("/svc/x"))
        answer = recv_all(s)
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertIn(b"no service is up", answer)
        self.assertEqual(raw_recv(raw)[1][:2], struct.pack("!H", 1013))
        self.assertLess(time.monotonic() - began, 3 * slow())
        s.close()
        raw.close()
        wait_for(lambda: gw.metric("tidegate_closes_total", reason="no_upstream") == 2)
        self.assertGreater(gw.metric("tidegate_link_failures_total"), 0)

    def test_waiting_is_bounded(self):
        """Beyond `buffer` newcomers are refused at once, those before them go on waiting."""
        self.links_gateway({"svc": ([dead_endpoint()], "buffer: 64KiB, open_timeout: 2s")}, ready=False)
        socks = []
        for _ in range(200):
            s = connect(self.port)
            s.sendall(upgrade_request("/svc/x", headers=["User-Agent: " + "x" * 1000]))
            socks.append(s)
        refused = wait_for(lambda: len(select.select(socks, [], [], 0)[0]) > 100 and
                           (time.sleep(0.2) or len(select.select(socks, [], [], 0)[0])))
        self.assertGreater(refused, 120)
        self.assertLess(refused, 180)
        for s in socks:
            self.assertTrue(recv_all(s).startswith(b"HTTP/1.1 503 "))


class TestRestart(LinkCase):
    def test_a_restarted_service_is_connected_within_2_s(self):
        port = free_port()
        first = self.service(status=None, address="127.0.0.1:%d" % port, args=["--commands"])
        gw = self.links_gateway({"svc": (["tcp://127.0.0.1:%d" % port], "")})
        probe = Probe(self.port, "/svc/echo")
        first.kill()
        first.wait()
        wait_for(lambda: gw.metric("tidegate_link_up") == 0)
        time.sleep(2.5)  # the backoff has grown to its maximum
        self.service(address="127.0.0.1:%d" % port, args=["--commands"])
        began = time.monotonic()
        wait_for(lambda: gw.metric("tidegate_link_up") == 1)
        self.assertLess(time.monotonic() - began, 2 * slow())
        probe.ask()
        self.assertTrue(whoami(probe.s)["resumed"])
        self.assertEqual(gw.metric("tidegate_link_connects_total"), 2)

    def test_messages_wait_in_a_bounded_buffer(self):
        """While no link is up messages are kept, up to `buffer`; the session beyond it is closed with 1013."""
        port = free_port()
        first = self.service(status=None, address="127.0.0.1:%d" % port, args=["--commands"])
        gw = self.links_gateway({"svc": (["tcp://127.0.0.1:%d" % port], "buffer: 64KiB")})
        keeps, greedy = raw_open(self.raw_port, "/svc/x"), ws_open(self.port, "/svc/x")
        first.kill()
        first.wait()
        wait_for(lambda: gw.metric("tidegate_link_up") == 0)
        keeps.sendall(raw_frame(3, b"one") + raw_frame(3, b"two") + raw_frame(4, bytes(10000)))
        greedy.sendall(ws_frame(2, bytes(60000)))
        self.assertEqual(ws_close_code(greedy), 1013)
        self.assertEqual(gw.metric("tidegate_link_buffer_refused_total"), 1)
        self.service(address="127.0.0.1:%d" % port, args=["--commands"])
        self.assertEqual([raw_recv(keeps) for _ in range(3)], [(3, b"one"), (3, b"two"), (4, bytes(10000))])
        self.assertEqual(gw.metric("tidegate_link_messages_lost_total"), 0)


# ---------------------------------------------------------------------------------------- failover

class TestFailover(LinkCase):
    N = 40

    def traffic(self, probes, stop):
        """Each probe asks and asks, until told to stop. Returns what went wrong."""
        wrong = []

        def run(p):
            try:
                while not stop.is_set():
                    p.ask()
            except Exception as e:
                wrong.append((p, e))

        threads = [threading.Thread(target=run, args=(p,)) for p in probes]
        for t in threads:
            t.start()
        return wrong, threads

    def kill_under_traffic(self, gw):
        probes = [Probe(self.port, "/svc/echo") for _ in range(self.N)]
        self.assertEqual(sum(p.name == "a" for p in probes), self.N // 2)
        stop = threading.Event()
        wrong, threads = self.traffic(probes, stop)
        time.sleep(0.5)
        self.a.kill()
        self.a.wait()
        time.sleep(1)
        stop.set()
        for t in threads:
            t.join(30 * slow())
            self.assertFalse(t.is_alive(), "a session hangs")
        return probes, wrong

    def test_resume(self):
        gw = self.two_services("failover: resume")
        probes, wrong = self.kill_under_traffic(gw)
        self.assertEqual(wrong, [])
        for p in probes:
            p.ask()
            self.assertEqual(whoami(p.s)["name"], "b")
            self.assertEqual(whoami(p.s)["resumed"], p.name == "a")
            if p.name == "b":
                self.assertEqual(p.lost, 0)
        self.assertEqual(gw.metric("tidegate_sessions_failed_over_total"), self.N // 2)
        self.assertEqual(gw.metric("tidegate_link_sessions"), self.N)
        self.assertLessEqual(sum(p.lost for p in probes), self.N // 2)  # each had one question under way

    def test_close(self):
        gw = self.two_services("failover: close")
        probes, wrong = self.kill_under_traffic(gw)
        self.assertEqual({p for p, _ in wrong}, {p for p in probes if p.name == "a"})
        for _, e in wrong:
            self.assertIn(repr(struct.pack("!H", 1013) + b"service unavailable"), str(e))
        for p in probes:
            if p.name == "b":
                p.ask()
                self.assertEqual((p.lost, whoami(p.s)["resumed"]), (0, False))
        self.assertEqual(gw.metric("tidegate_sessions_failed_over_total"), 0)
        for p in probes:
            p.s.close()
        wait_for(lambda: gw.metric("tidegate_closes_total", reason="no_upstream") == self.N // 2)

    def test_an_orderly_stop_loses_nothing(self):
        self.two_services()
        probes = [Probe(self.port, "/svc/echo") for _ in range(10)]
        for p in probes:
            p.ask()
        self.a.stop()
        for p in probes:
            p.ask()
            self.assertEqual((p.lost, whoami(p.s)["name"]), (0, "b"))

    def test_large_messages_over_a_failover(self):
        """Whole or not at all: a message that was under way is lost, the next one comes through whole."""
        gw = self.two_services()
        socks = [ws_open(self.port, "/svc/echo") for _ in range(8)]
        payloads = [os.urandom(1 << 20) for _ in socks]
        senders = [threading.Thread(target=lambda s=s, p=p: s.sendall(ws_frame(2, p))) for s, p in zip(socks, payloads)]
        for t in senders:
            t.start()
        time.sleep(0.02)
        self.a.kill()
        self.a.wait()
        for t in senders:
            t.join(30 * slow())
            self.assertFalse(t.is_alive())
        for s, p in zip(socks, payloads):
            s.settimeout(20 * slow())
            s.sendall(ws_frame(1, b"mark"))
            got = ws_recv(s)
            if got[0] == 2:
                self.assertTrue(got[2] == p)
                got = ws_recv(s)
            self.assertEqual(got, (1, True, b"mark"))
        self.assertEqual(gw.metric("tidegate_link_up"), 1)

    def test_many_sessions_move(self):
        gw = self.two_services(workers=2)
        socks = [raw_open(self.raw_port, "/svc/echo") for _ in range(300)]
        for s in socks:
            s.sendall(raw_frame(3, b"before"))
        for s in socks:
            self.assertEqual(raw_recv(s), (3, b"before"))
        self.a.kill()
        self.a.wait()
        wait_for(lambda: gw.metric("tidegate_link_sessions", endpoint=self.b.endpoint) == 300)
        for s in socks:
            s.sendall(raw_frame(3, b"after"))
        for s in socks:
            self.assertEqual(raw_recv(s), (3, b"after"))
        self.assertGreaterEqual(gw.metric("tidegate_sessions_failed_over_total"), 148)


class TestBalancing(LinkCase):
    def test_hash_sticks_to_the_header(self):
        gw = self.two_services("balance: \"hash:x-user\"")

        def home(user):
            s = ws_open(self.port, "/svc/echo", headers=["X-User: %s" % user])
            name = whoami(s)["name"]
            s.close()
            return name

        users = ["user-%d" % i for i in range(40)]
        homes = {u: home(u) for u in users}
        self.assertGreater(sum(h == "a" for h in homes.values()), 5)
        self.assertGreater(sum(h == "b" for h in homes.values()), 5)
        for u in users:
            self.assertEqual(home(u), homes[u])
        self.a.kill()
        self.a.wait()
        wait_for(lambda: gw.metric("tidegate_link_up") == 1)
        self.assertEqual({home(u) for u in users}, {"b"})
        self.service(name="a", address=self.a.address, args=["--commands"])
        wait_for(lambda: gw.metric("tidegate_link_up") == 2)
        for u in users:
            self.assertEqual(home(u), homes[u])

    def test_least_sessions(self):
        gw = self.two_services()
        socks = [raw_open(self.raw_port, "/svc/echo") for _ in range(21)]
        counts = sorted(gw.metric("tidegate_link_sessions", endpoint=s.endpoint) for s in (self.a, self.b))
        self.assertEqual(counts, [10, 11])
        del socks
