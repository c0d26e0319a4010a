/* Authentication of the gateway as a whole: what routes ask for, the keys, the crypto threads. Main
 * thread. */
#include "ops/gateway_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "keeper/secrets.h"

static void policies(struct gateway *g)
{
	const struct config *cfg = g->cfg;

	for (unsigned i = 0; i < cfg->n_routes; i++) {
		const struct config_route *r = &cfg->routes[i];

		g->policies[i] = (struct auth_policy){
			.type = (enum auth_type)r->auth_type,
			.expect =
				{
					.audiences = (const char *const *)r->auth_audience.item,
					.n_audiences = r->auth_audience.n,
					.issuer = r->auth_issuer,
					.leeway_s = cfg->auth_leeway_ms / 1000,
				},
			.topics_all = r->auth_topics_all,
			.refresh = r->auth_refresh,
		};
	}
}

/* A new set of keys from the contents of the files. 0, or -errno with *ret_why, which may be NULL.
 */
static int read_keys(struct gateway *g, int fd, struct auth_keys **ret, const char **ret_why)
{
	const struct config *cfg = g->cfg;
	unsigned n = cfg->auth_secrets.n + cfg->n_auth_keys, bad;
	unsigned total = n + (cfg->admin_token_file != NULL);
	struct secrets_slice *slices = calloc(total + 1, sizeof *slices);
	struct auth_file *files = calloc(n + 1, sizeof *files);
	void *blob = NULL;
	size_t len = 0;
	int err = -ENOMEM;

	*ret_why = NULL;
	if (slices && files)
		err = secrets_unpack(fd, total, slices, &blob, &len);
	for (unsigned i = 0; !err && i < n; i++)
		files[i] = (struct auth_file){slices[i].data, slices[i].len};
	if (!err)
		err = auth_keys_create(g->key_specs, cfg->n_auth_keys, cfg->auth_secrets.n, files,
			ret, &bad, ret_why);
	if (!err && total > n && admin_token_set(&g->admin_token, slices[n].data, slices[n].len)) {
		auth_keys_unref(*ret);
		*ret_why = "admin.token_file";
		err = -EINVAL;
	}
	secrets_blob_free(blob, len);
	free(slices);
	free(files);
	return err;
}

static int start_crypto(struct gateway *g)
{
	const struct config *cfg = g->cfg;
	struct crypto_opts opts = {
		.threads = cfg->crypto_threads,
		.queue = cfg->crypto_queue,
		.mail_kind = MAIL_CRYPTO,
	};

	for (unsigned i = 0; i < cfg->n_auth_keys; i++)
		if (cfg->auth_keys[i].algorithm != JWT_HS256)
			return crypto_create(&opts, &g->auth.crypto);
	return 0;
}

int gateway_auth_create(struct gateway *g, int keys_fd, const char **ret_why)
{
	const struct config *cfg = g->cfg;

	*ret_why = NULL;
	/* Threads that make JSON objects at the same time must find the seed of their hashes. */
	json_object_seed(0);
	g->policies = calloc(cfg->n_routes, sizeof *g->policies);
	g->key_specs = calloc(cfg->n_auth_keys + 1, sizeof *g->key_specs);
	if (!g->policies || !g->key_specs)
		return -ENOMEM;
	policies(g);
	for (unsigned i = 0; i < cfg->n_auth_keys; i++)
		g->key_specs[i] = (struct auth_key_spec){
			cfg->auth_keys[i].kid, (enum jwt_algorithm)cfg->auth_keys[i].algorithm};
	g->auth.claim = cfg->auth_claim;
	g->auth.token_max = cfg->auth_token_bytes;
	if (keys_fd >= 0) {
		int err = read_keys(g, keys_fd, &g->auth.keys, ret_why);

		if (err)
			return err;
	}
	return start_crypto(g);
}

void gateway_auth_reload(struct gateway *g, int keys_fd)
{
	struct timespec nap = {0, 1000000};
	struct auth_keys *keys;
	const char *why;
	int err = read_keys(g, keys_fd, &keys, &why);

	if (err) {
		log_error("gateway", "new keys are not used: %s", why ? why : strerror(-err));
		return;
	}
	auth_keys_unref(g->auth.keys);
	g->auth.keys = keys;
	for (unsigned i = 0; i < g->n_workers; i++) {
		struct mailbox_msg msg = {.kind = MAIL_KEYS, .ptr = auth_keys_ref(keys)};

		while (worker_post(g->workers[i].w, &msg, NULL))
			nanosleep(&nap, NULL);
	}
}

void gateway_auth_stop(struct gateway *g)
{
	crypto_stop(g->auth.crypto);
}

void gateway_auth_destroy(struct gateway *g)
{
	crypto_destroy(g->auth.crypto);
	auth_keys_unref(g->auth.keys);
	free(g->policies);
	free(g->key_specs);
}
