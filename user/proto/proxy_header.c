#include "proto/proxy_header.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
	V1_IP4_MAX = 15, /* "255.255.255.255" */
	V1_IP6_MAX = 39, /* eight groups of four, section 2.1 */
	V1_PORT_DIGITS = 5,

	V2_SIGNATURE_LEN = 12,
	V2_COMMAND_AT = 12, /* version and command, four bits each */
	V2_FAMILY_AT = 13,  /* family and transport, four bits each */
	V2_LENGTH_AT = 14,  /* of what follows, network order */
	V2_HEADER_LEN = 16,
	V2_VERSION = 2,
	V2_LOCAL = 0,
	V2_PROXY = 1,
	V2_UNSPEC = 0,
	V2_INET = 1,
	V2_INET6 = 2,
	V2_UNIX = 3,
	V2_STREAM = 1,

	TLV_HEADER_LEN = 3, /* type, length in network order; section 2.2 */
	TLV_CRC32C = 0x03,
	TLV_CRC32C_LEN = 4,
	TLV_SSL = 0x20,
	TLV_SSL_HEADER_LEN = 5, /* client, verify; then TLVs of its own */
};

static const uint8_t v2_signature[V2_SIGNATURE_LEN] = "\r\n\r\n\0\r\nQUIT\n";

/* Version 1 is read byte by byte: each step returns 1 when it is through, 0 when the input ends
 * first, -EPROTO with *why set. No step looks behind the byte it judges, so the answer does not
 * depend on how the input was cut. */
struct cursor {
	const uint8_t *p, *end;
	const char **why;
};

static int fail(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EPROTO;
}

static int take_text(struct cursor *c, const char *text, const char *why)
{
	for (; *text; text++, c->p++) {
		if (c->p == c->end)
			return 0;
		if (*c->p != (uint8_t)*text)
			return fail(c->why, why);
	}
	return 1;
}

static bool address_char(uint8_t b, int family)
{
	if ((b >= '0' && b <= '9') || b == '.')
		return true;
	return family == AF_INET6 && (b == ':' || (b >= 'a' && b <= 'f') || (b >= 'A' && b <= 'F'));
}

/* An address and the space behind it. */
static int take_address(struct cursor *c, int family, struct in6_addr *ret)
{
	size_t max = family == AF_INET ? V1_IP4_MAX : V1_IP6_MAX;
	char text[V1_IP6_MAX + 1];
	size_t len = 0;

	for (; c->p < c->end && *c->p != ' '; c->p++) {
		if (len == max || !address_char(*c->p, family))
			return fail(c->why, "PROXY v1: bad address");
		text[len++] = (char)*c->p;
	}
	if (c->p == c->end)
		return 0;
	c->p++;
	text[len] = '\0';

	*ret = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	/* inet_pton takes the strict form only: four decimal numbers without leading zeros. */
	if (inet_pton(family, text, family == AF_INET ? &ret->s6_addr[12] : ret->s6_addr) != 1)
		return fail(c->why, "PROXY v1: bad address");
	return 1;
}

/* A port and the byte behind it. */
static int take_port(struct cursor *c, char terminator, in_port_t *ret)
{
	uint32_t port = 0;
	size_t digits = 0;

	for (; c->p < c->end && *c->p != (uint8_t)terminator; c->p++, digits++) {
		bool leading_zero = digits > 0 && port == 0;
		if (digits == V1_PORT_DIGITS || leading_zero || *c->p < '0' || *c->p > '9')
			return fail(c->why, "PROXY v1: bad port");
		port = port * 10 + (uint32_t)(*c->p - '0');
	}
	if (c->p == c->end)
		return 0;
	if (digits == 0 || port > UINT16_MAX)
		return fail(c->why, "PROXY v1: bad port");
	c->p++;
	*ret = htons((uint16_t)port);
	return 1;
}

/* Behind UNKNOWN anything may stand up to the end of the line; a receiver ignores it (section 2.1).
 */
static int take_unknown(struct cursor *c)
{
	if (c->p == c->end)
		return 0;
	if (*c->p == ' ')
		while (c->p < c->end && *c->p != '\r' && *c->p != '\n')
			c->p++;
	return take_text(c, "\r\n", "PROXY v1: line does not end in CR LF");
}

static int v1_addresses(struct cursor *c, int family, struct proxy_header *h)
{
	h->peer.sin6_family = h->dest.sin6_family = AF_INET6;
	int r = take_address(c, family, &h->peer.sin6_addr);
	if (r > 0)
		r = take_address(c, family, &h->dest.sin6_addr);
	if (r > 0)
		r = take_port(c, ' ', &h->peer.sin6_port);
	if (r > 0)
		r = take_port(c, '\r', &h->dest.sin6_port);
	if (r > 0)
		r = take_text(c, "\n", "PROXY v1: line does not end in CR LF");
	return r;
}

static int v1_line(struct cursor *c, struct proxy_header *h)
{
	int r = take_text(c, "PROXY ", "not a PROXY header");
	if (r <= 0)
		return r;
	if (c->p < c->end && *c->p == 'U') {
		h->local = true;
		r = take_text(c, "UNKNOWN", "PROXY v1: unknown protocol");
		return r > 0 ? take_unknown(c) : r;
	}
	r = take_text(c, "TCP", "PROXY v1: unknown protocol");
	if (r <= 0)
		return r;
	if (c->p == c->end)
		return 0;
	int family = *c->p == '4' ? AF_INET : AF_INET6;
	r = take_text(c, family == AF_INET ? "4 " : "6 ", "PROXY v1: unknown protocol");
	return r > 0 ? v1_addresses(c, family, h) : r;
}

static ssize_t v1_parse(
	const uint8_t *buf, size_t len, struct proxy_header *ret, const char **ret_why)
{
	struct proxy_header h = {.version = 1};
	struct cursor c = {buf, buf + (len < PROXY_V1_MAX ? len : PROXY_V1_MAX), ret_why};

	int r = v1_line(&c, &h);
	if (r < 0)
		return r;
	if (r == 0)
		return len < PROXY_V1_MAX ? 0 : fail(ret_why, "PROXY v1: line too long");
	*ret = h;
	return c.p - buf;
}

static size_t read_be16(const uint8_t *p)
{
	return (size_t)p[0] << 8 | p[1];
}

/* CRC-32C (Castagnoli) reflected, four bits at a time: the table is small and no header is worth a
 * larger one. */
static uint32_t crc32c_feed(uint32_t crc, const uint8_t *data, size_t len)
{
	static const uint32_t table[16] = {
		0x00000000,
		0x105ec76f,
		0x20bd8ede,
		0x30e349b1,
		0x417b1dbc,
		0x5125dad3,
		0x61c69362,
		0x7198540d,
		0x82f63b78,
		0x92a8fc17,
		0xa24bb5a6,
		0xb21572c9,
		0xc38d26c4,
		0xd3d3e1ab,
		0xe330a81a,
		0xf36e6f75,
	};
	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

/* The checksum covers the whole header, its own four bytes taken as zeros (section 2.2.3). */
static bool crc32c_matches(const uint8_t *header, size_t len, const uint8_t *sum)
{
	static const uint8_t zeros[TLV_CRC32C_LEN];
	size_t before = (size_t)(sum - header);
	uint32_t declared;

	uint32_t crc = crc32c_feed(UINT32_MAX, header, before);
	crc = crc32c_feed(crc, zeros, sizeof(zeros));
	crc = ~crc32c_feed(crc, sum + TLV_CRC32C_LEN, len - before - TLV_CRC32C_LEN);
	memcpy(&declared, sum, sizeof(declared));
	return crc == be32toh(declared);
}

/* Takes one TLV off [*p, end): its type, its value in *ret_value and *ret_len; -1 when it does not
 * fit. */
static int tlv_next(
	const uint8_t **p, const uint8_t *end, const uint8_t **ret_value, size_t *ret_len)
{
	if (end - *p < TLV_HEADER_LEN)
		return -1;
	int type = **p;
	size_t len = read_be16(*p + 1);
	const uint8_t *value = *p + TLV_HEADER_LEN;
	if ((size_t)(end - value) < len)
		return -1;
	*p = value + len;
	*ret_value = value;
	*ret_len = len;
	return type;
}

/* The TLVs inside an SSL one (section 2.2.6): nothing is read from them, but they must fit. */
static bool ssl_tlv_valid(const uint8_t *value, size_t len)
{
	if (len < TLV_SSL_HEADER_LEN)
		return false;
	const uint8_t *p = value + TLV_SSL_HEADER_LEN, *end = value + len, *inner;
	size_t inner_len;
	while (p < end)
		if (tlv_next(&p, end, &inner, &inner_len) < 0)
			return false;
	return true;
}

static int v2_tlvs(const uint8_t *header, size_t offset, size_t len, const char **ret_why)
{
	const uint8_t *p = header + offset, *end = header + len, *value, *sum = NULL;
	size_t value_len;

	while (p < end) {
		int type = tlv_next(&p, end, &value, &value_len);
		if (type < 0)
			return fail(ret_why, "PROXY v2: TLV longer than the header");
		if (type == TLV_SSL && !ssl_tlv_valid(value, value_len))
			return fail(ret_why, "PROXY v2: bad SSL TLV");
		if (type != TLV_CRC32C)
			continue;
		if (sum || value_len != TLV_CRC32C_LEN)
			return fail(ret_why, "PROXY v2: bad CRC32C TLV");
		sum = value;
	}
	return !sum || crc32c_matches(header, len, sum)
		       ? 0
		       : fail(ret_why, "PROXY v2: checksum mismatch");
}

/* Bytes of the address block, section 2.2; -1: no such family, or not a stream. */
static int v2_address_len(uint8_t family_transport)
{
	uint8_t family = family_transport >> 4, transport = family_transport & 15;

	/* UNSPEC: whatever is declared is to be ignored, so nothing is asked of it. */
	if (family == V2_UNSPEC && transport <= V2_STREAM)
		return 0;
	if (transport != V2_STREAM)
		return -1;
	switch (family) {
	case V2_INET:
		return 2 * 4 + 2 * 2;
	case V2_INET6:
		return 2 * 16 + 2 * 2;
	case V2_UNIX:
		return 2 * 108;
	default:
		return -1;
	}
}

static struct sockaddr_in6 v2_address(uint8_t family, const uint8_t *addr, const uint8_t *port)
{
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6};

	if (family == V2_INET6) {
		memcpy(sa.sin6_addr.s6_addr, addr, 16);
	} else {
		sa.sin6_addr.s6_addr[10] = sa.sin6_addr.s6_addr[11] = 0xff;
		memcpy(sa.sin6_addr.s6_addr + 12, addr, 4);
	}
	memcpy(&sa.sin6_port, port, sizeof(sa.sin6_port));
	return sa;
}

/* Judges each byte of the fixed part as soon as it is there; 1 when all of it is. */
static int v2_fixed(const uint8_t *buf, size_t len, const char **ret_why)
{
	size_t have = len < V2_SIGNATURE_LEN ? len : V2_SIGNATURE_LEN;
	if (memcmp(buf, v2_signature, have) != 0)
		return fail(ret_why, "not a PROXY header");
	if (len <= V2_COMMAND_AT)
		return 0;
	uint8_t version = buf[V2_COMMAND_AT] >> 4, command = buf[V2_COMMAND_AT] & 15;
	if (version != V2_VERSION)
		return fail(ret_why, "PROXY v2: unknown version");
	if (command > V2_PROXY)
		return fail(ret_why, "PROXY v2: unknown command");
	if (len > V2_FAMILY_AT && command == V2_PROXY && v2_address_len(buf[V2_FAMILY_AT]) < 0)
		return fail(ret_why, "PROXY v2: unsupported family or transport");
	return len >= V2_HEADER_LEN;
}

static ssize_t v2_parse(
	const uint8_t *buf, size_t len, struct proxy_header *ret, const char **ret_why)
{
	int r = v2_fixed(buf, len, ret_why);
	if (r <= 0)
		return r;

	bool local = (buf[V2_COMMAND_AT] & 15) ==
		     V2_LOCAL; /* its family and addresses are to be discarded */
	size_t total = V2_HEADER_LEN + read_be16(buf + V2_LENGTH_AT);
	size_t tlv_offset = V2_HEADER_LEN + (local ? 0 : (size_t)v2_address_len(buf[V2_FAMILY_AT]));
	if (total > PROXY_V2_MAX)
		return fail(ret_why, "PROXY v2: header too long");
	if (total < tlv_offset)
		return fail(ret_why, "PROXY v2: header shorter than its addresses");
	if (len < total)
		return 0;

	struct proxy_header h = {.version = 2, .local = true};
	uint8_t family = local ? V2_UNSPEC : buf[V2_FAMILY_AT] >> 4;
	const uint8_t *a = buf + V2_HEADER_LEN;
	if (family != V2_UNSPEC) {
		r = v2_tlvs(buf, tlv_offset, total, ret_why);
		if (r < 0)
			return r;
	}
	if (family == V2_INET || family == V2_INET6) {
		size_t n = family == V2_INET ? 4 : 16;
		h.local = false;
		h.peer = v2_address(family, a, a + 2 * n);
		h.dest = v2_address(family, a + n, a + 2 * n + 2);
	}
	*ret = h;
	return (ssize_t)total;
}

ssize_t proxy_header_parse(
	const uint8_t *buf, size_t len, struct proxy_header *ret, const char **ret_why)
{
	if (len == 0)
		return 0;
	return buf[0] == v2_signature[0] ? v2_parse(buf, len, ret, ret_why)
					 : v1_parse(buf, len, ret, ret_why);
}
