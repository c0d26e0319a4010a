"""Malformed input of raw clients and in PROXY headers: tables as in hostile_cases.py."""

import struct

from hostile_cases import BAD_UTF8, CLIENT_HELLO, EURO, MESSAGE_MAX, Case, request, target
from support import raw_frame, raw_hello

# ------------------------------------------------------------------------------------------------ raw frames

HELLO, WELCOME, TEXT, BINARY, PING, PONG, CLOSE = range(1, 8)


def raw_head(length, kind):
    return struct.pack("!IB", length, kind)


# Before the session: (name, data, close code, kind).
RAW_HELLOS = [
    ("a length of 0", b"\0\0\0\0", 1002, "raw_hello"),
    ("type 0", raw_frame(0, b"\1\5/echo"), 1002, "raw_hello"),
    ("type 8", raw_frame(8, b"\1\5/echo"), 1002, "raw_hello"),
    ("type 255", raw_frame(255), 1002, "raw_hello"),
    ("WELCOME", raw_frame(WELCOME, b"\1" + b"\0" * 8), 1002, "raw_hello"),
    ("TEXT first", raw_frame(TEXT, b"hello"), 1002, "raw_hello"),
    ("BINARY first", raw_frame(BINARY), 1002, "raw_hello"),
    ("PING first", raw_frame(PING), 1002, "raw_hello"),
    ("PONG first", raw_frame(PONG), 1002, "raw_hello"),
    ("CLOSE first", raw_frame(CLOSE), 1002, "raw_hello"),
    ("a TEXT of 4 GiB first", raw_head(0xffffffff, TEXT), 1002, "raw_hello"),
    ("an empty HELLO", raw_frame(HELLO), 1002, "raw_hello"),
    ("a HELLO of one byte", raw_frame(HELLO, b"\1"), 1002, "raw_hello"),
    ("a HELLO without path", raw_frame(HELLO, b"\1\0"), 1002, "raw_hello"),
    ("a HELLO of version 0", raw_frame(HELLO, b"\0\5/echo"), 1002, "raw_hello"),
    ("a HELLO of version 2", raw_frame(HELLO, b"\2\5/echo"), 1002, "raw_hello"),
    ("a path longer than the HELLO", raw_frame(HELLO, b"\1\6/echo"), 1002, "raw_hello"),
    ("a path of 255 that is not there", raw_frame(HELLO, b"\1\xff/echo"), 1002, "raw_hello"),
    ("a path without slash", raw_hello("echo"), 1002, "raw_hello"),
    ("a path with a space", raw_hello("/ec ho"), 1002, "raw_hello"),
    ("a path with a NUL", raw_hello("/echo\0"), 1002, "raw_hello"),
    ("a path beyond ASCII", raw_frame(HELLO, b"\1\6/ech\xc3\xb6"), 1002, "raw_hello"),
    ("an HTTP request", request(), 1002, "raw_hello"),
    ("a TLS ClientHello", CLIENT_HELLO, 1002, "raw_hello"),
    ("ones", b"\xff" * 16, 1002, "raw_hello"),
    ("a HELLO of a byte too many", raw_head(4098, HELLO), 1009, "size"),
    ("a HELLO of 4 GiB", raw_head(0xffffffff, HELLO), 1009, "size"),
    ("an unknown path", raw_hello("/nowhere"), 1008, "route"),
    ("a path that is cut short", raw_frame(HELLO, b"\1\4/echo"), 1008, "route"),
]

RAW_CUT = [
    ("nothing at all", b""),
    ("half a header", raw_hello()[:3]),
    ("half a HELLO", raw_hello()[:8]),
]

# In a session: (name, data, close code, kind, reason, what comes back first).
RAW_SESSION = [
    ("a second HELLO", raw_hello(), 1002, "raw_frame"),
    ("WELCOME in a session", raw_frame(WELCOME, b"\1" + b"\0" * 8), 1002, "raw_frame"),
    ("type 0 in a session", raw_frame(0), 1002, "raw_frame"),
    ("type 8 in a session", raw_frame(8, b"x"), 1002, "raw_frame"),
    ("type 128 in a session", raw_frame(128), 1002, "raw_frame"),
    ("a length of 0 in a session", b"\0\0\0\0", 1002, "raw_frame"),
    ("a PING of 126 bytes", raw_frame(PING, b"x" * 126), 1002, "raw_frame"),
    ("a PONG of 126 bytes", raw_frame(PONG, b"x" * 126), 1002, "raw_frame"),
    ("a CLOSE of 126 bytes", raw_frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002, "raw_frame"),
    ("a PING of 4 GiB", raw_head(0xffffffff, PING), 1002, "raw_frame"),
    ("a CLOSE of one byte", raw_frame(CLOSE, b"\x03"), 1002, "raw_frame"),
    *[("CLOSE %d" % n, raw_frame(CLOSE, struct.pack("!H", n)), 1002, "raw_frame")
      for n in (0, 999, 1005, 1006, 1015, 5000)],
    ("an HTTP request in a session", request(), 1002, "raw_frame"),
    ("noise", bytes((i * 73 + 61) % 256 for i in range(300)), 1002, "raw_frame"),
    *[(name, raw_frame(TEXT, b"ok " + bad + b" ok"), 1007, "utf8") for name, bad in BAD_UTF8],
    ("a TEXT that ends inside a character", raw_frame(TEXT, b"ok \xe2\x82"), 1007, "utf8"),
    ("a bad byte early in a long TEXT", raw_head(4001, TEXT) + b"ok \xff", 1007, "utf8"),
    ("a CLOSE reason with a bad byte", raw_frame(CLOSE, b"\x03\xe8\xff"), 1007, "utf8"),
    ("a TEXT of a byte too many", raw_head(MESSAGE_MAX + 2, TEXT), 1009, "size"),
    ("a BINARY of a byte too many", raw_head(MESSAGE_MAX + 2, BINARY), 1009, "size"),
    ("a BINARY of 4 GiB", raw_head(0xffffffff, BINARY), 1009, "size"),
    ("garbage behind a message", raw_frame(TEXT, b"hello") + b"\0\0\0\0", 1002, "raw_frame", raw_frame(TEXT, b"hello")),
    ("garbage behind a PING", raw_frame(PING, b"?") + b"\xff" * 9, 1002, "raw_frame", raw_frame(PONG, b"?")),
    ("a bad byte behind a good TEXT", raw_frame(TEXT, EURO) + raw_frame(TEXT, EURO[1:]), 1007, "utf8",
     raw_frame(TEXT, EURO)),
]

RAW_SESSION_CUT = [
    ("half a header in a session", raw_frame(TEXT, b"hello")[:2]),
    ("a header and no payload", raw_frame(BINARY, b"hello")[:5]),
    ("half a payload", raw_frame(TEXT, b"hello")[:8]),
    ("half a PING", raw_frame(PING, b"hello")[:8]),
    ("half a CLOSE", raw_frame(CLOSE, b"\x03\xe8")[:6]),
]

RAW_BEFORE = (
    [Case(name, data, want, kind, "handshake") for name, data, want, kind in RAW_HELLOS] +
    [Case(name, data, None, None, "client", fin=True) for name, data in RAW_CUT])
RAW_AFTER = (
    [Case(c[0], c[1], c[2], c[3], "too_big" if c[2] == 1009 else "protocol", *c[4:]) for c in RAW_SESSION] +
    [Case(name, data, None, None, "client", fin=True) for name, data in RAW_SESSION_CUT])

RAW_ACCEPTED = [
    ("a TEXT", raw_frame(TEXT, EURO), raw_frame(TEXT, EURO)),
    ("empty messages", raw_frame(TEXT) + raw_frame(BINARY), raw_frame(TEXT) + raw_frame(BINARY)),
    ("a message of the size allowed", raw_frame(BINARY, b"x" * MESSAGE_MAX), raw_frame(BINARY, b"x" * MESSAGE_MAX)),
    ("a PING of 125 bytes", raw_frame(PING, b"x" * 125), raw_frame(PONG, b"x" * 125)),
    ("an unasked PONG", raw_frame(PONG, b"unasked"), b""),
    ("nothing but CLOSE", b"", b""),
]


# --------------------------------------------------------------------------------------------- PROXY headers

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
INET = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 4711, 443)
INET6 = bytes.fromhex("20010db8" + "0" * 23 + "7" + "20010db8" + "0" * 23 + "1") + struct.pack("!HH", 4712, 443)


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def v1(text):
    return b"PROXY " + text + b"\r\n"


def v2(command=0x21, family=0x11, body=INET, length=None):
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


def tlv(kind, value, length=None):
    return struct.pack("!BH", kind, len(value) if length is None else length) + value


def v2_with_crc(wrong=0):
    plain = v2(body=INET + tlv(3, b"\0\0\0\0"))
    return plain[:-4] + struct.pack("!I", crc32c(plain) ^ wrong)


PROXY_BAD = [
    ("no header but HTTP", request()),
    ("no header but a raw HELLO", raw_hello()),
    ("no header but TLS", CLIENT_HELLO),
    ("a space first", b" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
    ("lower case", b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
    ("PROXY and nothing", b"PROXY\r\n"),
    ("PROXY and a tab", b"PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n"),
    ("two spaces", v1(b" TCP4 1.2.3.4 5.6.7.8 1 2")),
    ("TCP5", v1(b"TCP5 1.2.3.4 5.6.7.8 1 2")),
    ("UDP4", v1(b"UDP4 1.2.3.4 5.6.7.8 1 2")),
    ("UNKNOWNS", v1(b"UNKNOWNS")),
    ("no addresses", v1(b"TCP4")),
    ("an octet of 256", v1(b"TCP4 1.2.3.256 5.6.7.8 1 2")),
    ("three octets", v1(b"TCP4 1.2.3 5.6.7.8 1 2")),
    ("a leading zero", v1(b"TCP4 01.2.3.4 5.6.7.8 1 2")),
    ("a host name", v1(b"TCP4 localhost 5.6.7.8 1 2")),
    ("an IPv6 address of TCP4", v1(b"TCP4 ::1 5.6.7.8 1 2")),
    ("an IPv4 address of TCP6", v1(b"TCP6 1.2.3.4 ::1 1 2")),
    ("a group of five digits", v1(b"TCP6 12345::1 ::1 1 2")),
    ("a scope", v1(b"TCP6 fe80::1%lo ::1 1 2")),
    ("no destination", v1(b"TCP4 1.2.3.4 1 2")),
    ("one port", v1(b"TCP4 1.2.3.4 5.6.7.8 1")),
    ("a third port", v1(b"TCP4 1.2.3.4 5.6.7.8 1 2 3")),
    ("a port of 65536", v1(b"TCP4 1.2.3.4 5.6.7.8 65536 2")),
    ("a negative port", v1(b"TCP4 1.2.3.4 5.6.7.8 -1 2")),
    ("a port with a leading zero", v1(b"TCP4 1.2.3.4 5.6.7.8 01 2")),
    ("an empty port", v1(b"TCP4 1.2.3.4 5.6.7.8  2")),
    ("a bare LF", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"),
    ("a bare CR", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rG"),
    ("a NUL", b"PROXY TCP4 1.2.3.4\0"),
    ("a line of 108 bytes", b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n"),
    ("an address without end", b"PROXY TCP6 " + b"0" * 40),
    ("a v2 signature with a wrong byte", SIGNATURE[:-1] + b"\r" + v2()[12:]),
    ("a v2 signature with a wrong NUL", b"\r\n\r\n\1"),
    ("v2 with version 1", v2(command=0x11)),
    ("v2 with version 3", v2(command=0x31)),
    ("v2 with command 2", v2(command=0x22)),
    ("v2 with family 4", v2(family=0x41)),
    ("v2 of a datagram", v2(family=0x12)),
    ("v2 of no transport", v2(family=0x10)),
    ("v2 too short for IPv4", v2(body=INET[:11])),
    ("v2 too short for IPv6", v2(family=0x21, body=INET6[:35])),
    ("v2 too short for Unix", v2(family=0x31, body=b"\0" * 215)),
    ("v2 of 64 KiB", v2(body=INET, length=65535)),
    ("v2 with a TLV that is too long", v2(body=INET + tlv(4, b"x", 2))),
    ("v2 with half a TLV", v2(body=INET + b"\4\0")),
    ("v2 with a wrong checksum", v2_with_crc(wrong=1)),
    ("v2 with a checksum of 3 bytes", v2(body=INET + tlv(3, b"\0\0\0"))),
    ("v2 with two checksums", v2(body=INET + tlv(3, b"\0\0\0\0") * 2)),
    ("v2 with a short SSL TLV", v2(body=INET + tlv(0x20, b"\1\0\0\0"))),
    ("v2 with an SSL TLV that overflows inside", v2(body=INET + tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"x", 9)))),
]

PROXY_CUT = [
    ("nothing", b""),
    ("half a v1 line", b"PROXY TCP4 1.2."),
    ("a v1 line without LF", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r"),
    ("half a v2 signature", SIGNATURE[:7]),
    ("half a v2 header", v2()[:15]),
    ("half of v2's addresses", v2()[:20]),
    ("a whole v1 line", v1(b"TCP4 1.2.3.4 5.6.7.8 1 2")),
    ("a whole v2 header", v2()),
]

# A good header, and what is behind it is judged as usual: (name, data, status, kind).
PROXY_THEN = [
    ("a second v1 header", v1(b"TCP4 1.2.3.4 5.6.7.8 1 2") * 2, 400, "http"),
    ("a v1 behind a v2 header", v2() + v1(b"TCP4 1.2.3.4 5.6.7.8 1 2"), 400, "http"),
    ("TLS behind a header", v2() + CLIENT_HELLO, 400, "http"),
    ("an unknown path behind a header", v1(b"UNKNOWN") + target(b"/nowhere"), 404, "route"),
]

PROXIES = (
    [Case(name, data, None, "proxy", "handshake") for name, data in PROXY_BAD] +
    [Case(name, data, None, None, "client", fin=True) for name, data in PROXY_CUT] +
    [Case(name, data, want, kind, "handshake") for name, data, want, kind in PROXY_THEN])

# (name, header, the address declared, None: the connection's own; its port).
PROXY_GOOD = [
    ("v1 TCP4", v1(b"TCP4 198.51.100.9 10.0.0.1 50001 443"), "198.51.100.9", 50001),
    ("v1 TCP6", v1(b"TCP6 2001:db8::9 2001:db8::1 50002 443"), "2001:db8::9", 50002),
    ("v1 TCP6 of a mapped address", v1(b"TCP6 ::ffff:198.51.100.10 ::1 50003 443"), "198.51.100.10", 50003),
    ("v1 UNKNOWN", v1(b"UNKNOWN"), None, None),
    ("v1 UNKNOWN and more", v1(b"UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535"), None, None),
    ("v1 of 107 bytes", b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None, None),
    ("v1 of port 65535", v1(b"TCP4 255.255.255.255 0.0.0.0 65535 0"), "255.255.255.255", 65535),
    ("v2 IPv4", v2(), "203.0.113.7", 4711),
    ("v2 IPv6", v2(family=0x21, body=INET6), "2001:db8::7", 4712),
    ("v2 Unix", v2(family=0x31, body=b"/run/x.sock".ljust(108, b"\0") * 2), None, None),
    ("v2 of no family", v2(family=0x00, body=b"whatever"), None, None),
    ("v2 LOCAL", v2(command=0x20, family=0x00, body=b""), None, None),
    ("v2 LOCAL with an address", v2(command=0x20), None, None),
    ("v2 with TLVs", v2(body=INET + tlv(1, b"h2") + tlv(4, b"\0" * 1000) + tlv(0xe0, b"x")), "203.0.113.7", 4711),
    ("v2 with a checksum", v2_with_crc(), "203.0.113.7", 4711),
    ("v2 of 4096 bytes", v2(body=INET + tlv(4, b"\0" * (4096 - 16 - 12 - 3))), "203.0.113.7", 4711),
    ("v2 with an SSL TLV", v2(body=INET + tlv(0x20, b"\1\0\0\0\0" + tlv(0x21, b"TLSv1.3"))), "203.0.113.7", 4711),
]
