#include "ops/admin_json.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/json_put.h"

json_t *admin_json_error(const char *message)
{
	json_t *o = json_object();

	json_put_text(&o, "error", message);
	return o;
}

static void put_counters(json_t **o, const struct tg_worker_stats *s)
{
#define X(field, ...) json_put_number(o, #field, s->field);
	TG_GAUGES(X)
	TG_COUNTERS(X)
#undef X
}

static json_t *closes_json(const struct tg_worker_stats *s)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < CLOSE_REASONS; i++)
		if (s->closes[i])
			json_put_number(&o, close_reason_name(i), s->closes[i]);
	return o;
}

static json_t *protocol_errors_json(const struct tg_worker_stats *s)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < PROTO_ERRS; i++)
		if (s->protocol_errors[i])
			json_put_number(&o, protocol_error_name(i), s->protocol_errors[i]);
	return o;
}

static json_t *auth_failures_json(const struct tg_worker_stats *s)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < AUTH_FAILURES; i++)
		if (s->auth_failures[i])
			json_put_number(&o, auth_failure_name(i), s->auth_failures[i]);
	return o;
}

static json_t *links_summary_json(const struct admin_status *s)
{
	uint64_t up = 0, sessions = 0, queued = 0;

	if (s->links_error)
		return json_null();
	for (size_t i = 0; i < s->n_links; i++) {
		up += s->links[i].up;
		sessions += s->links[i].sessions;
		queued += s->links[i].queued_bytes;
	}
	json_t *o = json_object();
	json_put_number(&o, "total", s->n_links);
	json_put_number(&o, "up", up);
	json_put_number(&o, "sessions", sessions);
	json_put_number(&o, "queued_bytes", queued);
	return o;
}

json_t *admin_json_status(const struct admin_status *s)
{
	struct tg_worker_stats sum;
	stats_init(&sum);
	for (unsigned i = 0; i < s->n_workers; i++)
		stats_merge(&sum, &s->workers[i]);

	json_t *o = json_object();
	json_put_text(&o, "instance", s->instance);
	json_put_text(&o, "version", s->version);
	json_put_number(&o, "pid", (uint64_t)s->pid);
	json_put_number(&o, "uptime_s", (uint64_t)s->uptime_s);
	json_put_number(&o, "workers", s->n_workers);
	json_put(&o, "ready", json_boolean(s->ready));
	json_put(&o, "draining",
		json_boolean(!s->ready &&
			     !strncmp(s->not_ready_reason, "draining", strlen("draining"))));
	json_put(&o, "not_ready_reason", s->ready ? json_null() : json_text(s->not_ready_reason));
	json_put_text(&o, "gate", s->gate.on ? governor_state_name(s->gate.gate.state) : "off");
	json_put_text(&o, "gate_reason", governor_reason_name(s->gate.gate.reason));
	put_counters(&o, &sum);
	json_put(&o, "closes", closes_json(&sum));
	json_put(&o, "protocol_errors", protocol_errors_json(&sum));
	json_put(&o, "auth_failures", auth_failures_json(&sum));
	json_put(&o, "links", links_summary_json(s));
	if (s->links_error)
		json_put_text(&o, "links_error", s->links_error);
	return o;
}

/* In microseconds, of which the histogram's unit is one in per_us. */
static json_t *delay_json(const struct hist *h, unsigned per_us)
{
	json_t *o = json_object();

	json_put_number(&o, "count", h->count);
	json_put_number(&o, "p50", hist_quantile(h, 0.5) / per_us);
	json_put_number(&o, "p99", hist_quantile(h, 0.99) / per_us);
	json_put_number(&o, "max", h->max / per_us);
	return o;
}

json_t *admin_json_workers(
	const struct tg_worker_stats *workers, const struct hist *cpu_wait, unsigned n_workers)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < n_workers; i++) {
		json_t *o = json_object();
		json_put_number(&o, "worker", i);
		put_counters(&o, &workers[i]);
		json_put(&o, "closes", closes_json(&workers[i]));
		json_put(&o, "busy_ratio", json_real((double)workers[i].busy_permille / 1000));
		json_put(&o, "poll_delay_us", delay_json(&workers[i].poll_delay_us, 1));
		json_put(&o, "wake_delay_us", delay_json(&workers[i].wake_delay_us, 1));
		json_put(&o, "run_delay_us", delay_json(&workers[i].run_delay_us, 1));
		json_put(&o, "first_poll_us", delay_json(&workers[i].first_poll_us, 1));
		json_put(&o, "loop_us", delay_json(&workers[i].loop_us, 1));
		json_put(
			&o, "cpu_wait_us", cpu_wait ? delay_json(&cpu_wait[i], 1000) : json_null());
		json_put(&array, NULL, o);
	}
	return array;
}

json_t *admin_json_links(const struct link_info *links, size_t n)
{
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++) {
		const struct link_info *l = &links[i];
		json_t *o = json_object();
		json_put_text(&o, "upstream", l->upstream);
		json_put_text(&o, "endpoint", l->endpoint);
		json_put_number(&o, "worker", l->worker);
		json_put_text(&o, "state", l->state);
		json_put(&o, "up", json_boolean(l->up));
		json_put_number(&o, "sessions", l->sessions);
		json_put_number(&o, "queued_bytes", l->queued_bytes);
		json_put_number(&o, "credit_bytes", l->credit_bytes);
		json_put_number(&o, "retry_in_ms", l->retry_in_ms);
		json_put_number(&o, "rtt_us", l->rtt_us);
		json_put_text(&o, "last_error", l->last_error);
		json_put(&array, NULL, o);
	}
	return array;
}

static void put_peer(json_t **o, const struct sockaddr_in6 *peer)
{
	char text[INET6_ADDRSTRLEN];

	if (IN6_IS_ADDR_V4MAPPED(&peer->sin6_addr))
		inet_ntop(AF_INET, &peer->sin6_addr.s6_addr[12], text, sizeof(text));
	else
		inet_ntop(AF_INET6, &peer->sin6_addr, text, sizeof(text));
	json_put_text(o, "peer", text);
	json_put_number(o, "peer_port", ntohs(peer->sin6_port));
}

json_t *admin_json_topics(const struct topic_info *topics, size_t n, size_t matched)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++) {
		json_t *t = json_pack("{s:o, s:I}", "topic", json_text(topics[i].topic), "sessions",
			(json_int_t)topics[i].sessions);
		if (json_array_append_new(list, t)) {
			json_decref(list);
			return NULL;
		}
	}
	return json_pack("{s:I, s:o}", "matched", (json_int_t)matched, "topics", list);
}

json_t *admin_json_conn(const struct conn_info *c)
{
	char session[24];
	snprintf(session, sizeof(session), "%" PRIu64, c->session);

	json_t *o = json_object();
	json_put_text(&o, "session", session);
	json_put_number(&o, "worker", c->worker);
	json_put_number(&o, "ring", c->ring);
	json_put_number(&o, "slot", c->slot);
	put_peer(&o, &c->peer);
	json_put_text(&o, "listener", c->listener);
	json_put_text(&o, "route", c->route);
	json_put_text(&o, "upstream", c->upstream);
	json_put_text(&o, "protocol", c->protocol);
	json_put_text(&o, "state", c->state);
	json_put_number(&o, "age_ms", c->age_ms);
	json_put_number(&o, "idle_ms", c->idle_ms);
	json_put_number(&o, "messages_in", c->messages_in);
	json_put_number(&o, "messages_out", c->messages_out);
	json_put_number(&o, "queued_bytes", c->queued_bytes);
	json_put_number(&o, "queued_messages", c->queued_messages);
	json_put_number(&o, "blocked_ms", c->blocked_ms);
	json_put(&o, "reading_paused", json_boolean(c->reading_paused));
	return o;
}
