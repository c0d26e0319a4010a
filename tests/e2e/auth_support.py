"""Tokens for the tests of authentication, made with the standard library and the openssl command."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time

import support

HS_SECRET = b"the shared secret of the tests, long enough"
TOKEN_SECRETS = (b"the first secret for tokens, long enough", b"the second secret for tokens, long too")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, capture_output=True, check=True).stdout


class Key:
    """A key pair: `private`, `public` are PEM files."""

    def __init__(self, folder, name, kind):
        self.kind = kind
        self.private, self.public = os.path.join(folder, name + ".key"), os.path.join(folder, name + ".pem")
        options = {"RS256": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
                   "ES256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]}[kind]
        openssl("genpkey", *options, "-out", self.private)
        openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)

    def sign(self, data):
        sig = openssl("dgst", "-sha256", "-sign", self.private, data=data)
        return sig if self.kind == "RS256" else raw_signature(sig)


def raw_signature(der):
    """The two numbers of a DER signature, 32 bytes each (RFC 7518 3.4)."""
    def number(at):
        n = der[at + 1]
        return int.from_bytes(der[at + 2:at + 2 + n], "big").to_bytes(32, "big"), at + 2 + n
    r, at = number(2)
    s, _ = number(at)
    return r + s


def signature(alg, key, data):
    """key: a Key, or the bytes of a secret."""
    return hmac.new(key, data, hashlib.sha256).digest() if isinstance(key, bytes) else key.sign(data)


def jwt(alg, key, kid=None, header=None, **claims):
    """Expires in an hour unless told otherwise; a claim that is None is left out."""
    claims = {"sub": "alice", "aud": "chat", "iss": "tests", "exp": int(time.time()) + 3600, **claims}
    claims = {k: v for k, v in claims.items() if v is not None}
    head = {"alg": alg, "typ": "JWT", **({"kid": kid} if kid else {}), **(header or {})}
    text = b64(json.dumps(head).encode()) + "." + b64(json.dumps(claims).encode())
    return text + "." + (b64(signature(alg, key, text.encode())) if key else "")


def token(subject="alice", expires=None, secret=TOKEN_SECRETS[0]):
    text = ("%s|%d" % (subject, int(time.time()) + 3600 if expires is None else expires)).encode()
    return "tg1.%s.%s" % (b64(text), b64(hmac.new(secret, text, hashlib.sha256).digest()))


def write(path, data, mode=0o600):
    """As one would change a key: written beside, then renamed."""
    with open(path + ".new", "wb") as f:
        f.write(data)
    os.chmod(path + ".new", mode)
    os.rename(path + ".new", path)
    return path


def read(path):
    with open(path, "rb") as f:
        return f.read()


def bearer(t):
    return ("Authorization: Bearer " + t,)


def answer(port, path, headers=()):
    """(status, head, body) of a handshake; the connection is closed."""
    s = support.connect(port)
    try:
        s.sendall(support.upgrade_request(path, headers=headers))
        head = support.recv_head(s).decode()
        status = int(head.split(" ")[1])
        return status, head, "" if status == 101 else support.recv_all(s).decode()
    finally:
        s.close()


def raw_answer(port, path, t):
    """('welcome', None) or ('close', code)."""
    s = support.connect(port)
    try:
        s.sendall(support.raw_hello(path, t.encode()))
        kind, payload = support.raw_recv(s)
        return ("welcome", None) if kind == 2 else ("close", int.from_bytes(payload[:2], "big"))
    finally:
        s.close()
