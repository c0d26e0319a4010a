#include "show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "human.h"
#include "table.h"

/* What is missing counts as 0 or "": a newer or older gateway may lack a field. */
static uint64_t number(const json_t *o, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(o, key));

	return v > 0 ? (uint64_t)v : 0;
}

static const char *text(const json_t *o, const char *key)
{
	const char *v = json_string_value(json_object_get(o, key));

	return v ? v : "";
}

static bool flag(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* A line of status: the name, then what follows it. */
static void print_name(const char *name)
{
	printf("%-17s", name);
}

static void print_clean(const char *s)
{
	char *copy = strdup(s);

	if (copy) {
		text_clean(copy);
		fputs(copy, stdout);
	}
	free(copy);
}

/* "client 900, reset 12", or "none" */
static void print_counts(const char *name, const json_t *counts)
{
	const char *key;
	json_t *value;
	bool first = true;

	print_name(name);
	json_object_foreach((json_t *)counts, key, value)
	{
		if (!first)
			fputs(", ", stdout);
		print_clean(key);
		printf(" %" JSON_INTEGER_FORMAT, json_integer_value(value));
		first = false;
	}
	puts(first ? "none" : "");
}

static void print_links_summary(const json_t *answer)
{
	const json_t *links = json_object_get(answer, "links");
	char queued[HUMAN_TEXT_MAX];

	print_name("links");
	if (!json_is_object(links)) {
		fputs("unknown: ", stdout);
		print_clean(text(answer, "links_error"));
		putchar('\n');
		return;
	}
	printf("%" PRIu64 " of %" PRIu64 " up, %" PRIu64 " sessions, %s queued\n",
		number(links, "up"), number(links, "total"), number(links, "sessions"),
		human_bytes(queued, number(links, "queued_bytes")));
}

bool show_status(const json_t *answer)
{
	static const struct {
		const char *name, *key;
	} totals[] = {
		{"accepts", "accepts"},
		{"refused", "refused_full"},
		{"handshakes", "handshakes"},
		{"messages in", "messages_in"},
		{"messages out", "messages_out"},
		{"forced yields", "forced_yields"},
	};
	char up[HUMAN_TEXT_MAX], buffered[HUMAN_TEXT_MAX];

	if (!json_is_object(answer) || !json_is_integer(json_object_get(answer, "pid")))
		return false;
	fputs("tidegate ", stdout);
	print_clean(text(answer, "version"));
	fputs(", instance ", stdout);
	print_clean(text(answer, "instance"));
	printf(", pid %" PRIu64 ", up %s\n", number(answer, "pid"),
		human_duration_ms(up, number(answer, "uptime_s") * 1000));

	print_name("state");
	if (flag(answer, "ready")) {
		puts("ready");
	} else {
		fputs("not ready: ", stdout);
		print_clean(text(answer, "not_ready_reason"));
		putchar('\n');
	}
	print_name("gate");
	print_clean(text(answer, "gate"));
	if (strcmp(text(answer, "gate_reason"), "none") && *text(answer, "gate_reason")) {
		fputs(" by ", stdout);
		print_clean(text(answer, "gate_reason"));
	}
	putchar('\n');
	print_name("workers");
	printf("%" PRIu64 ", %" PRIu64 " accepting, %" PRIu64 " rings\n", number(answer, "workers"),
		number(answer, "accepting"), number(answer, "rings"));
	print_name("connections");
	printf("%" PRIu64 ": %" PRIu64 " sessions, %" PRIu64 " in their handshake\n",
		number(answer, "connections"), number(answer, "sessions"),
		number(answer, "handshaking"));
	print_name("runnable");
	printf("%" PRIu64 "\n", number(answer, "runnable"));
	print_name("buffered");
	puts(human_bytes(buffered, number(answer, "heap_bytes")));
	for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
		print_name(totals[i].name);
		printf("%" PRIu64 "\n", number(answer, totals[i].key));
	}
	print_counts("closes", json_object_get(answer, "closes"));
	print_counts("protocol errors", json_object_get(answer, "protocol_errors"));
	print_links_summary(answer);
	return true;
}

static void add_number(struct table *t, const json_t *o, const char *key)
{
	table_addf(t, "%" PRIu64, number(o, key));
}

static void add_bytes(struct table *t, const json_t *o, const char *key)
{
	char out[HUMAN_TEXT_MAX];

	table_add(t, human_bytes(out, number(o, key)));
}

static void add_duration(struct table *t, const json_t *o, const char *key)
{
	char out[HUMAN_TEXT_MAX];

	table_add(t, human_duration_ms(out, number(o, key)));
}

static void add_delay(struct table *t, const json_t *o, const char *histogram, const char *quantile)
{
	char out[HUMAN_MAX];

	table_add(t, human_delay_us(out, number(json_object_get(o, histogram), quantile)));
}

bool show_workers(const json_t *answer)
{
	struct table t;
	size_t i;
	json_t *w;

	if (!json_is_array(answer))
		return false;
	table_init(&t, ">WORKER ACCEPTING >CONNS >SESSIONS >HANDSHAKING >RINGS >RUNNABLE >BUFFERED "
		       ">ACCEPTS "
		       ">YIELDS >DELAY-P50 >DELAY-P99 >LOOP-P50 >LOOP-P99");
	json_array_foreach(answer, i, w)
	{
		add_number(&t, w, "worker");
		table_add(&t, number(w, "accepting") ? "yes" : "no");
		add_number(&t, w, "connections");
		add_number(&t, w, "sessions");
		add_number(&t, w, "handshaking");
		add_number(&t, w, "rings");
		add_number(&t, w, "runnable");
		add_bytes(&t, w, "heap_bytes");
		add_number(&t, w, "accepts");
		add_number(&t, w, "forced_yields");
		add_delay(&t, w, "run_delay_us", "p50");
		add_delay(&t, w, "run_delay_us", "p99");
		add_delay(&t, w, "loop_us", "p50");
		add_delay(&t, w, "loop_us", "p99");
	}
	table_print(&t, stdout);
	table_fini(&t);
	return true;
}

static void add_peer(struct table *t, const json_t *c)
{
	const char *peer = text(c, "peer");

	table_addf(t, strchr(peer, ':') ? "[%s]:%" PRIu64 : "%s:%" PRIu64, peer,
		number(c, "peer_port"));
}

bool show_conns(const json_t *answer)
{
	const json_t *conns = json_object_get(answer, "conns");
	struct table t;
	size_t i;
	json_t *c;

	if (!json_is_array(conns))
		return false;
	table_init(&t, ">SESSION >WORKER PEER LISTENER ROUTE UPSTREAM PROTOCOL STATE >AGE >IDLE "
		       ">IN >OUT >QUEUED >MESSAGES >BLOCKED");
	json_array_foreach(conns, i, c)
	{
		const char *session = text(c, "session");
		table_add(&t, strcmp(session, "0") ? session : "");
		add_number(&t, c, "worker");
		add_peer(&t, c);
		table_add(&t, text(c, "listener"));
		table_add(&t, text(c, "route"));
		table_add(&t, text(c, "upstream"));
		table_add(&t, text(c, "protocol"));
		table_addf(
			&t, "%s%s", text(c, "state"), flag(c, "reading_paused") ? ",paused" : "");
		add_duration(&t, c, "age_ms");
		add_duration(&t, c, "idle_ms");
		add_number(&t, c, "messages_in");
		add_number(&t, c, "messages_out");
		add_bytes(&t, c, "queued_bytes");
		add_number(&t, c, "queued_messages");
		if (number(c, "blocked_ms"))
			add_duration(&t, c, "blocked_ms");
		else
			table_add(&t, "");
	}
	table_print(&t, stdout);
	table_fini(&t);

	uint64_t matched = number(answer, "matched");
	printf("%zu of %" PRIu64 " connection%s%s\n", i, matched, matched == 1 ? "" : "s",
		i < matched ? "; --limit N shows more" : "");
	return true;
}

bool show_links(const json_t *answer)
{
	struct table t;
	size_t i;
	json_t *l;

	if (!json_is_array(answer))
		return false;
	table_init(&t, "UPSTREAM ENDPOINT >WORKER STATE >SESSIONS >QUEUED >CREDIT >RTT >RETRY-IN "
		       "LAST-ERROR");
	json_array_foreach(answer, i, l)
	{
		char rtt[HUMAN_MAX];
		table_add(&t, text(l, "upstream"));
		table_add(&t, text(l, "endpoint"));
		add_number(&t, l, "worker");
		table_add(&t, text(l, "state"));
		add_number(&t, l, "sessions");
		add_bytes(&t, l, "queued_bytes");
		add_bytes(&t, l, "credit_bytes");
		table_add(&t, number(l, "rtt_us") ? human_delay_us(rtt, number(l, "rtt_us")) : "");
		if (number(l, "retry_in_ms"))
			add_duration(&t, l, "retry_in_ms");
		else
			table_add(&t, "");
		table_add(&t, text(l, "last_error"));
	}
	table_print(&t, stdout);
	table_fini(&t);
	return true;
}

bool show_topics(const json_t *answer)
{
	const json_t *topics = json_object_get(answer, "topics");
	struct table t;
	size_t i;
	json_t *c;

	if (!json_is_array(topics))
		return false;
	table_init(&t, ">SESSIONS TOPIC");
	json_array_foreach(topics, i, c)
	{
		add_number(&t, c, "sessions");
		table_add(&t, text(c, "topic"));
	}
	table_print(&t, stdout);
	table_fini(&t);

	uint64_t matched = number(answer, "matched");
	printf("%zu of %" PRIu64 " topic%s%s\n", i, matched, matched == 1 ? "" : "s",
		i < matched ? "; --limit N shows more" : "");
	return true;
}

bool show_publish(const json_t *answer)
{
	if (!flag(answer, "published"))
		return false;
	puts("published");
	return true;
}

bool show_kick(const json_t *answer)
{
	if (!json_is_integer(json_object_get(answer, "kicked")))
		return false;
	uint64_t n = number(answer, "kicked");
	printf("%" PRIu64 " session%s closed\n", n, n == 1 ? "" : "s");
	return true;
}

bool show_drain(const json_t *answer)
{
	if (!flag(answer, "draining"))
		return false;
	puts("draining");
	return true;
}

/* "1200/s", or that there is no limit. */
static void print_limit(const json_t *answer, const char *key, const char *unit)
{
	if (json_is_integer(json_object_get(answer, key)))
		printf("%" PRIu64 "%s\n", number(answer, key), unit);
	else
		puts("no limit");
}

static void print_percent(const json_t *memory, const char *key)
{
	const json_t *v = json_object_get(memory, key);

	if (json_is_integer(v))
		printf("%s %" JSON_INTEGER_FORMAT " %%", key, json_integer_value(v));
	else
		printf("%s -", key);
}

bool show_gate(const json_t *answer)
{
	const json_t *memory = json_object_get(answer, "memory_percent");
	char delay[HUMAN_MAX], target[HUMAN_MAX];

	if (!json_is_string(json_object_get(answer, "state")))
		return false;
	print_name("gate");
	print_clean(text(answer, "state"));
	if (strcmp(text(answer, "reason"), "none")) {
		fputs(" by ", stdout);
		print_clean(text(answer, "reason"));
	}
	putchar('\n');
	print_name("mode");
	print_clean(text(answer, "mode"));
	fputs(", the operator says ", stdout);
	print_clean(text(answer, "word"));
	putchar('\n');
	print_name("rate");
	print_limit(answer, "rate", "/s");
	print_name("reserve");
	printf("%" PRIu64 "/s for proven prefixes\n", number(answer, "reserve_rate"));
	print_name("permits");
	print_limit(answer, "permits", "");
	print_name("unserved");
	printf("%" PRIu64 "\n", number(answer, "unserved"));
	print_name("standing delay");
	printf("%s of %s\n", human_delay_us(delay, number(answer, "delay_us")),
		human_delay_us(target, number(answer, "target_us")));
	print_name("handshakes");
	printf("%s/s\n", human_count(delay, (double)number(answer, "handshakes_per_s")));
	print_name("decisions");
	printf("%" PRIu64 " cuts, %" PRIu64 " shuts, %" PRIu64 " taken back\n",
		number(answer, "cuts"), number(answer, "shuts"), number(answer, "holds"));
	print_name("memory");
	print_percent(memory, "cgroup");
	fputs(", ", stdout);
	print_percent(memory, "tcp");
	fputs(", ", stdout);
	print_percent(memory, "machine");
	putchar('\n');
	print_counts("verdicts", json_object_get(answer, "verdicts"));
	print_counts("observed", json_object_get(answer, "observed"));
	return true;
}

bool show_gate_word(const json_t *answer)
{
	if (!json_is_string(json_object_get(answer, "word")))
		return false;
	fputs("the gate is told: ", stdout);
	print_clean(text(answer, "word"));
	putchar('\n');
	return true;
}

bool show_sample(const json_t *answer)
{
	const json_t *percent = json_object_get(answer, "percent");

	if (!json_is_number(percent))
		return false;
	if (json_number_value(percent) > 0)
		printf("wake delays are measured of %.3g %% of the sockets\n",
			json_number_value(percent));
	else
		puts("wake delays are not measured");
	return true;
}

bool show_sources(const json_t *answer)
{
	struct table t;
	size_t i;
	json_t *s;

	if (!json_is_array(answer))
		return false;
	table_init(&t, "PREFIX >OPEN >ACCEPTS >CLOSES >CHURN/S >LAST >WEIGHT >PENALTY >STRIKES");
	json_array_foreach(answer, i, s)
	{
		double penalty = json_number_value(json_object_get(s, "penalty_left_s"));
		const json_t *weight = json_object_get(s, "weight");

		table_add(&t, text(s, "prefix"));
		add_number(&t, s, "open");
		add_number(&t, s, "accepts");
		add_number(&t, s, "closes");
		table_addf(&t, "%.1f", json_number_value(json_object_get(s, "churn_per_s")));
		table_addf(&t, "%.0fs", json_number_value(json_object_get(s, "last_s")));
		if (json_is_integer(weight))
			add_number(&t, s, "weight");
		else
			table_add(&t, "exempt");
		if (penalty > 0)
			table_addf(&t, "%.0fs", penalty);
		else
			table_add(&t, "");
		add_number(&t, s, "strikes");
	}
	table_print(&t, stdout);
	table_fini(&t);
	return true;
}

bool show_why(const json_t *answer)
{
	const char *detail = text(answer, "detail"), *entry = text(answer, "entry");

	if (!*text(answer, "decides"))
		return false;
	print_clean(text(answer, "address"));
	printf(" would be %s: ", flag(answer, "observed")   ? "refused, but for observe mode"
				 : flag(answer, "admitted") ? "let in"
							    : "refused");
	if (*entry) {
		print_clean(entry);
		fputs(", ", stdout);
	}
	print_clean(detail);
	printf("\n%" PRIu64 " connections open from its prefix; %s%s\n", number(answer, "open"),
		flag(answer, "proven") ? "it has completed a handshake before"
				       : "it has not completed a handshake yet",
		flag(answer, "exempt") ? "; no limits of sources hold for it" : "");
	return true;
}

bool show_list(const json_t *answer)
{
	struct table t;
	size_t i;
	json_t *e;

	if (!json_is_array(answer))
		return false;
	table_init(&t, "PREFIX ORIGIN");
	json_array_foreach(answer, i, e)
	{
		table_add(&t, text(e, "prefix"));
		table_add(&t, text(e, "origin"));
	}
	table_print(&t, stdout);
	table_fini(&t);
	return true;
}

bool show_list_change(const json_t *answer)
{
	const char *added = text(answer, "added"), *deleted = text(answer, "deleted");

	if (!*added == !*deleted)
		return false;
	fputs(*added ? "added " : "deleted ", stdout);
	print_clean(*added ? added : deleted);
	putchar('\n');
	return true;
}
