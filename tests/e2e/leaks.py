"""Connections brought to every state a connection can be in and ended there; what the gateway must have given back
afterwards. test_leaks.py runs it with hundreds of connections, soak_leaks.py with ten thousand."""

import contextlib
import re
import select
import signal
import socket
import struct
import time
from collections import namedtuple

import support
from crowd import fill
from support import raw_frame, raw_hello, upgrade_request, ws_frame

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw}}
  - {{name: proxied, address: "127.0.0.1:{proxied}", proxy_protocol: {{from: ["127.0.0.1/32"]}}}}
  - {{name: proxied-raw, address: "127.0.0.1:{proxied_raw}", protocol: raw, proxy_protocol: {{from: ["127.0.0.1/32"]}}}}
routes:
  - {{path: /echo, upstream: echo}}
  - {{path: "/service/*", upstream: service, heartbeat: {{interval: {heartbeat}}}}}
upstreams:
  - {{name: service, endpoints: ["{endpoint}"], open_timeout: 2s}}
"""

PORTS = ("ws", "raw", "proxied", "proxied_raw")
PROXY_V1 = b"PROXY TCP4 198.51.100.1 198.51.100.2 1000 2000\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(range(12))

# `phase`: which gauge counts it; `stuck`: it does not read, and sends `fill` over and over, until nothing moves any
# more; `deaf`: the gateway does not read from it and has nothing to send, so it learns of our end when that changes;
# `short`: that is soon.
State = namedtuple("State", "name port phase say stuck fill deaf short", defaults=(False, b"", False, False))


def before(name, port, data):
    """Before the end of the handshake."""
    return State(name, port, "handshaking", lambda s: s.sendall(data))


def session(name, port, data=b"", path="/echo", reply=0, **kw):
    """In a session, having said `data` and taken `reply` bytes of answer."""
    def say(s):
        if port.startswith("proxied"):
            s.sendall(PROXY_V2)
        if port.endswith("raw"):
            s.sendall(raw_hello(path))
            support.recv_exact(s, 14)
        else:
            s.sendall(upgrade_request(path))
            support.recv_head(s)
        s.sendall(data)
        support.recv_exact(s, reply)
    return State(name, port, "sessions", say, **kw)


def closing(name, port, data):
    """The gateway has said its last word, and waits for our FIN."""
    def say(s):
        s.sendall(data)
        support.recv_all(s)
    return State(name, port, None, say)


def waiting(name, port, data):
    """A service has not said yet whether it takes the session."""
    return State(name, port, "handshaking", lambda s: s.sendall(data), deaf=True, short=True)


TEXT, BIG = ws_frame(1, b"hello"), ws_frame(2, b"x" * 300000)
RAW_TEXT, RAW_BIG = raw_frame(3, b"hello"), raw_frame(4, b"x" * 300000)

STATES = [
    before("nothing said", "ws", b""),
    before("mid-handshake", "ws", upgrade_request()[:50]),
    before("at the last byte of the handshake", "ws", upgrade_request()[:-1]),
    before("nothing said, PROXY", "proxied", b""),
    before("mid-PROXY v1", "proxied", PROXY_V1[:20]),
    before("mid-PROXY v2", "proxied", PROXY_V2[:20]),
    before("after a PROXY header", "proxied", PROXY_V1),
    before("mid-handshake after a PROXY header", "proxied", PROXY_V2 + upgrade_request()[:50]),
    session("after the handshake", "ws"),
    session("after the handshake, PROXY", "proxied"),
    session("active", "ws", TEXT, reply=7),
    session("mid-header", "ws", TEXT[:3]),
    session("mid-frame", "ws", TEXT[:8]),
    session("mid-frame, active", "ws", TEXT + TEXT[:8], reply=7),
    session("mid-frame, large", "ws", BIG[:250000]),
    session("between fragments", "ws", ws_frame(1, b"hello", fin=False)),
    session("mid-fragment", "ws", ws_frame(1, b"hello", fin=False) + ws_frame(0, b"x" * 5000)[:4000]),
    session("mid-ping", "ws", ws_frame(9, b"hello")[:8]),
    session("mid-ping between fragments", "ws", ws_frame(1, b"hello", fin=False) + ws_frame(9, b"hello")[:8]),
    session("mid-close", "ws", ws_frame(8, b"\x03\xe8hello")[:9]),
    session("full out queue", "ws", fill=ws_frame(2, b"x" * 20000), stuck=True),
    session("full out queue, tiny messages", "ws", fill=ws_frame(2, b"x") * 1000, stuck=True),
    closing("refused", "ws", upgrade_request("/nowhere")),
    closing("closing", "ws", upgrade_request() + ws_frame(3)),
    closing("closing amid a message", "ws", upgrade_request() + ws_frame(1, b"x", fin=False) + ws_frame(2, b"x")),
    before("nothing said, raw", "raw", b""),
    before("mid-HELLO", "raw", raw_hello()[:9]),
    before("mid-PROXY, raw", "proxied_raw", PROXY_V2[:20]),
    before("mid-HELLO after a PROXY header", "proxied_raw", PROXY_V1 + raw_hello()[:9]),
    session("after the handshake, raw", "raw"),
    session("active, raw", "raw", RAW_TEXT, reply=len(RAW_TEXT)),
    session("mid-header, raw", "raw", RAW_TEXT[:3]),
    session("mid-frame, raw", "raw", RAW_BIG[:250000]),
    session("mid-PING, raw", "raw", raw_frame(5, b"hello")[:8]),
    session("full out queue, raw", "raw", fill=raw_frame(4, b"x" * 20000), stuck=True),
    session("full out queue, tiny messages, raw", "raw", fill=raw_frame(4, b"x") * 1000, stuck=True),
    closing("refused, raw", "raw", raw_hello("/nowhere")),
    closing("closing, raw", "raw", raw_hello() + raw_frame(99)),
    session("with a service", "ws", TEXT, path="/service/", reply=7),
    session("with a service, mid-frame", "ws", TEXT[:8], path="/service/"),
    session("with a service, raw", "raw", RAW_TEXT, path="/service/", reply=len(RAW_TEXT)),
    session("with a service that does not answer", "ws", BIG, path="/service/hang"),
    session("with a service that takes nothing", "ws", path="/service/stall", stuck=True,
            fill=ws_frame(2, b"x" * 20000), deaf=True),
    session("full out queue, service", "ws", ws_frame(1, b"send 1000000"), path="/service/", stuck=True),
    waiting("waiting for a service", "ws", upgrade_request("/service/silent")),
    waiting("waiting for a service, with more to say", "ws", upgrade_request("/service/silent") + TEXT),
    waiting("waiting for a service, raw", "raw", raw_hello("/service/silent")),
    closing("rejected by a service", "ws", upgrade_request("/service/reject")),
]


def small_socket(port):
    """Takes little from its peer before it must read."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.settimeout(20 * support.slow())
    s.connect(("127.0.0.1", port))
    return s


def reset(s):
    """Ends it with RST instead of FIN."""
    s.setblocking(True)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


class Crowd:
    """`each` connections in every one of the states, on a gateway that has no others."""

    def __init__(self, gw, ports, each, states=STATES):
        self.gw, self.ports = gw, ports
        self.members = []
        self.add([state for state in states if not state.short] * each)
        fill(gw, [(s, state.fill) for state, s in self.members if state.fill],
             sum(state.stuck for state, _ in self.members))
        self.add([state for state in states if state.short] * each)
        support.wait_for(self.arrived)

    def add(self, states):
        for state in states:
            s = small_socket(self.ports[state.port])
            self.members.append((state, s))
            try:
                state.say(s)
            except (OSError, EOFError) as e:
                raise AssertionError("%s: %r" % (state.name, e)) from e

    def __len__(self):
        return len(self.members)

    def of_phase(self, phase):
        return sum(state.phase == phase for state, _ in self.members)

    def arrived(self):
        "the gauges to show everyone in his state"
        m = gauges(self.gw)
        handshaking, short = self.of_phase("handshaking"), sum(state.short for state, _ in self.members)
        # Whoever is closing, or waits for a service, may have been cut by a time-out already.
        return (m["sessions"] == self.of_phase("sessions") and
                handshaking - short <= m["handshaking"] <= handshaking and
                m["handshaking"] + m["sessions"] <= m["open_connections"] <= len(self))

    # Ways to end them all.

    def fin(self):
        for _, s in self.members:
            s.close()

    def reset(self):
        for _, s in self.members:
            reset(s)

    def half_close(self):
        """FIN, but we would still read: that ends who is not stuck."""
        for _, s in self.members:
            with contextlib.suppress(OSError):  # ended already
                s.shutdown(socket.SHUT_WR)
        stay = sum(state.stuck or state.deaf for state, _ in self.members)

        def noticed():
            "the gateway to notice the FINs"
            return self.gw.metric("tidegate_open_connections") <= stay
        support.wait_for(noticed)
        self.fin()

    def gone(self):
        """We are gone, and all but the deaf end by that; those are kicked, or not taken by the service in time."""
        deaf = sum(state.deaf for state, _ in self.members)

        def few_left():
            "the gateway to notice that we are gone"
            return self.gw.metric("tidegate_open_connections") <= deaf
        support.wait_for(few_left)
        if deaf:
            self.gw.ctl("kick", "--route", "/service/*")

    ENDINGS = (fin, reset, half_close)

    def close_when_told(self):
        """As a polite client: reads, and closes when the other side does."""
        with select.epoll() as ep:
            socks = {s.fileno(): s for _, s in self.members}
            for s in socks.values():
                s.setblocking(False)
                ep.register(s, select.EPOLLIN)
            while socks:
                events = ep.poll(20 * support.slow())
                if not events:
                    raise AssertionError("%d connections are neither served nor ended" % len(socks))
                for fd, _ in events:
                    try:
                        ended = not socks[fd].recv(1 << 20)
                    except BlockingIOError:
                        continue
                    except OSError:
                        ended = True
                    if ended:
                        ep.unregister(fd)
                        socks.pop(fd).close()


GAUGES = ("open_connections", "handshaking", "sessions", "buffered_bytes")


def gauges(gw):
    m = gw.metrics()
    return {g: sum(v for k, v in m.items() if k.startswith("tidegate_%s{" % g)) for g in GAUGES}


def rss_bytes(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read()).group(1)) * 1024


class LeakTests:
    """Mixed into a support.Case. `workers_extra` is configuration; `each` connections per state, `rounds` times."""

    workers_extra = ""
    each, rounds = 1, 1

    RSS_BOUND = 2 << 20  # what may come and go: allocator slack, the admin thread's stacks

    def setUp(self):
        super().setUp()
        support.raise_nofile()
        self.ports = {name: support.free_port() for name in PORTS}
        self.svc = self.service(args=("--per-session", "--commands"))

    def start_gateway(self, close_timeout, drain="200ms", heartbeat="30s"):
        gw = self.gateway(BODY.format(endpoint=self.svc.endpoint, heartbeat=heartbeat, **self.ports), drain=drain,
                          workers_extra=self.workers_extra,
                          extra="handshake: {timeout: 120s, close_timeout: %s}" % close_timeout)
        support.wait_for(gw.ready)
        return gw

    def nothing_left(self, gw):
        def idle():
            "everything to be given back"
            self.left = gauges(gw)
            return not any(self.left.values())
        try:
            support.wait_for(idle)
        except AssertionError as e:
            raise AssertionError("%s: %s" % (e, self.left)) from e

    def test_ended_in_every_state(self):
        gw = self.start_gateway("60s")
        rss, total = [], 0
        for _ in range(self.rounds):
            for ending in Crowd.ENDINGS:
                crowd = Crowd(gw, self.ports, self.each)
                total += len(crowd)
                with self.subTest(ending=ending.__name__, connections=total):
                    ending(crowd)
                    crowd.gone()
                    self.nothing_left(gw)
            rss.append(rss_bytes(gw.gateway_pid))
        self.assertGreaterEqual(total, self.least)
        if len(rss) > 2 and support.slow() == 1:
            self.assertLess(rss[-1] - rss[1], self.RSS_BOUND, rss)
        self.assertEqual(gw.stop(), 0)

    def test_drained_in_every_state(self):
        """The clients close when they are told to."""
        gw = self.start_gateway("60s")
        crowd = Crowd(gw, self.ports, self.each)
        gw.kill(signal.SIGTERM)
        crowd.close_when_told()
        self.assertEqual(gw.wait(), 0)

    def test_drained_with_deaf_clients(self):
        """The clients do nothing at all: they are cut after handshake.close_timeout."""
        gw = self.start_gateway("500ms")
        crowd = Crowd(gw, self.ports, self.each)
        gw.kill(signal.SIGTERM)
        self.assertEqual(gw.wait(), 0)
        crowd.reset()

    def test_drained_amid_endings(self):
        """The clients go of themselves, in every way, while a longer drain goes on."""
        gw = self.start_gateway("500ms", drain="400ms")
        crowd = Crowd(gw, self.ports, self.each)
        gw.kill(signal.SIGTERM)
        for i, (_, s) in enumerate(crowd.members):
            (reset if i % 2 else socket.socket.close)(s)
            time.sleep(0.4 / len(crowd))
        self.assertEqual(gw.wait(), 0)

    def test_stopped_in_every_state(self):
        """A second SIGINT ends it at once, with all that is open."""
        gw = self.start_gateway("60s", drain="60s")
        crowd = Crowd(gw, self.ports, self.each)
        gw.kill(signal.SIGINT)

        def draining():
            "the drain to begin"
            return "draining" in gw.log()
        support.wait_for(draining)
        began = time.monotonic()
        gw.kill(signal.SIGINT)
        self.assertEqual(gw.wait(), 0)
        self.assertLess(time.monotonic() - began, 5 * support.slow())
        crowd.reset()


# Several rings, and far fewer receive buffers than connections.
TIGHT = ", ring_connections: 64, recv_buffers: 16, recv_buffer_size: 256, turn_frames: 4"
