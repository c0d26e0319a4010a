#include "top_fetch.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "http_client.h"

struct top_fetch {
	char *socket;
	unsigned interval_ms;
	int event_fd;
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake;
	struct top_news news;
	char *post; /* NULL: none is waiting */
};

json_t *top_ask(const char *socket, const char *method, const char *target, char why[TOP_WHY_MAX])
{
	struct http_reply reply;
	int r = http_ask(socket, method, target, NULL, &reply);

	if (r) {
		snprintf(why, TOP_WHY_MAX, "%s%s (%s)", strerror(-r),
			r == -ENOENT || r == -ECONNREFUSED ? "; is tidegate running?" : "", socket);
		return NULL;
	}
	json_t *answer = json_loadb(reply.body, reply.len, 0, NULL);
	const char *error = json_string_value(json_object_get(answer, "error"));

	if (reply.status / 100 != 2 || !answer) {
		if (error)
			snprintf(why, TOP_WHY_MAX, "%s", error);
		else
			snprintf(why, TOP_WHY_MAX,
				"the gateway's answer, HTTP status %u, is not understood",
				reply.status);
		json_decref(answer);
		answer = NULL;
	}
	free(reply.data);
	return answer;
}

/* With the lock held. */
static void tell(struct top_fetch *f)
{
	uint64_t one = 1;

	/* A full counter is readable all the same. */
	if (write(f->event_fd, &one, sizeof(one)) < 0)
		return;
}

static void post(struct top_fetch *f, const char *target)
{
	char why[TOP_WHY_MAX];
	json_t *answer = top_ask(f->socket, "POST", target, why);
	char *text = json_dumps(answer, JSON_COMPACT);

	pthread_mutex_lock(&f->lock);
	f->news.answered = true;
	f->news.good = answer != NULL;
	snprintf(f->news.answer, sizeof(f->news.answer), "%s",
		!answer ? why
		: text  ? text
			: "done");
	tell(f);
	pthread_mutex_unlock(&f->lock);
	free(text);
	json_decref(answer);
}

static void look(struct top_fetch *f)
{
	char why[TOP_WHY_MAX] = "";
	json_t *snapshot = top_ask(f->socket, "GET", "/v1/live", why);

	pthread_mutex_lock(&f->lock);
	f->news.lost = !snapshot;
	memcpy(f->news.why, why, sizeof(why));
	if (snapshot) {
		json_decref(f->news.snapshot);
		f->news.snapshot = snapshot;
	}
	tell(f);
	pthread_mutex_unlock(&f->lock);
}

/* Until the next look, or a post. */
static char *wait_for(struct top_fetch *f, const struct timespec *until)
{
	pthread_mutex_lock(&f->lock);
	while (!f->post && !pthread_cond_timedwait(&f->wake, &f->lock, until))
		;
	char *target = f->post;
	pthread_mutex_unlock(&f->lock);
	return target;
}

static void *run(void *ctx)
{
	struct top_fetch *f = ctx;
	struct timespec next;
	char *target;

	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_nsec += (long)(f->interval_ms % 1000) * 1000000;
		next.tv_sec += f->interval_ms / 1000 + next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		look(f);
		while ((target = wait_for(f, &next))) {
			post(f, target);
			pthread_mutex_lock(&f->lock);
			free(f->post);
			f->post = NULL;
			pthread_mutex_unlock(&f->lock);
		}
	}
	return NULL;
}

int top_fetch_start(const char *socket, unsigned interval_ms, struct top_fetch **ret)
{
	struct top_fetch *f = calloc(1, sizeof(*f));
	pthread_condattr_t attr;
	int r;

	if (!f)
		return -ENOMEM;
	f->interval_ms = interval_ms;
	f->socket = strdup(socket);
	f->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!f->socket || f->event_fd < 0) {
		r = f->socket ? -errno : -ENOMEM;
		goto err;
	}
	pthread_mutex_init(&f->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&f->wake, &attr);
	pthread_condattr_destroy(&attr);
	r = -pthread_create(&f->thread, NULL, run, f);
	if (r)
		goto err;
	*ret = f;
	return 0;

err:
	if (f->event_fd >= 0)
		close(f->event_fd);
	free(f->socket);
	free(f);
	return r;
}

int top_fetch_fd(const struct top_fetch *f)
{
	return f->event_fd;
}

void top_fetch_take(struct top_fetch *f, struct top_news *ret)
{
	uint64_t n;

	pthread_mutex_lock(&f->lock);
	/* Nothing to read is no news. */
	if (read(f->event_fd, &n, sizeof(n)) < 0)
		n = 0;
	*ret = f->news;
	f->news.snapshot = NULL;
	f->news.answered = false;
	pthread_mutex_unlock(&f->lock);
}

bool top_fetch_post(struct top_fetch *f, const char *target)
{
	pthread_mutex_lock(&f->lock);
	bool free_now = !f->post;
	if (free_now)
		f->post = strdup(target);
	bool ok = free_now && f->post;
	pthread_cond_signal(&f->wake);
	pthread_mutex_unlock(&f->lock);
	return ok;
}
