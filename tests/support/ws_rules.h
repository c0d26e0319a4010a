/* The rules of RFC 6455 as a table, numbered by the sections of the Autobahn test suite. Logs are
 * explained in ws_log.h; a log is that of the whole input arriving at once. */
#ifndef TIDEGATE_TESTS_WS_RULES_H
#define TIDEGATE_TESTS_WS_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/ws.h"

/* First bytes of frames. */
enum {
	CONT = 0x00,
	TEXT = 0x01,
	BINARY = 0x02,
	FIN = 0x80,
	WHOLE_TEXT = FIN | TEXT,
	WHOLE_BINARY = FIN | BINARY,
	CLOSE = FIN | WS_CLOSE,
	PING = FIN | WS_PING,
	PONG = FIN | WS_PONG,
};

enum {
	FRAMES_MAX = 10
};

struct frame {
	uint8_t first;
	uint8_t len;
	const char *payload; /* NULL: no more frames */
};

struct rule {
	const char *name;
	struct frame frames[FRAMES_MAX];
	const char *raw; /* bytes behind the frames, sent as they are; for the server side unless
			    raw_client */
	size_t raw_len;
	bool raw_client;
	uint64_t message_max; /* 0: not the subject */
	const char *log;
	uint16_t close;
};

#define F(first, payload)                                                                          \
	{                                                                                          \
		first, sizeof(payload) - 1, payload                                                \
	}
#define RAW(bytes)        .raw = bytes, .raw_len = sizeof(bytes) - 1
#define RAW_CLIENT(bytes) RAW(bytes), .raw_client = true
#define X25               "xxxxxxxxxxxxxxxxxxxxxxxxx"
#define X125              X25 X25 X25 X25 X25
#define KEY               "\x37\xfa\x21\x3d"
#define KOSME             "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
#define KOSME_LOG         "\\ce\\ba\\e1\\bd\\b9\\cf\\83\\ce\\bc\\ce\\b5"

static const struct rule rules[] = {
	/* 1: messages */
	{"1 nothing", .log = ""},
	{"1 empty text", {F(WHOLE_TEXT, "")}, .log = "T[]"},
	{"1 empty binary", {F(WHOLE_BINARY, "")}, .log = "B[]"},
	{"1 text", {F(WHOLE_TEXT, "Hello")}, .log = "T[Hello]"},
	{"1 binary", {F(WHOLE_BINARY, "\x00\xff\xfe")}, .log = "B[\\00\\ff\\fe]"},
	{"1 125 bytes", {F(WHOLE_TEXT, X125)}, .log = "T[" X125 "]"},
	{"1 126 bytes", {F(WHOLE_TEXT, X125 "y")}, .log = "T[" X125 "y]"},
	{"1 128 bytes", {F(WHOLE_BINARY, X125 "yyy")}, .log = "B[" X125 "yyy]"},
	{"1 pipelined", {F(WHOLE_TEXT, "a"), F(WHOLE_BINARY, "bc"), F(WHOLE_TEXT, "")},
		.log = "T[a]B[bc]T[]"},
	{"1 header of the next", {F(WHOLE_TEXT, "a")}, RAW("\x81"), .log = "T[a]"},
	{"1 frame of RFC 6455 5.7", RAW("\x81\x85" KEY "\x7f\x9f\x4d\x51\x58"), .log = "T[Hello]"},
	{"1 length like a first byte", RAW("\x81\x82\x80\x00\x00\x00\xe1\x62"), .log = "T[ab]"},
	{"1 mask like a header", RAW("\x81\x85\x82\x80\x00\x00\xca\xe5ll\xed"), .log = "T[Hello]"},
	{"1 same, from a server", RAW_CLIENT("\x81\x05Hello"), .log = "T[Hello]"},
	{"1 same, in two fragments", RAW_CLIENT("\x01\x03Hel\x80\x02lo"), .log = "T[Hello]"},
	{"1 half a payload", RAW_CLIENT("\x81\x05Hel"), .log = "T[Hel"},

	/* 2: pings and pongs */
	{"2.1 empty ping", {F(PING, "")}, .log = "p{}"},
	{"2.2 ping", {F(PING, "Hello, world!")}, .log = "p{Hello, world!}"},
	{"2.3 binary ping", {F(PING, "\x00\xff\xfe\xfd")}, .log = "p{\\00\\ff\\fe\\fd}"},
	{"2.4 ping of 125", {F(PING, X125)}, .log = "p{" X125 "}"},
	{"2.5 ping of 126", {F(PING, X125 "x")}, .log = "", .close = 1002},
	{"2.7 empty pong", {F(PONG, "")}, .log = "o{}"},
	{"2.8 pong", {F(PONG, "x")}, .log = "o{x}"},
	{"2.9 pong, then ping", {F(PONG, "x"), F(PING, "y")}, .log = "o{x}p{y}"},
	{"2.10 pings in a row", {F(PING, "1"), F(PING, "2"), F(PING, "3"), F(PING, "")},
		.log = "p{1}p{2}p{3}p{}"},
	{"2 pong of 126", {F(PONG, X125 "x")}, .log = "", .close = 1002},
	{"2 close of 126", {F(CLOSE, X125 "x")}, .log = "", .close = 1002},
	{"2 ping with 64-bit length", RAW("\x89\xff"), .log = "", .close = 1002},

	/* 3: reserved bits */
	{"3.1 rsv3", {F(WHOLE_TEXT | 0x10, "x")}, .log = "", .close = 1002},
	{"3.2 rsv2 after a message", {F(WHOLE_TEXT, "ok"), F(WHOLE_TEXT | 0x20, "x")},
		.log = "T[ok]", .close = 1002},
	{"3.3 rsv2+3", {F(WHOLE_TEXT, "ok"), F(WHOLE_TEXT | 0x30, "x")}, .log = "T[ok]",
		.close = 1002},
	{"3.4 rsv1", {F(WHOLE_TEXT | 0x40, "x")}, .log = "", .close = 1002},
	{"3.5 rsv1+3, binary", {F(WHOLE_BINARY | 0x50, "x")}, .log = "", .close = 1002},
	{"3.6 rsv1+2, ping", {F(PING | 0x60, "x")}, .log = "", .close = 1002},
	{"3.7 all, close", {F(CLOSE | 0x70, "\x03\xe8")}, .log = "", .close = 1002},
	{"3 rsv1 in a continuation", {F(TEXT, "a"), F(FIN | 0x40, "b")}, .log = "T[a",
		.close = 1002},

	/* 4: reserved opcodes */
	{"4.1.1 opcode 3", {F(FIN | 3, "")}, .log = "", .close = 1002},
	{"4.1.2 opcode 4", {F(FIN | 4, "x")}, .log = "", .close = 1002},
	{"4.1.3 opcode 5", {F(WHOLE_TEXT, "ok"), F(FIN | 5, "")}, .log = "T[ok]", .close = 1002},
	{"4.1.4 opcode 6", {F(WHOLE_TEXT, "ok"), F(FIN | 6, "x")}, .log = "T[ok]", .close = 1002},
	{"4.1.5 opcode 7", {F(WHOLE_TEXT, "ok"), F(FIN | 7, "x")}, .log = "T[ok]", .close = 1002},
	{"4.2.1 opcode 11", {F(FIN | 11, "")}, .log = "", .close = 1002},
	{"4.2.2 opcode 12", {F(FIN | 12, "x")}, .log = "", .close = 1002},
	{"4.2.3 opcode 13", {F(WHOLE_TEXT, "ok"), F(FIN | 13, "")}, .log = "T[ok]", .close = 1002},
	{"4.2.4 opcode 14", {F(PING, ""), F(FIN | 14, "x")}, .log = "p{}", .close = 1002},
	{"4.2.5 opcode 15", {F(PING, ""), F(FIN | 15, "x")}, .log = "p{}", .close = 1002},
	{"4 opcode 3 inside a message", {F(TEXT, "a"), F(3, "x")}, .log = "T[a", .close = 1002},

	/* 5: fragmentation */
	{"5.1 ping in two fragments", {F(WS_PING, "a"), F(FIN, "b")}, .log = "", .close = 1002},
	{"5.2 pong in two fragments", {F(WS_PONG, "a"), F(FIN, "b")}, .log = "", .close = 1002},
	{"5 close in two fragments", {F(WS_CLOSE, "\x03\xe8"), F(FIN, "b")}, .log = "",
		.close = 1002},
	{"5.3 two fragments", {F(TEXT, "frag1"), F(FIN, "frag2")}, .log = "T[frag1frag2]"},
	{"5.6 ping in between", {F(TEXT, "a"), F(PING, "p"), F(FIN, "b")}, .log = "T[ap{p}b]"},
	{"5 all controls in between",
		{F(BINARY, "a"), F(PING, "p"), F(PONG, ""), F(CLOSE, "\x03\xe8"), F(FIN, "b")},
		.log = "B[ap{p}o{}c{\\03\\e8}b]"},
	{"5.9 nothing to continue", {F(FIN, "x")}, .log = "", .close = 1002},
	{"5.10 after a whole message", {F(WHOLE_TEXT, "a"), F(FIN, "x")}, .log = "T[a]",
		.close = 1002},
	{"5.12 not final either", {F(CONT, "x"), F(WHOLE_TEXT, "a")}, .log = "", .close = 1002},
	{"5.15 continued after its end", {F(TEXT, "a"), F(FIN, "b"), F(CONT, "c")}, .log = "T[ab]",
		.close = 1002},
	{"5.18 text inside text", {F(TEXT, "a"), F(WHOLE_TEXT, "b")}, .log = "T[a", .close = 1002},
	{"5 binary inside text", {F(TEXT, "a"), F(BINARY, "b")}, .log = "T[a", .close = 1002},
	{"5.19 many fragments, pings",
		{F(TEXT, "1"), F(CONT, "2"), F(PING, "p"), F(CONT, "3"), F(CONT, "4"), F(PING, "q"),
			F(FIN, "5")},
		.log = "T[12p{p}34p{q}5]"},
	{"5 empty fragments", {F(TEXT, ""), F(CONT, ""), F(FIN, "")}, .log = "T[]"},
	{"5 some empty fragments", {F(TEXT, ""), F(CONT, "ab"), F(CONT, ""), F(FIN, "")},
		.log = "T[ab]"},
	{"5 one message after another", {F(BINARY, "a"), F(FIN, "b"), F(TEXT, "c"), F(FIN, "")},
		.log = "B[ab]T[c]"},

	/* 6: UTF-8 */
	{"6.1 empty fragments of text", {F(TEXT, ""), F(CONT, KOSME), F(FIN, "")},
		.log = "T[" KOSME_LOG "]"},
	{"6.2 cut inside a character", {F(TEXT, "\xe1"), F(CONT, "\xbd"), F(FIN, "\xb9")},
		.log = "T[\\e1\\bd\\b9]"},
	{"6 ping inside a character", {F(TEXT, "\xc3"), F(PING, "\xff"), F(FIN, "\xa9")},
		.log = "T[\\c3p{\\ff}\\a9]"},
	{"6.3 surrogate", {F(WHOLE_TEXT, KOSME "\xed\xa0\x80 edited")}, .log = "", .close = 1007},
	{"6.4 fails at the fragment", {F(TEXT, KOSME), F(CONT, "\xf4\x90\x80\x80"), F(FIN, "x")},
		.log = "T[" KOSME_LOG, .close = 1007},
	{"6.4 fails before the end", RAW_CLIENT("\x81\x10" KOSME "\xf4\x90"), .log = "",
		.close = 1007},
	{"6.6 cut at the end", {F(WHOLE_TEXT, "\xce\xba\xe1\xbd")}, .log = "", .close = 1007},
	{"6.6 cut at the end, empty fragment", {F(TEXT, "\xce"), F(FIN, "")}, .log = "T[\\ce",
		.close = 1007},
	{"6.6 cut, no end yet", {F(TEXT, "\xf0\x9f\x8c")}, .log = "T[\\f0\\9f\\8c"},
	{"6.7 first of each length", {F(WHOLE_TEXT, "\x00\xc2\x80\xe0\xa0\x80\xf0\x90\x80\x80")},
		.log = "T[\\00\\c2\\80\\e0\\a0\\80\\f0\\90\\80\\80]"},
	{"6.8 five bytes", {F(WHOLE_TEXT, "\xf8\x88\x80\x80\x80")}, .log = "", .close = 1007},
	{"6.9 last of each length", {F(WHOLE_TEXT, "\x7f\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf")},
		.log = "T[\\7f\\df\\bf\\ef\\bf\\bf\\f4\\8f\\bf\\bf]"},
	{"6.10 beyond U+10FFFF", {F(WHOLE_TEXT, "\xf4\x90\x80\x80")}, .log = "", .close = 1007},
	{"6.12 stray continuation", {F(WHOLE_TEXT, "\x80")}, .log = "", .close = 1007},
	{"6.14 lonely lead", {F(WHOLE_TEXT, "\xc3 ")}, .log = "", .close = 1007},
	{"6.17 fe", {F(WHOLE_TEXT, "\xfe")}, .log = "", .close = 1007},
	{"6.18 overlong slash", {F(WHOLE_TEXT, "\xc0\xaf")}, .log = "", .close = 1007},
	{"6.19 overlong maximum", {F(WHOLE_TEXT, "\xe0\x9f\xbf")}, .log = "", .close = 1007},
	{"6 in a long text", {F(WHOLE_TEXT, X125 KOSME "\xc0" X25)}, .log = "", .close = 1007},
	{"6 any bytes in binary", {F(BINARY, "\xff\xc0"), F(FIN, "\x80")},
		.log = "B[\\ff\\c0\\80]"},
	{"6 a new text starts anew", {F(TEXT, KOSME), F(FIN, "!"), F(WHOLE_TEXT, "\xba")},
		.log = "T[" KOSME_LOG "!]", .close = 1007},

	/* 7: close frames pass; what follows is up to the caller */
	{"7.1 close", {F(CLOSE, "\x03\xe8see you")}, .log = "c{\\03\\e8see you}"},
	{"7.3.1 empty close", {F(CLOSE, "")}, .log = "c{}"},
	{"7.3.5 close of 125", {F(CLOSE, X125)}, .log = "c{" X125 "}"},
	{"7 close inside a message", {F(TEXT, "a"), F(CLOSE, "\x03\xe9")}, .log = "T[ac{\\03\\e9}"},

	/* masks and lengths */
	{"mask missing", RAW("\x81\x05Hello"), .log = "", .close = 1002},
	{"mask missing, ping", {F(WHOLE_TEXT, "a")}, RAW("\x89\x00"), .log = "T[a]", .close = 1002},
	{"mask missing, 16-bit length", RAW("\x82\x7e"), .log = "", .close = 1002},
	{"mask from a server", RAW_CLIENT("\x81\x85" KEY), .log = "", .close = 1002},
	{"mask from a server, pong", RAW_CLIENT("\x8a\x80"), .log = "", .close = 1002},
	{"125 in 16 bits", RAW("\x82\xfe\x00\x7d"), .log = "", .close = 1002},
	{"0 in 16 bits", RAW("\x82\xfe\x00\x00"), .log = "", .close = 1002},
	{"126 in 16 bits", RAW("\x82\xfe\x00\x7e" KEY), .log = ""},
	{"65535 in 64 bits", RAW("\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff"), .log = "",
		.close = 1002},
	{"1 in 64 bits", RAW_CLIENT("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01"), .log = "",
		.close = 1002},
	{"65536 in 64 bits", RAW("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00" KEY), .log = ""},
	{"top bit", RAW("\x82\xff\x80\x00\x00\x00\x00\x00\x00\x01"), .log = "", .close = 1002},
	{"top bit alone", RAW_CLIENT("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), .log = "",
		.close = 1002},
	{"2^63 - 1", RAW("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"), .log = "", .close = 1009},
	{"4 GiB - 1 may be allowed", RAW("\x82\xff\x00\x00\x00\x00\xff\xff\xff\xff" KEY),
		.message_max = UINT64_MAX, .log = ""},
	{"4 GiB may not", RAW("\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00" KEY),
		.message_max = UINT64_MAX, .log = "", .close = 1009},

	/* the limit, as soon as a header says so */
	{"at the limit", {F(WHOLE_TEXT, "12345")}, .message_max = 5, .log = "T[12345]"},
	{"above the limit", {F(WHOLE_TEXT, "123456")}, .message_max = 5, .log = "", .close = 1009},
	{"above, by the header alone", RAW("\x82\x86"), .message_max = 5, .log = "", .close = 1009},
	{"above, 16-bit, no mask yet", RAW("\x82\xfe\x10\x00"), .message_max = 4095, .log = "",
		.close = 1009},
	{"fragments at the limit", {F(TEXT, "12"), F(CONT, "34"), F(FIN, "5")}, .message_max = 5,
		.log = "T[12345]"},
	{"fragments above", {F(TEXT, "12"), F(CONT, "34"), F(FIN, "56")}, .message_max = 5,
		.log = "T[1234", .close = 1009},
	{"each message anew", {F(BINARY, "12"), F(FIN, "345"), F(WHOLE_BINARY, "12345")},
		.message_max = 5, .log = "B[12345]B[12345]"},
	{"controls do not count", {F(TEXT, "12"), F(PING, "long enough"), F(FIN, "345")},
		.message_max = 5, .log = "T[12p{long enough}345]"},
	{"sum beyond 64 bits", {F(BINARY, "12")}, RAW("\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff"),
		.message_max = INT64_MAX, .log = "B[12", .close = 1009},
	{"rsv before the limit", RAW("\xc2\xfe\x10\x00"), .message_max = 5, .log = "",
		.close = 1002},
};
enum {
	RULES = sizeof(rules) / sizeof(rules[0])
};

#endif
