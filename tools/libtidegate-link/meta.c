/* Strings of the metadata: a scanner for one JSON object (RFC 8259) that allocates nothing. */
#include "internal.h"

#include <errno.h>
#include <string.h>

enum {
	DEPTH_MAX = 64, /* of arrays and objects passed over */
	KEY_MAX = 256,  /* a longer key matches nothing */
};

static const char *skip_space(const char *p)
{
	while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')
		p++;
	return p;
}

static int hex4(const char *p, uint32_t *ret)
{
	uint32_t v = 0;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
				 : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
				 : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
							: 16;
		if (digit > 15)
			return -EBADMSG; /* a NUL ends up here before anything behind it is read */
		v = v << 4 | digit;
	}
	*ret = v;
	return 0;
}

/* Four hexadecimal digits, or twelve characters of a surrogate pair; p is behind "\u". Returns the
 * end, NULL: malformed. */
static const char *unicode_escape(const char *p, uint32_t *ret)
{
	uint32_t v, low;
	if (hex4(p, &v) || v == 0 || (v >= 0xdc00 && v <= 0xdfff))
		return NULL;
	p += 4;
	if (v >= 0xd800 && v <= 0xdbff) {
		if (p[0] != '\\' || p[1] != 'u' || hex4(p + 2, &low) || low < 0xdc00 ||
			low > 0xdfff)
			return NULL;
		v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
		p += 6;
	}
	*ret = v;
	return p;
}

static size_t utf8_put(uint32_t v, char out[4])
{
	if (v < 0x80) {
		out[0] = (char)v;
		return 1;
	}
	size_t n = v < 0x800 ? 2 : v < 0x10000 ? 3 : 4;
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (size_t i = n - 1; i > 0; i--) {
		out[i] = (char)(0x80 | (v & 0x3f));
		v >>= 6;
	}
	out[0] = (char)(lead[n] | v);
	return n;
}

/* One character of a string, which may be escaped, as UTF-8. Returns the end, NULL: malformed. */
static const char *string_char(const char *p, char out[4], size_t *ret_len)
{
	static const char escapes[] = "\"\\/bfnrt", plain[] = "\"\\/\b\f\n\r\t";
	*ret_len = 1;
	if ((uint8_t)*p < ' ')
		return NULL; /* NUL included */
	if (*p != '\\') {
		out[0] = *p;
		return p + 1;
	}
	p++;
	if (*p == 'u') {
		uint32_t v;
		p = unicode_escape(p + 1, &v);
		if (p)
			*ret_len = utf8_put(v, out);
		return p;
	}
	const char *at = *p ? strchr(escapes, *p) : NULL;
	if (!at)
		return NULL;
	out[0] = plain[at - escapes];
	return p + 1;
}

/* The string at p, unescaped, as far as it fits; *ret_len is its whole length. Returns the end,
 * NULL: malformed. */
static const char *string(const char *p, char *out, size_t out_size, size_t *ret_len)
{
	size_t len = 0;
	if (*p++ != '"')
		return NULL;
	while (*p != '"') {
		char c[4];
		size_t n;
		p = string_char(p, c, &n);
		if (!p)
			return NULL;
		if (len + n <= out_size)
			memcpy(out + len, c, n);
		len += n;
	}
	*ret_len = len;
	return p + 1;
}

/* Passes over one value of any type. Of numbers and literals only the characters are looked at. */
static const char *skip_value(const char *p)
{
	char closing[DEPTH_MAX];
	unsigned depth = 0;
	do {
		size_t len;
		p = skip_space(p);
		if (*p == '"') {
			p = string(p, NULL, 0, &len);
			if (!p)
				return NULL;
		} else if (*p == '{' || *p == '[') {
			if (depth == DEPTH_MAX)
				return NULL;
			closing[depth++] = *p++ == '{' ? '}' : ']';
		} else if (depth > 0 && *p == closing[depth - 1]) {
			depth--;
			p++;
		} else if (depth > 0 && (*p == ',' || *p == ':')) {
			p++;
		} else {
			len = strspn(p, "+-.0123456789aeflnrstuE");
			if (len == 0)
				return NULL;
			p += len;
		}
	} while (depth > 0);
	return p;
}

/* The value of a member of the object at p. NULL with *ret_err: -ENOENT or -EBADMSG. */
static const char *member(const char *p, const char *key, int *ret_err)
{
	*ret_err = -EBADMSG;
	p = skip_space(p);
	if (*p != '{')
		return NULL;
	p = skip_space(p + 1);
	if (*p == '}') {
		*ret_err = -ENOENT;
		return NULL;
	}
	for (;;) {
		char name[KEY_MAX];
		size_t len;
		p = string(p, name, sizeof(name), &len);
		if (!p)
			return NULL;
		p = skip_space(p);
		if (*p != ':')
			return NULL;
		p = skip_space(p + 1);
		if (len == strlen(key) && len <= sizeof(name) && memcmp(name, key, len) == 0)
			return p;
		p = skip_value(p);
		if (!p)
			return NULL;
		p = skip_space(p);
		if (*p == '}') {
			*ret_err = -ENOENT;
			return NULL;
		}
		if (*p != ',')
			return NULL;
		p = skip_space(p + 1);
	}
}

ssize_t tgl_json_string(
	const char *json, const char *object, const char *key, char *out, size_t out_size)
{
	int err = -ENOENT;
	const char *p = json;
	if (object) {
		p = member(p, object, &err);
		if (p && *p != '{')
			return -ENOENT;
	}
	if (p)
		p = member(p, key, &err);
	if (!p)
		return err;
	if (*p != '"')
		return -ENOENT;
	size_t len;
	if (!string(p, NULL, 0, &len))
		return -EBADMSG;
	if (len >= out_size)
		return -ENOSPC;
	string(p, out, len, &len);
	out[len] = 0;
	return (ssize_t)len;
}
