"""What the end-to-end tests share: starting and stopping the gateway and services, plain sockets, metrics."""

import base64
import contextlib
import http.client
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

BUILD = None  # set by run.py

# A sanitized build is slower by a small factor, an emulated machine (TEST_SLOW) by a larger one; time-outs that guard against
# hangs are stretched by it.
def slow():
    if "TEST_SLOW" in os.environ:
        return int(os.environ["TEST_SLOW"])
    return 4 if {"address", "undefined", "thread"} & set(os.path.basename(BUILD).split(",")) else 1


# Below the range that outgoing connections take theirs from, or one of a thousand clients may be there first; and each lane of
# tests/run.py has its own, or another one's gateway may be.
_lane, _lanes = map(int, os.environ.get("TEST_LANE", "0/1").split("/"))
_ports = iter(random.sample(range(10000 + _lane, 32000, _lanes), 20000 // _lanes))


def free_port():
    """A port that nobody listens on, and another one each time."""
    for port in _ports:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def wait_for(what, timeout=10, interval=0.02):
    """Calls what() until it returns something true, and returns that."""
    end = time.monotonic() + timeout * slow()
    while True:
        got = what()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError("timed out waiting for %s" % getattr(what, "__doc__", what))
        time.sleep(interval)


def raise_nofile():
    """Room for a thousand sockets in this process; the usual soft limit is 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def children(pid):
    out = []
    for task in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/children" % (pid, task)) as f:
            out += [int(c) for c in f.read().split()]
    return out


class Process:
    def __init__(self, argv, log, env=None):
        self.log_path = log
        self.log_file = open(log, "ab")
        self.p = subprocess.Popen(argv, stdout=self.log_file, stderr=self.log_file, stdin=subprocess.DEVNULL,
                                  env=dict(os.environ, **(env or {})))
        self.pid = self.p.pid

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def kill(self, sig=signal.SIGKILL):
        if self.p.poll() is None:
            self.p.send_signal(sig)

    def wait(self, timeout=20):
        return self.p.wait(timeout * slow())

    def stop(self, timeout=20):
        """SIGTERM, and the exit status; a hang is killed and reported."""
        self.kill(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.p.wait()
            raise AssertionError("%s did not end:\n%s" % (self.p.args[0], self.log()[-4000:]))
        finally:
            self.log_file.close()


class Service(Process):
    """tidegate-service on a port or a Unix socket path."""

    def __init__(self, tmp, address=None, mode="echo", args=(), name="service"):
        self.address = address or "127.0.0.1:%d" % free_port()
        log = os.path.join(tmp, "%s-%d.log" % (name, time.monotonic_ns()))
        super().__init__([os.path.join(BUILD, "tidegate-service"), "--listen", self.address, "--mode", mode, "--name",
                          name, *args], log)
        wait_for(self.listening)
        if self.address.startswith("unix:"):
            os.chmod(self.address[5:], 0o666)  # the gateway is somebody else when it was started as root

    def listening(self):
        "the service to listen"
        if self.p.poll() is not None:
            raise AssertionError("the service ended: %s" % self.log())
        return "listening on" in self.log()

    @property
    def endpoint(self):
        return self.address if self.address.startswith("unix:") else "tcp://" + self.address


BASE = """
instance: {instance}
workers: {{count: {workers}, pin: false{workers_extra}}}
log: {{level: debug, interval: 1s, rate: 0}}
admin: {{listen: "127.0.0.1:{admin}", socket: {tmp}/admin.sock{admin_extra}}}
drain: {{period: {drain}}}
{admission}
{extra}
"""


class Gateway(Process):
    """The gateway with a configuration made of `body` (listeners, routes, upstreams) and a few settings."""

    # Whether a storm is let in depends on how busy the machine is: only tests of admission have one.
    def __init__(self, tmp, body, workers=1, workers_extra="", drain="200ms", extra="", instance=None, wait=True,
                 admission="mode: off", admin=""):
        self.tmp = tmp
        self.admin_port = free_port()
        self.socket = os.path.join(tmp, "admin.sock")
        self.config = os.path.join(tmp, "tidegate.yaml")
        instance = instance or "test-%d" % os.getpid()
        with open(self.config, "w") as f:
            f.write(BASE.format(instance=instance, workers=workers, workers_extra=workers_extra, admin=self.admin_port,
                                tmp=tmp, drain=drain, extra=extra, admin_extra=admin,
                                admission="admission: {%s}" % admission if admission else ""))
            f.write(body)
        super().__init__([os.path.join(BUILD, "tidegate"), "-c", self.config], os.path.join(tmp, "gateway.log"))
        if wait:
            wait_for(self.healthy)
            wait_for(self.known)

    def known(self):
        "the keeper to know that its gateway serves: one that dies before is not restarted"
        return "is serving" in self.log()

    def healthy(self):
        "the gateway to serve"
        if self.p.poll() is not None:
            raise AssertionError("the gateway ended:\n%s" % self.log()[-8000:])
        with contextlib.suppress(OSError):
            return self.get("/healthz")[0] == 200
        return False

    def ready(self):
        "the gateway to be ready"
        return self.get("/readyz")[0] == 200

    @property
    def gateway_pid(self):
        """The unprivileged child, which does the work."""
        kids = children(self.pid)
        return kids[0] if kids else None

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=10 * slow())
        try:
            c.request("GET", path)
            r = c.getresponse()
            return r.status, r.read().decode()
        finally:
            c.close()

    def metrics(self):
        """{'name{labels}': value}"""
        out = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and line[0] != "#":
                k, v = line.rsplit(" ", 1)
                out[k] = float(v)
        return out

    def metric(self, name, **labels):
        """The sum of a metric's series whose labels agree."""
        total = 0
        for key, value in self.metrics().items():
            m = re.fullmatch(r"([a-zA-Z_:]+)(?:\{(.*)\})?", key)
            if m.group(1) != name:
                continue
            have = dict(re.findall(r'(\w+)="([^"]*)"', m.group(2) or ""))
            if all(have.get(k) == v for k, v in labels.items()):
                total += value
        return total

    def ctl(self, *args, check=True):
        """tidegatectl --json"""
        r = subprocess.run([os.path.join(BUILD, "tidegatectl"), "--socket", self.socket, "--json", *args],
                           capture_output=True, text=True, timeout=20 * slow())
        if check and r.returncode:
            raise AssertionError("tidegatectl %s: %d %s %s" % (args, r.returncode, r.stdout, r.stderr))
        return json.loads(r.stdout) if r.stdout.strip() else None


class Case(unittest.TestCase):
    """A test with a folder of its own; what it starts through it is stopped, and must end with status 0."""

    def setUp(self):
        self.tmp_dir = tempfile.TemporaryDirectory(prefix="tidegate-test-")
        self.tmp = self.tmp_dir.name
        os.chmod(self.tmp, 0o755)
        self.addCleanup(self.tmp_dir.cleanup)

    def start(self, process, status=0):
        def finish():
            got = process.stop() if process.p.returncode is None else process.p.returncode
            text = process.log()
            self.assertNotIn("Sanitizer", text)
            self.assertNotIn("runtime error", text)
            if status is not None:
                self.assertEqual(got, status, text[-6000:])
        self.addCleanup(finish)
        return process

    def gateway(self, body, status=0, **kw):
        return self.start(Gateway(self.tmp, body, **kw), status)

    def service(self, status=0, **kw):
        return self.start(Service(self.tmp, **kw), status)


class SharedCase(Case):
    """Tests that share processes: setUpClass starts them through share(), in the folder shared_tmp."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="tidegate-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.shared_tmp = folder.name
        os.chmod(cls.shared_tmp, 0o755)

    @classmethod
    def share(cls, process):
        def finish():
            got = process.stop() if process.p.returncode is None else process.p.returncode
            text = process.log()
            if got or "Sanitizer" in text or "runtime error" in text:
                raise AssertionError("%s ended with %d:\n%s" % (process.p.args[0], got, text[-6000:]))
        cls.addClassCleanup(finish)
        return process


def echo_body(port, raw_port=None, route="", listener=""):
    """A WebSocket listener and /echo, optionally a raw one; further keys of the route and the listener as flow YAML."""
    body = "listeners:\n  - {name: ws, address: \"127.0.0.1:%d\", protocol: websocket%s}\n" % (port, listener)
    if raw_port:
        body += "  - {name: raw, address: \"127.0.0.1:%d\", protocol: raw}\n" % raw_port
    return body + "routes:\n  - {path: /echo, upstream: echo%s}\n" % route


# ------------------------------------------------------------------------------------------- plain sockets

KEY = base64.b64encode(b"0123456789abcdef").decode()


def upgrade_request(path="/echo", host="localhost", headers=()):
    lines = ["GET %s HTTP/1.1" % path, "Host: %s" % host, "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Key: %s" % KEY, "Sec-WebSocket-Version: 13", *headers, "", ""]
    return "\r\n".join(lines).encode()


def connect(port, source=None, timeout=10, host="127.0.0.1"):
    s = socket.create_connection((host, port), timeout=timeout * slow(),
                                 source_address=(source, 0) if source else None)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def recv_exact(s, n):
    out = b""
    while len(out) < n:
        got = s.recv(n - len(out))
        if not got:
            raise EOFError("closed after %d of %d bytes" % (len(out), n))
        out += got
    return out


def recv_head(s):
    """An HTTP response head, read byte by byte so that nothing behind it is taken."""
    out = b""
    while not out.endswith(b"\r\n\r\n"):
        got = s.recv(1)
        if not got:
            raise EOFError("closed inside the response head: %r" % out)
        out += got
    return out


def recv_all(s):
    """Everything until FIN; a reset counts as the end."""
    out = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            got = s.recv(65536)
            if not got:
                break
            out += got
    return out


def ws_open(port, path="/echo", headers=(), source=None, host="127.0.0.1"):
    s = connect(port, source, host=host)
    s.sendall(upgrade_request(path, headers=headers))
    head = recv_head(s)
    if not head.startswith(b"HTTP/1.1 101 "):
        raise AssertionError(head)
    return s


MASK = b"\x11\x22\x33\x44"


def masked(payload, mask=MASK):
    n = len(payload)
    key = int.from_bytes((mask * (n // 4 + 1))[:n], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(n, "big") if n else b""


def ws_frame(op, payload=b"", fin=True, mask=MASK, rsv=0):
    head = bytes([(0x80 if fin else 0) | rsv << 4 | op])
    bit = 0x80 if mask else 0
    n = len(payload)
    if n < 126:
        head += bytes([bit | n])
    elif n < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", n)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", n)
    return head + (mask + masked(payload, mask) if mask else payload)


def ws_recv(s):
    """One frame of the server: (opcode, fin, payload)."""
    b0, b1 = recv_exact(s, 2)
    n = b1 & 0x7f
    if b1 & 0x80:
        raise AssertionError("a server's frame is masked")
    if n == 126:
        n, = struct.unpack("!H", recv_exact(s, 2))
    elif n == 127:
        n, = struct.unpack("!Q", recv_exact(s, 8))
    return b0 & 0xf, bool(b0 & 0x80), recv_exact(s, n)


def ws_close_code(s):
    """Reads frames up to the close frame, and returns its code (None when the connection just ended)."""
    try:
        while True:
            op, _, payload = ws_recv(s)
            if op == 8:
                return struct.unpack("!H", payload[:2])[0] if payload else 1005
    except (EOFError, ConnectionResetError):
        return None


def raw_frame(kind, payload=b""):
    return struct.pack("!IB", len(payload) + 1, kind) + payload


def raw_hello(path="/echo", token=b""):
    return raw_frame(1, bytes([1, len(path)]) + path.encode() + token)


def raw_recv(s):
    n, kind = struct.unpack("!IB", recv_exact(s, 5))
    return kind, recv_exact(s, n - 1)


def raw_open(port, path="/echo"):
    s = connect(port)
    s.sendall(raw_hello(path))
    kind, _ = raw_recv(s)
    if kind != 2:
        raise AssertionError("no WELCOME but %d" % kind)
    return s
