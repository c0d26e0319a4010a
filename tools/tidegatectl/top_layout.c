#include "top_layout.h"

#include <stdio.h>
#include <string.h>

#include "human.h"

enum {
	HEAD_ROWS = 4,
	PANE_ROWS_LEAST = 2,         /* heading and a row; panes with less are left out */
	TARGET_NS_DEFAULT = 5000000, /* admission.target, where the gate says none */
	SPARK_LEAST = 8,             /* columns; narrower ones say nothing */
	LEVELS = 8,
};

static double sum(const json_t *snapshot, const char *member, const char *key)
{
	double n = 0;
	size_t i;
	json_t *o;

	json_array_foreach(json_object_get(snapshot, member), i, o) n += top_number(o, key);
	return n;
}

static double greatest(const json_t *snapshot, const char *member, const char *key)
{
	double n = 0;
	size_t i;
	json_t *o;

	json_array_foreach(json_object_get(snapshot, member), i, o)
	{
		if (top_number(o, key) > n)
			n = top_number(o, key);
	}
	return n;
}

/* By one program, or by all (NULL). */
static double refused_per_s(const json_t *snapshot, const char *program)
{
	double n = 0;
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(snapshot, "verdicts"), i, v)
	{
		if (json_is_true(json_object_get(v, "refuses")) &&
			(!program || !strcmp(top_text(v, "program"), program)))
			n += top_number(v, "per_s");
	}
	return n;
}

void top_line(const json_t *snapshot, char *ret)
{
	double interval = top_number(snapshot, "interval_s");
	double accepts = sum(snapshot, "workers", "accepts_per_s");
	/* Workers have accepted first what they refuse themselves. */
	double refused = refused_per_s(snapshot, "user");
	const char *gate = top_text(json_object_get(snapshot, "gate"), "state");
	char state[16];

	snprintf(state, sizeof(state), "%.15s", *gate ? gate : "-");
	struct schedline line = {
		.delay_p99_us =
			top_whole(greatest(snapshot, "workers", "poll_delay_p99_ns") / 1000),
		.runnable = top_whole(sum(snapshot, "workers", "runnable")),
		.conns = top_whole(sum(snapshot, "workers", "connections")),
		.accepts_per_s = accepts,
		.closes_per_s = sum(snapshot, "workers", "closes_per_s"),
		.gate = state,
		.admitted = top_whole((accepts - refused) * interval + 0.5),
		.refused = top_whole(refused_per_s(snapshot, NULL) * interval + 0.5),
		.forced_yields =
			top_whole(sum(snapshot, "workers", "forced_yields_per_s") * interval + 0.5),
		.dropped = top_whole(sum(snapshot, "routes", "dropped_per_s") * interval + 0.5),
	};
	schedline_format(ret, &line);
}

unsigned top_level(uint64_t delay_ns, uint64_t target_ns)
{
	unsigned level = LEVELS;

	if (!delay_ns)
		return 0;
	for (uint64_t bound = 2 * target_ns; level > 1 && delay_ns < bound; bound /= 2)
		level--;
	return level;
}

static enum top_style level_style(unsigned level)
{
	return level >= 7 ? TOP_BAD : level >= 6 ? TOP_WARN : TOP_GOOD;
}

static uint64_t target_ns(const struct top_model *m)
{
	double v = top_number(json_object_get(m->snapshot, "gate"), "target_ns");

	return v >= 1 && v < 1e15 ? top_whole(v) : TARGET_NS_DEFAULT;
}

/* ---- the head ---- */

static void put_totals(const struct top_model *m, struct top_screen *s)
{
	const json_t *j = m->snapshot;
	double p99 = greatest(j, "workers", "poll_delay_p99_ns");
	char a[HUMAN_MAX], b[HUMAN_MAX], c[HUMAN_MAX], d[HUMAN_MAX], up[HUMAN_TEXT_MAX];
	unsigned col = top_putf(s, 0, 0, TOP_BOLD, "tidegate %.32s", top_text(j, "instance"));

	col = top_putf(s, 0, col, TOP_NORMAL, " up %s  p99 ",
		human_duration_ms(up, top_whole(top_number(j, "uptime_s") * 1000)));
	col = top_put(s, 0, col, level_style(top_level(top_whole(p99), target_ns(m))),
		human_delay_us(a, top_whole(p99 / 1000)));
	top_putf(s, 0, col, TOP_NORMAL, "  conns %s  runq %s  acc/s %s  cls/s %s",
		human_count(a, sum(j, "workers", "connections")),
		human_count(b, sum(j, "workers", "runnable")),
		human_count(c, sum(j, "workers", "accepts_per_s")),
		human_count(d, sum(j, "workers", "closes_per_s")));
	if (m->lost || m->paused)
		top_put(s, 0, s->cols > 9 ? s->cols - 8 : 0, m->lost ? TOP_BAD : TOP_WARN,
			m->lost ? "  LOST  " : " PAUSED ");
}

static enum top_style gate_style(const char *state)
{
	if (!strcmp(state, "open"))
		return TOP_GOOD;
	if (!strcmp(state, "off") || !*state)
		return TOP_DIM;
	return !strcmp(state, "shut") ? TOP_BAD : TOP_WARN;
}

static void put_gate(const struct top_model *m, struct top_screen *s)
{
	const json_t *gate = json_object_get(m->snapshot, "gate");
	const char *state = top_text(gate, "state"), *reason = top_text(gate, "reason");
	const char *mode = top_text(gate, "mode");
	char v[HUMAN_MAX];
	unsigned col = top_put(s, 1, 0, TOP_NORMAL, "gate ");

	col = top_put(s, 1, col, gate_style(state), *state ? state : "-");
	if (*reason && strcmp(reason, "none"))
		col = top_putf(s, 1, col, TOP_NORMAL, " by %s", reason);
	if (gate_style(state) == TOP_DIM)
		return;
	col = top_putf(s, 1, col, TOP_NORMAL, "  in %s%s  word %s", top_text(gate, "where"),
		!strcmp(mode, "observe") ? " (observed only)" : "", top_text(gate, "word"));
	if (json_is_number(json_object_get(gate, "rate")))
		col = top_putf(s, 1, col, TOP_NORMAL, "  rate %s/s",
			human_count(v, top_number(gate, "rate")));
	col = top_putf(s, 1, col, TOP_NORMAL, "  unserved %s",
		human_count(v, top_number(gate, "unserved")));
	if (json_is_number(json_object_get(gate, "permits")))
		top_putf(s, 1, col, TOP_NORMAL, " of %s",
			human_count(v, top_number(gate, "permits")));
}

/* What the governor goes by, each against its limit. */
static void put_why(const struct top_model *m, struct top_screen *s)
{
	const json_t *gate = json_object_get(m->snapshot, "gate"),
		     *memory = json_object_get(m->snapshot, "memory");
	double delay = top_number(gate, "delay_ns");
	char a[HUMAN_MAX], b[HUMAN_MAX], c[HUMAN_MAX], rss[HUMAN_TEXT_MAX], each[HUMAN_TEXT_MAX];
	unsigned col = 0;

	if (gate_style(top_text(gate, "state")) != TOP_DIM) {
		col = top_put(s, 2, 0, TOP_NORMAL, "why delay ");
		col = top_put(s, 2, col, delay >= (double)target_ns(m) ? TOP_BAD : TOP_GOOD,
			human_delay_us(a, top_whole(delay / 1000)));
		col = top_putf(s, 2, col, TOP_NORMAL, "/%s  handshakes %.0f%%/%.0f%% %s/s  ",
			human_delay_us(b, target_ns(m) / 1000),
			top_number(gate, "handshake_share") * 100,
			top_number(gate, "handshake_share_min") * 100,
			human_count(c, top_number(gate, "goodput_per_s")));
	}
	col = top_put(s, 2, col, TOP_NORMAL, "memory");
	if (json_is_number(json_object_get(memory, "pressure")))
		col = top_putf(s, 2, col, TOP_NORMAL, " %.0f%%/%.0f%%",
			top_number(memory, "pressure") * 100, top_number(memory, "limit") * 100);
	top_putf(s, 2, col, TOP_NORMAL, " %s %s each",
		human_bytes(rss, top_whole(top_number(memory, "rss"))),
		human_bytes(each, top_whole(top_number(memory, "per_connection"))));
}

static void put_verdicts(const struct top_model *m, struct top_screen *s)
{
	char n[HUMAN_MAX];
	double all = refused_per_s(m->snapshot, NULL);
	unsigned col = top_putf(
		s, 3, 0, all > 0 ? TOP_WARN : TOP_NORMAL, "refused %s/s", human_count(n, all));
	size_t i;
	json_t *v;

	json_array_foreach(json_object_get(m->snapshot, "verdicts"), i, v)
	{
		if (json_is_true(json_object_get(v, "refuses")) && top_number(v, "total") > 0)
			col = top_putf(s, 3, col, TOP_NORMAL, "  %s.%s %s/s",
				top_text(v, "program"), top_text(v, "reason"),
				human_count(n, top_number(v, "per_s")));
	}
}

/* ---- panes ---- */

/* Rows a pane wants, its heading included. */
static size_t wanted(const struct top_model *m, enum top_pane pane)
{
	size_t n = json_array_size(json_object_get(m->snapshot, top_pane_key(pane)));

	return 1 + (n ? n : 1);
}

/* Each pane gets a row in turn, the one in focus first, until all have what they want or nothing is
 * left; one that does not get its least gets none. */
static void divide(const struct top_model *m, unsigned rows, unsigned ret[TOP_PANES])
{
	unsigned left = rows, before;

	memset(ret, 0, TOP_PANES * sizeof(*ret));
	for (unsigned i = 0; i < TOP_PANES; i++) {
		enum top_pane p = (m->focus + i) % TOP_PANES;
		if (left >= PANE_ROWS_LEAST) {
			ret[p] = PANE_ROWS_LEAST;
			left -= PANE_ROWS_LEAST;
		}
	}
	do {
		before = left;
		for (unsigned i = 0; i < TOP_PANES && left; i++) {
			enum top_pane p = (m->focus + i) % TOP_PANES;
			if (ret[p] && ret[p] < wanted(m, p)) {
				ret[p]++;
				left--;
			}
		}
	} while (left && left != before);
}

static unsigned column_width(const struct top_column *c, const struct top_screen *s, unsigned col)
{
	return c->width ? c->width : s->cols > col ? s->cols - col : 0;
}

static unsigned put_cell(struct top_screen *s, unsigned row, unsigned col, enum top_style style,
	const struct top_column *c, const char *text)
{
	unsigned width = column_width(c, s, col);

	if (c->kind == TOP_TEXT)
		top_putf(s, row, col, style, "%-*.*s", (int)width, (int)width, text);
	else
		top_putf(s, row, col, style, "%*.*s", (int)width, (int)width, text);
	return col + width + 1;
}

/* Returns the column behind the last. */
static unsigned put_headings(
	const struct top_model *m, struct top_screen *s, enum top_pane pane, unsigned row)
{
	const struct top_view *v = &m->view[pane];
	unsigned n, col = 0;
	const struct top_column *c = top_columns(pane, &n);

	for (unsigned i = 0; i < n; i++) {
		if (s->cols < c[i].from_cols)
			continue;
		char title[32];
		snprintf(title, sizeof(title), "%s%s", c[i].title,
			i != v->sort || strlen(c[i].title) + 1 > column_width(&c[i], s, col) ? ""
			: v->descending                                                      ? "-"
											     : "+");
		col = put_cell(s, row, col, TOP_BAR, &c[i], title);
	}
	top_paint(s, row, m->focus == pane ? TOP_CHOSEN : TOP_BAR);
	for (unsigned i = 0, at = 0; i < n; i++) {
		if (s->cols < c[i].from_cols)
			continue;
		unsigned width = column_width(&c[i], s, at);
		if (i == v->sort)
			for (unsigned k = 0; k < width && at + k < s->cols && row < s->rows; k++)
				s->cell[row * s->cols + at + k].style = TOP_BOLD;
		at += width + 1;
	}
	return col;
}

static void put_spark(
	const struct top_model *m, struct top_screen *s, unsigned row, unsigned col, size_t worker)
{
	if (worker >= m->n_history || s->cols < col + SPARK_LEAST)
		return;
	const struct top_history *h = &m->history[worker];
	unsigned width = s->cols - col, n = h->n < width ? h->n : width;

	for (unsigned i = 0; i < n; i++) {
		unsigned level = top_level(h->delay_ns[h->n - n + i], target_ns(m));
		top_put(s, row, col + i, level_style(level), top_bar(s, level));
	}
}

static enum top_style row_style(const struct top_model *m, enum top_pane pane, const json_t *row)
{
	if (m->lost)
		return TOP_DIM;
	if (pane == TOP_LINKS && top_number(row, "up") < top_number(row, "links"))
		return top_number(row, "up") > 0 ? TOP_WARN : TOP_BAD;
	if (pane == TOP_SOURCES && top_number(row, "penalty_left_ms") > 0)
		return TOP_WARN;
	return TOP_NORMAL;
}

static void put_row(const struct top_model *m, struct top_screen *s, enum top_pane pane,
	unsigned at, const json_t *row, bool chosen)
{
	enum top_style style = chosen ? TOP_CHOSEN : row_style(m, pane, row);
	unsigned n, col = 0;
	const struct top_column *c = top_columns(pane, &n);
	char text[TOP_CELL_MAX];

	for (unsigned i = 0; i < n; i++)
		if (s->cols >= c[i].from_cols)
			col = put_cell(s, at, col, style, &c[i], top_cell_text(text, &c[i], row));
	if (pane == TOP_WORKERS)
		put_spark(m, s, at, col, (size_t)top_whole(top_number(row, "worker")));
}

static const char *nothing(const struct top_model *m, enum top_pane pane)
{
	if (!m->snapshot)
		return "waiting for the gateway";
	if (pane == TOP_SOURCES && !json_is_array(json_object_get(m->snapshot, "sources")))
		return "not known without a gate in the kernel";
	if (pane == TOP_LINKS && !json_is_array(json_object_get(m->snapshot, "links")))
		return top_text(m->snapshot, "links_error");
	return "none";
}

static void put_pane(const struct top_model *m, struct top_screen *s, enum top_pane pane,
	unsigned row, unsigned rows)
{
	const json_t *list[TOP_ROWS_SHOWN_MAX];
	size_t n = top_model_rows(m, pane, list, TOP_ROWS_SHOWN_MAX), first = 0;
	size_t selected = m->view[pane].selected;
	unsigned col = put_headings(m, s, pane, row);

	if (pane == TOP_WORKERS && s->cols >= col + SPARK_LEAST)
		top_putf(s, row, col, m->focus == pane ? TOP_CHOSEN : TOP_BAR, "P99 OVER TIME");
	if (!n)
		top_putf(s, row + 1, 0, TOP_DIM, "no %s: %s", top_pane_title(pane),
			nothing(m, pane));
	if (selected >= n)
		selected = n ? n - 1 : 0;
	if (selected >= rows - 1)
		first = selected - (rows - 2);
	for (size_t i = first; i < n && i - first < rows - 1; i++)
		put_row(m, s, pane, row + 1 + (unsigned)(i - first), list[i],
			pane == m->focus && i == selected);
	/* What does not fit is not silent. */
	if (n > rows - 1)
		top_putf(s, row, s->cols > 12 ? s->cols - 12 : 0,
			m->focus == pane ? TOP_CHOSEN : TOP_BAR, "%6zu of %zu", first + rows - 1,
			n);
}

/* ---- foot and help ---- */

static void put_foot(const struct top_model *m, struct top_screen *s)
{
	static const char *const asked[] = {[TOP_FOR_RATE] = "connections per second",
		[TOP_FOR_DENY] = "refuse address or prefix",
		[TOP_FOR_KICK] = "close session, or all of /route"};
	unsigned row = s->rows - 1;

	if (m->mode == TOP_GATE)
		top_put(s, row, 0, TOP_CHOSEN, "gate: a auto  o open  s shut  r rate  Esc none");
	else if (m->mode == TOP_INPUT)
		top_putf(s, row, 0, TOP_CHOSEN, "%s: %s_", asked[m->purpose], m->input);
	else if (m->mode == TOP_CONFIRM)
		top_putf(s, row, 0, TOP_WARN, "%s (y/n)", m->question);
	else if (m->message[0])
		top_put(s, row, 0, m->message_bad ? TOP_BAD : TOP_GOOD, m->message);
	else
		top_put(s, row, 0, TOP_DIM,
			"? help  Tab pane  s sort  r reverse  p pause  g gate  d deny  k kick  q "
			"quit");
}

static void put_help(struct top_screen *s)
{
	static const char *const lines[] = {
		"tidegatectl top",
		"",
		"Tab, 1-4     workers, sources, routes, links",
		"arrows       choose a row; PgUp, PgDn, Home, End",
		"s, S         sort by the next column, the one before",
		"r            the other way round",
		"p            stop and go on",
		"g            a word for the gate: auto, open, shut, a rate",
		"d            refuse a source: the chosen one, or another",
		"k            close a session, or all of a route: the chosen one, or another",
		"q            leave",
		"",
		"What changes something asks first, and only y does it.",
		"RUNQ  connections that wait for their turn     BUSY  share of time at work",
		"P50, P99, MAX  poll delay of the last interval, readiness to handler",
		"WAKE99  the part before reception, measured by the kernel (wide screens)",
		"why: standing delay/target, share of handshakes/least to act on, memory/limit",
		"P99 OVER TIME  a step for each doubling; full at twice the gate's target",
		"",
		"Any key goes back.",
	};

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		top_put(s, i, 0, i ? TOP_NORMAL : TOP_BOLD, lines[i]);
}

void top_layout(const struct top_model *m, struct top_screen *s)
{
	unsigned rows[TOP_PANES], row = HEAD_ROWS;

	if (!s->rows || !s->cols)
		return;
	if (m->mode == TOP_HELP) {
		put_help(s);
		return;
	}
	put_totals(m, s);
	put_gate(m, s);
	put_why(m, s);
	put_verdicts(m, s);
	divide(m, s->rows > HEAD_ROWS + 1 ? s->rows - HEAD_ROWS - 1 : 0, rows);
	for (unsigned p = 0; p < TOP_PANES; p++) {
		if (rows[p])
			put_pane(m, s, (enum top_pane)p, row, rows[p]);
		row += rows[p];
	}
	top_paint(s, s->rows - 1, TOP_NORMAL);
	for (unsigned c = 0; c < s->cols; c++)
		s->cell[(s->rows - 1) * s->cols + c].c = ' ';
	put_foot(m, s);
}
