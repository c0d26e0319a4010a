/* Arbitrary bytes as a link's stream, from either side: no parser reads outside its input, and what
 * a parser accepts the writer gives back byte for byte. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/link_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void same(const uint8_t *frame, const uint8_t *written, size_t written_len,
	const struct link_header *h)
{
	must(written_len == TG_LINK_HEADER_LEN + (size_t)h->length &&
		memcmp(frame, written, written_len) == 0);
}

/* frame: header and payload. Returns false when the payload breaks a rule. */
static bool payload(const uint8_t *frame, const struct link_header *h, enum link_from from)
{
	static uint8_t out[TG_LINK_HEADER_LEN + LINK_PAYLOAD_MAX];
	const uint8_t *p = frame + TG_LINK_HEADER_LEN;
	const char *why = NULL, *text;
	struct link_hello hello;
	struct link_close close_;
	struct link_publish pub;
	uint64_t u64;
	uint32_t u32;
	uint16_t u16;
	size_t text_len, n;
	switch (h->type) {
	case TG_LINK_HELLO:
		if (link_hello_parse(p, h->length, &hello, &why))
			break;
		same(frame, out, link_hello_write(out, &hello), h);
		return true;
	case TG_LINK_OPEN:
		return link_open_parse(p, h->length, &why) == 0;
	case TG_LINK_ACCEPT:
		if (link_accept_parse(p, h->length, &why))
			break;
		same(frame, out, link_accept_write(out, h->session, (const char *)p, h->length), h);
		return true;
	case TG_LINK_REJECT:
		if (link_reject_parse(p, h->length, &u16, &text, &text_len, &why))
			break;
		same(frame, out, link_reject_write(out, h->session, u16, text, text_len), h);
		return true;
	case TG_LINK_CLOSE:
		if (link_close_parse(p, h->length, from, &close_, &why))
			break;
		same(frame, out, link_close_write(out, h->session, &close_), h);
		return true;
	case TG_LINK_SUBSCRIBE:
	case TG_LINK_UNSUBSCRIBE:
		if (link_topic_parse(p, h->length, &why))
			break;
		same(frame, out,
			link_topic_write(out, h->type, h->session, (const char *)p, h->length), h);
		return true;
	case TG_LINK_PUBLISH:
		if (link_publish_parse(p, h->length, &pub, &why))
			break;
		n = link_publish_write(
			out, pub.topic, pub.topic_len, pub.len, h->flags & TG_LINK_FLAG_TEXT);
		must(n + pub.len == TG_LINK_HEADER_LEN + (size_t)h->length &&
			memcmp(frame, out, n) == 0);
		must(pub.data == frame + n);
		return true;
	case TG_LINK_CREDIT:
		if (link_credit_parse(p, h->length, &u32, &why))
			break;
		same(frame, out, link_credit_write(out, h->session, u32), h);
		return true;
	case TG_LINK_PING:
	case TG_LINK_PONG:
		must(link_ping_parse(p, h->length, &u64, &why) == 0);
		same(frame, out, link_ping_write(out, h->type, u64), h);
		return true;
	case TG_LINK_DRAIN:
		must(link_drain_parse(p, h->length, &u32, &why) == 0);
		same(frame, out, link_drain_write(out, u32), h);
		return true;
	case TG_LINK_ERROR:
		if (link_error_parse(p, h->length, &u16, &text, &text_len, &why))
			break;
		return true;
	case TG_LINK_MESSAGE:
		return true;
	default:
		abort();
	}
	must(why != NULL);
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	enum link_from from = data[0] & 1 ? LINK_FROM_SERVICE : LINK_FROM_GATEWAY;
	data++, size--;
	for (;;) {
		struct link_header h;
		const char *why = NULL;
		ssize_t n = link_header_parse(data, size, from, &h, &why);
		if (n < 0)
			must(n == -EPROTO && why != NULL);
		if (n <= 0)
			return 0;
		uint8_t out[TG_LINK_HEADER_LEN];
		link_header_write(out, &h);
		must(memcmp(out, data, sizeof(out)) == 0);
		if (size - sizeof(out) < h.length || !payload(data, &h, from))
			return 0;
		data += sizeof(out) + h.length;
		size -= sizeof(out) + h.length;
	}
}
