#include "proto/hub_codec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	NAME_MAX_BYTES = 16, /* of members and types that mean something; longer ones do not */
};

/* -------------------------------------------------------------------------------- JSON */

struct scan {
	const char *p, *end;
};

static void skip_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\r' || *s->p == '\t'))
		s->p++;
}

static bool take(struct scan *s, char ch)
{
	if (s->p == s->end || *s->p != ch)
		return false;
	s->p++;
	return true;
}

static int hex_digit(char ch)
{
	if (ch >= '0' && ch <= '9')
		return ch - '0';
	ch |= 0x20;
	return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* \uXXXX's four digits, or -1. */
static int hex4(const char *p, const char *end)
{
	int value = 0;

	if (end - p < 4)
		return -1;
	for (unsigned i = 0; i < 4; i++) {
		int digit = hex_digit(p[i]);

		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	return value;
}

/* Which of eight bytes are a quote, a backslash or below a space: the classic test for zero bytes
 * (Hacker's Delight 6-1), three times. A byte above 127 never is. */
static uint64_t special8(uint64_t v)
{
	const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
	uint64_t quote = v ^ (ones * '"'), backslash = v ^ (ones * '\\');

	return (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
		       ((v - ones * 0x20) & ~v)) &
	       high;
}

static void skip_plain(struct scan *s)
{
	uint64_t v;

	while (s->end - s->p >= 8) {
		memcpy(&v, s->p, 8);
		if (special8(v))
			return;
		s->p += 8;
	}
}

static bool skip_string(struct scan *s)
{
	if (!take(s, '"'))
		return false;
	for (;;) {
		skip_plain(s);
		/* What stopped it is within the next eight bytes, or the end is. */
		while (s->p < s->end && *s->p != '"' && *s->p != '\\') {
			if ((unsigned char)*s->p < 0x20)
				return false;
			s->p++;
		}
		if (s->p == s->end)
			return false;
		if (*s->p++ == '"')
			return true;
		if (s->p == s->end)
			return false;
		if (*s->p == 'u') {
			if (hex4(s->p + 1, s->end) < 0)
				return false;
			s->p += 5;
		} else if (*s->p && strchr("\"\\/bfnrt", *s->p)) {
			s->p++;
		} else {
			return false;
		}
	}
}

static bool skip_digits(struct scan *s)
{
	const char *begin = s->p;

	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p > begin;
}

static bool skip_integer(struct scan *s)
{
	take(s, '-');
	return take(s, '0') || skip_digits(s);
}

static bool skip_number(struct scan *s)
{
	if (!skip_integer(s) || (take(s, '.') && !skip_digits(s)))
		return false;
	if (s->p == s->end || (*s->p | 0x20) != 'e')
		return true;
	s->p++;
	if (!take(s, '+'))
		take(s, '-');
	return skip_digits(s);
}

static bool skip_literal(struct scan *s, const char *word)
{
	size_t len = strlen(word);

	if ((size_t)(s->end - s->p) < len || memcmp(s->p, word, len))
		return false;
	s->p += len;
	return true;
}

/* What is neither array nor object. */
static bool skip_scalar(struct scan *s)
{
	switch (*s->p) {
	case '"':
		return skip_string(s);
	case 't':
		return skip_literal(s, "true");
	case 'f':
		return skip_literal(s, "false");
	case 'n':
		return skip_literal(s, "null");
	default:
		return skip_number(s);
	}
}

static bool skip_name(struct scan *s)
{
	skip_space(s);
	if (!skip_string(s))
		return false;
	skip_space(s);
	return take(s, ':');
}

/* Behind the value that begins here. Not recursive: a client decides how deep it is nested. */
static bool skip_value(struct scan *s, unsigned depth_max)
{
	bool object[HUB_DEPTH_MAX];
	unsigned depth = 0;

	for (;;) {
		skip_space(s);
		if (s->p == s->end)
			return false;
		if (*s->p == '{' || *s->p == '[') {
			bool is_object = *s->p++ == '{';

			if (depth == depth_max)
				return false;
			skip_space(s);
			if (!take(s, is_object ? '}' : ']')) {
				object[depth++] = is_object;
				if (is_object && !skip_name(s))
					return false;
				continue;
			}
		} else if (!skip_scalar(s)) {
			return false;
		}
		/* A value is complete, and perhaps those around it. */
		for (;;) {
			if (!depth)
				return true;
			skip_space(s);
			if (take(s, ',')) {
				if (object[depth - 1] && !skip_name(s))
					return false;
				break;
			}
			if (!take(s, object[depth - 1] ? '}' : ']'))
				return false;
			depth--;
		}
	}
}

bool hub_json_valid(const char *text, size_t len)
{
	struct scan s = {text, text + len};

	if (!skip_value(&s, HUB_DEPTH_MAX))
		return false;
	skip_space(&s);
	return s.p == s.end;
}

static size_t utf8_put(char out[4], unsigned ch)
{
	if (ch < 0x80) {
		out[0] = (char)ch;
		return 1;
	}
	if (ch < 0x800) {
		out[0] = (char)(0xc0 | ch >> 6);
		out[1] = (char)(0x80 | (ch & 0x3f));
		return 2;
	}
	if (ch < 0x10000) {
		out[0] = (char)(0xe0 | ch >> 12);
		out[1] = (char)(0x80 | (ch >> 6 & 0x3f));
		out[2] = (char)(0x80 | (ch & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | ch >> 18);
	out[1] = (char)(0x80 | (ch >> 12 & 0x3f));
	out[2] = (char)(0x80 | (ch >> 6 & 0x3f));
	out[3] = (char)(0x80 | (ch & 0x3f));
	return 4;
}

/* The character of a valid escape at *p, behind its backslash; -1 for half a surrogate pair, which
 * is JSON and no character. */
static int unescape(const char **p, const char *end)
{
	static const char from[] = "bfnrt", to[] = "\b\f\n\r\t";
	char kind = *(*p)++;
	const char *at;
	int ch, low;

	if (kind != 'u') {
		at = strchr(from, kind);
		return at ? to[at - from] : kind;
	}
	ch = hex4(*p, end);
	*p += 4;
	if (ch < 0xd800 || ch > 0xdfff)
		return ch;
	if (ch > 0xdbff || end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
		return -1;
	low = hex4(*p + 2, end);
	if (low < 0xdc00 || low > 0xdfff)
		return -1;
	*p += 6;
	return 0x10000 + ((ch - 0xd800) << 10) + (low - 0xdc00);
}

/* A valid string, quotes included, without its escapes. False when that is longer than max, or no
 * text. */
static bool decode(struct hub_str raw, char *out, size_t max, size_t *ret_len)
{
	const char *p = raw.data + 1, *end = raw.data + raw.len - 1;
	size_t len = 0;

	while (p < end) {
		char ch[4] = {*p};
		size_t n = 1;

		if (*p++ == '\\') {
			int value = unescape(&p, end);

			if (value < 0)
				return false;
			n = utf8_put(ch, (unsigned)value);
		}
		if (len + n > max)
			return false;
		memcpy(out + len, ch, n);
		len += n;
	}
	*ret_len = len;
	return true;
}

/* -------------------------------------------------------------------------------- topics */

bool hub_topic_is_pattern(const char *topic, size_t len)
{
	return len && topic[len - 1] == '*' && (len == 1 || topic[len - 2] == '/');
}

size_t hub_topic_parent(const char *topic, size_t len)
{
	while (len && topic[len - 1] != '/')
		len--;
	return len;
}

bool hub_topic_valid(const char *topic, size_t len, bool pattern)
{
	if (!len || len > HUB_TOPIC_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned char ch = (unsigned char)topic[i];

		if (ch < 0x20 || ch == 0x7f)
			return false;
		if (ch == '/' && (i == 0 || i + 1 == len || topic[i + 1] == '/'))
			return false;
		if (ch == '*' && !(pattern && i + 1 == len && hub_topic_is_pattern(topic, len)))
			return false;
	}
	return true;
}

/* -------------------------------------------------------------------------------- requests */

enum member {
	MEMBER_TYPE,
	MEMBER_TOPIC,
	MEMBER_ID,
	MEMBER_DATA,
	MEMBERS,
};

static const char *const member_names[MEMBERS] = {"type", "topic", "id", "data"};
static const char *const type_names[HUB_TYPES] = {
	"subscribe", "unsubscribe", "publish", "presence"};

/* Which of names a string is; n: none. */
static unsigned name_of(struct hub_str raw, const char *const *names, unsigned n)
{
	char name[NAME_MAX_BYTES];
	size_t len;

	if (decode(raw, name, sizeof name, &len))
		for (unsigned i = 0; i < n; i++)
			if (strlen(names[i]) == len && !memcmp(names[i], name, len))
				return i;
	return n;
}

/* One member; false when it is malformed or known and given twice, which *ret_why tells. */
static bool take_member(struct scan *s, struct hub_str value[MEMBERS], const char **ret_why)
{
	struct hub_str name;
	const char *begin;
	unsigned which;

	skip_space(s);
	begin = s->p;
	if (!skip_string(s))
		return false;
	name = (struct hub_str){begin, (size_t)(s->p - begin)};
	skip_space(s);
	if (!take(s, ':'))
		return false;
	skip_space(s);
	begin = s->p;
	if (!skip_value(s, HUB_DEPTH_MAX - 1))
		return false;
	which = name_of(name, member_names, MEMBERS);
	if (which == MEMBERS)
		return true;
	if (value[which].data) {
		*ret_why = "a member is given twice";
		return false;
	}
	value[which] = (struct hub_str){begin, (size_t)(s->p - begin)};
	return true;
}

static bool take_members(struct scan *s, struct hub_str value[MEMBERS], const char **ret_why)
{
	skip_space(s);
	if (!take(s, '{'))
		return false;
	skip_space(s);
	if (!take(s, '}')) {
		do {
			if (!take_member(s, value, ret_why))
				return false;
			skip_space(s);
		} while (take(s, ','));
		if (!take(s, '}'))
			return false;
	}
	skip_space(s);
	return s->p == s->end;
}

static bool id_valid(struct hub_str id)
{
	char text[HUB_ID_MAX];
	size_t len;
	struct scan s = {id.data, id.data + id.len};

	if (id.data[0] == '"')
		return decode(id, text, sizeof text, &len);
	return id.len <= HUB_ID_DIGITS_MAX && skip_integer(&s) && s.p == s.end;
}

static bool is_string(struct hub_str s)
{
	return s.data && s.data[0] == '"';
}

int hub_request_parse(const char *text, size_t len, struct hub_request *ret,
	enum hub_error *ret_error, const char **ret_why)
{
	struct scan s = {text, text + len};
	struct hub_str value[MEMBERS] = {{0}};
	unsigned type;

	ret->id = ret->data = (struct hub_str){0};
	*ret_error = HUB_ERROR_MALFORMED;
	*ret_why = "not a JSON object";
	if (!take_members(&s, value, ret_why))
		return -EPROTO;
	*ret_why = "id is neither a string of at most 64 bytes nor an integer";
	if (value[MEMBER_ID].data && !id_valid(value[MEMBER_ID]))
		return -EPROTO;
	ret->id = value[MEMBER_ID];
	*ret_why = "type is missing or not a string";
	if (!is_string(value[MEMBER_TYPE]))
		return -EPROTO;
	type = name_of(value[MEMBER_TYPE], type_names, HUB_TYPES);
	if (type == HUB_TYPES) {
		*ret_error = HUB_ERROR_UNKNOWN_TYPE;
		*ret_why = "no such type";
		return -EPROTO;
	}
	ret->type = (enum hub_type)type;
	*ret_why = "topic is missing or not a string";
	if (!is_string(value[MEMBER_TOPIC]))
		return -EPROTO;
	*ret_why = "data is missing";
	if (type == HUB_PUBLISH && !value[MEMBER_DATA].data)
		return -EPROTO;
	ret->data = value[MEMBER_DATA];
	*ret_error = HUB_ERROR_BAD_TOPIC;
	*ret_why = "not a topic";
	if (!decode(value[MEMBER_TOPIC], ret->topic, sizeof ret->topic, &ret->topic_len) ||
		!hub_topic_valid(ret->topic, ret->topic_len,
			type == HUB_SUBSCRIBE || type == HUB_UNSUBSCRIBE))
		return -EPROTO;
	return 0;
}

/* -------------------------------------------------------------------------------- answers */

static char *put(char *out, const char *text, size_t len)
{
	if (len)
		memcpy(out, text, len);
	return out + len;
}

static char *put_text(char *out, const char *text)
{
	return put(out, text, strlen(text));
}

static char *put_id(char *out, struct hub_str id)
{
	if (!id.len)
		return out;
	return put(put_text(out, ",\"id\":"), id.data, id.len);
}

size_t hub_string_write(char *out, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char *p = out;

	*p++ = '"';
	for (size_t i = 0; i < len; i++) {
		unsigned char ch = (unsigned char)text[i];

		if (ch == '"' || ch == '\\') {
			*p++ = '\\';
			*p++ = (char)ch;
		} else if (ch < 0x20) {
			p = put_text(p, "\\u00");
			*p++ = hex[ch >> 4];
			*p++ = hex[ch & 15];
		} else {
			*p++ = (char)ch;
		}
	}
	*p++ = '"';
	return (size_t)(p - out);
}

size_t hub_base64_write(char *out, const uint8_t *data, size_t len)
{
	static const char digit[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *p = out;

	*p++ = '"';
	for (size_t i = 0; i < len; i += 3) {
		size_t have = len - i;
		unsigned v = (unsigned)data[i] << 16 | (have > 1 ? (unsigned)data[i + 1] << 8 : 0) |
			     (have > 2 ? data[i + 2] : 0);

		*p++ = digit[v >> 18];
		*p++ = digit[v >> 12 & 63];
		*p++ = have > 1 ? digit[v >> 6 & 63] : '=';
		*p++ = have > 2 ? digit[v & 63] : '=';
	}
	*p++ = '"';
	return (size_t)(p - out);
}

size_t hub_ack_write(char out[HUB_ANSWER_MAX], struct hub_str id)
{
	char *p = put_id(put_text(out, "{\"type\":\"ack\""), id);

	*p++ = '}';
	return (size_t)(p - out);
}

size_t hub_error_write(
	char out[HUB_ANSWER_MAX], enum hub_error error, const char *why, struct hub_str id)
{
	char *p = put_text(out, "{\"type\":\"error\",\"code\":\"");

	p = put_text(p, hub_error_name(error));
	p = put_text(p, "\",\"message\":\"");
	p = put_text(p, why);
	p = put_id(put_text(p, "\""), id);
	*p++ = '}';
	return (size_t)(p - out);
}

size_t hub_presence_write(char out[HUB_ANSWER_MAX], const char *topic, size_t topic_len,
	uint64_t count, struct hub_str id)
{
	char *p = put_text(out, "{\"type\":\"presence\",\"topic\":");

	p += hub_string_write(p, topic, topic_len);
	p += sprintf(p, ",\"count\":%llu", (unsigned long long)count);
	p = put_id(p, id);
	*p++ = '}';
	return (size_t)(p - out);
}

size_t hub_message_head_write(
	char out[HUB_MESSAGE_HEAD_MAX], const char *topic, size_t topic_len, bool base64)
{
	char *p = put_text(out, "{\"type\":\"message\",\"topic\":");

	p += hub_string_write(p, topic, topic_len);
	p = put_text(p, base64 ? ",\"base64\":" : ",\"data\":");
	return (size_t)(p - out);
}
