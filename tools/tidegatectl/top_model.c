#include "top_model.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WORKERS_MAX = TOP_ROWS_SHOWN_MAX,
	PAGE = 10, /* rows */
};

void top_model_init(struct top_model *m)
{
	*m = (struct top_model){
		.view = {[TOP_WORKERS] = {.sort = 0},
			[TOP_SOURCES] = {.sort = 2, .descending = true},
			[TOP_ROUTES] = {.sort = 1, .descending = true},
			[TOP_LINKS] = {.sort = 0}},
	};
}

void top_model_fini(struct top_model *m)
{
	json_decref(m->snapshot);
	free(m->history);
	*m = (struct top_model){0};
}

/* ---- snapshots ---- */

static void remember(struct top_history *h, uint64_t delay_ns)
{
	if (h->n == TOP_HISTORY)
		memmove(h->delay_ns, h->delay_ns + 1, (TOP_HISTORY - 1) * sizeof(h->delay_ns[0]));
	else
		h->n++;
	h->delay_ns[h->n - 1] = delay_ns;
}

/* A gateway that was started anew has another number of workers, or none of the old delays. */
static bool resize_history(struct top_model *m, size_t n)
{
	if (n == m->n_history)
		return true;
	struct top_history *h = calloc(n + 1, sizeof(*h));
	if (!h)
		return false;
	free(m->history);
	m->history = h;
	m->n_history = n;
	return true;
}

void top_model_snapshot(struct top_model *m, json_t *snapshot)
{
	const json_t *workers = json_object_get(snapshot, "workers");
	double seq = top_number(snapshot, "seq"), time = top_number(snapshot, "time");
	size_t n = json_array_size(workers), i;
	json_t *w;

	if (m->lost)
		m->message[0] = '\0';
	m->lost = false;
	if (m->paused || (m->snapshot && seq == m->seq && time == m->time)) {
		json_decref(snapshot);
		return;
	}
	m->seq = seq;
	m->time = time;
	json_decref(m->snapshot);
	m->snapshot = snapshot;
	if (!resize_history(m, n > WORKERS_MAX ? WORKERS_MAX : n))
		return;
	json_array_foreach(workers, i, w)
	{
		double delay = top_number(w, "poll_delay_p99_ns");

		if (i < m->n_history)
			remember(&m->history[i], top_whole(delay));
	}
}

void top_model_lost(struct top_model *m, const char *why)
{
	m->lost = true;
	m->message_bad = true;
	snprintf(m->message, sizeof(m->message), "%s", why);
}

void top_model_answer(struct top_model *m, bool good, const char *text)
{
	m->message_bad = !good;
	snprintf(m->message, sizeof(m->message), "%s", text);
}

size_t top_model_rows(const struct top_model *m, enum top_pane pane, const json_t **ret, size_t max)
{
	const struct top_view *v = &m->view[pane];

	return top_rows(m->snapshot, pane, v->sort, v->descending, ret, max);
}

/* ---- asking before something is done ---- */

/* A parameter, percent-encoded; false when it does not fit. */
static bool append_encoded(char target[TOP_TARGET_MAX], const char *value)
{
	size_t at = strlen(target);

	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;
		bool plain = isalnum(c) || strchr("-._~/:", c);

		if (at + 4 > TOP_TARGET_MAX)
			return false;
		at += (size_t)snprintf(
			target + at, TOP_TARGET_MAX - at, plain ? "%c" : "%%%02X", c);
	}
	return true;
}

static void confirm(struct top_model *m, const char *path, const char *value, const char *question)
{
	snprintf(m->target, sizeof(m->target), "%s", path);
	if (!append_encoded(m->target, value)) {
		top_model_answer(m, false, "that is too long");
		m->mode = TOP_VIEW;
		return;
	}
	snprintf(m->question, sizeof(m->question), question, value);
	m->mode = TOP_CONFIRM;
}

static void confirm_input(struct top_model *m)
{
	const char *v = m->input;

	if (!*v) {
		m->mode = TOP_VIEW;
		return;
	}
	switch (m->purpose) {
	case TOP_FOR_RATE:
		confirm(m, "/v1/gate/set?word=rate&rate=", v, "let %s connections per second in?");
		break;
	case TOP_FOR_DENY:
		confirm(m, "/v1/deny/add?prefix=", v, "refuse everybody from %s?");
		break;
	case TOP_FOR_KICK:
		if (*v == '/')
			confirm(m, "/v1/kick?route=", v, "close all sessions of route %s?");
		else
			confirm(m, "/v1/kick?session=", v, "close session %s?");
	}
}

/* What the chosen row of a pane says, to begin a line with. */
static void ask_line(
	struct top_model *m, enum top_purpose purpose, enum top_pane pane, const char *key)
{
	const json_t *rows[TOP_ROWS_SHOWN_MAX];
	size_t n = top_model_rows(m, pane, rows, TOP_ROWS_SHOWN_MAX);

	m->mode = TOP_INPUT;
	m->purpose = purpose;
	m->input[0] = '\0';
	if (key && m->focus == pane && m->view[pane].selected < n)
		snprintf(m->input, sizeof(m->input), "%s",
			top_text(rows[m->view[pane].selected], key));
}

static enum top_do key_in_line(struct top_model *m, uint32_t key)
{
	size_t len = strlen(m->input);

	if (key == TOP_KEY_ENTER)
		confirm_input(m);
	else if (key == TOP_KEY_ESCAPE)
		m->mode = TOP_VIEW;
	else if (key == TOP_KEY_BACKSPACE && len)
		m->input[len - 1] = '\0';
	else if (key == 'U' - '@')
		m->input[0] = '\0';
	else if (key >= 0x20 && key < 0x7f && len + 1 < sizeof(m->input)) {
		m->input[len] = (char)key;
		m->input[len + 1] = '\0';
	}
	return TOP_DO_NOTHING;
}

static enum top_do key_in_gate(struct top_model *m, uint32_t key)
{
	static const char path[] = "/v1/gate/set?word=";

	m->mode = TOP_VIEW;
	if (key == 'a')
		confirm(m, path, "auto", "tell the gate: %s, so that the governor decides?");
	else if (key == 'o')
		confirm(m, path, "open", "tell the gate: %s, so that everybody is let in?");
	else if (key == 's')
		confirm(m, path, "shut", "tell the gate: %s, so that nobody is let in?");
	else if (key == 'r')
		ask_line(m, TOP_FOR_RATE, TOP_WORKERS, NULL);
	return TOP_DO_NOTHING;
}

/* Nothing but 'y' does it. */
static enum top_do key_in_confirm(struct top_model *m, uint32_t key)
{
	m->mode = TOP_VIEW;
	if (key == 'y' || key == 'Y')
		return TOP_DO_POST;
	top_model_answer(m, true, "nothing was done");
	return TOP_DO_NOTHING;
}

/* ---- moving about ---- */

static void move(struct top_model *m, uint32_t key)
{
	struct top_view *v = &m->view[m->focus];
	size_t n = json_array_size(json_object_get(m->snapshot, top_pane_key(m->focus)));
	size_t last = n ? n - 1 : 0, step = key == TOP_KEY_UP || key == TOP_KEY_DOWN ? 1 : PAGE;

	if (v->selected > last)
		v->selected = last;
	if (key == TOP_KEY_UP || key == TOP_KEY_PAGE_UP)
		v->selected = v->selected > step ? v->selected - step : 0;
	else if (key == TOP_KEY_DOWN || key == TOP_KEY_PAGE_DOWN)
		v->selected = v->selected + step < last ? v->selected + step : last;
	else
		v->selected = key == TOP_KEY_HOME ? 0 : last;
}

static void sort_by_next(struct top_model *m, bool back)
{
	struct top_view *v = &m->view[m->focus];
	unsigned n;
	const struct top_column *c = top_columns(m->focus, &n);

	v->sort = (v->sort + (back ? n - 1 : 1)) % n;
	v->descending = c[v->sort].kind != TOP_TEXT && v->sort > 0;
	v->selected = 0;
}

static enum top_do key_in_view(struct top_model *m, uint32_t key)
{
	m->message[0] = m->lost ? m->message[0] : '\0';
	switch (key) {
	case 'q':
		return TOP_DO_QUIT;
	case '?':
	case 'h':
		m->mode = TOP_HELP;
		break;
	case TOP_KEY_TAB:
		m->focus = (m->focus + 1) % TOP_PANES;
		break;
	case TOP_KEY_BACK_TAB:
		m->focus = (m->focus + TOP_PANES - 1) % TOP_PANES;
		break;
	case '1':
	case '2':
	case '3':
	case '4':
		m->focus = (enum top_pane)(key - '1');
		break;
	case 's':
	case 'S':
		sort_by_next(m, key == 'S');
		break;
	case 'r':
		m->view[m->focus].descending = !m->view[m->focus].descending;
		break;
	case 'p':
	case ' ':
		m->paused = !m->paused;
		break;
	case 'g':
		m->mode = TOP_GATE;
		break;
	case 'd':
		ask_line(m, TOP_FOR_DENY, TOP_SOURCES, "prefix");
		break;
	case 'k':
		ask_line(m, TOP_FOR_KICK, TOP_ROUTES, "path");
		break;
	case TOP_KEY_UP:
	case TOP_KEY_DOWN:
	case TOP_KEY_PAGE_UP:
	case TOP_KEY_PAGE_DOWN:
	case TOP_KEY_HOME:
	case TOP_KEY_END:
		move(m, key);
		break;
	default:
		break;
	}
	return TOP_DO_NOTHING;
}

enum top_do top_model_key(struct top_model *m, uint32_t key)
{
	switch (m->mode) {
	case TOP_HELP:
		m->mode = TOP_VIEW;
		return key == 'q' ? TOP_DO_QUIT : TOP_DO_NOTHING;
	case TOP_GATE:
		return key_in_gate(m, key);
	case TOP_INPUT:
		return key_in_line(m, key);
	case TOP_CONFIRM:
		return key_in_confirm(m, key);
	default:
		return key_in_view(m, key);
	}
}
