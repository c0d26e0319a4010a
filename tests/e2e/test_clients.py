"""Real clients against /echo and /service: Python websockets, npm ws, curl."""

import asyncio
import fcntl
import os
import shutil
import struct
import subprocess
import unittest

import websockets

import support

NODE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node")
SIZES = (0, 1, 125, 126, 127, 65535, 65536, 1 << 20, 16 << 20)
CLOSE_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999)
CLIENTS = 1000

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}", backlog: 4096}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw, backlog: 4096}}
routes:
  - {{path: /echo, upstream: echo, heartbeat: {{interval: {heartbeat}}}}}
  - {{path: /service, upstream: upper, heartbeat: {{interval: {heartbeat}}}}}
  - {{path: /mirror, upstream: mirror}}
  - {{path: /origins, upstream: echo, origins: ["https://example.com", "https://*.example.org:8443"]}}
  - {{path: /protocols, upstream: echo, subprotocols: [chat.v2, chat.v1]}}
upstreams:
  - {{name: upper, type: link, endpoints: ["{upper}"]}}
  - {{name: mirror, type: link, endpoints: ["{mirror}"]}}
"""


class ClientCase(support.SharedCase):
    heartbeat = "30s"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        support.raise_nofile()
        upper = cls.share(support.Service(cls.shared_tmp, mode="uppercase", name="upper"))
        mirror = cls.share(support.Service(cls.shared_tmp, mode="echo", name="mirror",
                                           address="unix:%s/mirror.sock" % cls.shared_tmp))
        cls.ws, cls.raw = support.free_port(), support.free_port()
        cls.gw = cls.share(support.Gateway(cls.shared_tmp, BODY.format(
            ws=cls.ws, raw=cls.raw, upper=upper.endpoint, mirror=mirror.endpoint, heartbeat=cls.heartbeat)))
        support.wait_for(cls.gw.ready)

    def url(self, path):
        return "ws://127.0.0.1:%d%s" % (self.ws, path)

    def no_connections(self):
        "every connection to be gone"
        return self.gw.metric("tidegate_open_connections") == 0


def connect(url, **kw):
    """Without the client's own pings, which would count against the gateway's limit in a slow build."""
    kw.setdefault("max_size", 32 << 20)
    return websockets.connect(url, ping_interval=None, open_timeout=20 * support.slow(), close_timeout=20 *
                              support.slow(), **kw)


def run(coroutine, timeout=60):
    asyncio.run(asyncio.wait_for(coroutine, timeout * support.slow()))


class PythonClient(ClientCase):
    async def exchange(self, path, upper):
        async with connect(self.url(path)) as ws:
            for n in SIZES:
                data = bytes(range(251)) * (n // 251) + bytes(range(n % 251))
                await ws.send(data)
                got = await ws.recv()
                self.assertTrue(got == (data.upper() if upper else data), "binary of %d bytes differs" % n)
                text = ("abcdefghij" * (n // 10 + 1))[:n]
                await ws.send(text)
                got = await ws.recv()
                self.assertTrue(got == (text.upper() if upper else text), "text of %d bytes differs" % n)
            await ws.send("grüße, κόσμε, 😀")
            self.assertEqual((await ws.recv()).lower(), "grüße, κόσμε, 😀")

    def test_echo_sizes(self):
        run(self.exchange("/echo", False))

    def test_service_sizes(self):
        run(self.exchange("/service", True))

    def test_mirror_sizes(self):
        run(self.exchange("/mirror", False))

    async def fragments(self, path, upper):
        async with connect(self.url(path)) as ws:
            pongs = []

            async def pieces():
                for i, piece in enumerate(("one,", "", "two,", "three" * 20000)):
                    pongs.append(await ws.ping(b"between %d" % i))
                    yield piece

            await ws.send(pieces())
            text = "one,two," + "three" * 20000
            self.assertTrue(await ws.recv() == (text.upper() if upper else text))
            for pong in pongs:
                await pong

    def test_echo_fragments_and_pings(self):
        run(self.fragments("/echo", False))

    def test_service_fragments_and_pings(self):
        run(self.fragments("/service", True))

    async def pings(self, path):
        async with connect(self.url(path)) as ws:
            for n in (0, 1, 125):
                # The library resolves a ping by its payload, so this also says that the payload came back.
                await (await ws.ping(bytes([n]) * n))

    def test_pings(self):
        run(self.pings("/echo"))
        run(self.pings("/service"))

    async def closes(self, path):
        for code in CLOSE_CODES:
            ws = await connect(self.url(path))
            await ws.close(code, "because")
            self.assertEqual(ws.close_code, code)

    def test_close_codes(self):
        run(self.closes("/echo"))
        run(self.closes("/service"))
        support.wait_for(self.no_connections)

    async def choose(self, path, offered, expected):
        async with connect(self.url(path), subprotocols=offered) as ws:
            self.assertEqual(ws.subprotocol, expected)
            await ws.send("x")
            self.assertEqual(await ws.recv(), "x")

    def test_subprotocols(self):
        run(self.choose("/protocols", ["unknown", "chat.v1"], "chat.v1"))
        run(self.choose("/protocols", ["chat.v1", "chat.v2"], "chat.v1"))
        run(self.choose("/protocols", ["unknown"], None))
        run(self.choose("/protocols", None, None))
        run(self.choose("/echo", ["chat.v1"], None))

    async def crowd(self, path, upper):
        """CLIENTS clients, all connected at the same time before the first message is sent."""
        clients = []
        for i in range(0, CLIENTS, 100):
            clients += await asyncio.gather(*(connect(self.url(path)) for _ in range(100)))
        self.assertEqual(self.gw.metric("tidegate_sessions"), CLIENTS)

        async def talk(i, ws):
            for n in range(3):
                text = "client %d says %d" % (i, n)
                await ws.send(text)
                self.assertEqual(await ws.recv(), text.upper() if upper else text)
            await ws.close(CLOSE_CODES[i % len(CLOSE_CODES)])
            self.assertEqual(ws.close_code, CLOSE_CODES[i % len(CLOSE_CODES)])

        await asyncio.gather(*(talk(i, ws) for i, ws in enumerate(clients)))

    def test_echo_thousand_clients(self):
        run(self.crowd("/echo", False), 120)
        support.wait_for(self.no_connections)

    def test_service_thousand_clients(self):
        run(self.crowd("/service", True), 120)
        support.wait_for(self.no_connections)


class RawCrowd(ClientCase):
    async def client(self, path, i, upper, everyone):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.raw)
        writer.write(support.raw_hello(path))

        async def frame():
            n, kind = struct.unpack("!IB", await reader.readexactly(5))
            return kind, await reader.readexactly(n - 1)

        kind, _ = await frame()
        self.assertEqual(kind, 2)
        await everyone()
        for n in range(3):
            text = b"client %d says %d" % (i, n)
            writer.write(support.raw_frame(3, text))
            self.assertEqual(await frame(), (3, text.upper() if upper else text))
        writer.write(support.raw_frame(7, struct.pack("!H", 1000)))
        self.assertEqual(await frame(), (7, struct.pack("!H", 1000)))
        self.assertEqual(await reader.read(), b"")
        writer.close()

    async def crowd(self, path, upper):
        all_here, here = asyncio.Event(), [0]

        async def everyone():
            here[0] += 1
            if here[0] == CLIENTS:
                self.assertEqual(self.gw.metric("tidegate_sessions"), CLIENTS)
                all_here.set()
            await all_here.wait()

        await asyncio.gather(*(self.client(path, i, upper, everyone) for i in range(CLIENTS)))

    def test_echo_thousand_clients(self):
        run(self.crowd("/echo", False), 120)
        support.wait_for(self.no_connections)

    def test_service_thousand_clients(self):
        run(self.crowd("/service", True), 120)
        support.wait_for(self.no_connections)


def node_modules():
    """The ws client, installed beside the builds once and never into the source tree."""
    top = support.BUILD
    if os.path.basename(top) in ("address", "undefined", "thread"):
        top = os.path.dirname(top)
    folder = os.path.join(top, "node")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(NODE, "package-lock.json"), "rb") as f:
        wanted = f.read()
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = os.path.join(folder, "installed")
        have = open(stamp, "rb").read() if os.path.exists(stamp) else b""
        if have != wanted:
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(os.path.join(NODE, name), os.path.join(folder, name))
            r = subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder,
                               capture_output=True, text=True, timeout=300)
            if r.returncode:
                raise AssertionError("npm ci: %s%s" % (r.stdout, r.stderr))
            with open(stamp, "wb") as f:
                f.write(wanted)
    return os.path.join(folder, "node_modules")


class NodeClient(ClientCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.modules = node_modules()

    def scenario(self, name, path, mode="echo"):
        r = subprocess.run(["node", os.path.join(NODE, "client.js"), self.modules, name, self.url(path), mode],
                           capture_output=True, text=True, timeout=90 * support.slow(),
                           env=dict(os.environ, PATIENCE_MS=str(60000 * support.slow())))
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)

    def test_sizes(self):
        self.scenario("sizes", "/echo")
        self.scenario("sizes", "/service", "uppercase")

    def test_fragments(self):
        self.scenario("fragments", "/echo")
        self.scenario("fragments", "/service", "uppercase")

    def test_pings(self):
        self.scenario("pings", "/echo")

    def test_close_codes(self):
        self.scenario("closes", "/echo")
        self.scenario("closes", "/service", "uppercase")

    def test_subprotocol(self):
        self.scenario("subprotocol", "/protocols")

    def test_many(self):
        self.scenario("many", "/echo")
        self.scenario("many", "/service", "uppercase")


class Curl(ClientCase):
    heartbeat = "300ms"
    UPGRADE = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13", "-H",
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]

    def curl(self, path, *args):
        """(status, headers, body) of a plain exchange."""
        r = subprocess.run(["curl", "-sS", "-i", "--http1.1", "--max-time", str(10 * support.slow()), *args,
                            "http://127.0.0.1:%d%s" % (self.ws, path)], capture_output=True,
                           timeout=20 * support.slow())
        self.assertEqual(r.returncode, 0, r.stderr)
        head, _, body = r.stdout.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        return int(lines[0].split()[1]), headers, body.decode()

    def test_upgrade(self):
        for path in ("/echo", "/service"):
            p = subprocess.Popen(["curl", "-sS", "-i", "-N", "--http1.1", *self.UPGRADE,
                                  "http://127.0.0.1:%d%s" % (self.ws, path)], stdout=subprocess.PIPE)
            # curl holds the head back until something follows: the first heartbeat, a ping without payload.
            out = b""
            while not out.endswith(b"\x89\x00"):
                got = os.read(p.stdout.fileno(), 4096)
                self.assertTrue(got, out)
                out += got
            p.kill()
            p.wait()
            p.stdout.close()
            head, _, rest = out.partition(b"\r\n\r\n")
            self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)
            # RFC 6455 1.3 has this key and its answer.
            self.assertIn(b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head)
            self.assertEqual(rest, b"\x89\x00")

    def test_health(self):
        status, headers, body = self.curl("/healthz")
        self.assertEqual((status, body.strip()), (200, "ok"))
        self.assertEqual(headers["connection"], "close")

    def test_errors(self):
        """Each refusal says why in its body."""
        for expected, path, args in (
                (404, "/nowhere", self.UPGRADE),
                (426, "/echo", []),
                (426, "/echo", ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H",
                                "Sec-WebSocket-Version: 8", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]),
                (400, "/echo", self.UPGRADE[:6] + ["-H", "Sec-WebSocket-Key: short"]),
                (405, "/echo", ["-X", "POST", *self.UPGRADE]),
                (413, "/echo", [*self.UPGRADE, "-X", "GET", "-d", "a body"]),
                (431, "/echo", [*self.UPGRADE, "-H", "X-Long: " + "x" * 9000]),
                (403, "/origins", [*self.UPGRADE, "-H", "Origin: https://evil.example"])):
            with self.subTest(status=expected, path=path):
                status, headers, body = self.curl(path, *args)
                self.assertEqual(status, expected, body)
                self.assertGreater(len(body.strip()), 3)
                if expected == 426:
                    self.assertEqual(headers["sec-websocket-version"], "13")

    def test_origins(self):
        for origin, good in (("https://example.com", True), ("https://a.example.org:8443", True),
                             ("https://a.example.org", False), ("http://example.com", False),
                             ("https://example.com.evil.example", False), ("null", False)):
            with self.subTest(origin=origin):
                s = support.connect(self.ws)
                s.sendall(support.upgrade_request("/origins", headers=("Origin: " + origin,)))
                head = support.recv_head(s)
                self.assertTrue(head.startswith(b"HTTP/1.1 101 " if good else b"HTTP/1.1 403 "), head)
                s.close()


class PlainClose(ClientCase):
    """Close frames that libraries do not let one send, or hide."""

    def test_without_a_code(self):
        for path in ("/echo", "/service"):
            s = support.ws_open(self.ws, path)
            s.sendall(support.ws_frame(8))
            self.assertEqual(support.ws_recv(s), (8, True, b""))
            self.assertEqual(support.recv_all(s), b"")
            s.close()

    def test_codes(self):
        for code in CLOSE_CODES:
            s = support.ws_open(self.ws)
            s.sendall(support.ws_frame(8, struct.pack("!H", code) + b"because"))
            self.assertEqual(support.ws_close_code(s), code)
            self.assertEqual(support.recv_all(s), b"", "nothing follows a close frame but FIN")
            s.close()

    def test_codes_nobody_may_send(self):
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535):
            with self.subTest(code=code):
                s = support.ws_open(self.ws)
                s.sendall(support.ws_frame(8, struct.pack("!H", code)))
                self.assertEqual(support.ws_close_code(s), 1002)
                s.close()




if __name__ == "__main__":
    unittest.main()
