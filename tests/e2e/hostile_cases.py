"""Malformed handshakes and WebSocket frames, as tables: what is sent, what the gateway answers, and what it counts.

A case's `want` is the HTTP status, the close code, or None where the connection just ends; `kind` is the
protocol_errors_total it adds one to (None: none), `reason` the closes_total. `echo` is what comes back before that.
"""

import struct
from collections import namedtuple

from support import KEY, raw_hello, ws_frame

# What the gateway of the test is configured with.
HEAD_MAX, HEADERS_MAX, MESSAGE_MAX = 2048, 16, 4096
TARGET_MAX = HEAD_MAX // 2

Case = namedtuple("Case", "name data want kind reason echo fin", defaults=(b"", False))

CLIENT_HELLO = bytes.fromhex("160301006c010000680303") + bytes(range(32)) + bytes.fromhex(
    "20") + bytes(range(32)) + bytes.fromhex("0008130213031301c02f0100001700000013001100000e") + b"localhost"
H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"


# ------------------------------------------------------------------------------------------------ handshakes

BASE = {"Host": "localhost", "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13"}


def request(line=b"GET /echo HTTP/1.1\r\n", more=b"", body=b"", end=b"\r\n", **headers):
    """The usual request with some headers replaced (None: left out; sec_x: Sec-WebSocket-X) and raw lines added."""
    out = dict(BASE)
    for name, value in headers.items():
        name = "Sec-WebSocket-" + name[4:].title() if name.startswith("sec_") else name.title()
        if value is None:
            del out[name]
        else:
            out[name] = value
    return line + b"".join(b"%s: %s\r\n" % (k.encode(), v.encode()) for k, v in out.items()) + more + end + body


def line(text):
    return request(line=text + b"\r\n")


def target(text):
    return line(b"GET " + text + b" HTTP/1.1")


def origin(value):
    return request(line=b"GET /origins HTTP/1.1\r\n", more=b"Origin: %s\r\n" % value)


def head_of(size):
    """A valid request head of exactly `size` bytes."""
    short = request(more=b"X: \r\n")
    return request(more=b"X: " + b"x" * (size - len(short)) + b"\r\n")


HTTP_400 = [
    # the request line
    ("an empty line first", b"\r\n" + request()),
    ("a bare LF first", b"\n" + request()),
    ("a NUL first", b"\0" + request()),
    ("a byte order mark first", b"\xef\xbb\xbf" + request()),
    ("a space first", b" " + request()),
    ("two spaces before the target", line(b"GET  /echo HTTP/1.1")),
    ("a tab before the target", line(b"GET\t/echo HTTP/1.1")),
    ("two spaces behind the target", line(b"GET /echo  HTTP/1.1")),
    ("a tab behind the target", line(b"GET /echo\tHTTP/1.1")),
    ("a space behind the version", line(b"GET /echo HTTP/1.1 ")),
    ("no version in the request line", line(b"GET /echo")),
    ("no target", line(b"GET")),
    ("a version in lower case", line(b"GET /echo http/1.1")),
    ("a version of one number", line(b"GET /echo HTTP/11")),
    ("a version of three digits", line(b"GET /echo HTTP/1.10")),
    ("another protocol's version", line(b"GET /echo RTSP/1.0")),
    ("a request line that ends in LF", request(line=b"GET /echo HTTP/1.1\n")),
    ("a request line that ends in CR", request(line=b"GET /echo HTTP/1.1\r")),
    ("a relative target", target(b"echo")),
    ("an absolute target", target(b"http://localhost/echo")),
    ("an asterisk target", line(b"OPTIONS * HTTP/1.1")),
    ("an authority target", line(b"CONNECT localhost:80 HTTP/1.1")),
    ("a method with a parenthesis", line(b"GE(T /echo HTTP/1.1")),
    ("a method of 33 letters", line(b"G" * 33 + b" /echo HTTP/1.1")),
    ("a method without end", b"A" * 4000),
    ("a NUL in the target", target(b"/ec\0ho")),
    ("a control character in the target", target(b"/ec\x1bho")),
    ("DEL in the target", target(b"/ec\x7fho")),
    ("UTF-8 in the target", target("/écho".encode())),
    ("a fragment in the target", target(b"/echo#top")),
    ("a quote in the query", target(b"/echo?a=\"b\"")),
    ("percent and no hexadecimal", target(b"/echo%zz")),
    ("percent and one digit", target(b"/echo%2")),
    ("percent and nothing", target(b"/echo%")),
    # Host
    ("no Host", request(host=None)),
    ("an empty Host", request(host="")),
    ("two Hosts", request(more=b"Host: localhost\r\n")),
    ("two words in Host", request(host="local host")),
    ("a Host with a path", request(host="localhost/echo")),
    ("a Host with a user", request(host="user@localhost")),
    ("a Host with a port of 65536", request(host="localhost:65536")),
    ("a Host with a port that is none", request(host="localhost:http")),
    ("a Host with an open bracket", request(host="[::1")),
    ("a Host of brackets only", request(host="[]")),
    # header lines
    ("a folded header", request(more=b"X: a\r\n b\r\n")),
    ("a header folded by a tab", request(more=b"X: a\r\n\tb\r\n")),
    ("a space before the first header", request(line=b"GET /echo HTTP/1.1\r\n ")),
    ("a space before the colon", request(more=b"X : a\r\n")),
    ("a tab before the colon", request(more=b"X\t: a\r\n")),
    ("no colon", request(more=b"X\r\n")),
    ("no header name", request(more=b": a\r\n")),
    ("a header name of two words", request(more=b"X Y: a\r\n")),
    ("a parenthesis in a header name", request(more=b"X(Y): a\r\n")),
    ("UTF-8 in a header name", request(more="É: a\r\n".encode())),
    ("a NUL in a header name", request(more=b"X\0: a\r\n")),
    ("a NUL in a value", request(more=b"X: a\0b\r\n")),
    ("a control character in a value", request(more=b"X: a\x01b\r\n")),
    ("DEL in a value", request(more=b"X: a\x7fb\r\n")),
    ("a header that ends in LF", request(more=b"X: a\n")),
    ("a bare CR in a value", request(more=b"X: a\rb\r\n")),
    ("a header that ends in CR CR LF", request(more=b"X: a\r\r\n")),
    ("an empty line of LF", request(end=b"\n")),
    ("an empty line of CR", request(end=b"\rX")),
    # lengths
    ("two Content-Lengths", request(more=b"Content-Length: 0\r\nContent-Length: 0\r\n")),
    ("a list in Content-Length", request(more=b"Content-Length: 0, 0\r\n")),
    ("an empty Content-Length", request(more=b"Content-Length: \r\n")),
    ("a negative Content-Length", request(more=b"Content-Length: -1\r\n")),
    ("a hexadecimal Content-Length", request(more=b"Content-Length: 0x0\r\n")),
    ("Content-Length and Transfer-Encoding", request(more=b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
    ("Transfer-Encoding and Content-Length", request(more=b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n")),
    # the handshake's own headers
    ("no Connection", request(connection=None)),
    ("Connection without Upgrade", request(connection="keep-alive")),
    ("Connection of a longer word", request(connection="Upgraded")),
    ("no key", request(sec_key=None)),
    ("an empty key", request(sec_key="")),
    ("a key of 15 bytes", request(sec_key="MDEyMzQ1Njc4OWFiY2Rl")),
    ("a key of 17 bytes", request(sec_key="MDEyMzQ1Njc4OWFiY2RlZmc=")),
    ("a key without padding", request(sec_key=KEY[:-2])),
    ("a key that is not base64", request(sec_key="!" + KEY[1:])),
    ("a key in the URL alphabet", request(sec_key="-_" + KEY[2:])),
    ("two keys", request(more=b"Sec-WebSocket-Key: %s\r\n" % KEY.encode())),
    ("two versions", request(more=b"Sec-WebSocket-Version: 13\r\n")),
    ("two Origins", request(more=b"Origin: http://a\r\nOrigin: http://a\r\n")),
    ("an empty subprotocol list", request(sec_protocol="")),
    ("a comma for a subprotocol list", request(sec_protocol=",")),
    ("an empty subprotocol", request(sec_protocol="a,,b")),
    ("a subprotocol of two words", request(sec_protocol="a b")),
    ("a quoted subprotocol", request(sec_protocol="\"a\"")),
    ("a subprotocol with a slash", request(sec_protocol="a/b")),
    # other protocols
    ("a TLS ClientHello", CLIENT_HELLO),
    ("an SSL 2 hello", bytes.fromhex("802e0100020015000000100100800300800700c0060040020080040080")),
    ("the HTTP/2 preface", H2_PREFACE),
    ("an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("SMTP", b"EHLO localhost\r\n"),
    ("a Redis command", b"*1\r\n$4\r\nPING\r\n"),
    ("a PROXY v1 header", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request()),
    ("a PROXY v2 signature", b"\r\n\r\n\0\r\nQUIT\n" + request()),
    ("a WebSocket frame", ws_frame(1, b"hello")),
    ("a raw HELLO", raw_hello()),
    ("bytes from 255 down", bytes(range(255, -1, -1))),
    ("a lone byte 0xff", b"\xff"),
]

HTTP_OTHER = [
    (403, "another Origin", origin(b"https://example.net")),
    (403, "the Origin null", origin(b"null")),
    (403, "an empty Origin", origin(b"")),
    (403, "an Origin of another scheme", origin(b"http://example.com")),
    (403, "an Origin with a port", origin(b"https://example.com:8")),
    (403, "an Origin that goes on", origin(b"https://example.com.example.net")),
    (403, "an Origin that ends alike", origin(b"https://badexample.org")),
    (404, "an unknown path", target(b"/nowhere")),
    (404, "the root", target(b"/")),
    (404, "a slash behind the path", target(b"/echo/")),
    (404, "two slashes before the path", target(b"//echo")),
    (404, "a path in capitals", target(b"/ECHO")),
    (404, "an encoded letter in the path", target(b"/%65cho")),
    (404, "dots in the path", target(b"/x/../echo")),
    (405, "POST", line(b"POST /echo HTTP/1.1")),
    (405, "HEAD", line(b"HEAD /echo HTTP/1.1")),
    (405, "OPTIONS", line(b"OPTIONS /echo HTTP/1.1")),
    (405, "PUT with a body", request(line=b"PUT /echo HTTP/1.1\r\n", more=b"Content-Length: 4\r\n", body=b"body")),
    (405, "get in lower case", line(b"get /echo HTTP/1.1")),
    (405, "GET and more", line(b"GETS /echo HTTP/1.1")),
    (413, "a body", request(more=b"Content-Length: 5\r\n", body=b"hello")),
    (413, "a chunked body", request(more=b"Transfer-Encoding: chunked\r\n", body=b"1\r\na\r\n0\r\n\r\n")),
    (413, "a body of 10^30 bytes", request(more=b"Content-Length: 1" + b"0" * 30 + b"\r\n")),
    (414, "a target of a byte too many", target(b"/" + b"a" * TARGET_MAX)),
    (414, "a query of a byte too many", target(b"/echo?" + b"a" * (TARGET_MAX - 5))),
    (414, "a target without end", b"GET /" + b"a" * HEAD_MAX),
    (426, "no Upgrade", request(upgrade=None)),
    (426, "a plain GET", b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    (426, "an Upgrade to h2c", request(upgrade="h2c")),
    (426, "an Upgrade to websockets", request(upgrade="websockets")),
    (426, "no version", request(sec_version=None)),
    (426, "an empty version", request(sec_version="")),
    (426, "version 8", request(sec_version="8")),
    (426, "version 14", request(sec_version="14")),
    (426, "version 013", request(sec_version="013")),
    (426, "a list of versions", request(sec_version="13, 8")),
    (431, "a header too many", request(more=b"X: a\r\n" * (HEADERS_MAX - len(BASE) + 1))),
    (431, "a head of a byte too many", head_of(HEAD_MAX + 1)),
    (431, "a value without end", request(end=b"X: " + b"x" * HEAD_MAX)),
    (431, "a header name without end", request(end=b"x" * HEAD_MAX)),
    (431, "blanks without end", request(end=b"X:" + b" " * HEAD_MAX)),
    (505, "HTTP/1.0", line(b"GET /echo HTTP/1.0")),
    (505, "HTTP/1.2", line(b"GET /echo HTTP/1.2")),
    (505, "HTTP/0.9", line(b"GET /echo HTTP/0.9")),
    (505, "HTTP/2.0", line(b"GET /echo HTTP/2.0")),
]

# Given up by the client half-way: nothing to answer, nothing malformed yet.
HTTP_CUT = [
    ("nothing at all", b""),
    ("one byte", b"G"),
    ("half a request line", b"GET /ec"),
    ("half a header", request()[:60]),
    ("all but the last byte", request()[:-1]),
]

# Unusual, and right: the strictness above must not refuse these.
HTTP_ACCEPTED = [
    ("a head of just the size allowed", head_of(HEAD_MAX)),
    ("as many headers as allowed", request(more=b"X: a\r\n" * (HEADERS_MAX - len(BASE)))),
    ("a query of just the size allowed", target(b"/echo?" + b"a" * (TARGET_MAX - 6))),
    ("header names in capitals", request().upper().replace(KEY.upper().encode(), KEY.encode()).replace(
        b"GET /ECHO", b"GET /echo")),
    ("Connection as a list over two lines", request(connection="keep-alive, x", more=b"Connection: , uPGRADE\r\n")),
    ("Upgrade as a list", request(upgrade="h2c, WebSocket")),
    ("blanks around the values", request(sec_version=" \t13\t ", host="  localhost  ")),
    ("an absent Origin where origins are listed", request(line=b"GET /origins HTTP/1.1\r\n")),
    ("an Origin that is listed", origin(b"https://EXAMPLE.com")),
    ("a sub-domain that is listed", origin(b"https://a.b.example.org")),
    ("a body of length 0", request(more=b"Content-Length: 0\r\n")),
    ("high bytes in a value", request(more=b"X: \xff\xfe\r\n")),
]

HTTP_KINDS = {403: "origin", 404: "route"}

HANDSHAKES = (
    [Case(name, data, 400, "http", "handshake") for name, data in HTTP_400] +
    [Case(name, data, status, HTTP_KINDS.get(status, "http"), "handshake") for status, name, data in HTTP_OTHER] +
    [Case(name, data, None, None, "client", fin=True) for name, data in HTTP_CUT])


# ------------------------------------------------------------------------------------------ WebSocket frames

def head(op, length_bytes, fin=True, masked=True):
    """A frame header whose length field is given as it stands."""
    short, rest = length_bytes[0], length_bytes[1:]
    return bytes([(0x80 if fin else 0) | op, (0x80 if masked else 0) | short]) + rest + (b"\1\2\3\4" if masked else b"")


def close(payload):
    return ws_frame(8, payload)


def code(n, reason=b""):
    return close(struct.pack("!H", n) + reason)


def ping(payload=b""):
    return ws_frame(9, payload)


def pong_of(payload=b""):
    return ws_frame(10, payload, mask=None)


def part(op, payload, fin=False):
    return ws_frame(op, payload, fin=fin)


def answer(payload, op=1):
    return ws_frame(op, payload, mask=None)


BAD_OPCODES = [3, 4, 5, 6, 7, 11, 12, 13, 14, 15]
BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535]
BAD_UTF8 = [
    ("a continuation byte first", b"\x80"),
    ("a byte that never occurs", b"\xff"),
    ("an overlong slash of two bytes", b"\xc0\xaf"),
    ("an overlong slash of three bytes", b"\xe0\x80\xaf"),
    ("an overlong slash of four bytes", b"\xf0\x80\x80\xaf"),
    ("a surrogate", b"\xed\xa0\x80"),
    ("a character above U+10FFFF", b"\xf4\x90\x80\x80"),
    ("a lead byte above F4", b"\xf5\x80\x80\x80"),
    ("a character cut by ASCII", b"\xe2\x82A"),
]

WS_1002 = [
    *[("reserved bits %d" % rsv, ws_frame(1, b"hello", rsv=rsv)) for rsv in (1, 2, 4, 7)],
    ("a reserved bit on an empty binary frame", ws_frame(2, rsv=4)),
    ("a reserved bit on a ping", ws_frame(9, rsv=4)),
    ("a reserved bit on a close frame", ws_frame(8, rsv=1)),
    ("a reserved bit on a continuation", part(1, b"a") + ws_frame(0, b"b", rsv=4)),
    *[("opcode %d" % op, ws_frame(op, b"x")) for op in BAD_OPCODES],
    ("an unmasked text", ws_frame(1, b"hello", mask=None)),
    ("an unmasked empty text", ws_frame(1, mask=None)),
    ("an unmasked binary frame", ws_frame(2, b"x" * 200, mask=None)),
    ("an unmasked ping", ws_frame(9, mask=None)),
    ("an unmasked close frame", ws_frame(8, b"\x03\xe8", mask=None)),
    ("an unmasked continuation", part(1, b"a") + ws_frame(0, b"b", mask=None)),
    ("a fragmented ping", part(9, b"x")),
    ("a fragmented pong", part(10, b"")),
    ("a fragmented close frame", part(8, b"\x03\xe8")),
    ("a ping of 126 bytes", ping(b"x" * 126)),
    ("a pong of 126 bytes", ws_frame(10, b"x" * 126)),
    ("a close frame of 126 bytes", close(b"\x03\xe8" + b"x" * 124)),
    ("a ping with a length of 64 bits", head(9, b"\x7f" + struct.pack("!Q", 5)) + b"hello"),
    ("a continuation of nothing", part(0, b"x")),
    ("a last continuation of nothing", ws_frame(0, b"x")),
    ("an empty last continuation of nothing", ws_frame(0)),
    ("a text inside a text", part(1, b"a") + ws_frame(1, b"b")),
    ("a binary frame inside a text", part(1, b"a") + ws_frame(2, b"b")),
    ("the start of a text inside a text", part(1, b"a") + part(1, b"b")),
    ("a text behind three fragments", part(2, b"a") + part(0, b"b") + part(0, b"") + ws_frame(1, b"c")),
    ("a length of 16 bits that fits 7", head(2, b"\x7e\x00\x05") + b"hello"),
    ("a length of 0 in 16 bits", head(2, b"\x7e\x00\x00")),
    ("a length of 125 in 16 bits", head(1, b"\x7e\x00\x7d")),
    ("a length of 64 bits that fits 7", head(2, b"\x7f" + struct.pack("!Q", 5)) + b"hello"),
    ("a length of 64 bits that fits 16", head(2, b"\x7f" + struct.pack("!Q", 65535))),
    ("a length with the top bit", head(2, b"\x7f\x80" + b"\0" * 7)),
    ("a length of all ones", head(1, b"\x7f" + b"\xff" * 8)),
    ("a close frame of one byte", close(b"\x03")),
    *[("close code %d" % n, code(n)) for n in BAD_CODES],
    ("close code 1005 with a reason", code(1005, b"none")),
    ("an HTTP request", request()),
    ("a TLS ClientHello", CLIENT_HELLO),
    ("zeros", b"\0" * 64),
    ("ones", b"\xff" * 64),
    ("noise", bytes((i * 73 + 61) % 256 for i in range(300))),
]

# With something good before it: (name, data, what comes back first).
WS_1002_AFTER = [
    ("a continuation behind a whole message", ws_frame(1, b"one") + ws_frame(0, b"two"), answer(b"one")),
    ("garbage behind a message", ws_frame(2, b"x" * 200) + b"\xff\xff\xff\xff", answer(b"x" * 200, 2)),
    ("garbage behind a fragmented message", part(1, b"on") + part(0, b"") + part(0, b"e", True) + b"GET /",
     answer(b"one")),
    ("garbage behind a fragment and a ping", part(1, b"on") + ping(b"p") + b"\x03\x80", pong_of(b"p")),
    ("a text inside a text behind a ping", part(1, b"a") + ping(b"?") + ws_frame(1, b"b"), pong_of(b"?")),
    ("a message of fragments, then a lone one", part(2, b"a") + part(0, b"b", True) + ws_frame(0, b"c"),
     answer(b"ab", 2)),
]

WS_1007 = [
    *[(name, ws_frame(1, b"ok " + bad + b" ok")) for name, bad in BAD_UTF8],
    ("a text that ends inside a character", ws_frame(1, b"ok \xe2\x82")),
    ("a text that is half a character", ws_frame(1, b"\xf0\x9f\x98")),
    ("a character cut by the end of a fragmented text", part(1, b"\xe2") + part(0, b"\x82", True)),
    ("a character cut by an empty last fragment", part(1, b"ok \xe2\x82") + ws_frame(0)),
    ("a character that goes on wrong in the next fragment", part(1, b"\xe2\x82") + ws_frame(0, b"\x28")),
    ("a character begun twice over two fragments", part(1, b"\xe2\x82") + ws_frame(0, b"\xe2\x82\xac")),
    ("an overlong form over two fragments", part(1, b"\xe0") + part(0, b"\x80\x80")),
    ("a surrogate over three fragments", part(1, b"\xed") + part(0, b"\xa0") + part(0, b"\x80")),
    ("a bad byte in the third fragment", part(1, b"ok") + part(0, "é".encode()) + part(0, b"\xff")),
    # failing fast: the rest of the frame, or of the message, never comes
    ("a bad byte early in a long text", head(1, b"\x7e\x0f\xa0") + b"\x01\x02\x03\xfb"),
    ("a bad byte in a fragment without end", head(1, b"\x7e\x0f\xa0", fin=False) + bytes([ord("a") ^ 1, 0xfe ^ 2])),
    ("a bad byte at the end of a first fragment", part(1, b"long " * 500 + b"\xc1")),
    ("a close reason with a bad byte", code(1000, b"bye \xff")),
    ("a close reason cut inside a character", code(1000, b"bye \xe2\x82")),
    ("a close reason with a surrogate", code(3000, b"\xed\xbf\xbf")),
]

WS_1007_AFTER = [
    ("a bad byte behind a good message", ws_frame(1, "ü".encode()) + ws_frame(1, b"\xfc"), answer("ü".encode())),
    ("a bad byte behind a ping inside the text", part(1, b"\xe2\x82") + ping(b"!") + ws_frame(0, b"x"), pong_of(b"!")),
]

# The header alone says it: no payload follows.
WS_1009 = [
    ("a text of a byte too many", head(1, b"\x7e" + struct.pack("!H", MESSAGE_MAX + 1))),
    ("a binary frame of a byte too many", head(2, b"\x7e" + struct.pack("!H", MESSAGE_MAX + 1))),
    ("a binary frame of 64 KiB", head(2, b"\x7f" + struct.pack("!Q", 65536))),
    ("a text of 4 GiB", head(1, b"\x7f" + struct.pack("!Q", 1 << 32))),
    ("a text of 2^63 - 1 bytes", head(1, b"\x7f" + struct.pack("!Q", (1 << 63) - 1))),
    ("a first fragment too big", head(2, b"\x7e" + struct.pack("!H", MESSAGE_MAX + 1), fin=False)),
    ("a second fragment of a byte too many", part(2, b"x" * MESSAGE_MAX) + head(0, b"\x01")),
    ("two fragments and a byte", part(1, b"x" * 4000) + head(0, b"\x61")),
    ("a sum of lengths above 2^63", part(2, b"x") + head(0, b"\x7f" + struct.pack("!Q", (1 << 63) - 1))),
    ("a hundred fragments too big together", part(1, b"") + part(0, b"x" * 41) * 100),
]

WS_CUT = [
    ("the first byte of a frame", ws_frame(1, b"hello")[:1]),
    ("half a 16-bit length", ws_frame(2, b"x" * 200)[:3]),
    ("half a 64-bit length", head(2, b"\x7f" + struct.pack("!Q", 65536))[:6]),
    ("half a mask", ws_frame(1, b"hello")[:4]),
    ("half a payload", ws_frame(1, b"hello")[:8]),
    ("a first fragment", part(1, b"hello")),
    ("a first fragment and half a second", part(2, b"hello") + part(0, b"world")[:9]),
    ("half a ping", ping(b"hello")[:9]),
    ("half a ping inside a message", part(1, b"a") + ping(b"hello")[:9]),
    ("half a close frame", code(1000, b"bye")[:7]),
]

FRAMES = (
    [Case(name, data, 1002, "ws_frame", "protocol") for name, data in WS_1002] +
    [Case(name, data, 1002, "ws_frame", "protocol", echo) for name, data, echo in WS_1002_AFTER] +
    [Case(name, data, 1007, "utf8", "protocol") for name, data in WS_1007] +
    [Case(name, data, 1007, "utf8", "protocol", echo) for name, data, echo in WS_1007_AFTER] +
    [Case(name, data, 1009, "size", "too_big") for name, data in WS_1009] +
    [Case(name, data, None, None, "client", fin=True) for name, data in WS_CUT])

# Right, however odd: answered, then the client's own close is.
EURO = "\u20ac".encode()
FRAMES_ACCEPTED = [
    ("a text cut between all bytes of a character", part(1, EURO[:1]) + part(0, EURO[1:2]) + part(0, EURO[2:], True),
     answer(EURO)),
    ("a character over a ping", part(1, EURO[:2]) + ping(b"?") + part(0, EURO[2:], True), pong_of(b"?") + answer(EURO)),
    ("empty fragments", part(2, b"") + part(0, b"") + part(0, b"", True), answer(b"", 2)),
    ("a message of the size allowed", ws_frame(2, b"x" * MESSAGE_MAX), answer(b"x" * MESSAGE_MAX, 2)),
    ("that in two fragments", part(1, b"x" * (MESSAGE_MAX - 1)) + part(0, b"y", True),
     answer(b"x" * (MESSAGE_MAX - 1) + b"y")),
    ("a ping of 125 bytes", ping(b"x" * 125), pong_of(b"x" * 125)),
    ("an unasked pong", ws_frame(10, b"unasked"), b""),
    ("a mask of zeros", ws_frame(1, b"hello", mask=b"\0\0\0\0"), answer(b"hello")),
    ("nothing but the close frame", b"", b""),
]
