#include "base/stats.h"

#include <string.h>

#define X(id, name, help) name,
static const char *const close_names[] = {TG_CLOSE_REASONS(X)};
static const char *const error_names[] = {TG_PROTOCOL_ERRORS(X)};
static const char *const auth_names[] = {TG_AUTH_FAILURES(X)};
static const char *const hub_names[] = {TG_HUB_ERRORS(X)};
#undef X

#define X(id, name) name,
static const char *const doing_names[] = {STATS_DOINGS(X)};
#undef X

#define X(id, name, help) help,
static const char *const close_helps[] = {TG_CLOSE_REASONS(X)};
static const char *const error_helps[] = {TG_PROTOCOL_ERRORS(X)};
static const char *const auth_helps[] = {TG_AUTH_FAILURES(X)};
#undef X

const char *close_reason_name(enum close_reason r)
{
	return (unsigned)r < CLOSE_REASONS ? close_names[r] : "unknown";
}

const char *close_reason_help(enum close_reason r)
{
	return (unsigned)r < CLOSE_REASONS ? close_helps[r] : "unknown";
}

const char *protocol_error_name(enum protocol_error e)
{
	return (unsigned)e < PROTO_ERRS ? error_names[e] : "unknown";
}

const char *protocol_error_help(enum protocol_error e)
{
	return (unsigned)e < PROTO_ERRS ? error_helps[e] : "unknown";
}

const char *auth_failure_name(enum auth_failure f)
{
	return (unsigned)f < AUTH_FAILURES ? auth_names[f] : "unknown";
}

const char *auth_failure_help(enum auth_failure f)
{
	return (unsigned)f < AUTH_FAILURES ? auth_helps[f] : "unknown";
}

const char *hub_error_name(enum hub_error e)
{
	return (unsigned)e < HUB_ERRORS ? hub_names[e] : "unknown";
}

const char *stats_doing_name(enum stats_doing d)
{
	return (unsigned)d < STATS_DOING_ALL ? doing_names[d] : "unknown";
}

void stats_init(struct tg_worker_stats *s)
{
	memset(s, 0, sizeof(*s));
	hist_init(&s->run_delay_us);
	hist_init(&s->wake_delay_us);
	hist_init(&s->poll_delay_us);
	hist_init(&s->first_poll_us);
	hist_init(&s->loop_us);
}

uint64_t stats_closes(const struct tg_worker_stats *s)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < CLOSE_REASONS; i++)
		sum += s->closes[i];
	return sum;
}

void stats_merge(struct tg_worker_stats *into, const struct tg_worker_stats *from)
{
#define X(field, ...) into->field += from->field;
	TG_COUNTERS(X)
	TG_GAUGES(X)
#undef X
	for (unsigned i = 0; i < CLOSE_REASONS; i++)
		into->closes[i] += from->closes[i];
	for (unsigned i = 0; i < PROTO_ERRS; i++)
		into->protocol_errors[i] += from->protocol_errors[i];
	for (unsigned i = 0; i < AUTH_FAILURES; i++)
		into->auth_failures[i] += from->auth_failures[i];
	for (unsigned i = 0; i < HUB_ERRORS; i++)
		into->hub_refused[i] += from->hub_refused[i];
	for (unsigned i = 0; i < TG_VERDICT_COUNT; i++) {
		into->verdicts[i] += from->verdicts[i];
		into->verdicts_observed[i] += from->verdicts_observed[i];
	}
	for (unsigned i = 0; i < STATS_CLASSES; i++)
		into->class_ns[i] += from->class_ns[i];
	hist_merge(&into->run_delay_us, &from->run_delay_us);
	hist_merge(&into->wake_delay_us, &from->wake_delay_us);
	hist_merge(&into->poll_delay_us, &from->poll_delay_us);
	hist_merge(&into->first_poll_us, &from->first_poll_us);
	hist_merge(&into->loop_us, &from->loop_us);
}
