/* proto/hub_codec: what is found in a request lies inside it and is JSON, and every answer and
 * message made of it is a JSON object again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/hub_codec.h"
#include "proto/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void check_slice(struct hub_str s, const char *text, size_t len)
{
	if (!s.len)
		return;
	check(s.data >= text && s.data + s.len <= text + len);
	check(hub_json_valid(s.data, s.len));
}

static void check_message(const struct hub_request *rq, const char *text, size_t len)
{
	char *out = malloc(HUB_MESSAGE_HEAD_MAX + 6 * len + 3);
	size_t head, n;

	check(out != NULL);
	head = hub_message_head_write(out, rq->topic, rq->topic_len, false);
	check(head <= HUB_MESSAGE_HEAD_MAX);
	n = head + hub_string_write(out + head, text, len);
	out[n++] = '}';
	check(hub_json_valid(out, n));
	n = head + hub_base64_write(out + head, (const uint8_t *)text, len);
	out[n++] = '}';
	check(hub_json_valid(out, n));
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char out[HUB_ANSWER_MAX], *text;
	struct hub_request rq;
	enum hub_error error;
	const char *why;
	size_t n;

	if (!utf8_valid(data, size))
		return 0;
	/* A block of its own size: the address sanitizer sees any look behind it. */
	text = malloc(size);
	check(text || !size);
	if (size)
		memcpy(text, data, size);
	if (!hub_request_parse(text, size, &rq, &error, &why)) {
		check(hub_json_valid(text, size));
		check(hub_topic_valid(rq.topic, rq.topic_len, true));
		check(utf8_valid((const uint8_t *)rq.topic, rq.topic_len));
		check_slice(rq.data, text, size);
		n = hub_presence_write(out, rq.topic, rq.topic_len, 1, rq.id);
		check(n <= sizeof out && hub_json_valid(out, n));
		check_message(&rq, text, size);
	} else {
		check((unsigned)error < HUB_ERRORS);
	}
	check_slice(rq.id, text, size);
	n = hub_error_write(out, HUB_ERROR_MALFORMED, "x", rq.id);
	check(n <= sizeof out && hub_json_valid(out, n));
	free(text);
	return 0;
}
