#include "ops/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/config_address.h"
#include "ops/config_parse.h"

enum {
	CONFIG_FILE_MAX = 4 << 20
}; /* bytes; larger is EFBIG */

static const char demo_yaml[] =
	"# WebSocket and raw clients on this machine: /echo answers by "
	"itself, /hub passes messages between clients, /service asks a service on port 9300.\n"
	"listeners:\n"
	"  - name: ws\n"
	"    address: 127.0.0.1:8080\n"
	"    protocol: websocket\n"
	"  - name: raw\n"
	"    address: 127.0.0.1:8081\n"
	"    protocol: raw\n"
	"routes:\n"
	"  - path: /echo\n"
	"    upstream: echo\n"
	"  - path: /hub\n"
	"    upstream: hub\n"
	"  - path: /service\n"
	"    upstream: service\n"
	"upstreams:\n"
	"  - name: service\n"
	"    type: link\n"
	"    endpoints:\n"
	"      - tcp://127.0.0.1:9300\n"
	"admin:\n"
	"  listen: 127.0.0.1:9180\n";

const char *config_demo_yaml(void)
{
	return demo_yaml;
}

/* The whole file, at most CONFIG_FILE_MAX bytes; -errno, -EFBIG. */
static int read_all(int fd, char **ret, size_t *ret_len)
{
	char *data = NULL;
	size_t len = 0, room = 0;
	int err = -EFBIG;

	while (len <= CONFIG_FILE_MAX) {
		if (len == room) {
			room = room ? room * 2 : 16384;
			char *grown = realloc(data, room);
			if (!grown) {
				err = -ENOMEM;
				break;
			}
			data = grown;
		}
		ssize_t n = read(fd, data + len, room - len);
		if (n == 0) {
			*ret = data;
			*ret_len = len;
			return 0;
		}
		if (n < 0 && errno != EINTR) {
			err = -errno;
			break;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	free(data);
	return err;
}

static int read_file(const char *path, char **ret, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	int err = read_all(fd, ret, ret_len);
	close(fd);
	return err;
}

int config_load(const char *path, struct config **ret, char **ret_errors)
{
	char *data = NULL, *text;
	size_t len = 0;

	if (!path)
		return config_parse(NULL, demo_yaml, strlen(demo_yaml), ret, ret_errors);

	int err = read_file(path, &data, &len);
	if (err) {
		if (asprintf(&text, "%s: %s\n", path, strerror(-err)) < 0)
			return -ENOMEM;
		*ret_errors = text;
		return err;
	}
	err = config_parse(path, data, len, ret, ret_errors);
	free(data);
	return err;
}

static void strings_free(struct config_strings *s)
{
	for (unsigned i = 0; i < s->n; i++)
		free(s->item[i]);
	free(s->item);
}

static void listener_free(struct config_listener *l)
{
	free(l->name);
	config_address_fini(&l->address);
	free(l->health_path);
	free(l->proxy_from);
}

static void route_free(struct config_route *r)
{
	free(r->listener);
	free(r->host);
	free(r->path);
	free(r->upstream);
	strings_free(&r->origins);
	strings_free(&r->subprotocols);
	strings_free(&r->auth_audience);
	free(r->auth_issuer);
}

static void upstream_free(struct config_upstream *u)
{
	free(u->name);
	for (unsigned i = 0; i < u->n_endpoints; i++)
		config_address_fini(&u->endpoints[i]);
	free(u->endpoints);
	free(u->hash_key);
}

void config_free(struct config *c)
{
	if (!c)
		return;
	for (unsigned i = 0; i < c->n_listeners; i++)
		listener_free(&c->listeners[i]);
	for (unsigned i = 0; i < c->n_routes; i++)
		route_free(&c->routes[i]);
	for (unsigned i = 0; i < c->n_upstreams; i++)
		upstream_free(&c->upstreams[i]);
	strings_free(&c->admission.interfaces);
	free(c->admission.allow);
	free(c->admission.deny);
	free(c->admission.weights);
	for (unsigned i = 0; i < c->n_auth_keys; i++) {
		free(c->auth_keys[i].kid);
		free(c->auth_keys[i].file);
	}
	strings_free(&c->auth_secrets);
	free(c->auth_keys);
	free(c->auth_claim);
	free(c->listeners);
	free(c->routes);
	free(c->upstreams);
	free(c->path);
	free(c->instance);
	free(c->user);
	config_address_fini(&c->admin);
	free(c->admin_socket);
	free(c->access_file);
	free(c->admin_token_file);
	free(c);
}
