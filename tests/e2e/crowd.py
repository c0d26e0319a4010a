"""Many sockets at once from one thread, and a witness: what the tests of hostile and crowded gateways share."""

import contextlib
import select
import socket
import threading
import time

import support

ROUND_S = 0.0001  # least time between two pieces of one socket, so that the gateway reads them one by one


class Talk:
    """One socket and what it says: `data`, then FIN if `fin`; then `output` is what came back, `end` how it ended."""

    def __init__(self, name, sock, data, fin=False):
        self.name, self.sock, self.data, self.fin = name, sock, data, fin
        self.at = 0
        self.output = bytearray()
        self.end = None  # "fin" or "reset"

    def speak(self, step):
        """Sends the next `step` bytes (None: all); false when there is no more to say."""
        if self.end:
            return False
        try:
            self.at += self.sock.send(self.data[self.at:self.at + step] if step else self.data[self.at:])
        except BlockingIOError:
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False  # the answer, if any, is still there to be read
        if self.at < len(self.data):
            return True
        if self.fin:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        return False

    def listen(self):
        try:
            while not self.end:
                got = self.sock.recv(65536)
                self.output += got
                if not got:
                    self.end = "fin"
        except BlockingIOError:
            return
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"


def exchange(talks, step=None, pause=ROUND_S, timeout=20):
    """Runs all talks side by side, `step` bytes a round each, until every one was ended by the other side."""
    deadline = time.monotonic() + timeout * support.slow()
    with select.epoll() as ep:
        by_fd = {}
        for t in talks:
            t.sock.setblocking(False)
            ep.register(t.sock, select.EPOLLIN)
            by_fd[t.sock.fileno()] = t
        speaking = list(talks)
        while by_fd:
            began = time.monotonic()
            if began > deadline:
                raise AssertionError("never ended: %s" % [(t.name, bytes(t.output[-80:])) for t in by_fd.values()])
            speaking = [t for t in speaking if t.speak(step)]
            for fd, _ in ep.poll(0 if speaking else 0.1):
                t = by_fd[fd]
                t.listen()
                if t.end:
                    ep.unregister(fd)
                    del by_fd[fd]
                    t.sock.close()
            if speaking:
                time.sleep(max(0, began + pause - time.monotonic()))


QUEUED = 16384  # an out queue of a stuck connection has more...
BLOCKED_MS = 1000  # ...or its socket has taken nothing for so long


def stuck(gw):
    """How many connections the gateway reads no more from, or cannot write to: with small buffers, which of the two
    comes first is the kernel's affair. A peer whose receive buffer is full may even miss the ACKs of what it sent, and
    then sends nothing more, however little there is in the gateway's queue."""
    return sum(c["reading_paused"] or c["queued_bytes"] >= QUEUED or c["blocked_ms"] >= BLOCKED_MS
               for c in gw.ctl("conns", "--limit", "100000")["conns"])


def fill(gw, pairs, expected, timeout=20):
    """Sends each (socket, data)'s data over and over, and reads nothing, until nothing moves and `expected` connections
    are stuck. Returns how many bytes each took."""
    deadline = time.monotonic() + timeout * support.slow()
    taken = [0] * len(pairs)
    for s, _ in pairs:
        s.setblocking(False)
    while True:
        moved = False
        for i, (s, data) in enumerate(pairs):
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                taken[i] += s.send(data[taken[i] % len(data):])
                moved = True
        if moved and time.monotonic() < deadline:
            continue
        have = stuck(gw)
        if have >= expected and not moved:
            return taken
        if time.monotonic() > deadline:
            raise AssertionError("%d of %d are stuck" % (have, expected))
        time.sleep(0.01)


class Witness:
    """A well-behaved WebSocket client in a thread of its own, which must not notice anything: every message comes back
    at once."""

    BOUND_S = 2  # generous: the machine may be busy, and this process is

    def __init__(self, port, path="/echo"):
        self.sock = support.ws_open(port, path)
        self.count, self.worst, self.error = 0, 0.0, None
        self.ending = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.ending:
                payload = b"witness %d" % self.count
                began = time.monotonic()
                self.sock.sendall(support.ws_frame(1, payload))
                while True:
                    op, fin, got = support.ws_recv(self.sock)
                    if op != 9:
                        break
                    self.sock.sendall(support.ws_frame(10, got))
                self.worst = max(self.worst, time.monotonic() - began)
                if (op, fin, got) != (1, True, payload):
                    raise AssertionError("sent %r, got %r" % (payload, (op, fin, got)))
                self.count += 1
                time.sleep(0.002)
        except Exception as e:  # told to whoever checks
            self.error = repr(e)

    def check(self):
        """Still served, and promptly."""
        before = self.count
        if not self.error:
            support.wait_for(lambda: self.error or self.count > before)
        if self.error:
            raise AssertionError("the witness: %s" % self.error)
        if self.worst > self.BOUND_S * support.slow():
            raise AssertionError("the witness waited %.3f s" % self.worst)

    def stop(self):
        self.ending = True
        self.thread.join()
        if not self.error:
            self.sock.sendall(support.ws_frame(8, b"\x03\xe8"))
            if support.ws_close_code(self.sock) != 1000:
                self.error = "no answer to its close frame"
        self.sock.close()
