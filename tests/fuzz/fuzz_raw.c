/* proto/raw: the same frames and the same end come out, whether the input is fed whole or one byte
 * at a time. The first byte of the input chooses the limits. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/raw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a parser said of one input: a digest of its whole frames, and how it ended. */
struct outcome {
	uint64_t frames; /* of whole frames: their types and payloads */
	uint64_t pieces; /* of the frame in progress */
	unsigned n;
	uint16_t close;
	const char *why;
	bool idle;
};

static void check(bool ok)
{
	if (!ok)
		abort();
}

static uint64_t mix(uint64_t digest, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		digest = (digest ^ data[i]) * 0x100000001b3; /* FNV-1a's prime */
	return digest;
}

static void take(struct outcome *o, const struct raw_event *ev)
{
	if (ev->start)
		o->pieces = mix(0, &ev->type, 1);
	o->pieces = mix(o->pieces, ev->data, ev->len);
	if (!ev->end)
		return;
	o->frames = mix(o->frames, (const uint8_t *)&o->pieces, sizeof(o->pieces));
	o->n++;
	if (ev->start && ev->type == TG_RAW_HELLO) {
		struct raw_hello hello;
		const char *why;
		if (raw_hello_parse(ev->data, ev->len, &hello, &why) == 0)
			check(hello.path_len + hello.token_len + 2 == ev->len);
	}
}

/* Feeds one piece from a heap block of its own size, so that the address sanitizer sees any look
 * behind it. */
static void feed(struct outcome *o, struct raw_parser *p, const struct raw_limits *limits,
	const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len);
	check(copy != NULL);
	memcpy(copy, data, len);
	for (size_t used = 0; used < len;) {
		struct raw_event ev;
		bool has_event;
		ssize_t n = raw_parse(
			p, limits, copy + used, len - used, &ev, &has_event, &o->close, &o->why);
		if (n < 0)
			break;
		check(n > 0 && (size_t)n <= len - used);
		used += (size_t)n;
		if (has_event) {
			check(ev.data >= copy && ev.data + ev.len == copy + used);
			take(o, &ev);
		}
	}
	free(copy);
}

static struct outcome run(
	const struct raw_limits *limits, const uint8_t *data, size_t size, size_t piece)
{
	struct outcome o = {.close = 0};
	struct raw_parser p;

	raw_parser_init(&p);
	for (size_t pos = 0; pos < size && !o.why; pos += piece)
		feed(&o, &p, limits, data + pos, piece < size - pos ? piece : size - pos);
	o.idle = !o.why && raw_parser_idle(&p);
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct raw_limits limits = {
		.message_max = data[0] & 4 ? 300 : 1 << 20,
		.expect_hello = data[0] & 1,
		.client = data[0] & 2,
	};
	struct outcome whole = run(&limits, data + 1, size - 1, size - 1);
	struct outcome bytes = run(&limits, data + 1, size - 1, 1);

	check(whole.frames == bytes.frames && whole.n == bytes.n);
	check(whole.close == bytes.close && whole.why == bytes.why);
	check(whole.idle == bytes.idle);
	return 0;
}
