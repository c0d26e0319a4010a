"""Authentication: tokens and JWTs of every kind, good and bad, against a running gateway."""

import asyncio
import json
import os
import re
import select
import struct
import subprocess
import threading
import time

import websockets

import auth_support as a
from links_support import ACCEPT, OPEN, FakeService
from support import (Gateway, SharedCase, Case, connect, free_port, raw_frame, raw_hello, raw_recv, recv_head, slow,
                     upgrade_request, wait_for, ws_close_code, ws_frame, ws_open, ws_recv)
import support
import test_clients

AUTH = """
auth:
  leeway: 0
  secrets: ["{dir}/token-1.secret", "{dir}/token-2.secret"]
  keys:
    - {{kid: rs, algorithm: RS256, file: "{dir}/rs.pem"}}
    - {{kid: es, algorithm: ES256, file: "{dir}/es.pem"}}
    - {{kid: hs, algorithm: HS256, file: "{dir}/hs.secret"}}
    - {{algorithm: ES256, file: "{dir}/plain.pem"}}
"""

BODY = """
listeners:
  - {{name: ws, address: "127.0.0.1:{ws}"}}
  - {{name: raw, address: "127.0.0.1:{raw}", protocol: raw}}
routes:
  - {{path: /open, upstream: echo}}
  - {{path: /token, upstream: echo, subprotocols: [chat], auth: {{type: token, refresh: true}}}}
  - {{path: /jwt, upstream: echo, subprotocols: [chat],
      auth: {{type: jwt, audience: [chat, other], issuer: tests, refresh: true}}}}
  - {{path: /any, upstream: echo, auth: {{type: jwt}}}}
{more}
"""


def write_keys(folder):
    """The files that AUTH names; {kid: (algorithm, what signs)}."""
    keys = {"rs": ("RS256", a.Key(folder, "rs", "RS256")), "es": ("ES256", a.Key(folder, "es", "ES256")),
            "hs": ("HS256", a.HS_SECRET), None: ("ES256", a.Key(folder, "plain", "ES256"))}
    a.write(os.path.join(folder, "hs.secret"), a.HS_SECRET + b"\n")
    for i, secret in enumerate(a.TOKEN_SECRETS):
        a.write(os.path.join(folder, "token-%d.secret" % (i + 1)), secret)
    return keys


class AuthCase(SharedCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.keys = write_keys(cls.shared_tmp)
        cls.ws, cls.raw = free_port(), free_port()
        cls.gw = cls.share(Gateway(cls.shared_tmp, BODY.format(ws=cls.ws, raw=cls.raw, more=""),
                                   extra=AUTH.format(dir=cls.shared_tmp), workers=2))

    def jwt(self, kid, **kw):
        return a.jwt(*self.keys[kid], kid=kid, **kw)

    def failures(self):
        return {re.search('reason="(.*)"', k).group(1): v for k, v in self.gw.metrics().items()
                if k.startswith("tidegate_auth_failures_total")}

    def refused(self, reason, path, t, why="the token is not valid", status=401):
        """Refused by both protocols, with the same reason counted."""
        for raw in (False, True):
            if raw and len(t) > 4000:
                continue
            before = self.failures()
            if raw:
                got = a.raw_answer(self.raw, path, t)
                self.assertEqual(got, ("close", 4001))
            else:
                got, head, body = a.answer(self.ws, path, a.bearer(t))
                self.assertEqual((got, body), (status, why + "\n"))
                self.assertIn('\r\nWWW-Authenticate: Bearer realm="tidegate"\r\n', head)
            after = self.failures()
            before[reason] += 1
            self.assertEqual(after, before)


class TestAnswers(AuthCase):
    def test_good_ones(self):
        for path, t in ([("/token", a.token()), ("/token", a.token(secret=a.TOKEN_SECRETS[1])), ("/token", a.token("ä|b"))] +
                        [("/jwt", self.jwt(kid)) for kid in self.keys] +
                        [("/jwt", self.jwt("rs", aud=["x", "other"])), ("/jwt", self.jwt("hs", nbf=int(time.time()) - 5)),
                         ("/jwt", self.jwt("es", exp=time.time() + 100.5)), ("/any", self.jwt("rs", aud=None, iss=None, sub=None))]):
            self.assertEqual(a.answer(self.ws, path, a.bearer(t))[0], 101, t)
            self.assertEqual(a.raw_answer(self.raw, path, t), ("welcome", None))

    def test_every_source(self):
        t = self.jwt("rs")
        for path, headers in (("/jwt", a.bearer(t)), ("/jwt", ("authorization: bearer   " + t,)), ("/jwt?access_token=" + t, ()),
                              ("/jwt?x=1&access_token=%s&y" % t, ()), ("/jwt", ("Sec-WebSocket-Protocol: tg.token." + t,)),
                              ("/jwt?access_token=" + t, a.bearer(t))):
            status, head, _ = a.answer(self.ws, path, headers)
            self.assertEqual(status, 101, (path, headers))
            self.assertNotIn("Sec-WebSocket-Protocol", head)
        long = self.jwt("rs", pad="x" * 2000)
        self.assertEqual(a.answer(self.ws, "/jwt", ("Sec-WebSocket-Protocol: tg.token.%s, chat" % long,))[0], 101)
        status, head, _ = a.answer(self.ws, "/jwt", ("Sec-WebSocket-Protocol: tg.token.%s, chat" % t,))
        self.assertEqual(status, 101)
        self.assertIn("\r\nSec-WebSocket-Protocol: chat\r\n", head)

    def test_two_tokens(self):
        t, other = self.jwt("rs"), self.jwt("es")
        before = self.failures()
        for path, headers in (("/jwt?access_token=" + t, a.bearer(other)),
                              ("/jwt?access_token=%s&access_token=%s" % (t, other), ()),
                              ("/jwt", a.bearer(t) + a.bearer(other)),
                              ("/jwt", a.bearer(t) + ("Sec-WebSocket-Protocol: tg.token." + other,))):
            self.assertEqual(a.answer(self.ws, path, headers)[0], 400)
        self.assertEqual(self.failures()["malformed"], before["malformed"] + 4)

    def test_missing(self):
        for path in ("/token", "/jwt"):
            self.refused("missing", path, "", "a token is required")
        self.assertEqual(a.answer(self.ws, "/jwt", ("Authorization: Basic YTpi",))[0], 401)
        self.assertEqual(a.answer(self.ws, "/jwt?access_token=", ())[0], 401)
        self.assertEqual(a.answer(self.ws, "/open", a.bearer("whatever"))[0], 101)

    def test_expired(self):
        now = int(time.time())
        self.refused("expired", "/token", a.token(expires=now - 10), "the token has expired")
        for kid in self.keys:
            self.refused("expired", "/jwt", self.jwt(kid, exp=now - 10), "the token has expired")

    def test_not_yet_valid(self):
        for kid in self.keys:
            self.refused("not_yet_valid", "/jwt", self.jwt(kid, nbf=int(time.time()) + 100), "the token is not valid yet")

    def test_wrong_audience(self):
        for aud in ("elsewhere", ["a", "b"], None, 7, "cha", "chat "):
            self.refused("audience", "/jwt", self.jwt("rs", aud=aud))

    def test_wrong_issuer(self):
        for iss in ("somebody", None, ["tests"]):
            self.refused("issuer", "/jwt", self.jwt("es", iss=iss))

    def test_wrong_key(self):
        for kid, kind in (("rs", "RS256"), ("es", "ES256"), (None, "ES256")):
            other = a.Key(self.tmp, "other-%s" % kid, kind)
            self.refused("signature", "/jwt", a.jwt(kind, other, kid=kid))
            # What is said about a token that is not genuine does not tell what it says.
            self.refused("signature", "/jwt", a.jwt(kind, other, kid=kid, exp=1, aud="x", iss="y"))
        self.refused("signature", "/jwt", a.jwt("HS256", b"another secret, just as long as that one", kid="hs"))
        self.refused("signature", "/token", a.token(secret=b"x" * 40))

    def test_changed(self):
        for kid in self.keys:
            head, _, sig = self.jwt(kid).split(".")
            _, payload, _ = self.jwt(kid, sub="mallory").split(".")
            self.refused("signature", "/jwt", ".".join((head, payload, sig)))
        parts, other = a.token("alice").split("."), a.token("mallory").split(".")
        self.refused("signature", "/token", ".".join((parts[0], other[1], parts[2])))

    def test_unknown_kid(self):
        self.refused("unknown_key", "/jwt", a.jwt("RS256", self.keys["rs"][1], kid="r"))
        self.refused("unknown_key", "/jwt", a.jwt("RS256", self.keys["rs"][1], kid="rs2"))

    def test_algorithm_none(self):
        for alg in ("none", "None", "NONE", "nOnE"):
            self.refused("algorithm", "/jwt", a.jwt(alg, None, kid="rs"))
            self.refused("algorithm", "/jwt", a.jwt(alg, b"x", kid="hs"))

    def test_algorithm_swapped(self):
        rs, public = self.keys["rs"][1], a.read(self.keys["rs"][1].public)
        for secret in (public, public.strip()):
            self.refused("algorithm", "/jwt", a.jwt("HS256", secret, kid="rs"))
        self.refused("algorithm", "/jwt", a.jwt("RS512", rs, kid="rs"))
        self.refused("algorithm", "/jwt", a.jwt("RS256", rs, kid="es"))
        self.refused("algorithm", "/jwt", a.jwt("HS256", a.HS_SECRET))

    def test_truncated(self):
        for kid in self.keys:
            whole = self.jwt(kid)
            head, payload, sig = whole.split(".")
            self.refused("signature", "/jwt", whole[:-4])
            for t in (head, head + "." + payload, head + "." + payload + ".", "." + payload + "." + sig, head + ".." + sig,
                      whole + ".x", whole + "!", whole + "=", "x" + whole):
                self.refused("malformed", "/jwt", t)
        whole = a.token()
        for t in (whole[:-1], whole[:-3], whole + "A", whole[:4], "tg1.", "tg2" + whole[3:], whole.replace(".", "..", 1)):
            self.refused("malformed", "/token", t)

    def test_malformed_claims(self):
        for claims in ({"exp": None}, {"exp": "tomorrow"}, {"exp": -1}, {"exp": 1e300}, {"nbf": "now"}, {"sub": 7}, {"sub": "x" * 300}):
            self.refused("malformed", "/jwt", self.jwt("hs", **claims))
        for header in ({"crit": ["exp"]}, {"kid": 7}, {"alg": 7}, {"x": "y" * 1100}):
            self.refused("malformed", "/jwt", self.jwt("rs", header=header))

    def test_oversized(self):
        self.refused("too_large", "/jwt", self.jwt("rs", pad="x" * 4000))
        self.refused("too_large", "/token", "tg1." + "A" * 4093)

    def test_python_client(self):
        async def run():
            url = "ws://127.0.0.1:%d/jwt" % self.ws
            # Since version 14 things have other names.
            new = int(websockets.version.version.split(".")[0]) >= 14
            name = "additional_headers" if new else "extra_headers"
            async with websockets.connect(url, **{name: {"Authorization": "Bearer " + self.jwt("es")}}) as ws:
                await ws.send("hello")
                self.assertEqual(await ws.recv(), "hello")
            async with websockets.connect(url, subprotocols=["tg.token." + self.jwt("rs"), "chat"]) as ws:
                self.assertEqual(ws.subprotocol, "chat")
                await ws.send(b"hello")
                self.assertEqual(await ws.recv(), b"hello")
            with self.assertRaises(websockets.InvalidStatus if new else websockets.InvalidStatusCode) as refused:
                await websockets.connect(url)
            self.assertEqual((refused.exception.response if new else refused.exception).status_code, 401)
        asyncio.run(asyncio.wait_for(run(), 30 * slow()))

    def test_node_client(self):
        url = "ws://127.0.0.1:%d/jwt" % self.ws
        r = subprocess.run(["node", os.path.join(test_clients.NODE, "client.js"), test_clients.node_modules(), "authentication",
                            url, self.jwt("rs")], capture_output=True, text=True, timeout=60 * slow())
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)

    def test_many_at_once(self):
        """Sixty tokens in the crypto thread's queue: each gets its own verdict, and what was sent early is kept."""
        good, bad = self.jwt("rs"), a.jwt("RS256", a.Key(self.tmp, "bad", "RS256"), kid="rs")
        socks = [connect(self.ws) for _ in range(60)]
        for i, s in enumerate(socks):
            s.sendall(upgrade_request("/jwt", headers=a.bearer(bad if i % 3 == 0 else good)) + ws_frame(1, b"early %d" % i))
        for i, s in enumerate(socks):
            self.assertEqual(recv_head(s).split()[1], b"401" if i % 3 == 0 else b"101")
            if i % 3:
                self.assertEqual(ws_recv(s), (1, True, b"early %d" % i))
            s.close()

    def test_gone_while_verified(self):
        """Clients that do not wait for the verdict leave nothing behind."""
        t = self.jwt("rs")
        for n in range(200):
            s = connect(self.ws if n % 2 else self.raw)
            s.sendall(upgrade_request("/jwt", headers=a.bearer(t)) if n % 2 else raw_hello("/jwt", t.encode()))
            if n % 4 < 2:
                s.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: reset
            s.close()
        wait_for(lambda: self.gw.metric("tidegate_open_connections") == 0)
        self.assertEqual(a.answer(self.ws, "/jwt", a.bearer(t))[0], 101)

    def test_raw_in_pieces(self):
        """A HELLO that comes byte by byte, with a message right behind it."""
        s = connect(self.raw)
        for b in raw_hello("/jwt", self.jwt("rs").encode()) + raw_frame(3, b"early"):
            s.sendall(bytes([b]))
        self.assertEqual(raw_recv(s)[0], 2)
        self.assertEqual(raw_recv(s), (3, b"early"))
        s.close()

    def test_tokens_are_not_told(self):
        """Neither logs nor metrics nor the admin interface have any of it."""
        tokens = [self.jwt("rs"), a.token(), self.jwt("hs", exp=1), a.jwt("RS256", self.keys["rs"][1], kid="gone")]
        socks = []
        for t in tokens:
            for path, headers in (("/jwt?access_token=" + t, ()), ("/jwt", a.bearer(t)), ("/token", a.bearer(t)),
                                  ("/jwt", ("Sec-WebSocket-Protocol: chat, tg.token." + t,))):
                s = connect(self.ws)
                s.sendall(upgrade_request(path, headers=headers))
                recv_head(s)
                socks.append(s)
        told = self.gw.log() + self.gw.get("/metrics")[1] + json.dumps(self.gw.ctl("conns")) + json.dumps(self.gw.ctl("status"))
        for t in tokens:
            for part in t.split("."):
                if len(part) > 8:
                    self.assertNotIn(part, told)
        self.assertNotIn("access_token", told)
        for s in socks:
            s.close()


class TestSession(AuthCase):
    """What happens to sessions after the handshake."""

    def test_expiry_closes(self):
        exp = int(time.time()) + 3 * slow()
        s, s2 = (ws_open(self.ws, path, headers=a.bearer(t)) for path, t in
                 (("/jwt", self.jwt("rs", exp=exp)), ("/token", a.token(expires=exp))))
        raw = connect(self.raw)
        raw.sendall(raw_hello("/jwt", self.jwt("hs", exp=exp).encode()))
        self.assertEqual(raw_recv(raw)[0], 2)
        before = self.gw.metric("tidegate_closes_total", reason="auth_expired")
        s.sendall(ws_frame(1, b"still here"))
        self.assertEqual(ws_recv(s), (1, True, b"still here"))
        self.assertEqual(ws_close_code(s), 4001)
        self.assertEqual(ws_close_code(s2), 4001)
        kind, payload = raw_recv(raw)
        self.assertEqual((kind, payload[:2]), (7, struct.pack("!H", 4001)))
        self.assertGreaterEqual(time.time(), exp)
        for c in (s, s2, raw):
            c.close()
        wait_for(lambda: self.gw.metric("tidegate_closes_total", reason="auth_expired") == before + 3)

    def refresh(self, s, t):
        s.sendall(ws_frame(1, json.dumps({"type": "tg.refresh", "token": t}).encode()))
        op, _, payload = ws_recv(s)
        self.assertEqual(op, 1)
        return json.loads(payload)

    def test_refresh(self):
        soon, later = int(time.time()) + 4 * slow(), int(time.time()) + 600
        opened = []
        for path, make in (("/jwt", lambda **kw: self.jwt("rs", **kw)), ("/jwt", lambda **kw: self.jwt("hs", **kw)),
                           ("/token", lambda exp, sub="alice": a.token(sub, exp))):
            s = ws_open(self.ws, path, headers=a.bearer(make(exp=soon)))
            self.assertEqual(self.refresh(s, make(exp=later)), {"type": "tg.refreshed", "expires": later})
            opened.append(s)
        while time.time() < soon + 1:
            time.sleep(0.1)
        for s in opened:
            s.sendall(ws_frame(1, b"outlived the first token"))
            self.assertEqual(ws_recv(s), (1, True, b"outlived the first token"))
            s.close()

    def test_refused_refresh(self):
        soon = int(time.time()) + 4 * slow()
        s = ws_open(self.ws, "/jwt", headers=a.bearer(self.jwt("rs", exp=soon)))
        before = self.failures()
        for t, code in ((self.jwt("es", sub="mallory"), "subject"), (self.jwt("rs", exp=1), "expired"), ("x", "invalid"),
                        (self.jwt("rs", aud="x"), "invalid"), ("", "missing"), (7, "missing")):
            got = self.refresh(s, t)
            self.assertEqual((got["type"], got["code"]), ("tg.error", code))
        after = self.failures()
        for reason, n in (("subject", 1), ("expired", 1), ("malformed", 1), ("audience", 1), ("missing", 2)):
            self.assertEqual(after[reason] - before[reason], n, reason)
        self.assertEqual(ws_close_code(s), 4001)
        s.close()

    def test_other_messages_pass(self):
        s = ws_open(self.ws, "/jwt", headers=a.bearer(self.jwt("hs")))
        for payload in (b'{"type":"other","text":"tg.refresh"}', b'"tg.refresh"', b'{"type":"tg.refresh"', b'{"type":"tg.refreshed"}'):
            s.sendall(ws_frame(1, payload))
            self.assertEqual(ws_recv(s), (1, True, payload))
        s.sendall(ws_frame(2, b'{"type":"tg.refresh","token":"x"}'))
        self.assertEqual(ws_recv(s)[0], 2)
        s.close()
        s = ws_open(self.ws, "/any", headers=a.bearer(self.jwt("hs")))
        s.sendall(ws_frame(1, b'{"type":"tg.refresh","token":"x"}'))  # no auth.refresh on this route
        self.assertEqual(ws_recv(s), (1, True, b'{"type":"tg.refresh","token":"x"}'))
        s.close()

    def test_tidegatectl_token(self):
        ctl = os.path.join(support.BUILD, "tidegatectl")
        secret = os.path.join(self.shared_tmp, "token-2.secret")
        args = [ctl, "token", "--secret-file", secret, "--subject", "carol", "--expires", "1h"]
        t = subprocess.run(args, capture_output=True, text=True, check=True).stdout.strip()
        self.assertEqual(a.answer(self.ws, "/token", a.bearer(t))[0], 101)
        got = json.loads(subprocess.run(args + ["--json"], capture_output=True, text=True, check=True).stdout)
        self.assertEqual(a.answer(self.ws, "/token", a.bearer(got["token"]))[0], 101)
        self.assertLess(abs(got["expires"] - time.time() - 3600), 60)
        for bad in ((args[:-1] + ["soon"], 2), (args[:-2], 2), (args[:5] + [""] + args[6:], 2),
                    ([ctl, "token", "--secret-file", secret + "x"] + args[4:], 1)):
            r = subprocess.run(bad[0], capture_output=True, text=True)
            self.assertEqual((r.returncode, r.stdout), (bad[1], ""), r.stderr)


class TestFiles(Case):
    """Keys as files: what is wrong with them, and how they change."""

    def start_with(self, **kw):
        self.keys = write_keys(self.tmp)
        self.ws, self.raw = free_port(), free_port()
        return Gateway(self.tmp, BODY.format(ws=self.ws, raw=self.raw, more=""), extra=AUTH.format(dir=self.tmp), **kw)

    def status(self, path, t):
        return a.answer(self.ws, path, a.bearer(t))[0]

    def test_rotation(self):
        gw = self.start(self.start_with(workers=2))
        es = self.keys["es"][1]
        self.assertEqual(self.status("/jwt", a.jwt("ES256", es, kid="es")), 101)
        session = ws_open(self.ws, "/jwt", headers=a.bearer(a.jwt("ES256", es, kid="es")))
        new = a.Key(self.tmp, "new", "ES256")
        a.write(es.public, a.read(new.public))
        a.write(os.path.join(self.tmp, "token-1.secret"), b"a third secret for tokens, long enough")
        fresh, old = a.jwt("ES256", new, kid="es"), a.jwt("ES256", es, kid="es")
        # Both workers have the new keys when as many handshakes in a row say so.
        wait_for(lambda: all(self.status("/jwt", fresh) == 101 for _ in range(10)))
        self.assertEqual([self.status("/jwt", old) for _ in range(10)], [401] * 10)
        third = a.token(secret=b"a third secret for tokens, long enough")
        wait_for(lambda: all(self.status("/token", third) == 101 for _ in range(10)))
        self.assertEqual(self.status("/token", a.token()), 401)
        self.assertEqual(self.status("/token", a.token(secret=a.TOKEN_SECRETS[1])), 101)
        self.assertEqual(self.status("/jwt", a.jwt("RS256", self.keys["rs"][1], kid="rs")), 101)
        session.sendall(ws_frame(1, b"not affected"))
        self.assertEqual(ws_recv(session), (1, True, b"not affected"))
        session.close()

    def test_broken_file_keeps_the_old_key(self):
        gw = self.start(self.start_with())
        rs, es = self.keys["rs"][1], self.keys["es"][1]
        good = a.read(rs.public)
        new = a.Key(self.tmp, "new", "ES256")
        a.write(rs.public, good[:200])
        wait_for(lambda: "auth.keys[0].file: %s: is not a public key in PEM; what it was before" % rs.public in gw.log())
        self.assertEqual(self.status("/jwt", a.jwt("RS256", rs, kid="rs")), 101)
        os.unlink(os.path.join(self.tmp, "hs.secret"))
        wait_for(lambda: "hs.secret: No such file or directory; what it was before" in gw.log())
        self.assertEqual(self.status("/jwt", a.jwt("HS256", a.HS_SECRET, kid="hs")), 101)
        # Others still change, and a gateway that starts anew gets what was good.
        a.write(es.public, a.read(new.public))
        wait_for(lambda: self.status("/jwt", a.jwt("ES256", new, kid="es")) == 101)
        os.kill(gw.gateway_pid, 9)
        wait_for(lambda: gw.log().count("is serving") == 2)
        for alg, key, kid in (("RS256", rs, "rs"), ("ES256", new, "es"), ("HS256", a.HS_SECRET, "hs")):
            self.assertEqual(self.status("/jwt", a.jwt(alg, key, kid=kid)), 101)
        self.assertEqual(gw.log().count("is not a public key in PEM"), 1)

    def test_readable_by_all(self):
        self.keys = write_keys(self.tmp)
        os.chmod(os.path.join(self.tmp, "hs.secret"), 0o644)
        self.ws, self.raw = free_port(), free_port()
        gw = self.gateway(BODY.format(ws=self.ws, raw=self.raw, more=""), extra=AUTH.format(dir=self.tmp))
        log = gw.log()
        self.assertIn("auth.keys[2].file: %s/hs.secret may be read by every user" % self.tmp, log)
        self.assertEqual(log.count("may be read by every user"), 1)

    def test_bad_at_the_start(self):
        for name, content, why in (("rs.pem", None, "No such file or directory"), ("es.pem", b"x", "is not a public key in PEM"),
                                   ("rs.pem", "es.pem", "is not an RSA key"), ("es.pem", "rs.pem", "is not an EC key"),
                                   ("rs.pem", "rs.key", "holds a private key"), ("hs.secret", b"short\n", "has fewer than 32 bytes"),
                                   ("token-1.secret", "rs.pem", "is a PEM file, not a secret"), ("hs.secret", b"x" * 70000, "is larger than")):
            gw = self.start_with(wait=False)
            path = os.path.join(self.tmp, name)
            gw.kill()
            gw.wait()
            if content is None:
                os.unlink(path)
            else:
                a.write(path, a.read(os.path.join(self.tmp, content)) if isinstance(content, str) else content)
            r = subprocess.run([os.path.join(support.BUILD, "tidegate"), "-c", gw.config], capture_output=True, text=True,
                               timeout=30 * slow())
            gw.log_file.close()
            self.assertEqual(r.returncode, 1, r.stderr)
            self.assertIn("%s: %s" % (path, why), r.stderr)


class TestServices(Case):
    """What services learn of it."""

    def setUp(self):
        super().setUp()
        self.keys = write_keys(self.tmp)
        self.fakes = [FakeService(), FakeService()]
        for f in self.fakes:
            self.addCleanup(f.listener.close)
        self.ws, self.raw = free_port(), free_port()

    def begin(self, balance):
        more = ("  - {path: /svc, upstream: svc, subprotocols: [chat], auth: {type: jwt}}\n"
                "  - {path: /tok, upstream: svc, auth: {type: token}}\n"
                "upstreams:\n  - {name: svc, type: link, balance: '%s', endpoints: [\"%s\"]}\n" % (
                    balance, '", "'.join(f.endpoint for f in self.fakes)))
        self.gw = self.gateway(BODY.format(ws=self.ws, raw=self.raw, more=more), extra=AUTH.format(dir=self.tmp))
        self.links = [f.accept().greet() for f in self.fakes]
        wait_for(self.gw.ready)

    def opened(self, path, headers=()):
        """Connects, and returns (which link, OPEN's metadata, socket, session)."""
        s = connect(self.ws)
        s.sendall(upgrade_request(path, headers=headers))
        while True:
            for l in select.select([x.s for x in self.links], [], [], 10 * slow())[0]:
                link = next(x for x in self.links if x.s is l)
                kind, session, flags, payload = link.recv()
                if kind == OPEN:
                    link.send(ACCEPT, session)
                    self.assertIn(b" 101 ", recv_head(s))
                    return link, json.loads(payload), s, session
                if kind == 11:
                    link.send(12, payload=payload)

    def test_claims_reach_services(self):
        self.begin("least-sessions")
        claims = {"sub": "al|ice", "roles": ["a", "b"], "nested": {"x": 1.5}, "exp": int(time.time()) + 100}
        t = self.jwt = a.jwt("RS256", self.keys["rs"][1], kid="rs", aud=None, iss=None, **claims)
        link, meta, s, session = self.opened("/svc?a=1&access_token=%s&b=2" % t,
                                             ("Sec-WebSocket-Protocol: tg.token.%s, chat" % t, "X-One: 1"))
        self.assertEqual((meta["subject"], meta["claims"]), ("al|ice", claims))
        self.assertEqual((meta["query"], meta["subprotocols"]), ("a=1&b=2", ["chat"]))
        for part in t.split("."):
            self.assertNotIn(part, json.dumps(meta))
        # And again, when the session is resumed elsewhere.
        link.close()
        other = next(x for x in self.links if x is not link)
        sid, flags, payload = other.expect(OPEN)
        again = json.loads(payload)
        self.assertEqual((sid, flags, again["subject"], again["claims"]), (session, 4, "al|ice", claims))
        other.send(ACCEPT, sid)
        s.close()

    def test_subject_of_a_token(self):
        self.begin("least-sessions")
        _, meta, s, _ = self.opened("/tok", a.bearer(a.token("bob")))
        self.assertEqual(meta["subject"], "bob")
        self.assertNotIn("claims", meta)
        s.close()

    def test_balanced_by_a_claim(self):
        """Sessions of one claim's value meet, whatever the header says; those without it go by the header."""
        self.begin("hash:userId")
        places = {}
        for n in range(16):
            for _ in range(2):
                t = a.jwt("HS256", a.HS_SECRET, kid="hs", userId=n)
                link, _, s, _ = self.opened("/svc", a.bearer(t) + ("userId: %d" % time.monotonic_ns(),))
                places.setdefault(n, set()).add(link)
                s.close()
        self.assertEqual({len(p) for p in places.values()}, {1})
        self.assertEqual(len({next(iter(p)) for p in places.values()}), 2)
        by_header = {self.opened("/svc", a.bearer(a.jwt("HS256", a.HS_SECRET, kid="hs")) + ("userid: same",))[0] for _ in range(8)}
        self.assertEqual(len(by_header), 1)


class TestTopics(Case):
    """What claims allow at the hub."""

    def ask(self, s, **message):
        s.sendall(ws_frame(1, json.dumps(message).encode()))
        op, _, payload = ws_recv(s)
        self.assertEqual(op, 1)
        return json.loads(payload)

    def test_permissions(self):
        write_keys(self.tmp)
        self.ws, self.raw = free_port(), free_port()
        more = ("  - {path: /hub, upstream: hub, auth: {type: jwt, refresh: true}}\n"
                "  - {path: /strict, upstream: hub, auth: {type: jwt, topics_default: none}}\n")
        self.gateway(BODY.format(ws=self.ws, raw=self.raw, more=more), extra=AUTH.format(dir=self.tmp), workers=2)
        exp = int(time.time()) + 5 * slow()

        def token(**claims):
            return a.jwt("HS256", a.HS_SECRET, kid="hs", **claims)

        some = {"subscribe": ["room/*"], "publish": ["room/7"]}
        s = ws_open(self.ws, "/hub", headers=a.bearer(token(tidegate=some, exp=exp)))
        self.assertEqual(self.ask(s, type="subscribe", topic="room/*", id=1), {"type": "ack", "id": 1})
        for n, message in enumerate((dict(type="subscribe", topic="other"), dict(type="subscribe", topic="room/7/x"),
                                     dict(type="publish", topic="room/8", data=1), dict(type="publish", topic="other", data=1))):
            got = self.ask(s, id=n, **message)
            self.assertEqual((got["type"], got["code"], got["id"]), ("error", "forbidden", n))
        self.assertEqual(self.ask(s, type="publish", topic="room/7", data={"x": 1}),
                         {"type": "message", "topic": "room/7", "data": {"x": 1}})
        # A refresh changes what comes next; what is heard already stays.
        got = self.ask(s, type="tg.refresh", token=token(tidegate={"publish": ["room/8"]}, exp=exp))
        self.assertEqual(got, {"type": "tg.refreshed", "expires": exp})
        self.assertEqual(self.ask(s, type="publish", topic="room/7", data=1, id=2)["code"], "forbidden")
        self.assertEqual(self.ask(s, type="publish", topic="room/8", data=2), {"type": "message", "topic": "room/8", "data": 2})
        self.assertEqual(self.ask(s, type="subscribe", topic="room/9", id=3)["code"], "forbidden")

        everything = ws_open(self.ws, "/hub", headers=a.bearer(token()))
        self.assertEqual(self.ask(everything, type="subscribe", topic="other", id=1)["type"], "ack")
        nothing = ws_open(self.ws, "/strict", headers=a.bearer(token()))
        self.assertEqual(self.ask(nothing, type="subscribe", topic="room/7", id=1)["code"], "forbidden")
        self.assertEqual(ws_close_code(s), 4001)
        for c in (s, everything, nothing):
            c.close()


class TestBusy(Case):
    def test_full_queue(self):
        """More tokens than may wait: the rest are refused at once, those who wait are served."""
        keys = write_keys(self.tmp)
        ws, raw = free_port(), free_port()
        gw = self.gateway(BODY.format(ws=ws, raw=raw, more=""), extra=AUTH.format(dir=self.tmp) + "crypto: {queue: 2}\n")
        t = a.jwt("RS256", keys["rs"][1], kid="rs")
        socks = [connect(ws) for _ in range(200)]
        barrier = threading.Barrier(4)

        def send(part):
            barrier.wait()
            for s in part:
                s.sendall(upgrade_request("/jwt", headers=a.bearer(t)))
        threads = [threading.Thread(target=send, args=(socks[i::4],)) for i in range(4)]
        for th in threads:
            th.start()
        for th in threads:
            th.join()
        heads = [recv_head(s) for s in socks]
        status = [h.split()[1] for h in heads]
        self.assertEqual(set(status), {b"101", b"503"})
        for h in heads:
            if b" 503 " in h:
                self.assertIn(b"\r\nRetry-After: 1\r\n", h)
        busy = gw.metric("tidegate_auth_failures_total", reason="busy")
        self.assertEqual(busy, status.count(b"503"))
        self.assertEqual(gw.metric("tidegate_sessions"), status.count(b"101"))
        for s in socks:
            s.close()
