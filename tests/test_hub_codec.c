/* proto/hub_codec: requests against jansson as the reference, cut at every byte against a guard
 * page, and answers read back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "proto/hub_codec.h"
#include "support/guard.h"

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))

enum {
	TEXT_MAX = 4096,
	ROUNDS = 20000,
};

static struct guard guard;

static int set_up(void **state)
{
	(void)state;
	guard_init(&guard, 256 * 1024);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	guard_fini(&guard);
	return 0;
}

/* -------------------------------------------------------------------------------- JSON */

static uint64_t rng = 1;

static unsigned below(unsigned n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned)((rng >> 33) % n);
}

struct text {
	char data[TEXT_MAX];
	size_t len;
};

static void add(struct text *t, const char *s)
{
	size_t n = strlen(s);

	if (t->len + n < TEXT_MAX) {
		memcpy(t->data + t->len, s, n);
		t->len += n;
	}
}

static void add_space(struct text *t)
{
	static const char *const some[] = {"", "", "", " ", "\n", "\t\r ", "  "};

	add(t, some[below(ELEMENTS(some))]);
}

static void add_string(struct text *t)
{
	static const char *const some[] = {"a", "xyz", "\\n", "\\\"", "\\\\", "\\/", "\\u00e9",
		"\xc3\xa9", "\\ud83d\\ude00", " ", "0123456789abcdef", "\xf0\x9f\x98\x80", "{", "]",
		"\\u0041", "\x7f"};

	add(t, "\"");
	for (unsigned n = below(6); n; n--)
		add(t, some[below(ELEMENTS(some))]);
	add(t, "\"");
}

static void add_value(struct text *t, unsigned depth)
{
	static const char *const scalars[] = {"0", "-0", "17", "-1.5", "2e3", "1E-2", "0.25e+1",
		"true", "false", "null", "[]", "{}", "[ ]"};
	unsigned kind = below(depth ? 4 : 2), n = below(4);

	add_space(t);
	if (kind == 0)
		add(t, scalars[below(ELEMENTS(scalars))]);
	if (kind == 1)
		add_string(t);
	if (kind >= 2) {
		add(t, kind == 2 ? "[" : "{");
		for (unsigned i = 0; i < n; i++) {
			if (i)
				add(t, ",");
			if (kind == 3) {
				add_space(t);
				add_string(t);
				add_space(t);
				add(t, ":");
			}
			add_value(t, depth - 1);
		}
		add_space(t);
		add(t, kind == 2 ? "]" : "}");
	}
	add_space(t);
}

/* A byte changed, lost or doubled; none that would break UTF-8, which is checked before us. */
static void mutate(struct text *t)
{
	static const char bytes[] = "{}[]\",:\\0129.-+eEtrufalsn \n\x01/x";
	size_t at = below((unsigned)t->len);

	if ((unsigned char)t->data[at] >= 0x80)
		return;
	switch (below(3)) {
	case 0:
		t->data[at] = bytes[below(sizeof bytes - 1)];
		break;
	case 1:
		memmove(t->data + at, t->data + at + 1, --t->len - at);
		break;
	default:
		if (t->len + 1 < TEXT_MAX)
			memmove(t->data + at + 1, t->data + at, t->len++ - at);
		break;
	}
}

/* What jansson refuses although RFC 8259 does not: numbers it cannot hold, text that is no text. */
static bool beyond(const json_error_t *e)
{
	enum json_error_code code = json_error_code(e);

	return code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
	       strstr(e->text, "invalid Unicode");
}

static void check(const char *text, size_t len)
{
	const char *copy = (const char *)guard_copy(&guard, text, len);
	bool ours = hub_json_valid(copy, len);
	json_error_t error;
	json_t *j = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

	if (ours != (j != NULL) && !(ours && beyond(&error)))
		fail_msg("%.*s: we say %d, jansson: %s", (int)len, text, ours,
			j ? "valid" : error.text);
	json_decref(j);
}

static void test_json_like_jansson(void **state)
{
	unsigned valid = 0;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct text t = {.len = 0};

		add_value(&t, 5);
		check(t.data, t.len);
		valid += hub_json_valid(t.data, t.len);
		for (unsigned n = below(4); n; n--) {
			if (t.len)
				mutate(&t);
			check(t.data, t.len);
		}
	}
	assert_true(valid > ROUNDS / 2);
}

static void test_json_cut(void **state)
{
	static const char whole[] = " {\"a\": [1, -2.5e3, \"x\\u00e9\\n\", true, null, {}], "
				    "\"b\":{\"c\":[[]]}} ";

	(void)state;
	for (size_t n = 0; n < sizeof whole; n++)
		check(whole, n);
	assert_true(hub_json_valid(whole, sizeof whole - 1));
}

static void test_json_rows(void **state)
{
	static const struct {
		const char *text;
		bool ok;
	} rows[] = {
		{"01", false},
		{"-", false},
		{"1.", false},
		{".5", false},
		{"+1", false},
		{"1e", false},
		{"1e+", false},
		{"0x1", false},
		{"tru", false},
		{"truex", false},
		{"nul", false},
		{"\"", false},
		{"\"\\", false},
		{"\"\\u12\"", false},
		{"\"\\x\"", false},
		{"\"\t\"", false},
		{"'a'", false},
		{"[1,]", false},
		{"[,1]", false},
		{"{\"a\"}", false},
		{"{\"a\":}", false},
		{"{\"a\":1,}", false},
		{"{a:1}", false},
		{"[1 2]", false},
		{"]", false},
		{"[}", false},
		{"1 2", false},
		{"", false},
		{" ", false},
		{"\xef\xbb\xbf"
		 "1",
			false},
		{"1e400", true},
		{"123456789012345678901234567890", true},
		{"\"\\ud800\"", true},
		{"\"\\u0000\"", true},
		{"\"\x7f\"", true},
		{"\"abcdefghijklmnop\\u12g4\"", false},
		{"\"abcdefg\x1fhij\"", false},
	};

	(void)state;
	for (size_t i = 0; i < ELEMENTS(rows); i++) {
		const char *at =
			(const char *)guard_copy(&guard, rows[i].text, strlen(rows[i].text));
		if (hub_json_valid(at, strlen(rows[i].text)) != rows[i].ok)
			fail_msg("%s", rows[i].text);
	}
	/* A NUL is no white space and ends nothing. */
	assert_false(hub_json_valid("1\0", 2));
	assert_false(hub_json_valid("\"a\\\0\"", 5));
}

static bool nested(unsigned depth, const char *open, const char *close)
{
	char text[TEXT_MAX];
	size_t len = 0;

	for (unsigned i = 0; i < depth; i++)
		len += (size_t)sprintf(text + len, "%s", open);
	len += (size_t)sprintf(text + len, "1");
	for (unsigned i = 0; i < depth; i++)
		len += (size_t)sprintf(text + len, "%s", close);
	return hub_json_valid(text, len);
}

static void test_depth(void **state)
{
	struct hub_request rq;
	enum hub_error error;
	const char *why;
	char *text = malloc(200000);
	size_t len;

	(void)state;
	assert_true(nested(HUB_DEPTH_MAX, "[", "]"));
	assert_false(nested(HUB_DEPTH_MAX + 1, "[", "]"));
	assert_true(nested(HUB_DEPTH_MAX, "{\"a\":", "}"));
	assert_false(nested(HUB_DEPTH_MAX + 1, "{\"a\":", "}"));
	/* Far too deep costs neither stack nor time. */
	memset(text, '[', 200000);
	assert_false(hub_json_valid(text, 200000));
	/* The request's own object counts. */
	for (unsigned depth = HUB_DEPTH_MAX - 1; depth <= HUB_DEPTH_MAX; depth++) {
		len = (size_t)sprintf(text, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":");
		memset(text + len, '[', depth);
		memset(text + len + depth, ']', depth);
		len += 2 * depth;
		text[len++] = '}';
		assert_int_equal(hub_request_parse(text, len, &rq, &error, &why),
			depth < HUB_DEPTH_MAX ? 0 : -EPROTO);
	}
	free(text);
}

/* -------------------------------------------------------------------------------- requests */

#define T "\"topic\":\"t\""

static const struct request_row {
	const char *text;
	int error; /* -1: none */
	const char *id;
	enum hub_type type;
	const char *topic, *data;
} request_rows[] = {
	{"{\"type\":\"subscribe\",\"topic\":\"a/b\"}", -1, "", HUB_SUBSCRIBE, "a/b", ""},
	{" { \"id\" : 5 , \"topic\" : \"a/*\" , \"type\" : \"subscribe\" } ", -1, "5",
		HUB_SUBSCRIBE, "a/*", ""},
	{"{\"type\":\"unsubscribe\",\"topic\":\"*\",\"id\":\"x\\\"y\"}", -1, "\"x\\\"y\"",
		HUB_UNSUBSCRIBE, "*", ""},
	{"{\"type\":\"publish\"," T ",\"data\": {\"a\" : [ 1 ]} ,\"id\":-7}", -1, "-7", HUB_PUBLISH,
		"t", "{\"a\" : [ 1 ]}"},
	{"{\"type\":\"publish\"," T ",\"data\":null}", -1, "", HUB_PUBLISH, "t", "null"},
	{"{\"type\":\"presence\",\"topic\":\"caf\\u00e9\\/\\ud83d\\ude00\\\"\\\\\"}", -1, "",
		HUB_PRESENCE, "caf\xc3\xa9/\xf0\x9f\x98\x80\"\\", ""},
	/* Names may be written with escapes, and what is not known is ignored, even twice. */
	{"{\"\\u0074ype\":\"\\u0073ubscribe\"," T ",\"x\":1,\"x\":[{\"type\":2}]}", -1, "",
		HUB_SUBSCRIBE, "t", ""},
	{"{\"type\":\"subscribe\",\"a member with a long name that means nothing\":1," T "}", -1,
		"", HUB_SUBSCRIBE, "t", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":18446744073709551615}", -1, "18446744073709551615",
		HUB_SUBSCRIBE, "t", ""},
	{"{}", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"[]", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"\"subscribe\"", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":1} x", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":1", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T "," T ",\"id\":1}", HUB_ERROR_MALFORMED, "", HUB_TYPES, "",
		""},
	{"{\"type\":\"subscribe\"," T ",\"\\u0069d\":1,\"id\":1}", HUB_ERROR_MALFORMED, "",
		HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":1.5}", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":1e2}", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":123456789012345678901}", HUB_ERROR_MALFORMED, "",
		HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":null}", HUB_ERROR_MALFORMED, "", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\"," T ",\"id\":\"\\ud800\"}", HUB_ERROR_MALFORMED, "", HUB_TYPES,
		"", ""},
	{"{\"type\":7," T ",\"id\":1}", HUB_ERROR_MALFORMED, "1", HUB_TYPES, "", ""},
	{"{" T ",\"id\":1}", HUB_ERROR_MALFORMED, "1", HUB_TYPES, "", ""},
	{"{\"type\":\"publish\"," T ",\"id\":1}", HUB_ERROR_MALFORMED, "1", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\",\"id\":1}", HUB_ERROR_MALFORMED, "1", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\",\"topic\":[\"t\"],\"id\":1}", HUB_ERROR_MALFORMED, "1", HUB_TYPES,
		"", ""},
	{"{\"type\":\"Subscribe\"," T ",\"id\":1}", HUB_ERROR_UNKNOWN_TYPE, "1", HUB_TYPES, "", ""},
	{"{\"type\":\"\"," T ",\"id\":1}", HUB_ERROR_UNKNOWN_TYPE, "1", HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\",\"topic\":\"\",\"id\":1}", HUB_ERROR_BAD_TOPIC, "1", HUB_TYPES,
		"", ""},
	{"{\"type\":\"subscribe\",\"topic\":\"a//b\",\"id\":1}", HUB_ERROR_BAD_TOPIC, "1",
		HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\",\"topic\":\"\\u0000\",\"id\":1}", HUB_ERROR_BAD_TOPIC, "1",
		HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\",\"topic\":\"\\udc00\",\"id\":1}", HUB_ERROR_BAD_TOPIC, "1",
		HUB_TYPES, "", ""},
	{"{\"type\":\"subscribe\",\"topic\":\"\\ud800\\u0041\",\"id\":1}", HUB_ERROR_BAD_TOPIC, "1",
		HUB_TYPES, "", ""},
	{"{\"type\":\"publish\",\"topic\":\"a/*\",\"data\":1,\"id\":1}", HUB_ERROR_BAD_TOPIC, "1",
		HUB_TYPES, "", ""},
	{"{\"type\":\"presence\",\"topic\":\"*\",\"id\":1}", HUB_ERROR_BAD_TOPIC, "1", HUB_TYPES,
		"", ""},
};

static void test_requests(void **state)
{
	(void)state;
	for (size_t i = 0; i < ELEMENTS(request_rows); i++) {
		const struct request_row *row = &request_rows[i];
		size_t len = strlen(row->text);
		const char *at = (const char *)guard_copy(&guard, row->text, len), *why = NULL;
		struct hub_request rq;
		enum hub_error error;
		int err = hub_request_parse(at, len, &rq, &error, &why);

		if (err != (row->error < 0 ? 0 : -EPROTO) || (err && (int)error != row->error))
			fail_msg("%s: %d, %s", row->text, err, hub_error_name(error));
		assert_int_equal(rq.id.len, strlen(row->id));
		assert_memory_equal(rq.id.data ? rq.id.data : "", row->id, rq.id.len);
		if (err) {
			assert_true(strlen(why) <= 100 && !strpbrk(why, "\"\\"));
			continue;
		}
		assert_int_equal(rq.type, row->type);
		assert_int_equal(rq.topic_len, strlen(row->topic));
		assert_memory_equal(rq.topic, row->topic, rq.topic_len);
		assert_int_equal(rq.data.len, strlen(row->data));
		assert_memory_equal(rq.data.data ? rq.data.data : "", row->data, rq.data.len);
	}
}

/* Cut anywhere, a request is none. */
static void test_requests_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < ELEMENTS(request_rows); i++) {
		const char *text = request_rows[i].text;
		size_t len = strlen(text);

		while (len && text[len - 1] == ' ')
			len--;
		if (len && text[len - 1] != '}')
			continue; /* is one with something behind it */
		for (size_t n = 0; n < len; n++) {
			struct hub_request rq;
			enum hub_error error;
			const char *why;

			assert_int_equal(
				hub_request_parse((const char *)guard_copy(&guard, text, n), n, &rq,
					&error, &why),
				-EPROTO);
			assert_int_equal(error, HUB_ERROR_MALFORMED);
		}
	}
}

static void test_long_ids_and_topics(void **state)
{
	char text[TEXT_MAX], long_text[300];
	struct hub_request rq;
	enum hub_error error;
	const char *why;
	int len;

	(void)state;
	memset(long_text, 'x', sizeof long_text);
	for (int n = 63; n <= 65; n++) {
		len = sprintf(text, "{\"type\":\"subscribe\"," T ",\"id\":\"%.*s\"}", n, long_text);
		assert_int_equal(hub_request_parse(text, (size_t)len, &rq, &error, &why),
			n <= HUB_ID_MAX ? 0 : -EPROTO);
	}
	for (int n = 254; n <= 256; n++) {
		len = sprintf(text, "{\"type\":\"subscribe\",\"topic\":\"%.*s\"}", n, long_text);
		assert_int_equal(hub_request_parse(text, (size_t)len, &rq, &error, &why),
			n <= HUB_TOPIC_MAX ? 0 : -EPROTO);
	}
}

static void test_topics(void **state)
{
	static const struct {
		const char *topic;
		bool ok, pattern;
	} rows[] = {
		{"a", true, true},
		{"a/b", true, true},
		{"a b", true, true},
		{"\xc2\x80", true, true},
		{"*", false, true},
		{"a/*", false, true},
		{"a/b/*", false, true},
		{"*/a", false, false},
		{"a/*/b", false, false},
		{"a*", false, false},
		{"a/b*", false, false},
		{"a/**", false, false},
		{"**", false, false},
		{"", false, false},
		{"/", false, false},
		{"/a", false, false},
		{"a/", false, false},
		{"a//b", false, false},
		{"a\x1f", false, false},
		{"\x7f", false, false},
	};

	(void)state;
	for (size_t i = 0; i < ELEMENTS(rows); i++) {
		size_t len = strlen(rows[i].topic);
		const char *at = (const char *)guard_copy(&guard, rows[i].topic, len);

		assert_int_equal(hub_topic_valid(at, len, false), rows[i].ok);
		assert_int_equal(hub_topic_valid(at, len, true), rows[i].pattern);
		if (rows[i].pattern)
			assert_int_equal(hub_topic_is_pattern(at, len), !rows[i].ok);
	}
	assert_int_equal(hub_topic_parent("a/b/c", 5), 4);
	assert_int_equal(hub_topic_parent("abc", 3), 0);
}

/* -------------------------------------------------------------------------------- answers */

static json_t *load(const char *text, size_t len)
{
	json_error_t e;
	json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES, &e);

	if (!j)
		fail_msg("%.*s: %s", (int)len, text, e.text);
	return j;
}

static const char *member(json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? s : "";
}

static void test_answers(void **state)
{
	struct hub_str none = {0}, id = {"\"q\\\"\"", 5};
	char *out = (char *)guard_tail(&guard, HUB_ANSWER_MAX);
	char topic[HUB_TOPIC_MAX + 1] = {0}, long_id[HUB_ANSWER_ID_MAX];
	json_t *j;

	(void)state;
	j = load(out, hub_ack_write(out, id));
	assert_string_equal(member(j, "type"), "ack");
	assert_string_equal(member(j, "id"), "q\"");
	json_decref(j);
	for (unsigned e = 0; e < HUB_ERRORS; e++) {
		j = load(out, hub_error_write(out, (enum hub_error)e, "why", none));
		assert_string_equal(member(j, "code"), hub_error_name((enum hub_error)e));
		assert_string_equal(member(j, "message"), "why");
		assert_null(json_object_get(j, "id"));
		json_decref(j);
	}
	/* The longest there can be. */
	memset(topic, '"', HUB_TOPIC_MAX);
	long_id[0] = long_id[sizeof long_id - 1] = '"';
	for (unsigned i = 0; i < HUB_ID_MAX; i++)
		memcpy(long_id + 1 + 6 * i, "\\u0001", 6);
	id = (struct hub_str){long_id, sizeof long_id};
	j = load(out, hub_presence_write(out, topic, HUB_TOPIC_MAX, UINT64_MAX >> 1, id));
	assert_string_equal(member(j, "topic"), topic);
	assert_true(json_integer_value(json_object_get(j, "count")) == INT64_MAX);
	json_decref(j);
}

static void test_messages(void **state)
{
	static const char bytes[] = "\x01\"\\\n\xc3\xa9/plain text";
	static const char *const base64[] = {"", "AA==", "AAE=", "AAEC", "AAECAw=="};
	char *head = (char *)guard_tail(&guard, HUB_MESSAGE_HEAD_MAX);
	char text[TEXT_MAX], topic[HUB_TOPIC_MAX + 1] = {0};
	uint8_t data[4] = {0, 1, 2, 3};
	size_t len, n;
	json_t *j;

	(void)state;
	memset(topic, '\\', HUB_TOPIC_MAX);
	len = hub_message_head_write(head, topic, HUB_TOPIC_MAX, false);
	memcpy(text, head, len);
	n = hub_string_write(text + len, bytes, sizeof bytes - 1);
	assert_true(n <= 6 * (sizeof bytes - 1) + 2);
	len += n;
	text[len++] = '}';
	j = load(text, len);
	assert_string_equal(member(j, "type"), "message");
	assert_string_equal(member(j, "topic"), topic);
	assert_string_equal(member(j, "data"), bytes);
	json_decref(j);
	for (n = 0; n <= sizeof data; n++) {
		len = hub_message_head_write(text, "t", 1, true);
		len += hub_base64_write(text + len, data, n);
		text[len++] = '}';
		j = load(text, len);
		assert_string_equal(member(j, "base64"), base64[n]);
		json_decref(j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_like_jansson),
		cmocka_unit_test(test_json_cut),
		cmocka_unit_test(test_json_rows),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_requests_cut),
		cmocka_unit_test(test_long_ids_and_topics),
		cmocka_unit_test(test_topics),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_messages),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
