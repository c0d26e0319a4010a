#include "ops/config_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

_Static_assert(sizeof(((struct sockaddr_un *)NULL)->sun_path) == CONFIG_UNIX_PATH_MAX + 1,
	"sun_path holds the path and its NUL");

static int bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EINVAL;
}

/* At most five digits, then the end; 1..65535. */
static int read_port(const char *text, in_port_t *ret)
{
	unsigned long port;
	size_t digits = strspn(text, "0123456789");

	if (digits == 0 || digits > 5 || text[digits] != '\0')
		return -EINVAL;
	port = strtoul(text, NULL, 10);
	if (port < 1 || port > 65535)
		return -EINVAL;
	*ret = htons((in_port_t)port);
	return 0;
}

/* A host of `len` bytes, brackets taken off, into the socket address. */
static int read_host(
	const char *host, size_t len, bool brackets, in_port_t port, struct config_address *a)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a->addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->addr;
	char text[INET6_ADDRSTRLEN];

	if (len >= sizeof(text))
		return -EINVAL;
	memcpy(text, host, len);
	text[len] = '\0';
	if (brackets) {
		if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
			return -EINVAL;
		v6->sin6_family = AF_INET6;
		v6->sin6_port = port;
		a->addr_len = sizeof(*v6);
		return 0;
	}
	if (inet_pton(AF_INET, text, &v4->sin_addr) != 1)
		return -EINVAL;
	v4->sin_family = AF_INET;
	v4->sin_port = port;
	a->addr_len = sizeof(*v4);
	return 0;
}

static int read_tcp(const char *text, struct config_address *a, const char **ret_why)
{
	const char *colon = strrchr(text, ':');
	bool brackets = *text == '[';
	const char *host = text + brackets;
	in_port_t port;

	if (!colon || (brackets && colon[-1] != ']'))
		return bad(ret_why, "has no port; write ADDRESS:PORT or [IPV6]:PORT");
	if (read_port(colon + 1, &port) != 0)
		return bad(ret_why, "has a port that is not 1 .. 65535");

	size_t len = (size_t)(colon - host) - brackets;
	if (!brackets && memchr(host, ':', len))
		return bad(ret_why, "has an IPv6 address without brackets; write [IPV6]:PORT");
	if (len == 0)
		return bad(
			ret_why, "has no host; write 0.0.0.0:PORT or [::]:PORT for all addresses");
	if (read_host(host, len, brackets, port, a) != 0)
		return bad(ret_why,
			"has a host that is not a numeric address; names are not resolved");
	return 0;
}

static int read_unix(const char *path, struct config_address *a, const char **ret_why)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&a->addr;
	size_t len = strlen(path);

	if (*path != '/')
		return bad(ret_why, "needs an absolute path: unix:/path");
	if (len > CONFIG_UNIX_PATH_MAX)
		return bad(ret_why, "has a path of more than 107 bytes");
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	a->addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	return 0;
}

static int keep(const char *text, struct config_address *a, struct config_address *ret)
{
	a->text = strdup(text);
	if (!a->text)
		return -ENOMEM;
	*ret = *a;
	return 0;
}

int config_address_tcp(const char *text, struct config_address *ret, const char **ret_why)
{
	struct config_address a = {0};

	if (strstr(text, "://") || strncmp(text, "unix:", 5) == 0)
		return bad(ret_why, "is not ADDRESS:PORT; listeners are TCP and take no scheme");
	int err = read_tcp(text, &a, ret_why);
	return err ? err : keep(text, &a, ret);
}

int config_address_endpoint(const char *text, struct config_address *ret, const char **ret_why)
{
	struct config_address a = {0};
	int err;

	if (strncmp(text, "tcp://", 6) == 0)
		err = read_tcp(text + 6, &a, ret_why);
	else if (strncmp(text, "unix:", 5) == 0)
		err = read_unix(text + 5, &a, ret_why);
	else
		err = bad(ret_why, "is not an endpoint; write tcp://ADDRESS:PORT or unix:/path");
	return err ? err : keep(text, &a, ret);
}

void config_address_fini(struct config_address *a)
{
	free(a->text);
	a->text = NULL;
	a->addr_len = 0;
}

bool config_address_equal(const struct config_address *a, const struct config_address *b)
{
	/* Unused bytes are zero, so equal addresses have equal bytes. */
	return a->addr_len != 0 && a->addr_len == b->addr_len &&
	       memcmp(&a->addr, &b->addr, a->addr_len) == 0;
}

static int read_prefix_host(const char *host, struct in6_addr *ret, unsigned *ret_mapped)
{
	struct in_addr v4;

	if (inet_pton(AF_INET6, host, ret) == 1) {
		*ret_mapped = 0;
		return 0;
	}
	if (inet_pton(AF_INET, host, &v4) != 1)
		return -EINVAL;
	memset(ret, 0, sizeof(*ret));
	ret->s6_addr[10] = ret->s6_addr[11] = 0xff;
	memcpy(&ret->s6_addr[12], &v4, sizeof(v4));
	*ret_mapped = 96;
	return 0;
}

static bool has_bits_beyond(const struct in6_addr *addr, unsigned len)
{
	for (unsigned bit = len; bit < 128; bit++)
		if (addr->s6_addr[bit / 8] & (0x80 >> bit % 8))
			return true;
	return false;
}

int config_prefix_parse(const char *text, struct config_prefix *ret, const char **ret_why)
{
	const char *slash = strchr(text, '/');
	size_t host_len = slash ? (size_t)(slash - text) : strlen(text);
	char host[INET6_ADDRSTRLEN];
	struct config_prefix p = {.len = 128};
	unsigned mapped;

	if (host_len >= sizeof(host))
		return bad(ret_why, "is not an address or a prefix");
	memcpy(host, text, host_len);
	host[host_len] = '\0';
	if (read_prefix_host(host, &p.addr, &mapped) != 0)
		return bad(ret_why, "is not an address or a prefix");

	if (slash) {
		size_t digits = strspn(slash + 1, "0123456789");
		if (digits == 0 || digits > 3 || slash[1 + digits] != '\0')
			return bad(ret_why, "has a length that is not a number");
		p.len = (unsigned)strtoul(slash + 1, NULL, 10) + mapped;
		if (p.len > 128)
			return bad(ret_why,
				mapped ? "has a length above 32" : "has a length above 128");
	}
	if (has_bits_beyond(&p.addr, p.len))
		return bad(ret_why, "has address bits beyond its length");
	*ret = p;
	return 0;
}
