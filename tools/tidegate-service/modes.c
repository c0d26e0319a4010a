#include "modes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	DELAY_MAX_MS = 3600 * 1000,
	QUERY_MAX = 4096,
	COMMAND_MAX = 256,
	SEND_MAX = 16 * 1024 * 1024, /* of the command `send` */
};

/* Data of a session. Messages are consumed when their reply is queued, so that a client that does
 * not read its replies is told to wait and this service holds no more than a window of it. */
struct client {
	struct tg_link_session *session;
	struct mode mode;
	struct replies replies;
	bool is_blocked;
	TAILQ_ENTRY(client) on_blocked;
	char *topic; /* MODE_TOPICS */
};

uint64_t modes_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* A decimal number of [text, end) within bounds. */
static bool number(const char *text, const char *end, uint32_t min, uint32_t max, uint32_t *ret)
{
	uint32_t v = 0;
	if (text == end || end - text > 9)
		return false;
	for (; text < end; text++) {
		if (*text < '0' || *text > '9')
			return false;
		v = v * 10 + (uint32_t)(*text - '0');
	}
	if (v < min || v > max)
		return false;
	*ret = v;
	return true;
}

bool mode_parse(const char *text, size_t len, struct mode *ret)
{
	static const struct {
		const char *name;
		enum mode_kind kind;
	} names[] = {
		{"echo", MODE_ECHO},
		{"uppercase", MODE_UPPERCASE},
		{"hang", MODE_HANG},
		{"reject", MODE_REJECT},
		{"stall", MODE_STALL},
		{"silent", MODE_SILENT},
		{"topics", MODE_TOPICS},
	};
	struct mode m = {.status = 403};
	uint32_t v;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strlen(names[i].name) == len && memcmp(names[i].name, text, len) == 0) {
			m.kind = names[i].kind;
			*ret = m;
			return true;
		}
	}
	if (len > 6 && memcmp(text, "delay:", 6) == 0 &&
		number(text + 6, text + len, 0, DELAY_MAX_MS, &v)) {
		*ret = (struct mode){.kind = MODE_DELAY, .delay_ms = v};
		return true;
	}
	if (len > 7 && memcmp(text, "reject:", 7) == 0 &&
		number(text + 7, text + len, 400, 599, &v)) {
		*ret = (struct mode){.kind = MODE_REJECT, .status = (uint16_t)v};
		return true;
	}
	return false;
}

/* The mode a session asks for, else the default. */
static struct mode session_mode(const struct modes *m, const struct tg_link_session *s)
{
	char text[QUERY_MAX];
	struct mode mode = m->mode;
	if (!m->per_session)
		return mode;
	if (tg_link_session_meta(s, NULL, "path", text, sizeof(text)) >= 0) {
		const char *last = strrchr(text, '/');
		if (last)
			mode_parse(last + 1, strlen(last + 1), &mode);
	}
	if (tg_link_session_meta(s, NULL, "query", text, sizeof(text)) < 0)
		return mode;
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "&");
		if (len > 5 && memcmp(p, "mode=", 5) == 0)
			mode_parse(p + 5, len - 5, &mode);
		p += len + (p[len] == '&');
	}
	return mode;
}

/* The value of a key of the query, or NULL. */
static char *query_value(const struct tg_link_session *s, const char *key)
{
	char text[QUERY_MAX];
	size_t key_len = strlen(key);
	if (tg_link_session_meta(s, NULL, "query", text, sizeof(text)) < 0)
		return NULL;
	for (const char *p = text; *p;) {
		size_t len = strcspn(p, "&");
		if (len > key_len && p[key_len] == '=' && memcmp(p, key, key_len) == 0)
			return strndup(p + key_len + 1, len - key_len - 1);
		p += len + (p[len] == '&');
	}
	return NULL;
}

static void on_open(void *ctx, struct tg_link_session *s)
{
	struct mode mode = session_mode(ctx, s);
	struct client *c = mode.kind == MODE_REJECT ? NULL : malloc(sizeof(*c));
	if (!c) {
		if (mode.kind == MODE_REJECT)
			tg_link_reject(s, mode.status, "rejected by request");
		else
			tg_link_reject(s, 503, "out of memory");
		return;
	}
	*c = (struct client){.session = s, .mode = mode};
	TAILQ_INIT(&c->replies);
	tg_link_session_set_data(s, c);
	tg_link_session_set_manual(s, mode.kind != MODE_HANG);
	if (mode.kind != MODE_SILENT)
		tg_link_accept(s, NULL);
	if (mode.kind == MODE_TOPICS) {
		c->topic = query_value(s, "topic");
		if (!c->topic || tg_link_subscribe(s, c->topic) < 0)
			tg_link_close(s, 1008, "no topic, or topics are not to be had", 0);
	}
}

static struct line *line_of(struct modes *m, uint32_t delay_ms)
{
	unsigned at = m->n_lines;
	for (unsigned i = 0; i < m->n_lines; i++) {
		if (m->lines[i].delay_ms == delay_ms)
			return &m->lines[i];
		if (TAILQ_EMPTY(&m->lines[i].replies))
			at = i;
	}
	if (at == LINES_MAX)
		return NULL;
	m->n_lines += at == m->n_lines;
	m->lines[at].delay_ms = delay_ms;
	TAILQ_INIT(&m->lines[at].replies);
	return &m->lines[at];
}

static void reply_free(struct modes *m, struct reply *r)
{
	TAILQ_REMOVE(&r->client->replies, r, on_client);
	if (r->waiting)
		TAILQ_REMOVE(&line_of(m, r->client->mode.delay_ms)->replies, r, on_line);
	free(r);
}

static int publish(struct client *c, const struct reply *r)
{
	char topic[256];
	memcpy(topic, r->data, r->topic_len);
	topic[r->topic_len] = 0;
	return tg_link_publish(tg_link_session_link(c->session), topic, r->data + r->topic_len,
		r->len - r->topic_len, r->text);
}

static void block(struct modes *m, struct client *c, bool blocked)
{
	if (c->is_blocked == blocked)
		return;
	c->is_blocked = blocked;
	if (blocked)
		TAILQ_INSERT_TAIL(&m->blocked, c, on_blocked);
	else
		TAILQ_REMOVE(&m->blocked, c, on_blocked);
}

/* Sends what this client's replies may be sent of, in order. */
static void replies_send(struct modes *m, struct client *c)
{
	block(m, c, false);
	for (struct reply *r; (r = TAILQ_FIRST(&c->replies)) && !r->waiting;) {
		int err = r->topic_len ? publish(c, r)
				       : tg_link_send(c->session, r->data, r->len, r->text);
		if (err == -EAGAIN) {
			/* on_writable goes on; but nobody tells of a link's credit. */
			block(m, c, r->topic_len);
			return;
		}
		tg_link_consume(c->session, r->consumes);
		if (err == -EMSGSIZE || err == -ENOMEM)
			tg_link_close(c->session, 1011, "reply cannot be sent", 0);
		reply_free(m, r);
	}
}

static void reply_later(
	struct modes *m, struct client *c, const void *data, size_t len, bool text, size_t consumes)
{
	bool wait = c->mode.kind == MODE_DELAY;
	struct line *line = wait ? line_of(m, c->mode.delay_ms) : NULL;
	struct reply *r = wait && !line ? NULL : malloc(sizeof(*r) + len);
	if (!r) {
		tg_link_close(c->session, 1013, "too much to remember", 0);
		return;
	}
	*r = (struct reply){
		.client = c, .text = text, .len = len, .consumes = consumes, .waiting = wait};
	if (len)
		memcpy(r->data, data, len);
	TAILQ_INSERT_TAIL(&c->replies, r, on_client);
	if (wait) {
		r->due_ms = modes_now_ms() + line->delay_ms;
		TAILQ_INSERT_TAIL(&line->replies, r, on_line);
	}
}

/* Answers a message of `consumes` bytes, behind the replies that wait already. */
static void reply(
	struct modes *m, struct client *c, const void *data, size_t len, bool text, size_t consumes)
{
	int err = -EAGAIN;
	if (c->mode.kind != MODE_DELAY && TAILQ_EMPTY(&c->replies))
		err = tg_link_send(c->session, data, len, text);
	if (err == -EAGAIN) {
		reply_later(m, c, data, len, text, consumes);
		return;
	}
	tg_link_consume(c->session, consumes);
	if (err == -EMSGSIZE || err == -ENOMEM)
		tg_link_close(c->session, 1011, "reply cannot be sent", 0);
}

static void whoami(struct modes *m, struct client *c, size_t consumes)
{
	char text[512];
	struct tg_link *link = tg_link_session_link(c->session);
	int n = snprintf(text, sizeof(text),
		"{\"name\":\"%s\",\"gateway\":\"%s\",\"worker\":%u,\"session\":\"%016llx\","
		"\"resumed\":%s}",
		m->name, tg_link_name(link), tg_link_worker(link),
		(unsigned long long)tg_link_session_id(c->session),
		tg_link_session_resumed(c->session) ? "true" : "false");
	reply(m, c, text, (size_t)n, true, consumes);
}

static void send_pattern(struct modes *m, struct client *c, uint32_t len, size_t consumes)
{
	uint8_t *data = malloc(len + 1);
	if (!data) {
		tg_link_close(c->session, 1011, "out of memory", 0);
		return;
	}
	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i % 251);
	reply(m, c, data, len, false, consumes);
	free(data);
}

/* Publishes, behind the replies that wait already. */
static void publish_later(struct modes *m, struct client *c, const char *topic, size_t topic_len,
	const void *data, size_t len, bool text, size_t consumes)
{
	struct reply *r = topic_len < 256 ? malloc(sizeof(*r) + topic_len + len) : NULL;
	if (!r) {
		tg_link_close(c->session, 1013, "too much to remember", 0);
		return;
	}
	*r = (struct reply){.client = c,
		.text = text,
		.len = topic_len + len,
		.topic_len = topic_len,
		.consumes = consumes};
	memcpy(r->data, topic, topic_len);
	if (len)
		memcpy(r->data + topic_len, data, len);
	TAILQ_INSERT_TAIL(&c->replies, r, on_client);
	replies_send(m, c);
}

/* "subscribe TOPIC", "unsubscribe TOPIC", "publish TOPIC TEXT", "publish-binary TOPIC TEXT". False:
 * none of them. */
static bool topic_command(struct modes *m, struct client *c, const char *text, size_t len)
{
	static const char *const words[] = {
		"subscribe ", "unsubscribe ", "publish ", "publish-binary "};
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t word = strlen(words[i]);
		if (strncmp(text, words[i], word) != 0)
			continue;
		const char *topic = text + word;
		if (i < 2) {
			(i ? tg_link_unsubscribe : tg_link_subscribe)(c->session, topic);
			tg_link_consume(c->session, len);
			return true;
		}
		size_t topic_len = strcspn(topic, " ");
		const char *data = topic + topic_len + (topic[topic_len] == ' ');
		publish_later(m, c, topic, topic_len, data, strlen(data), i == 2, len);
		return true;
	}
	return false;
}

/* "close CODE [REASON]", "whoami", "send BYTES". False: no command, to be echoed. */
static bool command(struct modes *m, struct client *c, const char *data, size_t len)
{
	char text[COMMAND_MAX];
	uint32_t v;
	if (len >= sizeof(text))
		return false;
	if (len)
		memcpy(text, data, len);
	text[len] = 0;
	if (strcmp(text, "whoami") == 0) {
		whoami(m, c, len);
		return true;
	}
	if (strncmp(text, "send ", 5) == 0 && number(text + 5, text + len, 0, SEND_MAX, &v)) {
		send_pattern(m, c, v, len);
		return true;
	}
	if (topic_command(m, c, text, len))
		return true;
	if (strncmp(text, "close ", 6) != 0)
		return false;
	char *code = text + 6, *end = code + strcspn(code, " ");
	const char *reason = *end ? end + 1 : end;
	return number(code, end, 1000, 4999, &v) &&
	       tg_link_close(c->session, (uint16_t)v, reason, 0) == 0;
}

static void uppercase(struct modes *m, struct client *c, const uint8_t *data, size_t len, bool text)
{
	uint8_t *upper = malloc(len + 1);
	if (!upper) {
		tg_link_close(c->session, 1011, "out of memory", 0);
		return;
	}
	for (size_t i = 0; i < len; i++)
		upper[i] =
			data[i] >= 'a' && data[i] <= 'z' ? (uint8_t)(data[i] - 'a' + 'A') : data[i];
	reply(m, c, upper, len, text, len);
	free(upper);
}

static void on_message(
	void *ctx, struct tg_link_session *s, const void *data, size_t len, bool text)
{
	struct modes *m = ctx;
	struct client *c = tg_link_session_data(s);
	switch (c->mode.kind) {
	case MODE_ECHO:
		if (m->commands && text && command(m, c, data, len))
			break;
		reply(m, c, data, len, text, len);
		break;
	case MODE_DELAY:
		reply(m, c, data, len, text, len);
		break;
	case MODE_UPPERCASE:
		uppercase(m, c, data, len, text);
		break;
	case MODE_TOPICS:
		publish_later(m, c, c->topic, strlen(c->topic), data, len, text, len);
		break;
	case MODE_HANG:
	case MODE_STALL:
	case MODE_SILENT:
	case MODE_REJECT:
		break;
	}
}

static void on_writable(void *ctx, struct tg_link_session *s)
{
	replies_send(ctx, tg_link_session_data(s));
}

static void on_close(void *ctx, struct tg_link_session *s, const struct tg_link_close_info *info)
{
	struct client *c = tg_link_session_data(s);
	if (!c)
		return; /* rejected */
	for (struct reply *r; (r = TAILQ_FIRST(&c->replies));)
		reply_free(ctx, r);
	block(ctx, c, false);
	free(c->topic);
	free(c);
}

static void on_link_up(void *ctx, struct tg_link *link)
{
	fprintf(stderr, "link from %s worker %u is up\n", tg_link_name(link), tg_link_worker(link));
}

static void on_link_down(void *ctx, struct tg_link *link, const char *why, bool protocol_error)
{
	fprintf(stderr, "link from %s worker %u is down: %s\n",
		*tg_link_name(link) ? tg_link_name(link) : "?", tg_link_worker(link), why);
}

const struct tg_link_ops modes_ops = {
	.on_link_up = on_link_up,
	.on_link_down = on_link_down,
	.on_open = on_open,
	.on_message = on_message,
	.on_close = on_close,
	.on_writable = on_writable,
};

void modes_init(struct modes *m)
{
	TAILQ_INIT(&m->blocked);
}

/* Each client that waits is tried once: it goes to the end of the list when it has to wait on. */
static void publish_blocked(struct modes *m)
{
	struct client *last = TAILQ_LAST(&m->blocked, blocked), *c = NULL;
	while (c != last) {
		c = TAILQ_FIRST(&m->blocked);
		replies_send(m, c);
	}
}

int modes_run(struct modes *m, uint64_t now_ms)
{
	uint64_t next = UINT64_MAX;
	publish_blocked(m);
	if (!TAILQ_EMPTY(&m->blocked))
		next = now_ms + 1;
	for (unsigned i = 0; i < m->n_lines; i++) {
		struct line *line = &m->lines[i];
		for (struct reply *r; (r = TAILQ_FIRST(&line->replies));) {
			if (r->due_ms > now_ms) {
				next = r->due_ms < next ? r->due_ms : next;
				break;
			}
			TAILQ_REMOVE(&line->replies, r, on_line);
			r->waiting = false;
			replies_send(m, r->client);
		}
	}
	return next == UINT64_MAX ? -1 : (int)(next - now_ms);
}
