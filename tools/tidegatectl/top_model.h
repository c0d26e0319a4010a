/* What `tidegatectl top` knows and is doing: the last snapshot, delays over time, what keys have
 * chosen. Pure: snapshots, keys and times come in as arguments. */
#ifndef TIDEGATECTL_TOP_MODEL_H
#define TIDEGATECTL_TOP_MODEL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "top_pane.h"

enum {
	TOP_HISTORY = 256, /* snapshots: the widest sparkline */
	TOP_INPUT_MAX = 256,
	TOP_TARGET_MAX = 1024,
	TOP_MESSAGE_MAX = 512,
};

/* Keys that are no character. */
enum top_key {
	TOP_KEY_UP = 0x200000,
	TOP_KEY_DOWN,
	TOP_KEY_PAGE_UP,
	TOP_KEY_PAGE_DOWN,
	TOP_KEY_HOME,
	TOP_KEY_END,
	TOP_KEY_TAB,
	TOP_KEY_BACK_TAB,
	TOP_KEY_ENTER,
	TOP_KEY_ESCAPE,
	TOP_KEY_BACKSPACE,
};

/* What is to be done about a key. */
enum top_do {
	TOP_DO_NOTHING,
	TOP_DO_QUIT,
	TOP_DO_POST, /* to model.target */
};

enum top_mode {
	TOP_VIEW,
	TOP_HELP,
	TOP_GATE,  /* waits for a word for the gate */
	TOP_INPUT, /* takes a line */
	TOP_CONFIRM,
};

/* What a line is asked for. */
enum top_purpose {
	TOP_FOR_RATE,
	TOP_FOR_DENY,
	TOP_FOR_KICK,
};

struct top_view {
	unsigned sort; /* column */
	bool descending;
	size_t selected;
};

/* p99 of the poll delay of one worker, the newest last. */
struct top_history {
	uint64_t delay_ns[TOP_HISTORY];
	unsigned n;
};

struct top_model {
	json_t *snapshot;            /* NULL: none yet */
	bool lost;                   /* the gateway; what is shown is old */
	bool paused;                 /* snapshots are not taken */
	struct top_history *history; /* by worker */
	size_t n_history;
	double seq, time; /* of the newest that is in the history */
	enum top_pane focus;
	struct top_view view[TOP_PANES];
	enum top_mode mode;
	enum top_purpose purpose;
	char input[TOP_INPUT_MAX];
	char question[TOP_MESSAGE_MAX]; /* to be confirmed */
	char target[TOP_TARGET_MAX];    /* what is posted then */
	char message[TOP_MESSAGE_MAX];  /* what the gateway answered, or why it does not */
	bool message_bad;
};

void top_model_init(struct top_model *m);
void top_model_fini(struct top_model *m);

/* Takes a snapshot over, also one that is of another form than expected: what is missing is shown
 * as missing. The same one again changes nothing. */
void top_model_snapshot(struct top_model *m, json_t *snapshot);
/* The gateway does not answer: why. */
void top_model_lost(struct top_model *m, const char *why);
/* What became of a post. */
void top_model_answer(struct top_model *m, bool good, const char *text);

/* A character or an enum top_key. */
enum top_do top_model_key(struct top_model *m, uint32_t key);

/* The rows of a pane, in its order. */
size_t top_model_rows(
	const struct top_model *m, enum top_pane pane, const json_t **ret, size_t max);

#endif
