"""Clients that take more than their share: the others go on, and the memory that one can hold is bounded."""
# alone: compares delays with and without a greedy client

import contextlib
import os
import select
import signal
import socket
import threading
import time

import support
from crowd import Witness, fill
from support import raw_frame, raw_open, upgrade_request, ws_close_code, ws_frame, ws_open, ws_recv

PATTERN = bytes(range(251))  # of a prime length, so that a lost or swapped message does not go unnoticed


def open_small(port, receive=65536):
    """A WebSocket session with small buffers."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    s.settimeout(20 * support.slow())
    s.connect(("127.0.0.1", port))
    s.sendall(upgrade_request())
    support.recv_head(s)
    return s


class Pipeliner(threading.Thread):
    """Sends endless one-byte messages as fast as they are taken, and reads the echoes beside that."""

    def __init__(self, sock, send, expect, repeat):
        super().__init__(daemon=True)
        self.sock, self.send, self.expect, self.repeat = sock, send, expect, repeat
        self.error = None
        self.sender = threading.Thread(target=self.push, daemon=True)
        self.sender.start()
        self.start()

    def push(self):
        block = self.send * 64
        try:
            for at in range(0, self.repeat, 64):
                self.sock.sendall(block[:len(self.send) * min(64, self.repeat - at)])
        except OSError as e:
            self.error = repr(e)

    def run(self):
        block, left, at = self.expect * 1100, len(self.expect) * self.repeat, 0
        try:
            while left:
                got = self.sock.recv(1 << 18)
                if not got:
                    raise EOFError("closed with %d bytes to come" % left)
                if got != block[at:at + len(got)]:
                    raise AssertionError("not its own messages, or not in order")
                at = (at + len(got)) % len(self.expect)
                left -= len(got)
        except Exception as e:  # told to whoever joins
            self.error = self.error or repr(e)


class PingPong:
    """Well-behaved clients, each with one message under way."""

    def __init__(self, port, n):
        self.clients = {}
        for _ in range(n):
            s = ws_open(port)
            s.setblocking(False)
            self.clients[s.fileno()] = s
        self.rounds = dict.fromkeys(self.clients, 0)
        self.sent_at = {}
        self.worst = 0.0
        self.beside = None

    def send(self, fd):
        self.sent_at[fd] = time.monotonic()
        self.clients[fd].send(ws_frame(1, b"%06d" % self.rounds[fd]))

    def run(self, until, least):
        """Until until() is true and everyone had `least` rounds; `beside` is how many everyone had had by then."""
        deadline = time.monotonic() + 60 * support.slow()
        with select.epoll() as ep:
            for fd in self.clients:
                ep.register(fd, select.EPOLLIN)
                self.send(fd)
            while self.beside is None or min(self.rounds.values()) < least:
                if self.beside is None and until():
                    self.beside = min(self.rounds.values())
                for fd, _ in ep.poll(0.5):
                    got = self.clients[fd].recv(100)
                    if got != b"\x81\x06%06d" % self.rounds[fd]:
                        raise AssertionError("round %d: %r" % (self.rounds[fd], got))
                    self.worst = max(self.worst, time.monotonic() - self.sent_at[fd])
                    self.rounds[fd] += 1
                    self.send(fd)
                if time.monotonic() > deadline:
                    raise AssertionError("rounds: %s" % sorted(self.rounds.values()))

    def close(self):
        for s in self.clients.values():
            s.close()


class Fairness(support.Case):
    BYTES = 10_000_000

    def setUp(self):
        super().setUp()
        support.raise_nofile()
        self.port, self.raw = support.free_port(), support.free_port()

    def start_gateway(self, **kw):
        return self.gateway(support.echo_body(self.port, self.raw), **kw)

    def pipeline(self, gw, sock, send, expect, total):
        self.addCleanup(sock.close)
        crowd = PingPong(self.port, 50)
        self.addCleanup(crowd.close)
        yields = gw.metric("tidegate_forced_yields_total")
        pipeliner = Pipeliner(sock, send, expect, total // support.slow() // len(send))
        crowd.run(lambda: not pipeliner.is_alive(), 20)
        self.assertIsNone(pipeliner.error)
        self.assertGreater(crowd.beside, 0)
        self.assertGreater(gw.metric("tidegate_forced_yields_total"), yields)
        self.assertLess(crowd.worst, 2 * support.slow())

    def test_pipelined_tiny_messages(self):
        gw = self.start_gateway()
        self.pipeline(gw, ws_open(self.port), b"".join(ws_frame(2, bytes([b]), mask=b"\0\0\0\0") for b in PATTERN),
                      b"".join(ws_frame(2, bytes([b]), mask=None) for b in PATTERN), self.BYTES)

    def test_pipelined_tiny_messages_raw(self):
        gw = self.start_gateway()
        frames = b"".join(raw_frame(4, bytes([b])) for b in PATTERN)
        self.pipeline(gw, raw_open(self.raw), frames, frames, self.BYTES // 2)

    def test_who_does_not_read_is_not_read(self):
        """Each of the greedy holds no more than its out queue's low mark, a message and what came in meanwhile; and
        when it reads after all, it gets everything."""
        greedy, bound = 20, 256 * 1024
        gw = self.start_gateway()
        witness = Witness(self.port)
        self.addCleanup(witness.stop)
        frame = b"".join(ws_frame(2, bytes([b]) * 1000, mask=b"\0\0\0\0") for b in PATTERN)
        echo = b"".join(ws_frame(2, bytes([b]) * 1000, mask=None) for b in PATTERN)
        socks = [open_small(self.port) for _ in range(greedy)]
        taken = fill(gw, [(s, frame) for s in socks], greedy)
        self.assertGreaterEqual(gw.metric("tidegate_reads_paused_total"), greedy)
        self.assertLess(gw.metric("tidegate_buffered_bytes"), greedy * bound)
        seen = witness.count
        support.wait_for(lambda: witness.error or witness.count > seen + 50)
        witness.check()
        self.assertLess(gw.metric("tidegate_buffered_bytes"), greedy * bound)
        for s, n in zip(socks, taken):
            s.setblocking(True)
            whole = n // (len(frame) // len(PATTERN)) * (len(echo) // len(PATTERN))
            self.assertEqual(support.recv_exact(s, whole), (echo * (whole // len(echo) + 1))[:whole])
            s.close()

        def given_back():
            "the memory to be given back"
            return gw.metric("tidegate_buffered_bytes") < 4096
        support.wait_for(given_back)
        witness.check()

    def test_cap_of_a_worker(self):
        """The greedy together come near workers.buffer_cap: some are ended, it is not exceeded, and who asks for little
        has what it needs."""
        cap = 1 << 20
        gw = self.start_gateway(workers_extra=", buffer_cap: 1MiB")
        witness = Witness(self.port)
        self.addCleanup(witness.stop)
        socks = [open_small(self.port, receive=16384) for _ in range(60)]
        frame = ws_frame(2, b"x" * 16000)
        for s in socks:
            s.setblocking(False)

        def enough():
            "the cap to be felt"
            for s in socks:
                with contextlib.suppress(OSError):  # full, or ended
                    s.send(frame)
            self.assertLessEqual(gw.metric("tidegate_buffered_bytes"), cap)
            return gw.metric("tidegate_closes_total", reason="no_memory") + gw.metric(
                "tidegate_closes_total", reason="shed") >= 10
        support.wait_for(enough)
        self.assertGreater(gw.metric("tidegate_sessions"), 2)
        witness.check()
        for s in socks:
            s.close()

        def gone():
            "everyone to be gone, and the memory"
            return gw.metric("tidegate_open_connections") == 1 and gw.metric("tidegate_buffered_bytes") < 4096
        support.wait_for(gone)
        witness.check()

    def test_message_above_the_cap(self):
        """It fits the route's limit, and not the worker's memory: its sender is ended, and told why."""
        gw = self.start_gateway(workers_extra=", buffer_cap: 1MiB")
        witness = Witness(self.port)
        self.addCleanup(witness.stop)
        with ws_open(self.port) as s:
            threading.Thread(target=self.push, args=(s, ws_frame(2, b"x" * (2 << 20))), daemon=True).start()
            self.assertEqual(ws_close_code(s), 1013)
        support.wait_for(lambda: gw.metric("tidegate_closes_total", reason="no_memory") == 1)
        witness.check()

    @staticmethod
    def push(sock, data):
        with contextlib.suppress(OSError):  # ended meanwhile, as it should be
            sock.sendall(data)

    def test_more_at_once_than_receive_buffers(self):
        """While the gateway stands still, hundreds of sessions speak and many more clients connect; it has 16 buffers.
        Everyone is served, and nobody has to wait for somebody else's next word."""
        gw = self.start_gateway(workers_extra=", recv_buffers: 16, recv_buffer_size: 256")
        sessions = [ws_open(self.port) for _ in range(400)]
        message = ws_frame(1, b"x" * 100)
        os.kill(gw.gateway_pid, signal.SIGSTOP)
        try:
            for s in sessions[:100]:
                s.sendall(message)
            silent = [support.connect(self.port) for _ in range(1000)]
            for s in sessions[100:]:
                s.sendall(message)
        finally:
            os.kill(gw.gateway_pid, signal.SIGCONT)
        for s in sessions:
            self.assertEqual(ws_recv(s), (1, True, b"x" * 100))
        self.assertGreater(gw.metric("tidegate_recv_no_buffer_total"), 0)
        for s in silent:
            s.sendall(upgrade_request())
        for s in silent:
            self.assertIn(b" 101 ", support.recv_head(s))
        for s in sessions + silent:
            s.close()
        support.wait_for(lambda: not gw.metric("tidegate_open_connections"))
