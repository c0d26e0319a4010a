/* Clients of many addresses on the far host of netns.h: any of 10.7.0.0/16 and fd07::/32. Every
 * call that makes a socket there takes the thread to that side and back. */
#ifndef TIDEGATE_TESTS_CROWD_H
#define TIDEGATE_TESTS_CROWD_H

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include <linux/if_packet.h>

#include "netns.h"
#include "packet.h"

enum {
	CROWD_WAIT_S = 10,
	CROWD_IPV6_FREEBIND = 78,
};

static inline void crowd_enter(int fd)
{
	int rc = setns(fd, CLONE_NEWNET);
	assert(!rc);
}

/* After netns_init. 10.98.0.0/16 are further addresses of this side. */
static inline int crowd_init(const struct netns *n)
{
	crowd_enter(n->client);
	int bad = netns_run("ip route add default via " NETNS_SERVER4 " &&"
			    " ip -6 route add default via " NETNS_SERVER6 " &&"
			    " ip route add local 10.7.0.0/16 dev lo &&"
			    " ip -6 route add local fd07::/32 dev lo");
	crowd_enter(n->server);
	return bad || netns_run("ip route add default via " NETNS_CLIENT4 " &&"
				" ip -6 route add default via " NETNS_CLIENT6 " &&"
				" ip route add local 10.98.0.0/16 dev lo")
		       ? -1
		       : 0;
}

struct crowd_address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t len;
};

static inline struct crowd_address crowd_address(const char *text, uint16_t port)
{
	struct crowd_address a = {0};

	if (strchr(text, ':')) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons(port);
		a.len = sizeof(a.v6);
		assert(inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1);
	} else {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons(port);
		a.len = sizeof(a.v4);
		assert(inet_pton(AF_INET, text, &a.v4.sin_addr) == 1);
	}
	return a;
}

/* In the calling thread's namespace. */
static inline int crowd_listen(const char *address, uint16_t port, bool share)
{
	struct crowd_address a = crowd_address(address, port);
	int one = 1, fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert(fd >= 0);
	assert(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	if (share)
		assert(!setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)));
	assert(!bind(fd, &a.any, a.len) && !listen(fd, 4096));
	return fd;
}

/* Blocking, in the calling thread's namespace. `from_port` 0: any. -1 and errno when refused. */
static inline int crowd_connect_here(
	const char *from, uint16_t from_port, const char *to, uint16_t port)
{
	struct crowd_address a = crowd_address(from, from_port), b = crowd_address(to, port);
	struct timeval wait = {CROWD_WAIT_S, 0};
	int one = 1, fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0);
	if (a.any.sa_family == AF_INET6)
		setsockopt(fd, SOL_IPV6, CROWD_IPV6_FREEBIND, &one, sizeof(one));
	assert(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	assert(!setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)));
	if (bind(fd, &a.any, a.len) || connect(fd, &b.any, b.len)) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* The same on the clients' side. */
static inline int crowd_connect(
	const struct netns *n, const char *from, const char *to, uint16_t port)
{
	crowd_enter(n->client);
	int fd = crowd_connect_here(from, 0, to, port), error = errno;
	crowd_enter(n->server);
	errno = error;
	return fd;
}

/* Closes with RST, so that no port lingers and the other side hears of it at once. */
static inline void crowd_reset(int fd)
{
	struct linger now = {.l_onoff = 1};

	assert(!setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)));
	close(fd);
}

static inline void crowd_sleep_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000l};

	nanosleep(&t, NULL);
}

static inline uint64_t crowd_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Waits, some seconds at most, until it holds. */
#define CROWD_UNTIL(condition)                                                                     \
	do {                                                                                       \
		uint64_t until_ = crowd_now_ns() + CROWD_WAIT_S * 1000000000ull;                   \
		bool holds_;                                                                       \
		while (!(holds_ = (condition)) && crowd_now_ns() < until_)                         \
			crowd_sleep_ms(1);                                                         \
		assert_true(holds_);                                                               \
	} while (0)

/* The MAC address of this side's interface. */
static inline void crowd_server_mac(const struct netns *n, uint8_t mac[6])
{
	char text[32] = "";

	/* Not from sysfs, which shows the namespace that it was mounted in. */
	crowd_enter(n->server);
	FILE *f = popen("ip -o link show tgs | sed 's/.*ether \\([0-9a-f:]*\\).*/\\1/'", "r");
	assert(f && fgets(text, sizeof(text), f));
	pclose(f);
	unsigned b[6];
	assert(sscanf(text, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) == 6);
	for (unsigned i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
}

/* Sends a frame from the clients' side as it is, but for its destination. */
struct crowd_sender {
	int fd;
	uint8_t mac[6];
	struct sockaddr_ll to;
};

static inline void crowd_sender_open(const struct netns *n, struct crowd_sender *s)
{
	crowd_server_mac(n, s->mac);
	crowd_enter(n->client);
	s->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	s->to = (struct sockaddr_ll){
		.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex("tgc"), .sll_halen = 6};
	crowd_enter(n->server);
	assert(s->fd >= 0 && s->to.sll_ifindex);
}

static inline void crowd_send(const struct crowd_sender *s, struct packet *p)
{
	memcpy(p->b, s->mac, 6);
	ssize_t sent =
		sendto(s->fd, p->b, p->len, 0, (const struct sockaddr *)&s->to, sizeof(s->to));
	assert(sent == (ssize_t)p->len);
}

#endif
