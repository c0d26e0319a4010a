"""Admission in user space: lists, limits of sources, penalties, the gate, and the operator's word. Clients come from many
addresses of 127.0.0.0/8, which are limited like any other with admission.limit_loopback."""
# alone: the governor hears of any load

import contextlib
import select
import socket
import subprocess
import time

import support
from support import (connect, echo_body, free_port, recv_head, upgrade_request, wait_for, ws_close_code, ws_frame, ws_open,
                     ws_recv)

LIMITED = "mode: user, limit_loopback: true"


def is_refused(port, source=None, head=b""):
    """True when the gateway resets the connection instead of shaking hands; else the session is closed again."""
    try:
        s = connect(port, source)
        s.sendall(head + upgrade_request())
        recv_head(s)
        s.close()
        return False
    except (ConnectionResetError, BrokenPipeError, EOFError):
        return True


def echoes(s, text=b"still here"):
    s.sendall(ws_frame(1, text))
    return ws_recv(s)[2] == text


class Admission(support.Case):
    def start_gateway(self, admission, workers=2, listener=""):
        """One whose gate stays open however long the machine makes it wait."""
        self.port = free_port()
        self.g = self.gateway(echo_body(self.port, listener=listener), workers=workers,
                              admission=admission + ", target_delay: 1s")
        return self.g

    def verdicts(self, reason, observed=False):
        return self.g.metric("tidegate_verdicts_%stotal" % ("observed_" if observed else ""), program="user",
                             reason=reason)

    def hold(self, n, source):
        """n sessions from an address; the test keeps them open."""
        sessions = [ws_open(self.port, source=source) for _ in range(n)]
        for s in sessions:
            self.addCleanup(s.close)
        return sessions

    def test_deny_and_allow(self):
        g = self.start_gateway("mode: user, deny: [127.0.5.0/24], allow: [127.0.5.9]")
        self.assertTrue(is_refused(self.port, "127.0.5.1"))
        self.assertFalse(is_refused(self.port, "127.0.5.9"))
        self.assertFalse(is_refused(self.port, "127.0.6.1"))
        self.assertEqual(self.verdicts("deny"), 1)
        self.assertEqual(self.verdicts("allowed"), 1)
        self.assertEqual(g.metric("tidegate_closes_total", reason="refused"), 1)

    def test_lists_change_while_it_runs(self):
        g = self.start_gateway("mode: user, deny: [127.0.5.0/24]")
        session, = self.hold(1, "127.0.6.1")
        self.assertEqual(g.ctl("deny", "add", "127.0.6.0/24"), {"added": "127.0.6.0/24"})
        wait_for(lambda: is_refused(self.port, "127.0.6.1"))
        self.assertTrue(echoes(session))
        self.assertEqual(g.ctl("deny"), [{"prefix": "127.0.5.0/24", "origin": "config"},
                                         {"prefix": "127.0.6.0/24", "origin": "operator"}])
        with self.assertRaisesRegex(AssertionError, "in the list already"):
            g.ctl("deny", "add", "127.0.6.0/24")
        g.ctl("allow", "add", "127.0.6.7")
        wait_for(lambda: not is_refused(self.port, "127.0.6.7"))
        g.ctl("allow", "del", "127.0.6.7")
        wait_for(lambda: is_refused(self.port, "127.0.6.7"))
        g.ctl("deny", "del", "127.0.6.0/24")
        wait_for(lambda: not is_refused(self.port, "127.0.6.1"))
        with self.assertRaisesRegex(AssertionError, "not in the list"):
            g.ctl("deny", "del", "127.0.6.0/24")

    def test_open_connections_of_a_source(self):
        self.start_gateway(LIMITED + ", v4_32_open: 4, penalty: 300ms")
        sessions = self.hold(4, "127.0.7.1")
        self.assertTrue(is_refused(self.port, "127.0.7.1"))
        self.assertFalse(is_refused(self.port, "127.0.7.2"))
        self.assertEqual(self.verdicts("penalty_concurrency"), 1)
        # Its place free and its time over, it is let in again.
        sessions[0].close()
        wait_for(lambda: not is_refused(self.port, "127.0.7.1"))
        self.assertTrue(all(echoes(s) for s in sessions[1:]))

    def test_open_connections_of_a_wider_prefix(self):
        self.start_gateway(LIMITED + ", v4_24_open: 6, penalty: 60s")
        for i in range(6):
            self.hold(1, "127.0.8.%d" % (i + 1))
        self.assertTrue(is_refused(self.port, "127.0.8.200"))
        self.assertFalse(is_refused(self.port, "127.0.9.1"))

    def test_weights(self):
        self.start_gateway(LIMITED + ", v4_32_open: 2, weights: [{prefix: 127.0.10.0/24, weight: 3}]")
        self.hold(6, "127.0.10.1")
        self.assertTrue(is_refused(self.port, "127.0.10.1"))
        self.hold(2, "127.0.11.1")
        self.assertTrue(is_refused(self.port, "127.0.11.1"))

    def test_churn_leads_to_the_box(self):
        self.start_gateway(LIMITED + ", v4_32_churn: 20, penalty: 1s")
        refused = 0
        for _ in range(200):
            if is_refused(self.port, "127.0.12.1"):
                refused += 1
                if refused == 3:
                    break
        self.assertEqual(refused, 3)
        self.assertEqual(self.verdicts("penalty_churn"), 1)
        self.assertEqual(self.verdicts("penalty"), 3)
        self.assertFalse(is_refused(self.port, "127.0.12.2"))
        wait_for(lambda: not is_refused(self.port, "127.0.12.1"))

    def test_loopback_is_exempt(self):
        self.start_gateway("v4_32_open: 1, v4_32_churn: 1")
        self.hold(5, "127.0.13.1")
        self.assertEqual(self.verdicts("penalty"), 0)

    def test_shut_gate(self):
        g = self.start_gateway("mode: user, allow: [127.0.14.9]")
        session, = self.hold(1, "127.0.14.1")
        self.assertEqual(g.ctl("gate", "shut"), {"word": "shut"})
        wait_for(lambda: is_refused(self.port, "127.0.14.2"))
        self.assertTrue(echoes(session))
        self.assertFalse(is_refused(self.port, "127.0.14.9"))
        gate = g.ctl("gate")
        self.assertEqual((gate["state"], gate["reason"], gate["rate"]), ("shut", "operator", 0))
        self.assertGreater(gate["verdicts"]["shut"], 0)
        self.assertEqual(g.metric("tidegate_gate_state"), 2)
        wait_for(lambda: "gate=shut" in g.log())
        g.ctl("gate", "auto")
        wait_for(lambda: not is_refused(self.port, "127.0.14.2"))
        self.assertEqual(g.ctl("gate")["word"], "auto")

    def test_storm_shuts_the_gate_and_it_opens_again(self):
        """More handshakes than the worker can do, each of which keeps it busy for 5 ms."""
        self.port = free_port()
        g = self.g = self.gateway(echo_body(self.port), admission="mode: user, rate_floor: 1",
                                  extra="debug: {handshake_cost: 5ms}")
        session, = self.hold(1, "127.0.21.1")
        crowd = []

        def storm():
            "the gate to refuse somebody"
            for i in range(50):
                s = socket.socket()
                s.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    s.connect(("127.0.0.1", self.port))
                crowd.append(s)
            for s in crowd[-50:]:
                with contextlib.suppress(OSError):  # refused already
                    select.select([], [s], [], 5)
                    s.send(upgrade_request())
            return self.verdicts("shut") + self.verdicts("rate")
        wait_for(storm, timeout=20)
        self.assertTrue(echoes(session))
        self.assertIn(g.ctl("gate")["reason"], ("delay", "none"))
        self.assertIn("by delay at", g.log())
        for s in crowd:
            s.close()
        wait_for(lambda: g.ctl("gate")["state"] == "open", timeout=30)
        wait_for(lambda: not is_refused(self.port, "127.0.21.2"))
        self.assertTrue(echoes(session))

    def test_rate(self):
        g = self.start_gateway("mode: user")
        g.ctl("gate", "rate", "20")
        wait_for(lambda: g.metric("tidegate_gate_rate") == 20)
        begin, before = time.monotonic(), self.verdicts("paced")
        refused = sum(is_refused(self.port, "127.0.15.%d" % (1 + i % 50)) for i in range(300))
        elapsed, admitted = time.monotonic() - begin, self.verdicts("paced") - before
        self.assertEqual(admitted + refused, 300)
        # One may be in hand and one ahead.
        self.assertLessEqual(admitted, 20 * elapsed + 2)
        self.assertGreaterEqual(admitted, 1)

    def test_permits(self):
        self.start_gateway("mode: user, permits: 3")
        waiting = [connect(self.port, "127.0.16.1") for _ in range(3)]
        for s in waiting:
            self.addCleanup(s.close)
        wait_for(lambda: self.g.metric("tidegate_gate_unserved") == 3)
        self.assertTrue(is_refused(self.port, "127.0.16.2"))
        self.assertEqual(self.verdicts("permits"), 1)
        waiting[0].sendall(upgrade_request())
        recv_head(waiting[0])
        self.assertFalse(is_refused(self.port, "127.0.16.2"))

    def test_memory_shuts_the_gate(self):
        g = self.start_gateway("mode: user, memory_high_percent: 1, memory_low_percent: 1")
        if max(v or 0 for v in g.ctl("gate")["memory_percent"].values()) < 1:
            self.skipTest("less than 1 % of the memory is in use")
        wait_for(lambda: g.ctl("gate")["reason"] == "memory")
        self.assertTrue(is_refused(self.port))
        g.ctl("gate", "open")  # an operator's word beats it
        wait_for(lambda: not is_refused(self.port))

    def test_observe_refuses_nobody(self):
        # On an interface that is not there, so that it is user space that observes.
        g = self.start_gateway("mode: observe, interfaces: [nosuch0], limit_loopback: true, deny: [127.0.17.0/24], v4_32_open: 2")
        self.hold(1, "127.0.17.1")
        sessions = self.hold(5, "127.0.18.1")
        g.ctl("gate", "shut")
        wait_for(lambda: g.metric("tidegate_gate_state") == 2)
        self.hold(1, "127.0.19.1")
        self.assertTrue(all(echoes(s) for s in sessions))
        for reason, n in (("deny", 1), ("penalty", 3), ("penalty_concurrency", 1), ("shut", 1)):
            self.assertEqual(self.verdicts(reason, observed=True), n, reason)
            self.assertEqual(self.verdicts(reason), 0, reason)

    def test_off(self):
        g = self.start_gateway("mode: off, deny: [127.0.0.0/8]")
        self.assertFalse(is_refused(self.port))
        self.assertEqual(g.ctl("gate")["state"], "off")
        for words in (("gate", "shut"), ("deny",), ("allow", "add", "10.0.0.0/8")):
            with self.assertRaisesRegex(AssertionError, "admission is off"):
                g.ctl(*words)

    def test_declared_addresses_are_judged(self):
        """Behind PROXY it is the client that counts, not the balancer."""
        self.start_gateway(LIMITED + ", v4_32_open: 2, deny: [192.0.2.0/24]",
                           listener=", proxy_protocol: {from: [127.0.0.0/8]}")
        proxy = b"PROXY TCP4 %s 127.0.0.1 1000 80\r\n"
        self.assertTrue(is_refused(self.port, head=proxy % b"192.0.2.1"))
        for _ in range(2):
            s = connect(self.port)
            self.addCleanup(s.close)
            s.sendall(proxy % b"198.51.100.1" + upgrade_request())
            recv_head(s)
        self.assertTrue(is_refused(self.port, head=proxy % b"198.51.100.1"))
        self.assertFalse(is_refused(self.port, head=proxy % b"198.51.100.2"))
        # The balancer's own checks are nobody's connections.
        for _ in range(5):
            s = connect(self.port)
            self.addCleanup(s.close)
            s.sendall(b"PROXY UNKNOWN\r\n" + upgrade_request())
            recv_head(s)

    def test_nothing_is_left_of_those_who_went(self):
        """Closed in any state, by anybody: places and permits come back."""
        g = self.start_gateway(LIMITED + ", v4_32_open: 3, v4_32_churn: 0")
        for i in range(30):
            s = connect(self.port, "127.0.20.1")
            if i % 3 == 1:
                s.sendall(b"rubbish\r\n\r\n")
                support.recv_all(s)
            elif i % 3 == 2:
                s.sendall(upgrade_request())
                recv_head(s)
                s.sendall(ws_frame(8, b"\x03\xe8"))
                self.assertEqual(ws_close_code(s), 1000)
            s.close()
            wait_for(lambda: g.metric("tidegate_open_connections") == 0)
        self.assertEqual(g.metric("tidegate_gate_unserved"), 0)
        self.hold(3, "127.0.20.1")
        self.assertTrue(is_refused(self.port, "127.0.20.1"))

    def test_words_for_people(self):
        self.start_gateway("mode: user")
        r = subprocess.run([support.BUILD + "/tidegatectl", "--socket", self.g.socket, "gate"], capture_output=True,
                           text=True, timeout=20 * support.slow())
        self.assertIn("gate             open\n", r.stdout)
        self.assertIn("mode             user, the operator says auto\n", r.stdout)
