#include "top_pane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "human.h"

static const struct top_column workers[] = {
	{"W", "worker", TOP_NUMBER, 3, 0},
	{"CONNS", "connections", TOP_COUNT, 5, 0},
	{"RUNQ", "runnable", TOP_COUNT, 5, 0},
	{"BUSY", "busy", TOP_SHARE, 4, 0},
	{"ACC/S", "accepts_per_s", TOP_COUNT, 5, 0},
	{"CLS/S", "closes_per_s", TOP_COUNT, 5, 0},
	{"P50", "poll_delay_p50_ns", TOP_DELAY_NS, 5, 0},
	{"P99", "poll_delay_p99_ns", TOP_DELAY_NS, 5, 0},
	{"MAX", "poll_delay_max_ns", TOP_DELAY_NS, 5, 0},
	{"WAKE99", "wake_delay_p99_ns", TOP_DELAY_NS, 6, 100},
	{"YLD/S", "forced_yields_per_s", TOP_COUNT, 5, 100},
	{"HEAP", "heap_bytes", TOP_BYTES, 7, 120},
	{"RINGS", "rings", TOP_NUMBER, 5, 120},
};

static const struct top_column sources[] = {
	{"PREFIX", "prefix", TOP_TEXT, 24, 0},
	{"OPEN", "open", TOP_COUNT, 6, 0},
	{"CHURN/S", "churn_per_s", TOP_COUNT, 7, 0},
	{"ACCEPTS", "accepts", TOP_COUNT, 7, 0},
	{"CLOSES", "closes", TOP_COUNT, 7, 0},
	{"STRIKES", "strikes", TOP_NUMBER, 7, 0},
	{"PENALTY", "penalty_left_ms", TOP_TIME_MS, 8, 0},
};

static const struct top_column routes[] = {
	{"PATH", "path", TOP_TEXT, 24, 0},
	{"CONNS", "connections", TOP_COUNT, 6, 0},
	{"DROPS/S", "dropped_per_s", TOP_COUNT, 7, 0},
	{"DROPPED", "dropped", TOP_COUNT, 7, 0},
	{"UPSTREAM", "upstream", TOP_TEXT, 16, 0},
	{"POLICY", "policy", TOP_TEXT, 0, 0},
};

static const struct top_column links[] = {
	{"UPSTREAM", "upstream", TOP_TEXT, 12, 0},
	{"ENDPOINT", "endpoint", TOP_TEXT, 26, 0},
	{"UP", "up", TOP_NUMBER, 3, 0},
	{"OF", "links", TOP_NUMBER, 3, 0},
	{"SESS", "sessions", TOP_COUNT, 5, 0},
	{"QUEUED", "queued_bytes", TOP_BYTES, 7, 0},
	{"RTT", "rtt_us", TOP_DELAY_US, 5, 0},
	{"LAST ERROR", "last_error", TOP_TEXT, 0, 0},
};

#define PANE(name, key)                                                                            \
	{                                                                                          \
#name, key, name, sizeof(name) / sizeof((name)[0])                                 \
	}
static const struct {
	const char *title, *key;
	const struct top_column *column;
	unsigned n;
} panes[TOP_PANES] = {
	[TOP_WORKERS] = PANE(workers, "workers"),
	[TOP_SOURCES] = PANE(sources, "sources"),
	[TOP_ROUTES] = PANE(routes, "routes"),
	[TOP_LINKS] = PANE(links, "links"),
};
#undef PANE

const char *top_pane_title(enum top_pane pane)
{
	return panes[pane].title;
}

const char *top_pane_key(enum top_pane pane)
{
	return panes[pane].key;
}

const struct top_column *top_columns(enum top_pane pane, unsigned *ret_n)
{
	*ret_n = panes[pane].n;
	return panes[pane].column;
}

double top_number(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

uint64_t top_whole(double v)
{
	return v > 0 ? v < 1e18 ? (uint64_t)v : (uint64_t)1e18 : 0;
}

const char *top_text(const json_t *object, const char *key)
{
	const char *s = json_string_value(json_object_get(object, key));

	return s ? s : "";
}

/* ---- order ---- */

struct ranked {
	const json_t *row;
	size_t place; /* in the snapshot: decides among equals */
	const struct top_column *by;
	bool descending;
};

static int compare(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	const char *key = x->by->key;
	int c;

	if (x->by->kind == TOP_TEXT) {
		c = strcmp(top_text(x->row, key), top_text(y->row, key));
	} else {
		double l = top_number(x->row, key), r = top_number(y->row, key);
		c = (l > r) - (l < r);
	}
	if (c)
		return x->descending ? -c : c;
	return (x->place > y->place) - (x->place < y->place);
}

size_t top_rows(const json_t *snapshot, enum top_pane pane, unsigned sort, bool descending,
	const json_t **ret, size_t max)
{
	const json_t *array = json_object_get(snapshot, panes[pane].key);
	struct ranked order[TOP_ROWS_SHOWN_MAX];
	size_t n = 0, i;
	json_t *row;

	json_array_foreach(array, i, row)
	{
		if (n < TOP_ROWS_SHOWN_MAX && n < max)
			order[n++] = (struct ranked){
				row, i, &panes[pane].column[sort % panes[pane].n], descending};
	}
	qsort(order, n, sizeof(order[0]), compare);
	for (i = 0; i < n; i++)
		ret[i] = order[i].row;
	return n;
}

/* ---- cells ---- */

const char *top_cell_text(
	char out[TOP_CELL_MAX], const struct top_column *column, const json_t *row)
{
	const json_t *value = json_object_get(row, column->key);
	double v = json_number_value(value);

	_Static_assert(
		(int)TOP_CELL_MAX >= HUMAN_MAX && (int)TOP_CELL_MAX >= HUMAN_TEXT_MAX, "both fit");
	snprintf(out, TOP_CELL_MAX, "-");
	if (column->kind == TOP_TEXT) {
		if (*top_text(row, column->key))
			snprintf(out, TOP_CELL_MAX, "%s", top_text(row, column->key));
		return out;
	}
	if (!json_is_number(value))
		return out;
	switch (column->kind) {
	case TOP_COUNT:
		human_count(out, v);
		break;
	case TOP_DELAY_NS:
		human_delay_us(out, top_whole(v / 1000));
		break;
	case TOP_DELAY_US:
		if (v > 0)
			human_delay_us(out, top_whole(v));
		break;
	case TOP_TIME_MS:
		if (v > 0)
			human_duration_ms(out, top_whole(v));
		break;
	case TOP_BYTES:
		human_bytes(out, top_whole(v));
		break;
	case TOP_SHARE:
		snprintf(out, TOP_CELL_MAX, "%.0f%%", v > 0 ? v < 99 ? v * 100 : 9900 : 0);
		break;
	default:
		snprintf(out, TOP_CELL_MAX, "%.0f", v);
	}
	return out;
}
