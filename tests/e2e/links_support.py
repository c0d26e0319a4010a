"""What the tests of links share: gateways in front of services, and a service made of a socket."""

import json
import select
import socket
import struct
import time

from support import Case, free_port, recv_exact, slow, wait_for, ws_frame, ws_open, ws_recv

HELLO, OPEN, ACCEPT, REJECT, MESSAGE, CLOSE, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, CREDIT, PING, PONG, DRAIN, ERROR = range(1, 15)
TEXT, MORE, RESUMED = 1, 2, 4
MAGIC = 0x54474c4b
WINDOW_MAX = 1 << 30



def links_body(port, raw_port, upstreams, route=""):
    """Listeners, and a route /NAME/* (with the keys `route`) for each upstream {name: (endpoints, further keys)}."""
    body = ("listeners:\n  - {name: ws, address: \"127.0.0.1:%d\", protocol: websocket}\n"
            "  - {name: raw, address: \"127.0.0.1:%d\", protocol: raw}\nroutes:\n" % (port, raw_port))
    for name in upstreams:
        body += "  - {path: /%s/*, upstream: %s, subprotocols: [chat, other]%s}\n" % (name, name, route)
    body += "upstreams:\n"
    for name, (endpoints, extra) in upstreams.items():
        body += "  - {name: %s, type: link, endpoints: [%s]%s}\n" % (
            name, ", ".join('"%s"' % e for e in endpoints), ", " + extra if extra else "")
    return body


def dead_endpoint():
    return "tcp://127.0.0.1:%d" % free_port()


def whoami(s):
    s.sendall(ws_frame(1, b"whoami"))
    return json.loads(ws_recv(s)[2])


def ws_echo(s, payload, op=1):
    s.sendall(ws_frame(op, payload))
    return ws_recv(s) == (op, True, payload)


class Probe:
    """A WebSocket client whose messages may get lost: asks again until a question is answered."""

    def __init__(self, port, path, headers=()):
        self.s = ws_open(port, path, headers=headers)
        self.name = whoami(self.s)["name"]
        self.n = 0
        self.lost = 0

    def ask(self, timeout=10):
        end = time.monotonic() + timeout * slow()
        while True:
            self.n += 1
            self.s.sendall(ws_frame(1, b"question %d" % self.n))
            if select.select([self.s], [], [], 1.5 * slow())[0]:
                op, _, payload = ws_recv(self.s)
                if op == 8:
                    raise AssertionError("closed: %r" % payload)
                if payload == b"question %d" % self.n:
                    return
            self.lost += 1
            if time.monotonic() > end:
                raise AssertionError("no answer from %s" % self.name)


class LinkCase(Case):
    def two_ports(self):
        self.port, self.raw_port = free_port(), free_port()
        return self.port, self.raw_port

    def links_gateway(self, upstreams, ready=True, route="", **kw):
        port, raw_port = self.two_ports()
        gw = self.gateway(links_body(port, raw_port, upstreams, route), **kw)
        if ready:
            wait_for(gw.ready)
        return gw

    def two_services(self, extra="", workers=1, **kw):
        """A gateway with services a and b behind /svc, both up."""
        self.a = self.service(status=None, name="a", args=["--commands", "--per-session"])
        self.b = self.service(name="b", args=["--commands", "--per-session"])
        gw = self.links_gateway({"svc": ([self.a.endpoint, self.b.endpoint], extra)}, workers=workers, **kw)
        wait_for(lambda: gw.metric("tidegate_link_up") == 2 * workers)
        return gw


def frame(kind, session=0, payload=b"", flags=0, reserved=0, length=None):
    return struct.pack("!IBBHQ", len(payload) if length is None else length, kind, flags, reserved, session) + payload


def hello(magic=MAGIC, version=1, session_window=256 * 1024, link_window=8 << 20, payload_max=32768, message_max=16 << 20,
          features=0, name=b"fake"):
    return struct.pack("!IHHIIIII", magic, version, 0, session_window, link_window, payload_max, message_max, features) + name


class FakeLink:
    def __init__(self, s):
        s.settimeout(10 * slow())
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.s = s

    def recv(self):
        length, kind, flags, reserved, session = struct.unpack("!IBBHQ", recv_exact(self.s, 16))
        assert reserved == 0
        return kind, session, flags, recv_exact(self.s, length)

    def expect(self, want, session=None):
        """The next frame of this kind; PINGs are answered and CREDIT is passed over."""
        while True:
            kind, sid, flags, payload = self.recv()
            if kind == PING:
                self.send(PONG, payload=payload)
            if kind == want and session in (None, sid):
                return sid, flags, payload
            if kind not in (PING, CREDIT):
                raise AssertionError("frame %d instead of %d: %r" % (kind, want, payload))

    def send(self, kind, session=0, payload=b"", flags=0):
        self.s.sendall(frame(kind, session, payload, flags))

    def greet(self, **kw):
        self.send(HELLO, payload=hello(**kw))
        self.expect(HELLO)
        return self

    def close(self):
        self.s.close()


class FakeService:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(10 * slow())
        self.endpoint = "tcp://127.0.0.1:%d" % self.listener.getsockname()[1]

    def accept(self):
        return FakeLink(self.listener.accept()[0])


class FakeCase(LinkCase):
    def fake(self):
        f = FakeService()
        self.addCleanup(f.listener.close)
        return f
