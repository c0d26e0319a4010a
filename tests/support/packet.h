/* Building frames for BPF_PROG_RUN: a SYN, and everything about it that can be odd. */
#ifndef TIDEGATE_TESTS_PACKET_H
#define TIDEGATE_TESTS_PACKET_H

#include <arpa/inet.h>
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
	PACKET_MAX = 512,

	PACKET_FIN = 0x01,
	PACKET_SYN = 0x02,
	PACKET_RST = 0x04,
	PACKET_PSH = 0x08,
	PACKET_ACK = 0x10,
	PACKET_ECE = 0x40,
	PACKET_CWR = 0x80,
};

struct packet_opts {
	const char *src, *dst; /* of one family; NULL: 192.0.2.1 and 192.0.2.2 */
	uint16_t sport, dport; /* 0: 40000, 8080 */
	uint8_t flags;         /* 0: SYN */
	uint32_t seq, ack;
	uint16_t mss;              /* 0: no such option; else it is the last of tcp_options */
	unsigned vlans;            /* tags, 0x8100; the first of several is 0x88a8 */
	unsigned ip_options;       /* IPv4: bytes, a multiple of 4 */
	uint16_t fragment;         /* IPv4: the field as it is; IPv6: that of a fragment header */
	bool fragment_header;      /* IPv6 */
	const uint8_t *extensions; /* IPv6: their protocol numbers, 0xff ends (0 is one) */
	unsigned extension_bytes;  /* of each, a multiple of 8; 0: 8 */
	unsigned tcp_options;      /* bytes, a multiple of 4 */
	unsigned data;             /* bytes after the TCP header */
	unsigned padding;          /* bytes after all that, as Ethernet's minimum makes them */
};

struct packet {
	uint8_t b[PACKET_MAX];
	unsigned len;
	unsigned l3, l4; /* offsets */
	bool v6;
};

static inline uint8_t *packet_put(struct packet *p, unsigned n)
{
	uint8_t *at = p->b + p->len;

	assert(p->len + n <= PACKET_MAX);
	p->len += n;
	return at;
}

static inline void packet_u16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static inline void packet_u32(uint8_t *at, uint32_t v)
{
	packet_u16(at, (uint16_t)(v >> 16));
	packet_u16(at + 2, (uint16_t)v);
}

static inline uint16_t packet_get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t packet_get32(const uint8_t *at)
{
	return (uint32_t)packet_get16(at) << 16 | packet_get16(at + 2);
}

/* RFC 1071, byte by byte: nothing in common with what it checks. */
static inline uint32_t packet_sum(const uint8_t *p, unsigned n, uint32_t sum)
{
	for (unsigned i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static inline void packet_ethernet(struct packet *p, const struct packet_opts *o)
{
	static const uint8_t dst[6] = {2, 0, 0, 0, 0, 0xd}, src[6] = {2, 0, 0, 0, 0, 0x5};

	memcpy(packet_put(p, 6), dst, 6);
	memcpy(packet_put(p, 6), src, 6);
	for (unsigned i = 0; i < o->vlans; i++) {
		packet_u16(packet_put(p, 2), i == 0 && o->vlans > 1 ? 0x88a8 : 0x8100);
		packet_u16(packet_put(p, 2), (uint16_t)(100 + i));
	}
	packet_u16(packet_put(p, 2), p->v6 ? 0x86dd : 0x0800);
}

static inline void packet_ip4(struct packet *p, const struct packet_opts *o)
{
	uint8_t *ip = packet_put(p, 20 + o->ip_options);
	unsigned len = 20 + o->ip_options, tcp = 20 + o->tcp_options + o->data;

	memset(ip + 20, 1, o->ip_options); /* no-operation */
	ip[0] = (uint8_t)(0x40 | len / 4);
	packet_u16(ip + 2, (uint16_t)(len + tcp));
	packet_u16(ip + 4, 0x1234);
	packet_u16(ip + 6, o->fragment);
	ip[8] = 57;
	ip[9] = 6;
	assert(inet_pton(AF_INET, o->src ? o->src : "192.0.2.1", ip + 12) == 1);
	assert(inet_pton(AF_INET, o->dst ? o->dst : "192.0.2.2", ip + 16) == 1);
	packet_u16(ip + 10, (uint16_t)~packet_sum(ip, len, 0));
}

static inline void packet_extensions(struct packet *p, const struct packet_opts *o, uint8_t *next)
{
	unsigned bytes = o->extension_bytes ? o->extension_bytes : 8;

	for (const uint8_t *e = o->extensions; e && *e != 0xff; e++) {
		uint8_t *h = packet_put(p, bytes);
		*next = *e;
		memset(h, 0, bytes);
		/* The authentication header counts in words, less two. */
		h[1] = (uint8_t)(*e == 51 ? bytes / 4 - 2 : bytes / 8 - 1);
		if (*e == 44)
			h[1] = 0;
		next = h;
	}
	if (o->fragment_header) {
		uint8_t *h = packet_put(p, 8);
		*next = 44;
		memset(h, 0, 8);
		packet_u16(h + 2, o->fragment);
		next = h;
	}
	*next = 6;
}

static inline void packet_ip6(struct packet *p, const struct packet_opts *o)
{
	uint8_t *ip = packet_put(p, 40);
	unsigned from = p->len;

	memset(ip, 0, 40);
	ip[0] = 0x60;
	ip[7] = 57;
	assert(inet_pton(AF_INET6, o->src, ip + 8) == 1);
	assert(inet_pton(AF_INET6, o->dst ? o->dst : "2001:db8::2", ip + 24) == 1);
	packet_extensions(p, o, ip + 6);
	packet_u16(ip + 4, (uint16_t)(p->len - from + 20 + o->tcp_options + o->data));
}

/* Over the TCP header and data from l4 on, of the whole packet without padding. */
static inline uint16_t packet_tcp_sum(const struct packet *p, unsigned tcp_len)
{
	const uint8_t *ip = p->b + p->l3;
	uint32_t sum = p->v6 ? packet_sum(ip + 8, 32, 0) : packet_sum(ip + 12, 8, 0);

	return (uint16_t)packet_sum(p->b + p->l4, tcp_len, sum + 6 + tcp_len);
}

static inline void packet_tcp(struct packet *p, const struct packet_opts *o)
{
	uint8_t *th = packet_put(p, 20 + o->tcp_options + o->data);
	unsigned len = 20 + o->tcp_options + o->data;

	memset(th, 0, 20);
	memset(th + 20, 1, o->tcp_options);
	memset(th + 20 + o->tcp_options, 'x', o->data);
	packet_u16(th, o->sport ? o->sport : 40000);
	packet_u16(th + 2, o->dport ? o->dport : 8080);
	packet_u32(th + 4, o->seq);
	packet_u32(th + 8, o->ack);
	if (o->mss) {
		assert(o->tcp_options >= 4);
		packet_u16(th + 16 + o->tcp_options, 0x0204);
		packet_u16(th + 18 + o->tcp_options, o->mss);
	}
	th[12] = (uint8_t)((20 + o->tcp_options) / 4 << 4);
	th[13] = o->flags ? o->flags : PACKET_SYN;
	packet_u16(th + 14, 64240);
	packet_u16(th + 16, (uint16_t)~packet_tcp_sum(p, len));
}

static inline void packet_build(struct packet *p, const struct packet_opts *o)
{
	memset(p, 0, sizeof(*p));
	p->v6 = o->src && strchr(o->src, ':');
	packet_ethernet(p, o);
	p->l3 = p->len;
	if (p->v6)
		packet_ip6(p, o);
	else
		packet_ip4(p, o);
	p->l4 = p->len;
	packet_tcp(p, o);
	memset(packet_put(p, o->padding), 0, o->padding);
}

#endif
