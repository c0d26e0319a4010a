/* A screen as a grid of characters with styles: what a layout makes and a terminal shows. Pure. */
#ifndef TIDEGATECTL_TOP_SCREEN_H
#define TIDEGATECTL_TOP_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

enum top_style {
	TOP_NORMAL,
	TOP_BOLD,
	TOP_DIM,
	TOP_BAR,    /* headings */
	TOP_CHOSEN, /* the row or word that keys are about */
	TOP_GOOD,
	TOP_WARN,
	TOP_BAD,
	TOP_STYLES,
};

struct top_cell {
	uint32_t c; /* Unicode, one column wide */
	uint8_t style;
};

enum {
	TOP_ROWS_MAX = 500,
	TOP_COLS_MAX = 1000,
};

struct top_screen {
	unsigned rows, cols;
	bool utf8; /* the terminal shows more than ASCII */
	struct top_cell *cell;
};

/* Blank. Sizes beyond the greatest are cut; false without memory, then nothing has changed. */
bool top_screen_init(struct top_screen *s, unsigned rows, unsigned cols, bool utf8);
void top_screen_fini(struct top_screen *s);

/* Writes UTF-8 text from a column on, as far as it fits; returns the column behind it. Whatever is
 * not one plain column wide, or not ASCII where the terminal shows no more, becomes '?'. Outside of
 * the screen nothing is written. */
unsigned top_put(
	struct top_screen *s, unsigned row, unsigned col, enum top_style style, const char *text);
__attribute__((format(printf, 5, 6))) unsigned top_putf(struct top_screen *s, unsigned row,
	unsigned col, enum top_style style, const char *fmt, ...);
/* The whole row gets a style, its text stays. */
void top_paint(struct top_screen *s, unsigned row, enum top_style style);

/* A row as UTF-8 without blanks at its end, from malloc. */
char *top_row_text(const struct top_screen *s, unsigned row);

/* One cell that shows a level of 0 to 8 of 8. */
const char *top_bar(const struct top_screen *s, unsigned level);

#endif
