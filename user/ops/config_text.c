#include "ops/config_text.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "tidegate/raw.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

static bool only(const char *s, const char *allowed)
{
	return s[strspn(s, allowed)] == '\0';
}

const char *config_text_name(const char *s)
{
	if (*s == '\0')
		return "must not be empty";
	if (!only(s, LETTERS DIGITS "-_"))
		return "may only contain letters, digits, '-' and '_'";
	return strlen(s) > CONFIG_NAME_MAX ? "is longer than 63 characters" : NULL;
}

const char *config_text_user(const char *s)
{
	if (*s == '\0')
		return "must not be empty";
	if (*s == '-' || !only(s, LETTERS DIGITS "-_."))
		return "is not an account name";
	return strlen(s) > CONFIG_USER_MAX ? "is longer than 32 characters" : NULL;
}

static const char *check_path(const char *s, size_t len)
{
	if (*s != '/')
		return "must begin with '/'";
	if (len > TG_RAW_PATH_MAX)
		return "is longer than 255 bytes";
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '?' || s[i] == '#')
			return "must not have a query or fragment ('?', '#')";
		if (s[i] == '*')
			return "may only have '*' as its last part: /*";
		if (s[i] <= 0x20 || s[i] >= 0x7f)
			return "may only contain printable ASCII without spaces (percent-encode "
			       "the rest)";
	}
	return NULL;
}

const char *config_text_path(const char *s)
{
	return strchr(s, '*') ? "must not contain '*'" : check_path(s, strlen(s));
}

const char *config_text_route_path(const char *s)
{
	size_t len = strlen(s);

	if (len > TG_RAW_PATH_MAX)
		return "is longer than 255 bytes";
	if (len >= 2 && strcmp(s + len - 2, "/*") == 0)
		len--;
	return check_path(s, len);
}

/* "[IPv6]" without anything behind it. */
static bool is_bracketed(const char *s, size_t len)
{
	char inner[INET6_ADDRSTRLEN];
	struct in6_addr addr;

	if (len < 4 || len - 2 >= sizeof(inner) || s[0] != '[' || s[len - 1] != ']')
		return false;
	memcpy(inner, s + 1, len - 2);
	inner[len - 2] = '\0';
	return inet_pton(AF_INET6, inner, &addr) == 1;
}

static const char *check_host(const char *s, size_t len)
{
	if (*s == '[')
		return is_bracketed(s, len) ? NULL : "is not an IPv6 address in brackets";
	if (len > 2 && s[0] == '*' && s[1] == '.') {
		s += 2;
		len -= 2;
	}
	if (len == 0 || len > CONFIG_HOST_MAX)
		return "needs a host of 1 to 253 characters";
	if (strspn(s, LETTERS DIGITS "-_.") < len)
		return "may only contain letters, digits, '-', '_', '.', and a leading \"*.\"";
	if (s[0] == '.' || s[len - 1] == '.' || memmem(s, len, "..", 2))
		return "has an empty part between dots";
	return NULL;
}

const char *config_text_host(const char *s)
{
	const char *colon = strrchr(s, ':');

	if (*s != '[' && colon)
		return only(colon + 1, DIGITS) && strchr(s, ':') == colon
			       ? "must not have a port; hosts are compared without it"
			       : "is not a host (an IPv6 address stands in brackets)";
	return check_host(s, strlen(s));
}

static bool is_port(const char *s)
{
	unsigned port = 0;

	if (*s == '\0' || strlen(s) > 5 || !only(s, DIGITS))
		return false;
	for (; *s; s++)
		port = port * 10 + (unsigned)(*s - '0');
	return port >= 1 && port <= 65535;
}

const char *config_text_origin(const char *s)
{
	static const char form[] =
		"is not an origin; write scheme://host or scheme://host:port, or \"*\"";
	const char *host = strstr(s, "://");

	if (strcmp(s, "*") == 0)
		return NULL;
	if (!host || host == s || strspn(s, LETTERS DIGITS "+-.") != (size_t)(host - s))
		return form;
	host += 3;
	if (strpbrk(host, "/?#"))
		return "must not have a path; an origin ends with the host or port";

	size_t len = *host == '[' ? strcspn(host, "]") : strcspn(host, ":");
	if (*host == '[' && host[len] == ']')
		len++;
	if (host[len] != '\0' && (host[len] != ':' || !is_port(host + len + 1)))
		return form;
	return check_host(host, len);
}

const char *config_text_kid(const char *s)
{
	if (*s == '\0')
		return "must not be empty";
	for (const char *p = s; *p; p++)
		if (*p < ' ' || *p >= 0x7f)
			return "may only contain printable ASCII";
	return strlen(s) > CONFIG_KID_MAX ? "is longer than 128 characters" : NULL;
}

const char *config_text_claim(const char *s)
{
	if (*s == '\0')
		return "must not be empty";
	return strlen(s) > CONFIG_CLAIM_MAX ? "is longer than 255 bytes" : NULL;
}

const char *config_text_file(const char *s)
{
	if (*s != '/')
		return "is not an absolute path";
	return strlen(s) > CONFIG_FILE_PATH_MAX ? "is longer than 4095 bytes" : NULL;
}

const char *config_text_interface(const char *s)
{
	if (*s == '\0')
		return "must not be empty";
	for (const char *p = s; *p; p++)
		if (*p <= ' ' || *p > '~' || *p == '/' || *p == ':')
			return "is not the name of an interface";
	return strlen(s) >= IFNAMSIZ ? "is longer than 15 characters" : NULL;
}

const char *config_text_token(const char *s)
{
	if (*s == '\0')
		return "must not be empty";
	if (!only(s, LETTERS DIGITS "!#$%&'*+-.^_`|~"))
		return "is not a token (letters, digits and !#$%&'*+-.^_`|~)";
	return strlen(s) > CONFIG_TOKEN_MAX ? "is longer than 128 characters" : NULL;
}
