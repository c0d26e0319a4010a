/* The tables of `tidegatectl top`: which columns of the live snapshot each shows, how its rows are
 * sorted and written. Pure. */
#ifndef TIDEGATECTL_TOP_PANE_H
#define TIDEGATECTL_TOP_PANE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum top_pane {
	TOP_WORKERS,
	TOP_SOURCES,
	TOP_ROUTES,
	TOP_LINKS,
	TOP_PANES,
};

enum top_kind {
	TOP_TEXT,
	TOP_NUMBER,
	TOP_COUNT,    /* 1.8M */
	TOP_DELAY_NS, /* 3.2ms */
	TOP_DELAY_US,
	TOP_TIME_MS, /* 2m05s; nothing for 0 */
	TOP_BYTES,
	TOP_SHARE, /* 0..1 in percent */
};

struct top_column {
	const char *title, *key;
	enum top_kind kind;
	unsigned width;     /* 0: what is left */
	unsigned from_cols; /* shown on screens of so many columns */
};

enum {
	TOP_COLUMNS_MAX = 14,
	TOP_ROWS_SHOWN_MAX = 1024,
	TOP_CELL_MAX = 256,
};

const char *top_pane_title(enum top_pane pane);
/* The member of the snapshot that it shows. */
const char *top_pane_key(enum top_pane pane);
const struct top_column *top_columns(enum top_pane pane, unsigned *ret_n);

/* The pane's rows in order; borrowed from the snapshot. Returns how many there are, at most max. */
size_t top_rows(const json_t *snapshot, enum top_pane pane, unsigned sort, bool descending,
	const json_t **ret, size_t max);

/* A cell's text; "-" for what is not there. Returns out. */
const char *top_cell_text(
	char out[TOP_CELL_MAX], const struct top_column *column, const json_t *row);

/* A member as a number, 0 when it is none. */
double top_number(const json_t *object, const char *key);
/* Any number as a whole one that is not out of range: 0 to 10^18. */
uint64_t top_whole(double v);
/* … as text, "" when it is none. */
const char *top_text(const json_t *object, const char *key);

#endif
