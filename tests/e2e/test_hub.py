"""The hub: topics across four workers, for WebSocket and raw clients, services and operators."""

import asyncio
import base64
import itertools
import json
import os
import random
import socket
import struct
import subprocess

import support
from test_clients import NODE, connect, node_modules, run

WORKERS = 4

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}", backlog: 4096}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw, backlog: 4096}}
routes:
  - {{path: /hub, upstream: hub, out_queue: {{bytes: 64MiB}}}}
  - {{path: /small, upstream: hub, hub: {{topics_per_session: 2, payload_size: 100}}}}
  - {{path: /messages, upstream: hub, hub: {{messages_per_second: 10}}}}
  - {{path: /bytes, upstream: hub, hub: {{bytes_per_second: 1000}}}}
  - {{path: /commands, upstream: commands}}
  - {{path: /topics, upstream: topics, out_queue: {{bytes: 64MiB}}}}
upstreams:
  - {{name: commands, type: link, endpoints: ["{commands}"]}}
  - {{name: topics, type: link, endpoints: ["{topics}"]}}
"""


class Client:
    """A hub client whose answers and messages are told apart by a task of its own."""

    async def open(self, url):
        self.ws = await connect(url, max_queue=None)
        self.messages, self.answers, self.ids = asyncio.Queue(), {}, itertools.count(1)
        self.others = asyncio.Queue()
        self.reader = asyncio.create_task(self.read())
        return self

    async def read(self):
        try:
            async for text in self.ws:
                m = json.loads(text)
                if m["type"] == "message":
                    self.messages.put_nowait(m)
                elif "id" in m:
                    self.answers.pop(m["id"]).set_result(m)
                else:
                    self.others.put_nowait(m)
        except Exception:
            pass

    async def say(self, **request):
        await self.ws.send(json.dumps(request))

    async def ask(self, kind, topic, **more):
        i = next(self.ids)
        self.answers[i] = asyncio.get_running_loop().create_future()
        await self.say(type=kind, topic=topic, id=i, **more)
        return await self.answers[i]

    async def ok(self, kind, topic, **more):
        answer = await self.ask(kind, topic, **more)
        if answer["type"] != "ack":
            raise AssertionError("%s %s: %s" % (kind, topic, answer))

    async def code(self, kind, topic, **more):
        return (await self.ask(kind, topic, **more)).get("code")

    async def presence(self, topic):
        return (await self.ask("presence", topic))["count"]

    async def hear(self, n=1):
        return [await self.messages.get() for _ in range(n)]

    async def close(self):
        await self.ws.close()
        await self.reader


async def eventually(what, expected, timeout=10):
    """Until await what() is expected."""
    end = asyncio.get_running_loop().time() + timeout * support.slow()
    while (got := await what()) != expected:
        if asyncio.get_running_loop().time() > end:
            raise AssertionError("%r, not %r" % (got, expected))
        await asyncio.sleep(0.02)


class HubCase(support.SharedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        support.raise_nofile()
        commands = cls.share(support.Service(cls.shared_tmp, args=["--commands"], name="commands"))
        topics = cls.share(support.Service(cls.shared_tmp, mode="topics", name="topics"))
        cls.ws, cls.raw = support.free_port(), support.free_port()
        cls.gw = cls.share(support.Gateway(cls.shared_tmp, BODY.format(
            ws=cls.ws, raw=cls.raw, commands=commands.endpoint, topics=topics.endpoint), workers=WORKERS))
        support.wait_for(cls.gw.ready)

    def tearDown(self):
        support.wait_for(self.nothing_left)

    def nothing_left(self):
        "every subscription and topic to be gone"
        m = self.gw.metrics()
        return not any(v for k, v in m.items() if k.startswith(("tidegate_subscriptions", "tidegate_topics")))

    def url(self, path="/hub"):
        return "ws://127.0.0.1:%d%s" % (self.ws, path)

    async def clients(self, n, path="/hub"):
        return await asyncio.gather(*(Client().open(self.url(path)) for _ in range(n)))

    async def close(self, clients):
        await asyncio.gather(*(c.close() for c in clients))


class Protocol(HubCase):
    def test_subscribe_and_publish(self):
        async def go():
            a, b, c = clients = await self.clients(3)
            await a.ok("subscribe", "room/7")
            await a.ok("subscribe", "room/7")  # again: no harm
            await b.ok("subscribe", "room/*")
            data = {"text": "grüße \u0001 😀", "n": [1, 2.5, None]}
            await c.ok("publish", "room/7", data=data)
            for client in (a, b):
                self.assertEqual(await client.hear(), [{"type": "message", "topic": "room/7", "data": data}])
            # Not by a level more or less, nor elsewhere.
            for topic in ("room", "room/7/typing", "rooms/7", "Room/7"):
                await c.ok("publish", topic, data=topic)
            await c.ok("publish", "room/8", data=1)
            await c.ok("publish", "room/7", data=2)
            self.assertEqual([m["data"] for m in await b.hear(2)], [1, 2])
            self.assertEqual([m["data"] for m in await a.hear(1)], [2])
            await a.ok("unsubscribe", "room/7")
            await c.ok("publish", "room/7", data=3)
            self.assertEqual((await b.hear(1))[0]["data"], 3)
            self.assertEqual(await a.code("unsubscribe", "room/7"), "not_subscribed")
            self.assertTrue(a.messages.empty() and b.messages.empty() and c.messages.empty())
            await self.close(clients)
        run(go())

    def test_data_byte_for_byte(self):
        async def go():
            ws = await connect(self.url())
            await ws.send('{"type":"subscribe","topic":"t","id":1}')
            await ws.recv()
            for data in ('{ "b" : 1,\t"a":[ ] }', '1.50e+10', '"\\u00e9\\/"', 'null', '{"a":1,"a":2}', '12345678901234567890123'):
                await ws.send('{"type":"publish","topic":"\\u0074","data":%s}' % data)
                self.assertEqual(await ws.recv(), '{"type":"message","topic":"t","data":%s}' % data)
            await ws.close()
        run(go())

    def test_ids(self):
        async def go():
            ws = await connect(self.url())
            for i in ('1', '-9223372036854775808', '"x"', '"\\u00e9\\""', '""', '"%s"' % ("é" * 32)):
                await ws.send('{"type":"subscribe","topic":"ids","id":%s}' % i)
                self.assertEqual(await ws.recv(), '{"type":"ack","id":%s}' % i)
            # Without one, success is silent.
            await ws.send('{"type":"subscribe","topic":"ids"}')
            await ws.send('{"type":"unsubscribe","topic":"ids"}')
            await ws.send('{"type":"publish","topic":"ids","data":1}')
            await ws.send('{"type":"unsubscribe","topic":"ids"}')
            self.assertEqual(json.loads(await ws.recv()),
                             {"type": "error", "code": "not_subscribed", "message": "not subscribed to this topic"})
            await ws.close()
        run(go())

    def refused(self):
        return {k.split('"')[1]: v for k, v in self.gw.metrics().items() if k.startswith("tidegate_hub_refused_total")}

    def test_errors(self):
        async def go():
            a, = await self.clients(1, "/small")
            before = self.refused()
            expected = {}

            async def wrong(code, message):
                await a.ws.send(message)
                got = await a.others.get()
                self.assertEqual((got["type"], got["code"]), ("error", code), message)
                self.assertTrue(got["message"])
                expected[code] = expected.get(code, 0) + 1

            for text in ("", "x", "[]", "{}", '{"type":"subscribe"}', '{"type":"subscribe","topic":7}',
                         '{"type":"publish","topic":"a"}', '{"type":"subscribe","topic":"a","topic":"b"}',
                         '{"type":"subscribe","topic":"a"} {}', '{"type":"subscribe","topic":"a","id":[1]}',
                         '{"type":"publish","topic":"a","data":%s}' % ("[" * 1000 + "]" * 1000)):
                await wrong("malformed", text)
            await wrong("malformed", b'{"type":"subscribe","topic":"a"}')
            await wrong("unknown_type", '{"type":"shout","topic":"a"}')
            for topic in ("", "/", "a/", "a//b", "*/a", "a*", "a\n", "x" * 256):
                await wrong("bad_topic", json.dumps({"type": "subscribe", "topic": topic}))
            await wrong("bad_topic", '{"type":"publish","topic":"a/*","data":1}')
            await wrong("not_subscribed", '{"type":"unsubscribe","topic":"a"}')
            await a.ok("subscribe", "a/*")
            await a.ok("subscribe", "b")
            await wrong("too_many_topics", '{"type":"subscribe","topic":"c"}')
            await a.ok("subscribe", "b")  # one it has
            await a.ok("unsubscribe", "b")
            await a.ok("subscribe", "c")
            await a.ok("publish", "d", data="x" * 98)
            await wrong("too_large", json.dumps({"type": "publish", "topic": "d", "data": "x" * 99}))
            now = self.refused()
            self.assertEqual({k: now[k] - before[k] for k in now if now[k] != before[k]}, expected)
            await self.close([a])
        run(go())

    def test_rates(self):
        async def go():
            a, = await self.clients(1, "/messages")
            codes = [await a.code("publish", "t", data=i) for i in range(40)]
            # A second's worth at once; then what the time since allows.
            self.assertEqual(codes[:10], [None] * 10)
            self.assertIn("rate_limited", codes)

            async def allowed():
                return await a.code("publish", "t", data=1)
            await eventually(allowed, None)
            b, = await self.clients(1, "/bytes")
            self.assertIsNone(await b.code("publish", "t", data="x" * 3000))  # nothing was owed
            self.assertEqual(await b.code("publish", "t", data="x"), "rate_limited")
            self.assertIsNone(await b.code("subscribe", "t"))
            await self.close([a, b])
        run(go())

    def test_raw_clients(self):
        raw = support.raw_open(self.raw, "/hub")

        def answer(*request):
            raw.sendall(support.raw_frame(3, json.dumps(dict(request)).encode()))
            kind, data = support.raw_recv(raw)
            self.assertEqual(kind, 3)
            return json.loads(data)

        self.assertEqual(answer(("type", "subscribe"), ("topic", "r"), ("id", 1)), {"type": "ack", "id": 1})

        async def go():
            a, = await self.clients(1)
            await a.ok("subscribe", "r")
            await a.ok("publish", "r", data="to both")
            self.assertEqual((await a.hear())[0]["data"], "to both")
            await self.close([a])
        run(go())
        self.assertEqual(json.loads(support.raw_recv(raw)[1]), {"type": "message", "topic": "r", "data": "to both"})
        raw.close()


class Load(HubCase):
    def test_order(self):
        """Publishers of two topics at full speed; each subscriber hears all of each once, in one order."""
        async def go(subscribers=40, publishers=8, messages=300):
            subs, pubs = await self.clients(subscribers), await self.clients(publishers)
            hears = []
            for i, s in enumerate(subs):
                topics = (["load/a"], ["load/*"], ["load/a", "load/*"], ["load/a", "load/b"])[i % 4]
                hears.append(("load/a",) if topics == ["load/a"] else ("load/a", "load/b"))
                for t in topics:
                    await s.ok("subscribe", t)

            async def publish(p, client):
                for n in range(messages):
                    await client.say(type="publish", topic="load/" + "ab"[p % 2], data=[p, n, "x" * (n % 500)])
                await client.presence("load/a")

            await asyncio.gather(*(publish(p, c) for p, c in enumerate(pubs)))
            half = publishers // 2 * messages
            orders = {}
            for s, topics in zip(subs, hears):
                got = await s.hear(half * len(topics))
                for t in topics:
                    order = [tuple(m["data"][:2]) for m in got if m["topic"] == t]
                    self.assertEqual(len(order), half)
                    self.assertEqual(orders.setdefault(t, order), order)
            for order in orders.values():
                for p in range(publishers):
                    mine = [n for q, n in order if q == p]
                    self.assertEqual(mine, list(range(messages)) if mine else [])
            await asyncio.sleep(0.1)
            self.assertTrue(all(s.messages.empty() for s in subs))
            await self.close(subs + pubs)
        run(go(), 120)
        self.assertEqual(self.gw.metric("tidegate_hub_lost_total"), 0)

    def test_node(self):
        r = subprocess.run(["node", os.path.join(NODE, "hub.js"), node_modules(), self.url()], capture_output=True,
                           text=True, timeout=90 * support.slow(),
                           env=dict(os.environ, PATIENCE_MS=str(60000 * support.slow())))
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)

    def test_every_publication_after_the_ack_is_heard(self):
        """Many newcomers to topics that are being published to: from the ack on, nothing is missing."""
        async def go(rounds=60):
            pub, = await self.clients(1)
            sent, stop = [0], asyncio.Event()

            async def publish():
                while not stop.is_set():
                    sent[0] += 1
                    await pub.ok("publish", "early/bird", data=sent[0])

            task = asyncio.create_task(publish())
            for i in range(rounds):
                s, = await self.clients(1)
                await s.ok("subscribe", "early/bird" if i % 2 else "early/*")
                first = sent[0] + 1  # the one under way now may be heard or not, and so may those before the ack
                got = []
                while not got or got[-1] < first + 2:
                    got += [m["data"] for m in await s.hear()]
                self.assertEqual(got, sorted(set(got)))
                self.assertEqual([n for n in got if n >= first], [first, first + 1, first + 2])
                await s.close()
            stop.set()
            await task
            await self.close([pub])
        run(go(), 120)

    def test_presence_adds_up(self):
        """10,000 random joins and drops, by message, by close and by reset."""
        async def go(topics=20, people=60, steps=10000):
            rng = random.Random(7)
            clients = await self.clients(people)
            here = [set() for _ in clients]
            watch, = await self.clients(1)

            async def move(i):
                for _ in range(steps // people):
                    t = "presence/%d" % rng.randrange(topics)
                    kind = rng.random()
                    if kind < 0.96:
                        if t in here[i]:
                            await clients[i].ok("unsubscribe", t)
                            here[i].discard(t)
                        else:
                            await clients[i].ok("subscribe", t)
                            here[i].add(t)
                        continue
                    if kind < 0.98:
                        await clients[i].close()
                    else:
                        sock = clients[i].ws.transport.get_extra_info("socket")
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        clients[i].ws.transport.abort()
                        await clients[i].reader
                    clients[i], = await self.clients(1)
                    here[i] = set()

            await asyncio.gather(*(move(i) for i in range(people)))
            for t in range(topics):
                name = "presence/%d" % t

                async def count():
                    return await watch.presence(name)
                await eventually(count, sum(name in h for h in here))
            self.assertEqual(await watch.presence("presence/none"), 0)
            self.assertEqual(self.gw.metric("tidegate_subscriptions"), sum(len(h) for h in here))
            listed = {t["topic"]: t["sessions"] for t in self.gw.ctl("topics", "--prefix", "presence/")["topics"]}
            self.assertEqual(listed, {"presence/%d" % t: n for t in range(topics)
                                      if (n := sum("presence/%d" % t in h for h in here))})
            await self.close(clients + [watch])
        run(go(), 240)

    def test_a_flood_of_publications_pauses_the_publisher(self):
        """Faster than it can fan out: nothing is lost or reordered, and memory stays within the windows."""
        async def go(subscribers=100, messages=1200):
            subs = await self.clients(subscribers)
            await asyncio.gather(*(s.ok("subscribe", "flood/x") for s in subs))
            pubs = await self.clients(4)
            text = "x" * 1000

            async def publish(p, client):
                for n in range(messages // 4):
                    await client.say(type="publish", topic="flood/x", data=[p, n, text])

            async def hear(s):
                last = [-1] * 4
                for _ in range(messages):
                    p, n, _text = (await s.messages.get())["data"]
                    self.assertEqual(n, last[p] + 1)
                    last[p] = n

            await asyncio.gather(*(publish(p, c) for p, c in enumerate(pubs)), *(hear(s) for s in subs))
            await self.close(subs + pubs)
        run(go(), 240)
        self.assertEqual(self.gw.metric("tidegate_hub_lost_total"), 0)


class Services(HubCase):
    async def command(self):
        return await connect(self.url("/commands"))

    def test_services_publish(self):
        async def go():
            hub, = await self.clients(1)
            await hub.ok("subscribe", "s/*")
            link = await self.command()
            await link.send("subscribe s/1")
            await link.send("whoami")
            await link.recv()
            for data, expected in (("{\"a\": 1}", {"data": {"a": 1}}), ("[1, 2", {"data": "[1, 2"}),
                                   ("plain \"text\"", {"data": "plain \"text\""}), ("", {"data": ""})):
                await link.send("publish s/1 " + data)
                self.assertEqual(await hub.hear(), [{"type": "message", "topic": "s/1", **expected}])
                self.assertEqual(await link.recv(), data)
            await link.send("publish-binary s/1 bytes")
            self.assertEqual(await hub.hear(),
                             [{"type": "message", "topic": "s/1", "base64": base64.b64encode(b"bytes").decode()}])
            self.assertEqual(await link.recv(), b"bytes")
            # A session of a link gets D as it is.
            await hub.ok("publish", "s/1", data={"b": [1]})
            self.assertEqual(json.loads(await link.recv()), {"b": [1]})
            await hub.hear()
            await link.send("unsubscribe s/1")
            await link.send("whoami")
            await link.recv()
            await hub.ok("publish", "s/1", data=1)
            await hub.hear()
            await link.send("still there")
            self.assertEqual(await link.recv(), "still there")
            await link.close()
            await self.close([hub])
        run(go())

    def test_bad_topics_of_services_are_counted(self):
        async def go():
            before = self.gw.metric("tidegate_hub_refused_total", code="bad_topic")
            link = await self.command()
            for text in ("subscribe a//b", "unsubscribe /", "publish a/* x", "subscribe */a"):
                await link.send(text)
            await link.send("whoami")
            await link.recv()

            async def count():
                return self.gw.metric("tidegate_hub_refused_total", code="bad_topic") - before
            await eventually(count, 4)
            await link.close()
        run(go())

    def test_a_service_subscribes_what_it_opens(self):
        async def go(n=30):
            links = await asyncio.gather(*(connect(self.url("/topics?topic=chat/%d" % (i % 2))) for i in range(n)))
            hub, = await self.clients(1)

            async def here():
                return await hub.presence("chat/0"), await hub.presence("chat/1")
            await eventually(here, (n // 2, n // 2))
            for i in range(100):
                await links[0].send("message %d" % i)
            for ws in links[::2]:
                self.assertEqual([await ws.recv() for _ in range(100)], ["message %d" % i for i in range(100)])
            await asyncio.gather(*(ws.close() for ws in links))
            await eventually(here, (0, 0))
            await self.close([hub])
        run(go())

    def test_a_service_that_floods_waits_for_credit(self):
        """More than a link's window, from each of two links."""
        async def go(n=2000):
            hub, = await self.clients(1)
            await hub.ok("subscribe", "chat/x")
            talkers = await asyncio.gather(*(connect(self.url("/topics?topic=chat/x")) for _ in range(2)))

            async def talk(k, ws):
                for i in range(n):
                    await ws.send(json.dumps([k, i, "x" * 9000]))

            async def listen(ws):
                for _ in range(2 * n):
                    await ws.recv()

            async def check():
                last = [-1, -1]
                for _ in range(2 * n):
                    k, i, _text = (await hub.hear())[0]["data"]
                    self.assertEqual(i, last[k] + 1)
                    last[k] = i

            await asyncio.gather(check(), *(talk(k, ws) for k, ws in enumerate(talkers)), *(listen(ws) for ws in talkers))
            await asyncio.gather(*(ws.close() for ws in talkers))
            await self.close([hub])
        run(go(), 120)


class Operators(HubCase):
    def test_topics_and_publish(self):
        async def go():
            a, b = clients = await self.clients(2)
            for t in ("op/1", "op/2", "op/*"):
                await a.ok("subscribe", t)
            await b.ok("subscribe", "op/1")

            async def listed():
                return {t["topic"]: t["sessions"] for t in self.gw.ctl("topics", "--prefix", "op/")["topics"]}
            await eventually(listed, {"op/1": 2, "op/2": 1, "op/*": 1})
            self.assertEqual(self.gw.ctl("topics", "--prefix", "op/", "--limit", "1")["matched"], 3)
            self.assertEqual(self.gw.ctl("publish", "op/1", '{"from": "ops"}'), {"published": True})
            self.assertEqual(self.gw.ctl("publish", "op/1", "no JSON"), {"published": True})
            for c in clients:
                self.assertEqual([m["data"] for m in await c.hear(2)], [{"from": "ops"}, "no JSON"])
            text = subprocess.run([os.path.join(support.BUILD, "tidegatectl"), "--socket", self.gw.socket, "topics",
                                   "--prefix", "op/"], capture_output=True, text=True).stdout
            self.assertIn("3 of 3 topics", text)
            await self.close(clients)
        run(go())


SLOW = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
routes:
  - {{path: /conflate, upstream: hub, max_message_size: 32KiB, out_queue: {{bytes: 64KiB, policy: conflate}}}}
  - {{path: /oldest, upstream: hub, max_message_size: 32KiB, out_queue: {{bytes: 64KiB, policy: drop-oldest}}}}
  - {{path: /hub, upstream: hub}}
"""


class SlowClients(support.Case):
    """A subscriber that stops reading: the route's policy decides what it finds afterwards."""

    def setUp(self):
        super().setUp()
        self.ws = support.free_port()
        self.gw = self.gateway(SLOW.format(ws=self.ws), workers=WORKERS,
                               extra="sockets: {send_buffer: 4KiB}")

    def slow_one(self, path):
        """A plain socket with little room, subscribed to everything below slow/."""
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(20 * support.slow())
        s.connect(("127.0.0.1", self.ws))
        s.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode())
        f = s.makefile("rb")
        while f.readline() != b"\r\n":
            pass
        text = b'{"type":"subscribe","topic":"slow/*","id":1}'
        s.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        self.assertEqual(self.frame(f), {"type": "ack", "id": 1})
        return s, f

    def frame(self, f):
        op, n = f.read(2)
        self.assertEqual(op, 0x81)
        if n == 126:
            n, = struct.unpack("!H", f.read(2))
        return json.loads(f.read(n))

    def delivered(self, n):
        def what():
            "the messages to have been queued"
            return self.gw.metric("tidegate_hub_delivered_total") == n
        return what

    def hear_after(self, path, topics=10, rounds=100):
        s, f = self.slow_one(path)

        async def go():
            ws = await connect("ws://127.0.0.1:%d/hub" % self.ws)
            for r in range(rounds):
                for t in range(topics):
                    await ws.send(json.dumps({"type": "publish", "topic": "slow/%d" % t, "data": [r, "x" * 1000]}))
            # Topics have no order among each other: this one comes when all others are through.
            await asyncio.to_thread(support.wait_for, self.delivered(topics * rounds))
            await ws.send('{"type":"publish","topic":"slow/end","data":[0],"id":1}')
            await ws.recv()
            await ws.close()
        run(go())
        support.wait_for(self.delivered(topics * rounds + 1))
        got = []
        while not got or got[-1]["topic"] != "slow/end":
            got.append(self.frame(f))
        f.close()
        s.close()
        for t in range(topics):
            mine = [m["data"][0] for m in got if m["topic"] == "slow/%d" % t]
            self.assertEqual(mine, sorted(set(mine)))
            yield mine

    def test_conflate_keeps_the_newest_of_each_topic(self):
        for mine in self.hear_after("/conflate"):
            self.assertEqual(mine[-1], 99)
        self.assertGreater(self.gw.metric("tidegate_out_dropped_messages_total"), 0)

    def test_drop_oldest(self):
        got = list(self.hear_after("/oldest"))
        self.assertTrue(all(mine[-1] == 99 for mine in got))
        self.assertGreater(self.gw.metric("tidegate_out_dropped_messages_total"), 0)


class Ending(support.Case):
    def test_drain_with_everything_under_way(self):
        """Publications, subscriptions and questions while the gateway drains: it ends cleanly."""
        ws = support.free_port()
        gw = self.gateway('listeners:\n  - {name: ws, address: "127.0.0.1:%d"}\nroutes:\n'
                          '  - {path: /hub, upstream: hub}\n' % ws, workers=WORKERS, drain="500ms")

        async def go():
            clients = await asyncio.gather(*(Client().open("ws://127.0.0.1:%d/hub" % ws) for _ in range(40)))
            await asyncio.gather(*(c.ok("subscribe", "end/%d" % (i % 3)) for i, c in enumerate(clients)))

            async def busy(i, c):
                try:
                    for n in itertools.count():
                        t = "end/%d" % (n % 5)
                        await c.say(type=("publish", "subscribe", "unsubscribe", "presence")[(n + i) % 4], topic=t, data=n)
                        if n % 10 == 0:
                            await asyncio.sleep(0)
                except Exception:
                    pass
            tasks = [asyncio.create_task(busy(i, c)) for i, c in enumerate(clients)]
            await asyncio.sleep(0.3)
            gw.kill(15)
            await asyncio.gather(*tasks)
            await asyncio.gather(*(c.reader for c in clients))
        run(go())
        self.assertEqual(gw.wait(), 0)
