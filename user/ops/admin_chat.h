/* The chat page: a browser client of the hub protocol, embedded in the program, and what it needs
 * to know to find the hub. Made once at the start, read by all admin threads afterwards. */
#ifndef TIDEGATE_OPS_ADMIN_CHAT_H
#define TIDEGATE_OPS_ADMIN_CHAT_H

#include <stddef.h>
#include <stdint.h>

/* Where a browser reaches the hub: a WebSocket listener's port and a route's path. */
struct admin_hub {
	const char *path;
	uint16_t port;
};

struct admin_chat {
	char *hubs;     /* {"hubs": [{"path": "/hub", "port": 8080}, …]} */
	char *policy;   /* the page's Content-Security-Policy */
	unsigned count; /* of hubs; 0: there is nothing to chat over */
};

/* 0 or -ENOMEM; fini takes what is half made, and zeros. */
int admin_chat_init(struct admin_chat *c, const struct admin_hub *hubs, unsigned n);
void admin_chat_fini(struct admin_chat *c);

/* The page, static. */
const char *admin_chat_page(size_t *ret_len);

#endif
