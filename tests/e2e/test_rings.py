"""Many rings, full workers, slots that are used again."""

import contextlib
import select
import socket
import struct
import time
import unittest

import support
from support import wait_for

RINGS = ", rings_max: 3, ring_connections: 100"
CAPACITY = 300
CROWD = 1000


class Rings(support.Case):
    def setUp(self):
        super().setUp()
        support.raise_nofile()
        self.ws, self.raw = support.free_port(), support.free_port()

    def start_gateway(self, raw=False, **kw):
        self.gw = self.gateway(support.echo_body(self.ws, self.raw if raw else None), **kw)
        return self.gw

    def knock(self, n, port=None):
        """n clients that ask for a session and do not wait for the answer."""
        out = []
        for _ in range(n):
            s = support.connect(port or self.ws)
            self.addCleanup(s.close)
            s.sendall(support.raw_hello() if port else support.upgrade_request())
            out.append(s)
        return out

    def answered(self, waiting, n):
        """Takes those who got an answer out of waiting, n of them, and returns them."""
        poller = select.poll()
        by_fd = {s.fileno(): s for s in waiting}
        for fd in by_fd:
            poller.register(fd, select.POLLIN)
        out = []

        def enough():
            "clients to be served"
            for fd, _ in poller.poll(20):
                poller.unregister(fd)
                out.append(by_fd[fd])
            return len(out) >= n
        wait_for(enough, 20)
        for s in out:
            waiting.remove(s)
        return out

    def no_connections(self):
        "every connection to be gone"
        return self.gw.metric("tidegate_open_connections") == 0

    def served(self, s):
        self.assertTrue(support.recv_head(s).startswith(b"HTTP/1.1 101 "))
        s.sendall(support.ws_frame(1, b"x"))
        self.assertEqual(support.ws_recv(s), (1, True, b"x"))

    def test_more_rings_than_a_thread_may_register(self):
        # The kernel lets a thread register 16 rings; those beyond are used without that.
        gw = self.start_gateway(workers_extra=", rings_max: 20, ring_connections: 64")
        waiting = self.knock(20 * 64)
        for s in self.answered(waiting, 20 * 64):
            self.served(s)
        self.assertEqual((gw.metric("tidegate_rings"), gw.metric("tidegate_ring_failures_total")), (20, 0))

    def test_a_full_worker(self):
        gw = self.start_gateway(workers_extra=RINGS)
        waiting = self.knock(CROWD)
        inside = self.answered(waiting, CAPACITY)
        self.assertEqual(len(inside), CAPACITY)

        def paused():
            "the worker to stop accepting"
            return gw.metric("tidegate_accepting") == 0
        wait_for(paused)
        status = gw.ctl("status")
        self.assertEqual((status["connections"], status["sessions"], status["rings"], status["rings_grown"]),
                         (CAPACITY, CAPACITY, 3, 2))
        self.assertEqual(status["accept_pauses"], 1)
        self.assertEqual([c["ring"] for c in gw.ctl("conns", "--limit", "1000")["conns"]],
                         [0] * 100 + [1] * 100 + [2] * 100)
        for s in inside:
            self.served(s)

        # The rest wait in the backlog, and none of them was sent away.
        self.assertEqual(select.select(waiting, [], [], 0.1)[0], [])
        # One goes, one comes.
        for _ in range(3):
            inside.pop().close()
            one, = self.answered(waiting, 1)
            self.served(one)
            inside.append(one)
        self.assertEqual(select.select(waiting, [], [], 0.1)[0], [])

        # All of them get their turn.
        while inside:
            for s in inside:
                s.close()
            inside = self.answered(waiting, min(len(waiting), CAPACITY)) if waiting else []
            for s in inside:
                self.served(s)
        wait_for(self.no_connections)

        def accepting():
            "the worker to accept again"
            return gw.metric("tidegate_accepting") == 1
        wait_for(accepting)
        status = gw.ctl("status")
        self.assertEqual((status["accepts"], status["accept_errors"], status["refused_full"]), (CROWD, 0, 0))
        self.assertGreater(status["accept_pauses"], 1)
        self.assertEqual(status["rings"], 3)

    def test_to_the_brim_by_multishot(self):
        """A short backlog lets the worker accept many at a time almost to the end, and still not one too many."""
        self.gw = gw = self.gateway(support.echo_body(self.ws, listener=", backlog: 64"),
                                    workers_extra=", rings_max: 1, ring_connections: 500")
        waiting = self.knock(550)
        inside = self.answered(waiting, 500)
        self.assertEqual(len(inside), 500)
        self.assertEqual(select.select(waiting, [], [], 0.1)[0], [])
        self.assertEqual(gw.metric("tidegate_open_connections"), 500)
        for s in inside:
            s.close()
        for s in self.answered(waiting, 50):
            self.served(s)
        status = gw.ctl("status")
        self.assertEqual((status["accepts"], status["accept_errors"], status["refused_full"]), (550, 0, 0))

    def test_two_listeners_share_the_last_slots(self):
        """Neither the raw nor the WebSocket clients can keep the others out while slots are free."""
        gw = self.start_gateway(raw=True, workers_extra=", rings_max: 1, ring_connections: 64")
        ws = self.knock(60)
        self.assertEqual(len(self.answered(ws, 60)), 60)
        raw = self.knock(3, self.raw)
        self.assertEqual(len(self.answered(raw, 3)), 3)
        self.assertGreaterEqual(gw.metric("tidegate_open_connections"), 63)
        more = self.knock(20)
        more_raw = self.knock(20, self.raw)
        self.assertLessEqual(len(select.select(more + more_raw, [], [], 0.2)[0]), 1)
        self.assertLessEqual(gw.metric("tidegate_open_connections"), 64)
        # The loop does not spin while it has nothing to do.
        loops = gw.metric("tidegate_loops_total")
        time.sleep(0.2)
        self.assertLess(gw.metric("tidegate_loops_total") - loops, 50)

    def test_few_receive_buffers(self):
        """Two hundred clients and sixteen buffers: receives that find none are tried again until all is through."""
        gw = self.start_gateway(workers_extra=", recv_buffers: 16, recv_buffer_size: 256")
        clients = [support.ws_open(self.ws) for _ in range(200)]
        data = bytes(range(256)) * 64
        frame = support.ws_frame(2, data)
        for _ in range(3):
            for s in clients:
                s.sendall(frame)
            for s in clients:
                op, fin, payload = support.ws_recv(s)
                self.assertTrue((op, fin) == (2, True) and payload == data)
        self.assertGreater(gw.metric("tidegate_recv_no_buffer_total"), 0)
        # One at a time, so that nobody else gives back the buffer that a starved receive waits for.
        for i in range(2000):
            s = clients[i % 200]
            s.sendall(support.ws_frame(2, bytes(4096)))
            self.assertEqual(len(support.ws_recv(s)[2]), 4096)
        for s in clients:
            s.close()
        wait_for(self.no_connections)

    def test_workers_share(self):
        gw = self.start_gateway(workers=2)
        clients = self.knock(400)
        self.answered(clients, 400)
        shares = [w["connections"] for w in gw.ctl("workers")]
        self.assertEqual(sum(shares), 400)
        # The kernel's hash is even: 100 of 400 are ten standard deviations off.
        self.assertGreater(min(shares), 100, shares)
        rows = gw.ctl("conns", "--limit", "1000")["conns"]
        self.assertEqual([sum(1 for c in rows if c["worker"] == w) for w in (0, 1)], shares)

    def cycle(self, i):
        """One connection's life, of five kinds."""
        port = self.raw if i % 10 == 5 else self.ws
        with support.connect(port) as s:
            kind = i % 5
            if kind == 0:
                s.sendall(support.raw_hello() if port == self.raw else support.upgrade_request())
                support.raw_recv(s) if port == self.raw else support.recv_head(s)
            elif kind == 1:
                s.sendall(support.upgrade_request() + support.ws_frame(1, b"x") + support.ws_frame(8, b"\x03\xe8"))
                support.recv_head(s)
                self.assertEqual(support.ws_recv(s), (1, True, b"x"))
            elif kind == 2:
                s.sendall(b"GET /ec")
            elif kind == 3:
                s.sendall(support.upgrade_request() + support.ws_frame(2, bytes(4096))[:2000])
            # Half of them reset, the others end with FIN (kinds 0 and 4 without having been answered, or asked).
            if i % 2:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def test_slots_are_used_again(self):
        gw = self.start_gateway(raw=True, workers=2, workers_extra=", rings_max: 1, ring_connections: 64")
        cycles = 5000
        for i in range(cycles):
            self.cycle(i)
        wait_for(self.no_connections, 20)
        status = gw.ctl("status")
        self.assertEqual(status["connections"], 0)
        # A connection that is reset before it is accepted may never be seen.
        self.assertGreater(status["accepts"], cycles * 0.75)
        self.assertLessEqual(status["accepts"], cycles)
        self.assertEqual(sum(status["closes"].values()), status["accepts"])
        self.assertEqual((status["sessions"], status["handshaking"], status["heap_bytes"], status["refused_full"]),
                         (0, 0, 0, 0))
        s = support.ws_open(self.ws)
        s.sendall(support.ws_frame(1, b"and on"))
        self.assertEqual(support.ws_recv(s), (1, True, b"and on"))
        s.close()

    def test_a_crowd_that_leaves_at_once(self):
        """Full, all reset in one go, full again: twice, without a slot or a byte lost."""
        gw = self.start_gateway(workers_extra=RINGS)
        for _ in range(3):
            crowd = self.knock(CAPACITY)
            self.assertEqual(len(self.answered(list(crowd), CAPACITY)), CAPACITY)
            for s in crowd:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                with contextlib.suppress(OSError):
                    s.send(support.ws_frame(1, bytes(100))[:50])
            for s in crowd:
                s.close()
            wait_for(self.no_connections)
        self.assertEqual(gw.metric("tidegate_buffered_bytes"), 0)
        self.assertEqual(gw.metric("tidegate_accepts_total"), 3 * CAPACITY)


if __name__ == "__main__":
    unittest.main()
