/* The WebSocket parser, fed one input whole, byte by byte and in random chunks: the same events,
 * the same verdict, and both as the model of support/ws_log.h has them. The first four bytes choose
 * direction, limit, code and chunks. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../support/ws_log.h"
#include "proto/mask.h"
#include "proto/utf8.h"
#include "proto/ws.h"

enum {
	CHOICES = 4
};

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static size_t whole(size_t left, unsigned int *seed)
{
	return left;
}

static size_t one_byte(size_t left, unsigned int *seed)
{
	return 1;
}

static size_t any(size_t left, unsigned int *seed)
{
	size_t max = rand_r(seed) % 4 ? 8 : 300;
	size_t n = 1 + (size_t)rand_r(seed) % max;

	return n < left ? n : left;
}

static void run(struct ws_log *log, const struct ws_limits *limits, const uint8_t *data, size_t len,
	size_t (*chunk)(size_t left, unsigned int *seed), unsigned int seed)
{
	struct ws_parser p;

	ws_log_init(log, len);
	ws_parser_init(&p);
	for (size_t at = 0, n; at < len; at += n) {
		n = chunk(len - at, &seed);
		if (!ws_log_feed_copy(log, &p, limits, data + at, n))
			return;
	}
}

/* A close frame's payload must give the same answer wherever it lies, and a reason that is UTF-8.
 */
static void check_close(const uint8_t *payload, size_t len)
{
	uint16_t code = 0;
	const uint8_t *reason = NULL;
	size_t reason_len = 0;
	int r = ws_close_parse(payload, len, &code, &reason, &reason_len);

	if (r == 0) {
		WS_LOG_CHECK(code == WS_CLOSE_NO_STATUS ? len == 0 : reason_len == len - 2);
		WS_LOG_CHECK(utf8_ref(reason, reason_len) == UTF8_REF_WHOLE);
	} else {
		WS_LOG_CHECK(r == -EPROTO);
		WS_LOG_CHECK(code == WS_CLOSE_PROTOCOL_ERROR || code == WS_CLOSE_INVALID_DATA);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static const char *const impls[] = {NULL, "portable", "sse2", "avx2"};
	struct ws_limits limits;
	struct ws_log model;
	struct ws_log log;

	if (size < CHOICES)
		return 0;
	limits.client = input[0] & 1;
	limits.message_max = input[0] & 2 ? UINT64_MAX : (uint64_t)input[1] << (input[0] >> 4);
	/* One that this CPU cannot run leaves the code as it was. */
	ws_mask_impl_force(impls[input[2] % 4]);
	utf8_impl_force(impls[input[2] / 4 % 4]);

	const uint8_t *data = input + CHOICES;
	size_t len = size - CHOICES;

	ws_log_init(&model, len);
	ws_model(&model, &limits, data, len);

	run(&log, &limits, data, len, whole, 0);
	WS_LOG_CHECK(log.close == model.close && log.empty == model.empty);
	WS_LOG_CHECK(strcmp(log.text, model.text) == 0);
	ws_log_fini(&log);

	run(&log, &limits, data, len, one_byte, 0);
	WS_LOG_CHECK(ws_log_same(&model, &log));
	ws_log_fini(&log);

	run(&log, &limits, data, len, any, input[3]);
	WS_LOG_CHECK(ws_log_same(&model, &log));
	ws_log_fini(&log);

	ws_log_fini(&model);
	check_close(data, len);
	return 0;
}
